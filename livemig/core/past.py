"""What earlier migrations teach: how a guest dirties memory, what a link carries, what is fixed of a downtime.

Pure data; `livemig.engine.history` keeps the records.
"""

from __future__ import annotations

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.prediction import Forecast


class PastMigration(msgspec.Struct, frozen=True, kw_only=True):
    """One migration that ended.

    Attributes:
        guest: Whose it was, as `livemig.engine.history` names guests.
        hosts: Between which hosts and QEMUs, likewise.
        ended_at: When, ISO 8601 with zone.
        completed: Whether the guest moved.
        memory_bytes: The guest's memory.
        touched_shares: What of each 32nd of it was ever touched; empty when that was not known.
        bandwidth_bytes_s: The cap; None was no cap.
        downtime_limit_s: The limit.
        samples: What it showed of how the guest dirties memory.
        throughput_bytes_s: What the link carried without a cap, a low quantile of its slots; None under a cap.
        switchover_bytes_s: What the rest was sent with while the guest stood still; None when too little was to tell.
        rest_bytes: What that rest was; None when some of it had never been sent before, which takes longer.
        fresh_bytes_s: What the first copy went with, the guard of its first slot left out: the cap at most.
        fixed_downtime_s: The part of the downtime that nothing could shorten; None when it could not be told apart.
        total_s: From ``migrate`` to the guest running; None when it did not move.
        downtime_s: How long it stood still; None when it did not.
        sent_bytes: What went over the wire.
        forecasts: What had been said beforehand.
    """

    guest: str
    hosts: str
    ended_at: str
    completed: bool
    memory_bytes: int
    touched_shares: tuple[float, ...] = ()
    bandwidth_bytes_s: float | None
    downtime_limit_s: float
    samples: tuple[DirtySample, ...] = ()
    throughput_bytes_s: float | None = None
    switchover_bytes_s: float | None = None
    rest_bytes: int | None = None
    fresh_bytes_s: float | None = None
    fixed_downtime_s: float | None = None
    total_s: float | None = None
    downtime_s: float | None = None
    sent_bytes: int = 0
    forecasts: tuple[Forecast, ...] = ()
