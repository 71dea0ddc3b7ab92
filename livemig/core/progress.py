"""How far a migration has come, as a number that never goes back: by the forecast's time left, else by what is in step.

Computes no forecast: it is told the time left.
"""

from __future__ import annotations

from livemig.core.observation import Observation

PROGRESS_BEFORE_END = 0.99


class Progress:
    """The share of the way that lies behind, below 1 until the end: of the time where forecast, else of memory."""

    def __init__(self) -> None:
        self._highest = 0.0

    def after(self, observation: Observation, left_s: tuple[float, float] | None = None) -> float:
        """Returns the progress, from 0 to 1, after this observation of the source.

        Args:
            observation: Whose time counts from ``migrate``.
            left_s: The time left as a range, in seconds; None when it is not known, or would never end.
        """
        share = _of_memory(observation) if left_s is None else _of_time(observation.time_s, left_s)
        self._highest = max(self._highest, min(share, PROGRESS_BEFORE_END))
        return self._highest


def _of_memory(observation: Observation) -> float:
    """What the destination has as it is now."""
    if not observation.total_bytes or observation.remaining_bytes is None:
        return 0.0
    return 1 - observation.remaining_bytes / observation.total_bytes


def _of_time(passed_s: float, left_s: tuple[float, float]) -> float:
    """What has passed of the time that it will have taken, if it ends in the middle of the range."""
    middle_s = (left_s[0] + left_s[1]) / 2
    return passed_s / (passed_s + middle_s) if passed_s > 0 else 0.0
