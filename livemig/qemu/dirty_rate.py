"""``calc-dirty-rate`` as a measurement of D(T): asks, waits, and says how many pages, and how far off. Plans nothing.

Page sampling alone: QEMU draws pages at random, hashes them, waits, hashes them again and tells the changed share as a
whole number of MiB/s (migration/dirtyrate.c). That needs no accelerator's help, holds no lock that the guest needs, and
counts a page once however often it was written: D(T), not a rate times T. The other modes are never used: under TCG
``dirty-bitmap`` ends QEMU 7.2 and finds nothing on later ones.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from math import ceil, sqrt
from typing import Any, Literal

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.errors import CommandError, MonitorTimeout, ReplyError
from livemig.qemu.monitor import Monitor

PERIOD_LEAST_S = 0.05
PERIOD_LEAST_WHOLE_S = 1.0
"""Before QEMU 8.2 only whole seconds are measured."""
PERIOD_MOST_S = 60.0
BLOCK_LEAST_BYTES = 128 * 2**10
"""QEMU leaves smaller RAM blocks out."""
PER_GIB_LEAST, PER_GIB_MOST = 128, 16384
SAMPLED_PAGES_MOST = 2**17
"""Over all of the guest. Hashing costs some 0.5 microseconds a page, twice, on a thread of its own."""
SAMPLED_PAGES_PER_S = 250_000
"""At most, so that hashing takes a small part of the period it is to measure."""
FINISH_BOUND_S = 5.0
"""How much longer than asked a measurement may take, before it counts as one that never ends."""
CLOCK_DEVIATION_S = 0.0005
"""QEMU takes the period from two readings in whole milliseconds."""
BLOCKS_ELSEWHERE_BYTES = 2**30
"""What there may be beside the guest's memory: video memory, firmware."""
BUSY = "already being measured"

_POLL_S = 0.002
_POLL_SHARE = 0.02
_MILLISECONDS = {"calc-time-unit": "millisecond"}


class _Reply(msgspec.Struct, rename="kebab", frozen=True):
    status: Literal["unstarted", "measuring", "measured"]
    start_time: int
    calc_time: int
    sample_pages: int
    mode: str = "page-sampling"
    dirty_rate: int | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement, as QEMU gives it.

    Attributes:
        asked_s: The period asked for.
        period_s: The period that QEMU took.
        rate_mib_s: The changed share of memory over that period, rounded down.
        page_count: The guest's pages.
        drawn_count: How many draws of a page there were, with repetition.
    """

    asked_s: float
    period_s: float
    rate_mib_s: int
    page_count: int
    drawn_count: int


class DirtyRateMeter:
    """Measures by one monitor, one measurement at a time; make it with `open`."""

    def __init__(self, monitor: Monitor, unit: dict[str, str]) -> None:
        """For `open` only."""
        self._monitor = monitor
        self._unit = unit
        self._last_start = 0

    @classmethod
    async def open(cls, monitor: Monitor) -> DirtyRateMeter:
        """Asks whether that QEMU takes milliseconds; starts nothing.

        Raises:
            CommandError: When it has no such command.
            LivemigError: As `Monitor.execute`.
        """
        try:
            await monitor.execute("query-dirty-rate", _MILLISECONDS)
        except CommandError as error:
            if "calc-time-unit" not in error.description:
                raise
            await monitor.execute("query-dirty-rate")
            return cls(monitor, {})
        return cls(monitor, _MILLISECONDS)

    @property
    def period_least_s(self) -> float:
        """The shortest period that this QEMU measures, in seconds."""
        return PERIOD_LEAST_S if self._unit else PERIOD_LEAST_WHOLE_S

    async def wait_idle(self, timeout_s: float) -> bool:
        """Waits until nobody measures; returns whether that is so within the bound.

        Raises:
            LivemigError: As `Monitor.execute`.
        """
        give_up_s = time.monotonic() + timeout_s
        while (await self._query()).status == "measuring":
            if time.monotonic() >= give_up_s:
                return False
            await asyncio.sleep(0.05)
        return True

    async def measure(self, period_s: float, memory_bytes: int, per_gib: int) -> Measured:
        """Measures once. Cancelled, it leaves QEMU's measurement to end by itself, at its time.

        Args:
            period_s: How long, at least `period_least_s`.
            memory_bytes: The guest's memory.
            per_gib: Draws a GiB, see `draws_per_gib`.

        Raises:
            CommandError: QEMU refuses; `is_busy` tells when it measures for somebody else.
            ReplyError: What it answers can't be.
            MonitorTimeout: It does not answer, or does not end.
            LivemigError: As `Monitor.execute`.
        """
        count = round(period_s * 1000) if self._unit else round(period_s)
        arguments: dict[str, Any] = {"calc-time": count, "sample-pages": per_gib, **self._unit}
        began_s = time.monotonic()
        await self._monitor.execute("calc-dirty-rate", arguments)
        reply = await self._result(began_s, period_s)
        if reply.sample_pages != per_gib or reply.mode != "page-sampling":
            raise ReplyError("somebody else measured the dirty rate meanwhile", command="query-dirty-rate")
        passed_s = time.monotonic() - began_s
        return _checked(reply, self._period_s(reply, period_s, passed_s), period_s, memory_bytes)

    async def _result(self, began_s: float, period_s: float) -> _Reply:
        await asyncio.sleep(period_s)
        give_up_s = began_s + period_s + FINISH_BOUND_S
        while (reply := await self._query()).status != "measured":
            if time.monotonic() >= give_up_s:
                message = f"a measurement of {period_s:g} s has not ended {FINISH_BOUND_S:g} s after its time"
                raise MonitorTimeout(message, command="calc-dirty-rate", timeout_s=period_s + FINISH_BOUND_S)
            await asyncio.sleep(max(_POLL_S, period_s * _POLL_SHARE))
        stale = reply.start_time < self._last_start
        self._last_start = reply.start_time
        if stale:
            raise ReplyError("what it gave was measured earlier", command="query-dirty-rate")
        return reply

    def _period_s(self, reply: _Reply, asked_s: float, passed_s: float) -> float:
        """QEMU's own account of the period; it must have been at least as long as asked, and must have fitted in."""
        period_s = reply.calc_time * (0.001 if self._unit else 1.0)
        if not asked_s - 0.0015 <= period_s <= passed_s + 0.0015:
            message = f"asked for {asked_s:g} s, it says to have measured {period_s:g} s within {passed_s:.3g} s"
            raise ReplyError(message, command="query-dirty-rate")
        return period_s

    async def _query(self) -> _Reply:
        reply = await self._monitor.execute("query-dirty-rate", self._unit or None)
        try:
            return msgspec.convert(reply, _Reply)
        except msgspec.ValidationError as error:
            raise ReplyError(f"query-dirty-rate's reply makes no sense: {error}", command="query-dirty-rate") from error


