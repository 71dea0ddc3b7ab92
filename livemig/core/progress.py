"""How far a migration has come, as a number that never goes back. Knows no model: the forecast will."""

from __future__ import annotations

from livemig.core.observation import Observation

PROGRESS_BEFORE_END = 0.99


class Progress:
    """The largest share of the guest's memory that was ever in step with the destination, below 1 until the end."""

    def __init__(self) -> None:
        self._highest = 0.0

    def after(self, observation: Observation) -> float:
        """Returns the progress, from 0 to 1, after this observation of the source."""
        if observation.total_bytes and observation.remaining_bytes is not None:
            share = 1 - observation.remaining_bytes / observation.total_bytes
            self._highest = max(self._highest, min(share, PROGRESS_BEFORE_END))
        return self._highest
