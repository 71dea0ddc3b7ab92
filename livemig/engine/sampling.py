"""Samples how a running guest dirties its memory, for a forecast, within a given time. Touches nothing else of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.errors import CommandError, LivemigError, MonitorLost, MonitorTimeout, ReplyError
from livemig.core.units import format_duration, format_size
from livemig.qemu.dirty_rate import (
    BLOCK_LEAST_BYTES,
    PER_GIB_LEAST,
    PERIOD_LEAST_S,
    PERIOD_MOST_S,
    DirtyRateMeter,
    Measured,
    draws_per_gib,
    is_busy,
    to_samples,
)
from livemig.qemu.monitor import Monitor

LONGEST_SHARE = 0.27
OVERHEAD_S = 0.01
"""What a measurement takes beside its period, about: hashing, polling."""
REFUSALS_MOST = 3
"""After so many answers that make no sense there will be no better one."""
DRAWS_FEW_COUNT = 512
"""With fewer draws a measurement tells little: a guest of under 32 MiB."""
REPEATS_MOST_COUNT = 64
FRESH_SHARE_MOST = 1 / 32
"""Of memory that reading makes resident, so much may be read in all."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        samples: One for each measurement, in their order.
        notes: What could not be measured, and why: the forecast is wider for it.
        duration_s: How long it took.
    """

    samples: tuple[DirtySample, ...] = ()
    notes: tuple[str, ...] = ()
    duration_s: float = 0.0


def sampling_periods(total_s: float, least_s: float = PERIOD_LEAST_S) -> tuple[float, ...]:
    """Returns the periods to measure, in order; with what each takes beside, they fit into `total_s`.

    Periods double from the least one to about a quarter of the time, each as often as its equal share of the time
    allows, so that each finds about as many dirtied pages. The repeats of each are spread evenly over the whole time
    and so centred on its middle: a guest that changes meanwhile does not look like one with another D(T).
    """
    ladder = []
    period_s = least_s
    while period_s <= min(max(total_s * LONGEST_SHARE, least_s), PERIOD_MOST_S):
        ladder.append(period_s)
        period_s *= 2
    left_s = total_s
    placed: list[tuple[float, float]] = []
    for rank in range(len(ladder), 0, -1):
        cost_s = ladder[rank - 1] + OVERHEAD_S
        if cost_s > left_s + 1e-9:
            continue
        repeat_count = min(max(1, int(left_s / rank / cost_s + 1e-9)), REPEATS_MOST_COUNT)
        placed += [((index + 0.5) / repeat_count, ladder[rank - 1]) for index in range(repeat_count)]
        left_s -= repeat_count * cost_s
    return tuple(period_s for _, period_s in sorted(placed))


async def sample_guest(
    monitor: Monitor,
    *,
    total_s: float,
    memory_bytes: int,
    touched_bytes: int | None = None,
    tell: Callable[[float, float], None] | None = None,
) -> Sampling:
    """Measures for about so long; whatever QEMU refuses or makes no sense of is a note, and fewer samples.

    Cancelled, it returns at once; a measurement under way ends by itself, at most a quarter of the time later.

    Args:
        monitor: Of the source, whose guest runs.
        total_s: How long it may take, in seconds; 0 asks QEMU nothing.
        memory_bytes: The guest's memory.
        touched_bytes: What of it was ever touched, if that is known.
        tell: Is told the seconds that have passed, and those that are meant.

    Raises:
        MonitorLost: When the monitor ends.
    """
    if total_s <= 0:
        return Sampling()
    if memory_bytes < BLOCK_LEAST_BYTES:
        size = format_size(memory_bytes)
        return Sampling(notes=(f"a guest of {size} is too small for QEMU to sample: the forecast is wider for it",))
    sampler = _Sampler(monitor, total_s, memory_bytes, tell)
    try:
        await sampler.run(touched_bytes)
    except MonitorLost:
        raise
    except LivemigError as error:
        sampler.note(f"the guest can't be sampled any further: {error}")
    return sampler.result()


class _Sampler:
    """One sampling: what it may still do, and what it found."""

    def __init__(
        self, monitor: Monitor, total_s: float, memory_bytes: int, tell: Callable[[float, float], None] | None
    ) -> None:
        self._monitor = monitor
        self._total_s = total_s
        self._memory_bytes = memory_bytes
        self._tell = tell
        self._began_s = time.monotonic()
        self._measured: list[Measured] = []
        self._notes: list[str] = []
        self._refusal_count = 0
        self._draws_most_per_gib: int | None = None

    def note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    async def run(self, touched_bytes: int | None) -> None:
        meter = await DirtyRateMeter.open(self._monitor)
        periods = sampling_periods(self._total_s, meter.period_least_s)
        if not periods:
            least, given = format_duration(meter.period_least_s + OVERHEAD_S), format_duration(self._total_s)
            self.note(f"{given} is too short to sample the guest: this QEMU needs at least {least}")
            return
        if not await self._may_read(len(periods), touched_bytes) or not await self._wait_idle(meter):
            return
        for period_s in periods:
            if self._left_s < period_s:
                continue
            if self._tell is not None:
                self._tell(self._passed_s, self._total_s)
            await self._measure(meter, period_s)
            if self._refusal_count >= REFUSALS_MOST:
                self.note("the guest is not sampled any further")
                return

    def result(self) -> Sampling:
        samples = to_samples(self._measured)
        few = self._measured and max(one.drawn_count for one in self._measured) < DRAWS_FEW_COUNT
        if few:
            self.note("the guest is so small that few of its pages were sampled: the forecast is wider for it")
        if self._measured and not any(one.rate_mib_s for one in self._measured):
            self.note("the guest was too quiet to sample: no page was seen to change")
        return Sampling(
            samples=samples,
            notes=tuple(self._notes),
            duration_s=self._passed_s,
        )

    @property
    def _passed_s(self) -> float:
        return time.monotonic() - self._began_s

    @property
    def _left_s(self) -> float:
        return self._total_s - self._passed_s

    async def _measure(self, meter: DirtyRateMeter, period_s: float) -> None:
        per_gib = draws_per_gib(self._memory_bytes, period_s)
        if self._draws_most_per_gib is not None:
            per_gib = min(per_gib, self._draws_most_per_gib)
        try:
            self._measured.append(await meter.measure(period_s, self._memory_bytes, per_gib))
        except MonitorTimeout:
            raise
        except CommandError as error:
            if is_busy(error) and await self._wait_idle(meter):
                return
            self._refusal_count += 1
            self.note(f"a sample over {format_duration(period_s)} was refused: {error.description}")
        except ReplyError as error:
            self._refusal_count += 1
            self.note(f"a sample over {format_duration(period_s)} was left out: {error}")

    async def _wait_idle(self, meter: DirtyRateMeter) -> bool:
        """Somebody else's measurement can't be ended, only waited for."""
        before_s = self._passed_s
        if not await meter.wait_idle(max(self._left_s, 0)):
            self.note("somebody else measures this guest's dirty rate: try again when that has ended")
            return False
        if self._passed_s - before_s > OVERHEAD_S:
            self.note("the guest was sampled less: somebody else measured its dirty rate meanwhile")
        return True

    async def _may_read(self, measurement_count: int, touched_bytes: int | None) -> bool:
        """Sees to it that the host does not run short because of the sampling; returns whether it may begin.

        To read anonymous memory that the guest never touched costs nothing: the kernel maps its zero page. In a file,
        a memfd or other shared memory each such page is allocated: measured, a sampling made nearly all of a guest's
        memory resident.
        """
        if touched_bytes is not None and touched_bytes >= self._memory_bytes * (1 - FRESH_SHARE_MOST):
            return True
        if not await _reading_allocates(self._monitor):
            return True
        drawn_most = self._memory_bytes / 4096 * FRESH_SHARE_MOST / measurement_count
        self._draws_most_per_gib = int(drawn_most * 2**30 / self._memory_bytes)
        self._draws_most_per_gib = max(self._draws_most_per_gib, PER_GIB_LEAST)
        self.note(
            "the guest's memory is in a file or shared, where reading allocates it: few of its pages were sampled, and "
            "the forecast is wider for it (prealloc=on for its memory backend allows more)"
        )
        return True


async def _reading_allocates(monitor: Monitor) -> bool:
    """Whether any of the guest's memory is such that reading an untouched page allocates it."""
    try:
        backends = await monitor.execute("query-memdev")
        kinds = {one["name"]: one["type"] for one in await monitor.execute("qom-list", {"path": "/objects"})}
    except CommandError:
        return False
    return any(_allocates(one, kinds) for one in _dictionaries(backends))


def _allocates(backend: dict[str, Any], kinds: dict[str, str]) -> bool:
    if backend.get("prealloc") is True:
        return False
    anonymous = kinds.get(str(backend.get("id"))) == "child<memory-backend-ram>"
    return backend.get("share") is True or not anonymous


def _dictionaries(reply: object) -> Iterable[dict[str, Any]]:
    return (one for one in reply if isinstance(one, dict)) if isinstance(reply, list) else ()
