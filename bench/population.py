"""The simulated guests on which rules are compared: drawn by class and number, the same each time. Data only.

Each draw gives a guest, a link, and what its owner asks: a downtime limit and a deadline. Working sets and rates are
drawn in proportion to what the link carries within the limit, so that easy, hard and impossible ones are all there.
"""

from __future__ import annotations

import msgspec
import numpy as np

from livemig.core.plan import Plan
from livemig.simulation.link import LinkSetting, Outage
from livemig.simulation.setting import Costs, Setting
from livemig.simulation.workloads import PAGE_BYTES, Pattern, SimulatedGuest, Stage, Writes

CLASSES = ("hot-cold", "random", "zipf", "sweep", "bursts", "phases", "growth", "idle", "bad link")
PIECE_COUNT = 8192
"""Of each guest: coarse, so that thousands of migrations are simulated in minutes."""
GROWTH_STEPS = 16
DEVELOPMENT_SEEDS = range(100_000, 200_000)
"""What rules are tuned on. The comparison draws from 0 on, which nothing is tuned on."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One guest to move.

    Attributes:
        kind: Its class, one of `CLASSES`.
        seed: What it was drawn with, and what its migration is simulated with.
        setting: What is simulated.
        plan: What its owner asks.
    """

    kind: str
    seed: int
    setting: Setting
    plan: Plan


def draw(kind: str, seed: int) -> Case:
    """Draws a guest of a class; the same seed gives the same guest."""
    generator = np.random.default_rng((CLASSES.index(kind), seed))
    link_bytes_s = float(np.exp(generator.uniform(np.log(80e6), np.log(400e6))))
    copy_s = float(generator.uniform(1, 4))
    memory_bytes = link_bytes_s * copy_s * generator.uniform(1.1, 2)
    page_bytes = _whole(memory_bytes / PIECE_COUNT, PAGE_BYTES)
    content_bytes = _whole(link_bytes_s * copy_s, page_bytes)
    limit_s = float(np.exp(generator.uniform(np.log(0.05), np.log(0.8))))
    deadline_s = copy_s * generator.uniform(1.6, 3) + generator.uniform(4, 10)
    draws = _Draws(
        generator,
        content_bytes=content_bytes,
        page_bytes=page_bytes,
        link_bytes_s=link_bytes_s,
        limit_s=limit_s,
        copy_s=copy_s,
    )
    stages = draws.stages(kind)
    guest = SimulatedGuest(
        memory_bytes=page_bytes * PIECE_COUNT,
        content_bytes=content_bytes,
        stages=stages,
        page_bytes=page_bytes,
        variation_ratio=float(generator.choice([0.0, 0.1, 0.3])),
        variation_s=float(generator.uniform(1, 5)),
    )
    device_s = float(np.exp(generator.uniform(np.log(0.002), np.log(0.008))))
    setting = Setting(
        guest=guest,
        link=draws.link(bad=kind == "bad link"),
        qemu=str(generator.choice(["7.2", "10.0", "11.1"], p=[0.2, 0.4, 0.4])),
        costs=Costs(device_s=device_s),
        bound_s=deadline_s + 2.0,
    )
    plan = Plan(downtime_limit_s=round(limit_s, 3), deadline_s=round(deadline_s, 2))
    return Case(kind=kind, seed=seed, setting=setting, plan=plan)


