"""What the link carries: while the guest runs, and in the last step, which no cap holds. Knows no guest.

Two figures for the last step, for two purposes. The *safe* one keeps the user's limit: never more than this run itself
has shown, however often it was more before. The *expected* one is for the forecast: what it was before, if anything is
known of that.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from livemig.core.last_step import last_step_of
from livemig.core.pace import uniform
from livemig.core.past import PastMigration
from livemig.core.quantiles import middle, quantiles

Array = NDArray[np.float64]

UNKNOWN_BYTES_S = (20e6, 5e9)
"""Between a slow WAN and a fast LAN: log-uniform, when nothing is known."""
SAME_HOST_BYTES_S, SAME_HOST_DEVIATION = 1.5e9, 0.3
"""Between two QEMUs of one host, over a UNIX socket: what copying memory takes. Of the logarithm."""
FRESH_PRIOR_BYTES_S, FRESH_PRIOR_DEVIATION = 0.45e9, 0.4
"""The same of pages that the destination has yet to find memory for: page faults, and the kernel's clearing them."""
FRESH_GRID_BYTES_S = np.geomspace(0.1e9, 3e9, 40)
FRESH_SPREADS = np.array([0.1, 0.15, 0.2, 0.3, 0.45])
FRESH_SPREAD_PRIOR = 0.3
AT_CAP = 0.95
"""A first copy above this share of its cap was held by it."""
SAFE_QUANTILE = 0.05
SLOTS_KEPT, SLOTS_RECENT = 256, 20
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
        self._fresh_count = 0
        self._past_bytes_s = [one.throughput_bytes_s for one in past if one.throughput_bytes_s]
        self._fresh = _fresh_capacity(past)
        self._last_step = last_step_of(past, SAME_HOST_BYTES_S)
        self._rests_known = any(one.switchover_bytes_s for one in past)

    def observe_slot(self, throughput_bytes_s: float, *, fresh: bool = False) -> None:
        """Takes what QEMU counted in a slot; `fresh` when it was of the first copy."""
        if np.isfinite(throughput_bytes_s) and throughput_bytes_s > 0:
            self._slots_bytes_s.append(throughput_bytes_s)
            del self._slots_bytes_s[:-SLOTS_KEPT]
            self._fresh_count = min(self._fresh_count + 1, SLOTS_KEPT) if fresh else 0

    def snapshot(self) -> Self:
        """Returns one that knows the same and takes no more slots."""
        taken = copy.copy(self)
        vars(taken).update(_slots_bytes_s=list(self._slots_bytes_s))
        return taken

    @property
    def known(self) -> bool:
        """Whether anything tells how fast it is while the guest runs."""
        return bool(self.cap_bytes_s or self._same_host or self._slots_bytes_s or self._past_bytes_s)

    @property
    def safe_bytes_s(self) -> float | None:
        """What the last step may be taken to have at least; None before the first slot."""
        if not self._slots_bytes_s:
            return None
        shown = quantiles(self._slots_bytes_s, (SAFE_QUANTILE,))[0]
        return min([shown, *self._past_bytes_s])

    def running_bytes_s(self, normal: Array) -> Array:
        """Returns one throughput for each standard normal number: that of the copy while the guest runs.

        On one host a first copy slower than its cap says nothing of later rounds, for which the destination has memory.
        """
        if self._slots_bytes_s and not (self._fresh_count and self._same_host and self.cap_bytes_s):
            return self._spread(self._recent_slots(), normal, least_deviation=0.005)
        cap = np.inf if self.cap_bytes_s is None else self.cap_bytes_s
        if self._past_bytes_s:
            return np.minimum(self._spread(self._past_bytes_s, normal, least_deviation=0.1), cap)
        if self.cap_bytes_s is not None:
            return np.full(normal.shape, self.cap_bytes_s)
        return _same_host(normal) if self._same_host else _unknown(normal)

    def switchover_bytes_s(self, running_bytes_s: Array, normal: Array) -> Array:
        """Returns one throughput for each standard normal number: that of the last step."""
        if self._same_host or (self._rests_known and not self._held_by_link()):
            return np.asarray(self._last_step.bytes_s * np.exp(self._last_step.deviation * normal), dtype=float)
        if self.cap_bytes_s is None or self._held_by_link():
            return running_bytes_s
        if self._past_bytes_s:
            return np.maximum(self._spread(self._past_bytes_s, normal, least_deviation=0.1), running_bytes_s)
        excess = np.exp(uniform(normal) * np.log(CAP_EXCESS_MOST))
        return np.asarray(self.cap_bytes_s * excess, dtype=float)

    def fresh_bytes_s(self, running_bytes_s: Array, normal: Array) -> Array:
        """Returns one throughput for each standard normal number: of pages never sent before, when no cap holds them.

        A link between hosts takes as long for them as for others; on one host the destination is what takes time.
        """
        if not self._same_host:
            return self.switchover_bytes_s(running_bytes_s, normal)
        middle_bytes_s, deviation = self._fresh
        return np.asarray(middle_bytes_s * np.exp(deviation * normal), dtype=float)

    def fixed_s(self, normal: Array) -> Array:
        """Returns the fixed part of the downtime for each standard normal number, by what earlier ones took."""
        return np.asarray(self._last_step.fixed_s * np.exp(self._last_step.deviation * normal), dtype=float)

    def _held_by_link(self) -> bool:
        """Whether the link itself, not the cap, held the copy back."""
        slots = self._recent_slots()
        return bool(slots) and middle(slots) < CAP_TOLERANCE * (self.cap_bytes_s or 0.0)

    def _recent_slots(self) -> list[float]:
        return self._slots_bytes_s[-SLOTS_RECENT:]

    @staticmethod
    def _spread(values: Sequence[float], normal: Array, *, least_deviation: float) -> Array:
        logs = np.log(values)
        center = middle(logs)
        deviation = max(1.4826 * middle(np.abs(logs - center)), least_deviation)
        return np.asarray(np.exp(center + deviation * normal), dtype=float)


