"""What the link carried, slot by slot of QEMU's, and how far it can be trusted. Knows no guest and no limit."""

from __future__ import annotations

from itertools import pairwise
from math import exp, log, sqrt
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
FEW = 10
"""So few slots tell no more than half of what a link does: its deviations last."""
SLOT_S, LOOK_S = 0.1, 0.2
"""How long a slot is, and how far apart those are that are seen."""
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

    @property
    def hopeful_bytes_s(self) -> float | None:
        """The same, or what the last slot had, if that is more: a link that was slow for a while may be so no more."""
        last = self._bytes_s[-1:]
        return max((self.middle_bytes_s or 0.0, *last)) or None

    @property
    def most_bytes_s(self) -> float:
        """The fastest of them; 0 before there is one."""
        return max(self._bytes_s, default=0.0)

    def safe_ratio(self, cap_bytes_s: float | None, span_s: float) -> float:
        """What share of the last slot's the link carries over the next span with 99.5 %; 1 where nothing wavers.

        By how far one slot was from the next: what has wavered for long is in the last slot already. Under a cap that
        holds it is 1: the last step, which no cap holds, has at least what the cap allows.
        """
        if len(self._bytes_s) < SPREAD_LEAST_COUNT:
            return 1.0
        if cap_bytes_s is not None and median(self._bytes_s) >= CAP_SHARE * cap_bytes_s:
            return 1.0
        steps = sorted(abs(log(after / before)) for before, after in pairwise(self._bytes_s))
        deviation = 1.4826 * median(steps) * _steps_off(span_s)
        if deviation <= NOISE_LEAST_RATIO:
            return 1.0
        doubt = (1.0 + FEW / len(steps)) ** 0.5
        return max(SAFE_LEAST_RATIO, exp(-SURE_DEVIATIONS * doubt * deviation))


def _steps_off(span_s: float) -> float:
    """How far the mean over the next span is off the last slot's, in steps from one slot that is seen to the next.

    Of what walks at random two means differ by what lies between them, and by a third of the length of either.
    """
    step_s = LOOK_S - SLOT_S + 2 * SLOT_S / 3
    return sqrt((SLOT_S + span_s) / 3 / step_s)
