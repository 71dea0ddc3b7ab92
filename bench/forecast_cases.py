"""The guests, links and limits that forecasts are measured on: drawn from a seed, so that anyone draws the same."""

from __future__ import annotations

import math

import msgspec
import numpy as np

import livemig
from bench.options import MIB
from livemig.lab.workload import Pattern, Workload

KINDS = (
    "idle",
    "light sweep",
    "sweep",
    "large sweep",
    "random",
    "large random",
    "hot 90 %",
    "hot 70 %",
    "tiny hot set",
    "fast bursts",
    "slow bursts",
    "mostly zero",
    "full memory",
)
QUIET = ("idle", "light sweep", "mostly zero", "full memory")
NEAR_CRITICAL_SHARE = 0.55
RATE_MOST_MIB_S = 600.0
NEAR_CRITICAL = (0.8, 1.25)
BANDWIDTHS_BYTES_S = (50.0 * MIB, 400.0 * MIB)
LIMITS_S = (0.03, 1.0)
FIRST_COPY_S = (1.0, 3.5)
MEMORIES_MIB = (64, 128, 256, 512)
SMALL_SHARE = 0.15
"""Of the guests, so many are of one of the two smallest sizes, whose first copy may take some tenths of a second."""
DEADLINE_COPIES, DEADLINE_MORE_S = 2.0, 4.0
FIXED_S = 0.012
BURST_PERIODS_S = {"fast bursts": 0.2, "slow bursts": 2.0}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One guest, one link, one limit.

    Attributes:
        number: Which of the grid.
        kind: What kind of guest.
        memory_bytes: Its memory.
        workload: What it does.
        bandwidth_bytes_s: The cap.
        downtime_limit_s: The limit.
        deadline_s: The deadline, after which it counts as not converging.
        criticality: What the guest dirties within the limit, over what is sent within it; 1 is the edge.
    """

    number: int
    kind: str
    memory_bytes: int
    workload: Workload
    bandwidth_bytes_s: float
    downtime_limit_s: float
    deadline_s: float
    criticality: float

    @property
    def near_critical(self) -> bool:
        """Whether it is at the edge of what converges."""
        least, most = NEAR_CRITICAL
        return least <= self.criticality <= most

    def plan(self) -> livemig.Plan:
        """What livemig is asked."""
        return livemig.Plan(
            bandwidth_bytes_s=self.bandwidth_bytes_s,
            downtime_limit_s=self.downtime_limit_s,
            deadline_s=self.deadline_s,
            probation_s=0.05,
            keep_source=True,
        )


def draw_case(seed: int, number: int) -> Case:
    """Draws one case of a grid; kinds follow one another, all else is drawn."""
    chance = np.random.default_rng((seed, number))
    kind = KINDS[number % len(KINDS)]
    bandwidth_bytes_s = float(np.exp(chance.uniform(*np.log(BANDWIDTHS_BYTES_S))))
    limit_s = float(np.exp(chance.uniform(*np.log(LIMITS_S))))
    memory_mib, fill_mib = _memory_mib(kind, bandwidth_bytes_s / MIB, chance)
    set_mib = max(int(fill_mib * _set_share(kind, chance)), 1)
    critical = kind not in QUIET and chance.random() < NEAR_CRITICAL_SHARE
    if critical:  # the set must be larger than what the limit allows, or there is no edge to be at
        limit_s = float(np.clip(set_mib * MIB / (1.7 * bandwidth_bytes_s) + FIXED_S, LIMITS_S[0], limit_s))
    threshold_mib = bandwidth_bytes_s * (limit_s - FIXED_S) / MIB
    ratio = float(np.exp(chance.uniform(*np.log(NEAR_CRITICAL)))) if critical else float(chance.choice([0.3, 0.6, 2.0]))
    if kind in QUIET:
        ratio = 0.3
    hot_mib = max(int(set_mib * {"tiny hot set": 0.05}.get(kind, 0.25)), 1)
    shape = _Shape(kind, set_mib, hot_mib)
    rate_mib_s = 0.0 if kind == "idle" else shape.rate_mib_s(ratio * threshold_mib, limit_s - FIXED_S)
    rate_mib_s = min(rate_mib_s, RATE_MOST_MIB_S)
    dirtied_mib = shape.dirtied_mib(rate_mib_s, limit_s - FIXED_S)
    period_s = BURST_PERIODS_S.get(kind, 0.0)
    return Case(
        number=number,
        kind=kind,
        memory_bytes=memory_mib * MIB,
        workload=Workload(
            pattern=shape.pattern,
            working_set_bytes=set_mib * MIB,
            dirty_rate_bytes_s=rate_mib_s * MIB * (2.0 if period_s else 1.0),
            fill_bytes=fill_mib * MIB,
            hot_set_bytes=hot_mib * MIB if shape.pattern is Pattern.HOT else 0,
            hot_writes_percent=shape.hot_percent,
            burst_period_s=period_s,
            seed=number + 1,
        ),
        bandwidth_bytes_s=bandwidth_bytes_s,
        downtime_limit_s=limit_s,
        deadline_s=round(DEADLINE_COPIES * fill_mib * MIB / bandwidth_bytes_s + DEADLINE_MORE_S, 1),
        criticality=dirtied_mib / threshold_mib,
    )


def _memory_mib(kind: str, bandwidth_mib_s: float, chance: np.random.Generator) -> tuple[int, int]:
    """Draws memory and what of it is filled: so much that the first copy takes some seconds, but for small guests."""
    share = {"mostly zero": 0.1, "full memory": 0.85}.get(kind, float(chance.uniform(0.4, 0.85)))
    wanted_mib = bandwidth_mib_s * float(chance.uniform(*FIRST_COPY_S))
    memory_mib = next((size for size in MEMORIES_MIB if size * share >= wanted_mib), MEMORIES_MIB[-1])
    if chance.random() < SMALL_SHARE:
        memory_mib = int(chance.choice(MEMORIES_MIB[:2]))
    return memory_mib, max(int(min(wanted_mib, memory_mib * share)), 4)


def _set_share(kind: str, chance: np.random.Generator) -> float:
    if kind.startswith("large"):
        return 0.9
    return 0.05 if kind == "idle" else float(chance.uniform(0.3, 0.7))


class _Shape:
    """How D(T) of a kind of guest looks, for a given rate of writing."""

    def __init__(self, kind: str, set_mib: int, hot_mib: int) -> None:
        self._set_mib, self._hot_mib = set_mib, hot_mib
        self.pattern = Pattern.SWEEP
        if "random" in kind:
            self.pattern = Pattern.RANDOM
        if "hot" in kind:
            self.pattern = Pattern.HOT
        self.hot_percent = 70 if kind == "hot 70 %" else 90

    def dirtied_mib(self, rate_mib_s: float, period_s: float) -> float:
        """What is dirtied within a time, in the mean."""
        written_mib, size_mib = rate_mib_s * period_s, float(self._set_mib)
        if self.pattern is Pattern.SWEEP:
            return min(written_mib, size_mib)
        if self.pattern is Pattern.RANDOM:
            return -size_mib * math.expm1(-written_mib / size_mib)
        hot, hot_mib = self.hot_percent / 100, float(self._hot_mib)
        return -hot_mib * math.expm1(-hot * written_mib / hot_mib) - size_mib * math.expm1(
            -(1 - hot) * written_mib / size_mib
        )

    def rate_mib_s(self, dirtied_mib: float, period_s: float) -> float:
        """The rate at which so much is dirtied within a time; a high one where it never is."""
        least, most = 0.0, 5000.0
        for _ in range(60):
            middle = (least + most) / 2
            if self.dirtied_mib(middle, period_s) < dirtied_mib:
                least = middle
            else:
                most = middle
        return most