def _same_host(normal: Array) -> Array:
    return np.asarray(SAME_HOST_BYTES_S * np.exp(SAME_HOST_DEVIATION * normal), dtype=float)


def _unknown(normal: Array) -> Array:
    least, most = np.log(UNKNOWN_BYTES_S)
    return np.asarray(np.exp(least + (most - least) * uniform(normal)), dtype=float)


def _fresh_capacity(past: Sequence[PastMigration]) -> tuple[float, float]:
    """Returns what fresh pages can be sent with, and its deviation of the logarithm: the likeliest, on a grid.

    A first copy that its cap held back only says that more was possible.
    """
    known = [(one.fresh_bytes_s, one.bandwidth_bytes_s or np.inf) for one in past if one.fresh_bytes_s]
    middles, spreads = np.log(FRESH_GRID_BYTES_S)[:, None], FRESH_SPREADS[None, :]
    score = -(((middles - np.log(FRESH_PRIOR_BYTES_S)) / FRESH_PRIOR_DEVIATION) ** 2) / 2
    score = score - (np.log(spreads / FRESH_SPREAD_PRIOR) / 0.5) ** 2 / 2
    for rate_bytes_s, cap_bytes_s in known:
        off = (np.log(min(rate_bytes_s, cap_bytes_s)) - middles) / spreads
        if rate_bytes_s > AT_CAP * cap_bytes_s:
            score = score + np.log(np.maximum(1.0 - uniform(off), 1e-3))
        else:
            score = score + np.maximum(-(off**2) / 2 - np.log(spreads), -6.0)
    best = np.unravel_index(int(score.argmax()), score.shape)
    return float(FRESH_GRID_BYTES_S[best[0]]), float(FRESH_SPREADS[best[1]])
