"""What is known of a guest and its link before ``migrate``: what a forecast starts from. Pure data."""

from __future__ import annotations

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.past import PastMigration


class Foreknowledge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was measured or remembered; all of it may be missing, and then the forecast is wide.

    Attributes:
        samples: What the guest was seen to dirty just before; empty when it was not sampled.
        touched_bytes: Memory that the guest ever touched, or None: the rest costs scanning, not sending.
        past: Earlier migrations of this guest, and of others between the same hosts, newest first.
        seed: What the forecast's random numbers start from, so that a trace gives the same forecasts again.
    """

    samples: tuple[DirtySample, ...] = ()
    touched_bytes: int | None = None
    past: tuple[PastMigration, ...] = ()
    seed: int = 0
