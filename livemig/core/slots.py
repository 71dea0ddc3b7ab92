"""What the link carried, slot by slot of QEMU's, and how far it can be trusted. Knows no guest and no limit."""

from __future__ import annotations

from math import exp, log
from statistics import median

from livemig.core.observation import Observation

COUNTED_AFTER_S = 0.35
"""Slots before are the guard's, or held some of it."""
FULL_SLOT_S = 0.15
"""With less left than so long a time sends, the slot may have had nothing to send for a part of it."""
KEPT, RECENT, SPREAD_LEAST_COUNT = 60, 15, 6
NOISE_LEAST_RATIO = 0.005
"""Of the slots' logarithm: below, QEMU's own estimate, the last slot, is as good as any."""
CAP_SHARE = 0.9
"""Slots of this share of the cap were held by it, not by the link."""
SAFE_LEAST_RATIO = 0.4
"""A link that wavers more than that can't be foretold by its deviation."""
SURE_DEVIATIONS = 2.6
"""99.5 % of a normal distribution lie above its mean less so many deviations."""


class Slots:
    """The slots so far."""

    def __init__(self) -> None:
        self._bytes_s: list[float] = []
        self._last: Observation | None = None

    def observe(self, observation: Observation) -> None:
        """Takes a reply; slots of zero pages, or that ran out of pages, tell nothing of the link."""
        previous, self._last = self._last, observation
        bytes_s = observation.throughput_bytes_s
        if previous is None or not bytes_s or bytes_s == previous.throughput_bytes_s:
            return
        sent_pages = (observation.normal_pages or 0) - (previous.normal_pages or 0)
        zero_pages = (observation.zero_pages or 0) - (previous.zero_pages or 0)
        full = (observation.remaining_bytes or 0) >= FULL_SLOT_S * bytes_s
        if full and zero_pages <= sent_pages and observation.time_s >= COUNTED_AFTER_S:
            self._bytes_s.append(bytes_s)
            del self._bytes_s[:-KEPT]

    @property
    def middle_bytes_s(self) -> float | None:
        """The median of the last ones; before there is one, whatever QEMU said last."""
        if self._bytes_s:
            return median(self._bytes_s[-RECENT:])
        return None if self._last is None else self._last.throughput_bytes_s or None

    def safe_ratio(self, cap_bytes_s: float | None) -> float:
        """What share of the middle the next slots carry with 99.5 %; 1 where they do not waver, or a cap holds them.

        Under a cap the last step, which no cap holds, has at least what the cap allows.
        """
        if len(self._bytes_s) < SPREAD_LEAST_COUNT:
            return 1.0
        logs = [log(bytes_s) for bytes_s in self._bytes_s]
        middle = median(logs)
        if cap_bytes_s is not None and exp(middle) >= CAP_SHARE * cap_bytes_s:
            return 1.0
        deviation = 1.4826 * median(abs(one - middle) for one in logs)
        return max(SAFE_LEAST_RATIO, exp(-SURE_DEVIATIONS * deviation)) if deviation > NOISE_LEAST_RATIO else 1.0