class _Draws:
    """One draw's parts."""

    def __init__(
        self,
        generator: np.random.Generator,
        *,
        content_bytes: int,
        page_bytes: int,
        link_bytes_s: float,
        limit_s: float,
        copy_s: float,
    ) -> None:
        self._generator, self._content_bytes, self._page_bytes = generator, content_bytes, page_bytes
        self._link_bytes_s, self._limit_s, self._copy_s = link_bytes_s, limit_s, copy_s

    def stages(self, kind: str) -> tuple[Stage, ...]:
        """What the guest does."""
        match kind:
            case "idle":
                return (Stage(writes=(self._writes(Pattern.RANDOM, 0.001, 0.05, (0.001, 0.05)),)),)
            case "bursts":
                stage = self._stage((Pattern.RANDOM, Pattern.SWEEP), (0.1, 4), (0.7, 5))
                period_s = float(np.exp(self._generator.uniform(np.log(0.4), np.log(3))))
                duty_percent = float(self._generator.uniform(20, 80))
                return (msgspec.structs.replace(stage, burst_period_s=period_s, burst_duty_percent=duty_percent),)
            case "phases":
                return self._phases()
            case "growth":
                return self._growing()
            case "random":
                return (self._stage((Pattern.RANDOM,), (0.1, 8), (0.3, 5)),)
            case "zipf":
                return (self._stage((Pattern.ZIPF,), (1, 20), (0.5, 5)),)
            case "sweep":
                return (self._stage((Pattern.SWEEP,), (0.1, 6), (0.5, 4)),)
            case _:
                return (self._hot_cold(),)

    def _phases(self) -> tuple[Stage, ...]:
        """One way of writing, then a calmer or a wilder one."""
        first = self._stage((Pattern.RANDOM,), (0.1, 2.5), (0.5, 3))
        factor = float(np.exp(self._generator.uniform(np.log(0.3), np.log(3))))
        writes = tuple(msgspec.structs.replace(one, rate_bytes_s=one.rate_bytes_s * factor) for one in first.writes)
        return (first, Stage(start_s=float(self._copy_s * self._generator.uniform(0.5, 2)), writes=writes))

    def _growing(self) -> tuple[Stage, ...]:
        """A working set that grows step by step, its writes with it."""
        base = self._writes(Pattern.RANDOM, 0.05, 0.6, (0.7, 4))
        growth = float(self._generator.uniform(1.02, 1.2))
        stages = []
        for step in range(GROWTH_STEPS):
            size_bytes = _whole(min(base.size_bytes * growth**step, self._content_bytes), self._page_bytes)
            writes = msgspec.structs.replace(base, size_bytes=size_bytes, rate_bytes_s=base.rate_bytes_s * growth**step)
            stages.append(Stage(start_s=step * self._copy_s / 4, writes=(writes,)))
        return tuple(stages)

    def link(self, *, bad: bool) -> LinkSetting:
        """The link: a bad one wavers a lot and drops out."""
        noise_ratio = float(self._generator.choice([0.0, 0.02, 0.05]))
        if not bad:
            return LinkSetting(rate_bytes_s=self._link_bytes_s, noise_ratio=noise_ratio, latency_s=0.0002)
        outages = (
            Outage(
                start_s=float(self._copy_s * self._generator.uniform(0.3, 2)),
                duration_s=float(self._generator.uniform(0.2, 1.5)),
                left_percent=float(self._generator.choice([0, 10, 40])),
            ),
        )
        return LinkSetting(
            rate_bytes_s=self._link_bytes_s,
            noise_ratio=float(self._generator.uniform(0.1, 0.3)),
            noise_s=float(self._generator.uniform(0.5, 5)),
            outages=outages,
            latency_s=0.0005,
        )

    def _hot_cold(self) -> Stage:
        """A hot set within the limit or not, a warm one, and the rest now and then."""
        hot = self._writes(Pattern.RANDOM, 0.03, 2.0, (0.7, 10))
        warm = self._writes(Pattern.RANDOM, 0.5, 10.0, (0.02, 0.3))
        cold_share = self._generator.uniform(0.001, 0.02)
        cold = Writes(size_bytes=self._content_bytes, rate_bytes_s=float(self._link_bytes_s * cold_share))
        warm = msgspec.structs.replace(warm, start_bytes=min(hot.size_bytes, self._content_bytes - warm.size_bytes))
        return Stage(writes=(hot, warm, cold))

    def _stage(self, patterns: tuple[Pattern, ...], sizes: tuple[float, float], rates: tuple[float, float]) -> Stage:
        pattern = patterns[int(self._generator.integers(len(patterns)))]
        background = Writes(
            size_bytes=self._content_bytes,
            rate_bytes_s=float(self._link_bytes_s * self._generator.uniform(0.0, 0.01)),
        )
        return Stage(writes=(self._writes(pattern, *sizes, rates), background))

    def _writes(self, pattern: Pattern, least: float, most: float, rates: tuple[float, float]) -> Writes:
        """A region of so many times what the link sends within the limit, written at so many times its rate."""
        uniform = self._generator.uniform
        size_bytes = self._link_bytes_s * self._limit_s * np.exp(uniform(np.log(least), np.log(most)))
        return Writes(
            pattern=pattern,
            size_bytes=_whole(min(max(size_bytes, self._page_bytes), self._content_bytes), self._page_bytes),
            rate_bytes_s=float(self._link_bytes_s * np.exp(uniform(np.log(rates[0]), np.log(rates[1])))),
            skew_ratio=float(uniform(0.6, 1.4)),
        )


def _whole(size_bytes: float, page_bytes: int) -> int:
    return -(-int(size_bytes) // page_bytes) * page_bytes
