"""What the link carries: while the guest runs, and in the last step, which no cap holds. Knows no guest.

Two figures for the last step, for two purposes. The *safe* one keeps the user's limit: never more than this run itself
has shown, however often it was more before. The *expected* one is for the forecast: what it was before, if anything is
known of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livemig.core.past import PastMigration

Array = NDArray[np.float64]

UNKNOWN_BYTES_S = (20e6, 5e9)
"""Between a slow WAN and a fast LAN: log-uniform, when nothing is known."""
SAME_HOST_BYTES_S, SAME_HOST_DEVIATION = 1.0e9, 0.4
"""Between two QEMUs of one host, over a UNIX socket: what copying memory takes. Of the logarithm."""
SAFE_QUANTILE = 0.05
SLOTS_KEPT = 256
CAP_TOLERANCE = 0.9
"""A slot above this share of the cap was held by the cap, not by the link."""
CAP_EXCESS_MOST = 100.0
"""How much faster than its cap a link may be that nothing is known of."""


class Link:
    """What is known of one link.

    Attributes:
        cap_bytes_s: The cap; None is none.
    """

    def __init__(
        self, cap_bytes_s: float | None, past: Sequence[PastMigration] = (), *, same_host: bool = False
    ) -> None:
        self.cap_bytes_s = cap_bytes_s
        self._same_host = same_host
        self._slots_bytes_s: list[float] = []
        self._past_bytes_s = [one.throughput_bytes_s for one in past if one.throughput_bytes_s]
        self._switchovers_bytes_s = [one.switchover_bytes_s for one in past if one.switchover_bytes_s]

    def observe_slot(self, throughput_bytes_s: float) -> None:
        """Takes what QEMU counted in a slot."""
        if np.isfinite(throughput_bytes_s) and throughput_bytes_s > 0:
            self._slots_bytes_s.append(throughput_bytes_s)
            del self._slots_bytes_s[:-SLOTS_KEPT]

    @property
    def known(self) -> bool:
        """Whether anything tells how fast it is while the guest runs."""
        return bool(self.cap_bytes_s or self._same_host or self._slots_bytes_s or self._past_bytes_s)

    @property
    def safe_bytes_s(self) -> float | None:
        """What the last step may be taken to have at least; None before the first slot."""
        if not self._slots_bytes_s:
            return None
        shown = float(np.quantile(self._slots_bytes_s, SAFE_QUANTILE))
        return min([shown, *self._past_bytes_s])

    def running_bytes_s(self, normal: Array) -> Array:
        """Returns one throughput for each standard normal number: that of the copy while the guest runs."""
        if self._slots_bytes_s:
            return self._spread(self._recent_slots(), normal, least_deviation=0.005)
        cap = np.inf if self.cap_bytes_s is None else self.cap_bytes_s
        if self._past_bytes_s:
            return np.minimum(self._spread(self._past_bytes_s, normal, least_deviation=0.1), cap)
        if self.cap_bytes_s is not None:
            return np.full(normal.shape, self.cap_bytes_s)
        return _same_host(normal) if self._same_host else _unknown(normal)

    def switchover_bytes_s(self, running_bytes_s: Array, normal: Array) -> Array:
        """Returns one throughput for each standard normal number: that of the last step."""
        if self._switchovers_bytes_s:
            return self._spread(self._switchovers_bytes_s, normal, least_deviation=0.1)
        if self.cap_bytes_s is None or self._held_by_link():
            return running_bytes_s
        if self._same_host:
            return np.maximum(_same_host(normal), self.cap_bytes_s)
        excess = np.exp(_uniform(normal) * np.log(CAP_EXCESS_MOST))
        return np.asarray(self.cap_bytes_s * excess, dtype=float)

    def _held_by_link(self) -> bool:
        """Whether the link itself, not the cap, held the copy back."""
        slots = self._recent_slots()
        return bool(slots) and float(np.median(slots)) < CAP_TOLERANCE * (self.cap_bytes_s or 0.0)

    def _recent_slots(self) -> list[float]:
        return self._slots_bytes_s[-20:]

    @staticmethod
    def _spread(values: Sequence[float], normal: Array, *, least_deviation: float) -> Array:
        logs = np.log(values)
        middle = float(np.median(logs))
        deviation = max(1.4826 * float(np.median(np.abs(logs - middle))), least_deviation)
        return np.asarray(np.exp(middle + deviation * normal), dtype=float)


def _uniform(normal: Array) -> Array:
    """The standard normal's distribution function, to 1e-3, without scipy: Bowling and others, 2009, a logistic."""
    return np.asarray(1.0 / (1.0 + np.exp(-(1.5976 * normal + 0.07056 * normal**3))), dtype=float)


def _same_host(normal: Array) -> Array:
    return np.asarray(SAME_HOST_BYTES_S * np.exp(SAME_HOST_DEVIATION * normal), dtype=float)


def _unknown(normal: Array) -> Array:
    least, most = np.log(UNKNOWN_BYTES_S)
    return np.asarray(np.exp(least + (most - least) * _uniform(normal)), dtype=float)
