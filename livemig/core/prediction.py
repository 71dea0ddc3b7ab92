"""What livemig says beforehand of one migration: the forecast as data. Computed in `livemig.core.forecast`."""

from __future__ import annotations

import msgspec

Interval = tuple[float, float, float]
"""The 5 %, 50 % and 95 % quantiles."""
FIRST_ROUND = "round 1"
"""What `Forecast.at` says of the one made after the first copy."""


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be expected, with intervals. The intervals hold for the case that it converges.

    Attributes:
        at: When it was made: ``start``, ``round 1`` and so on, or ``commit``.
        time_s: The same, in seconds since ``migrate``; negative before it.
        converges: The probability that QEMU switches over by itself, within the limit and the deadline asked for.
        keeps_limit: The probability that the guest, once it is handed over, stood still no longer than the limit.
        total_s: Seconds from ``migrate`` to the guest running at the destination; None when it can't converge.
        downtime_s: Seconds that the guest stands still; None when it can't converge.
        sent_bytes: What goes over the wire; None when it can't converge.
        first_crossing: Whether it is of the first crossing of the limit alone, while the rule holds out for less
            downtime (``prefer downtime``): then it may take longer than this, and stand still for less.
        widened: By what factor experience widened the intervals of time, downtime and bytes.
        basis: What it rests on, in words: sampling, history, the rounds so far, or next to nothing.
    """

    at: str
    time_s: float
    converges: float
    keeps_limit: float
    total_s: Interval | None
    downtime_s: Interval | None
    sent_bytes: Interval | None
    basis: str
    first_crossing: bool = False
    widened: tuple[float, float, float] = (1.0, 1.0, 1.0)