def is_busy(error: CommandError) -> bool:
    """Whether QEMU refuses because it measures already."""
    return BUSY in error.description


def draws_per_gib(memory_bytes: int, period_s: float) -> int:
    """Returns QEMU's ``sample-pages``: as many as are cheap for a guest of that size and a period of that length."""
    most_count = min(SAMPLED_PAGES_MOST, int(SAMPLED_PAGES_PER_S * period_s))
    return min(max(most_count * 2**30 // max(memory_bytes, 1), PER_GIB_LEAST), PER_GIB_MOST)


def to_samples(measured: Sequence[Measured]) -> tuple[DirtySample, ...]:
    """Turns measurements into distinct pages and their standard deviations, one for one.

    The variance of the draws is taken from all measurements of a period together. Taken from each alone, those that
    found little by chance would count as the more exact ones, and pull every fit down.
    """
    counts = [changed_count(one) for one in measured]
    found: dict[float, tuple[float, int]] = {}
    for one, (count, _) in zip(measured, counts, strict=True):
        changed, drawn = found.get(one.asked_s, (0.0, 0))
        found[one.asked_s] = (changed + count, drawn + one.drawn_count)
    return tuple(
        _sample(one, count, rounding_variance, *found[one.asked_s])
        for one, (count, rounding_variance) in zip(measured, counts, strict=True)
    )


def changed_count(measured: Measured) -> tuple[float, float]:
    """Returns how many draws had changed, from a rate that is rounded down, and the variance of that rounding.

    ``rate = floor(changed * MiB / (drawn * period))``, so only whole numbers of draws within one unit are possible.
    At 16384 draws a GiB and up to 62 ms that is a single one: nothing is lost. Over longer periods many are, and of
    those a smaller number is held for likelier, in proportion to 1/(1 + number): a prior without a scale, which tells
    a quiet guest from one that dirties half a unit, and changes nothing where there are many.
    """
    memory_mib = measured.page_count / 256
    per_unit = measured.drawn_count * measured.period_s / memory_mib
    low, high = measured.rate_mib_s * per_unit, (measured.rate_mib_s + 1) * per_unit
    possible = range(ceil(low - 1e-9), min(ceil(high - 1e-9), measured.drawn_count + 1))
    if not possible:  # blocks of less than a MiB are drawn from, but not counted as memory
        return min((low + high) / 2, float(measured.drawn_count)), per_unit**2 / 12
    weights = [1 / (1 + count) for count in possible]
    total = sum(weights)
    mean = sum(weight * count for weight, count in zip(weights, possible, strict=True)) / total
    square = sum(weight * (count - mean) ** 2 for weight, count in zip(weights, possible, strict=True)) / total
    return mean, square


def _sample(
    measured: Measured, count: float, rounding_variance: float, changed_together: float, drawn_together: int
) -> DirtySample:
    """The draws are with repetition, so their variance is a binomial's; with Laplace's one more of each kind."""
    drawn = measured.drawn_count
    share = (changed_together + 1) / (drawn_together + 2)
    pages_per_draw = measured.page_count / drawn
    dirtied_pages = count * pages_per_draw
    drawing_variance = drawn * share * (1 - share)
    clock_pages = dirtied_pages * CLOCK_DEVIATION_S / measured.period_s
    return DirtySample(
        periods_s=(measured.period_s,),
        weights=(1.0,),
        dirtied_pages=dirtied_pages,
        deviation_pages=sqrt((drawing_variance + rounding_variance) * pages_per_draw**2 + clock_pages**2),
    )


def _checked(reply: _Reply, period_s: float, asked_s: float, memory_bytes: int) -> Measured:
    rate_mib_s = reply.dirty_rate
    if rate_mib_s is None or rate_mib_s < 0:
        raise ReplyError(f"it ended with a dirty rate of {rate_mib_s}", command="query-dirty-rate")
    if rate_mib_s * period_s * 2**20 > memory_bytes + BLOCKS_ELSEWHERE_BYTES:
        message = f"{rate_mib_s} MiB/s over {period_s:g} s is more than all of the guest's memory"
        raise ReplyError(message, command="query-dirty-rate")
    return Measured(
        asked_s=asked_s,
        period_s=period_s,
        rate_mib_s=rate_mib_s,
        page_count=memory_bytes // 4096,
        drawn_count=max(memory_bytes * reply.sample_pages // 2**30, 1),
    )
