"""What is known of a guest and its link before ``migrate``: what a forecast starts from. Pure data."""

from __future__ import annotations

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.past import PastMigration


class Foreknowledge(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was measured or remembered; all of it may be missing, and then the forecast is wide.

    Attributes:
        guest: Whose it is, as the history names guests.
        hosts: Between which hosts and QEMUs it is to go, likewise.
        samples: What the guest was seen to dirty just before; empty when it was not sampled.
        sampled_before_s: How long before ``migrate`` the last sample ended, in seconds; None where that isn't known, or
            the guest did not go on in the meantime.
        touched_shares: What of each 32nd of its memory the guest ever touched, in the order of addresses; empty where
            that can't be read. The rest costs scanning, not sending.
        past: Earlier migrations of this guest, and of others between the same hosts, newest first.
        same_host: Whether both QEMUs are on one host: then the link is its memory.
        seed: What the forecast's random numbers start from, so that a trace gives the same forecasts again.
    """

    guest: str = ""
    hosts: str = ""
    samples: tuple[DirtySample, ...] = ()
    sampled_before_s: float | None = None
    touched_shares: tuple[float, ...] = ()
    past: tuple[PastMigration, ...] = ()
    same_host: bool = False
    seed: int = 0
