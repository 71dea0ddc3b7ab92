"""What a simulated guest does to its memory, as data: regions, how they are written to, and when that changes.

Nothing is simulated here; `livemig.simulation.guest_memory` does. Sizes are bytes, rates are page writes times 4096, as
the built-in guest counts them: a page written twice counts twice.
"""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from livemig.core.errors import PlanError

PAGE_BYTES = 4096
BUILTIN_CEILING_BYTES_S = 10 * 2**30
"""What the built-in guest does under TCG when it is told ``max``; docs/guest.md has measured 12 to 22 GiB/s."""

_BUILTIN_DATA_BYTES = 0x100000
_BUILTIN_TABLE_BYTES = 0x110000
_BUILTIN_HOUSEKEEPING_PAGES = 3
"""Stack, clock and counters, which an idle built-in guest dirties too: an idle switchover sends three pages."""
_BUILTIN_HOUSEKEEPING_WRITES_S = 1000.0


class Pattern(StrEnum):
    """Which page of a region is written next."""

    SWEEP = "sweep"
    """One after the other, and again."""
    RANDOM = "random"
    """Any, each as likely."""
    ZIPF = "zipf"
    """Any, the k-th most liked in proportion to k to the power of minus ``skew_ratio``; scattered over the region."""


class Accelerator(StrEnum):
    """Who keeps the dirty log, and when it forgets what QEMU has read of it."""

    KVM = "kvm"
    """Per chunk of 1 GiB (``x-clear-bitmap-shift``), just before the chunk's first page is sent."""
    TCG = "tcg"
    """Right when it is read: a page written between then and its sending is sent twice."""


class Writes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way of writing to one region.

    Attributes:
        pattern: Which page is written next.
        start_bytes: Where the region begins.
        size_bytes: How large it is.
        rate_bytes_s: Page writes times 4096, by second.
        skew_ratio: With `Pattern.ZIPF`, the exponent.
        growth_bytes_s: With `Pattern.RANDOM`, how fast the region grows; what is added is written to once at once.
        growth_most_bytes: How large it may become.

    Raises:
        PlanError: When a value makes no sense.
    """

    pattern: Pattern = Pattern.RANDOM
    start_bytes: int = 0
    size_bytes: int = 0
    rate_bytes_s: float = 0.0
    skew_ratio: float = 1.0
    growth_bytes_s: float = 0.0
    growth_most_bytes: int = 0

    def __post_init__(self) -> None:
        if self.start_bytes < 0 or self.size_bytes < PAGE_BYTES:
            raise PlanError("a region that is written to needs at least one page")
        if not 0 <= self.rate_bytes_s < math.inf:
            raise PlanError("a rate of writing is 0 or more, and finite")
        if not 0 <= self.skew_ratio <= 4:
            raise PlanError("skew_ratio is from 0 (each page as likely) to 4")
        if self.growth_bytes_s < 0 or (self.growth_bytes_s > 0 and self.pattern is not Pattern.RANDOM):
            raise PlanError("only a region with pattern random can grow, and none shrinks")

    @property
    def end_bytes(self) -> int:
        """Where the region ends at its largest."""
        grown_bytes = max(self.size_bytes, self.growth_most_bytes) if self.growth_bytes_s else self.size_bytes
        return self.start_bytes + grown_bytes


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the guest does from one moment to the next stage's.

    Attributes:
        start_s: When it begins, in seconds since ``migrate``; the first one's is ignored.
        writes: What is written to meanwhile; nothing for an idle guest.
        burst_period_s: From one burst's begin to the next, 0 for no bursts. Between bursts nothing is written.
        burst_duty_percent: The burst's share of each period; the rates are those within it.
        burst_offset_s: How long after a burst's begin the stage begins; None is anywhere in the period.

    Raises:
        PlanError: When a value makes no sense.
    """

    start_s: float = 0.0
    writes: tuple[Writes, ...] = ()
    burst_period_s: float = 0.0
    burst_duty_percent: float = 50.0
    burst_offset_s: float | None = None

    def __post_init__(self) -> None:
        if self.burst_period_s < 0 or not 0 < self.burst_duty_percent <= 100:
            raise PlanError("bursts have a period of 0 s or more and a duty of up to 100 percent")

    def active_s(self, from_s: float, to_s: float) -> float:
        """Returns how much of a span lies within bursts; spans are in seconds on the bursts' own clock."""
        if not self.burst_period_s:
            return to_s - from_s
        return self._on_s(to_s) - self._on_s(from_s)

    def _on_s(self, time_s: float) -> float:
        periods, within_s = divmod(time_s, self.burst_period_s)
        burst_s = self.burst_period_s * self.burst_duty_percent / 100
        return periods * burst_s + min(within_s, burst_s)


class SimulatedGuest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A guest to simulate.

    Attributes:
        memory_bytes: Its memory, all of it migratable.
        content_bytes: From 0 on, what has content at the start; the rest are zero pages until they are written to.
        content_start_bytes: Where that content begins.
        stages: What it does, in order of time; at least one.
        accelerator: Who keeps its dirty log.
        page_bytes: Granularity of the simulation, a multiple of 4096 for guests too large to simulate page by page.
            A piece stands for its pages: they are written to, found zero and sent alike, so that as much is dirtied
            as page by page, on average, and figures spread more.
        variation_ratio: How much its rates waver: the standard deviation of their logarithm; 0 is not at all.
        variation_s: How long such a deviation lasts, in seconds.

    Raises:
        PlanError: When a value makes no sense.
    """

    memory_bytes: int
    content_bytes: int = 0
    content_start_bytes: int = 0
    stages: tuple[Stage, ...] = (Stage(),)
    accelerator: Accelerator = Accelerator.KVM
    page_bytes: int = PAGE_BYTES
    variation_ratio: float = 0.0
    variation_s: float = 5.0

    def __post_init__(self) -> None:
        if self.page_bytes < PAGE_BYTES or self.page_bytes % PAGE_BYTES:
            raise PlanError("page_bytes is a multiple of 4096")
        if self.memory_bytes < self.page_bytes or self.memory_bytes % self.page_bytes:
            raise PlanError(f"memory_bytes is a multiple of page_bytes, {self.page_bytes}")
        if not self.stages:
            raise PlanError("a guest needs at least one stage")
        if not 0 <= self.content_start_bytes <= self.content_start_bytes + self.content_bytes <= self.memory_bytes:
            raise PlanError("the content lies within the memory")
        if any(writes.end_bytes > self.memory_bytes for stage in self.stages for writes in stage.writes):
            raise PlanError("a region that is written to lies within the memory")
        if self.variation_ratio < 0 or self.variation_s <= 0:
            raise PlanError("variation_ratio is 0 or more, variation_s more than 0")
        starts_s = [stage.start_s for stage in self.stages[1:]]
        if starts_s != sorted(starts_s) or any(start_s <= 0 for start_s in starts_s):
            raise PlanError("each stage but the first begins after the one before it")


class BuiltinPhase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the built-in guest writes for a time: the seven parameters of that name in docs/guest.md.

    Attributes:
        pattern: ``sweep``, ``random`` or ``hot``.
        working_set_bytes: The memory that is written to.
        dirty_rate_bytes_s: Page writes times 4096 by second; infinite is as fast as it goes.
        hot_set_bytes: With ``hot``, the part that most writes go to.
        hot_writes_percent: With ``hot``, the share of the writes that goes there.
        burst_period_s: From one burst's begin to the next, 0 for none.
        burst_duty_percent: The share of each period that is burst.
    """

    pattern: str = "sweep"
    working_set_bytes: int = 16 * 2**20
    dirty_rate_bytes_s: float = 16 * 2**20
    hot_set_bytes: int = 0
    hot_writes_percent: float = 90
    burst_period_s: float = 0.0
    burst_duty_percent: float = 50


def builtin_guest(
    phase: BuiltinPhase,
    *,
    memory_bytes: int,
    fill_bytes: int = 0,
    phase2: BuiltinPhase | None = None,
    phase2_at_s: float = 0.0,
    accelerator: Accelerator = Accelerator.TCG,
    burst_offset_s: float | None = None,
) -> SimulatedGuest:
    """Returns the built-in guest as it is when it has come up.

    Args:
        phase: What it does.
        memory_bytes: Its memory.
        fill_bytes: Memory with content from the start; the working sets have it in any case.
        phase2: What it does later, or None.
        phase2_at_s: When, in seconds since ``migrate``.
        accelerator: What QEMU runs it with.
        burst_offset_s: How long before ``migrate`` a burst of the first phase began; None is anywhere.

    Raises:
        PlanError: When a parameter makes no sense.
    """
    table_pages = _pages((memory_bytes - _BUILTIN_TABLE_BYTES) // (PAGE_BYTES + 4) * 4)
    base_bytes = _BUILTIN_TABLE_BYTES + table_pages * PAGE_BYTES
    phases = (phase,) if phase2 is None else (phase, phase2)
    filled_bytes = _pages(max(fill_bytes, *(one.working_set_bytes for one in phases))) * PAGE_BYTES
    content_end_bytes = min(memory_bytes, base_bytes + filled_bytes)
    starts_s = (0.0, phase2_at_s)
    return SimulatedGuest(
        memory_bytes=memory_bytes,
        content_start_bytes=_BUILTIN_DATA_BYTES,
        content_bytes=content_end_bytes - _BUILTIN_DATA_BYTES,
        stages=tuple(
            Stage(
                start_s=start_s,
                writes=(*_builtin_writes(one, base_bytes), *_builtin_housekeeping()),
                burst_period_s=one.burst_period_s,
                burst_duty_percent=one.burst_duty_percent,
                burst_offset_s=burst_offset_s if one is phase else None,
            )
            for start_s, one in zip(starts_s, phases, strict=False)
        ),
        accelerator=accelerator,
    )


def _builtin_writes(phase: BuiltinPhase, base_bytes: int) -> tuple[Writes, ...]:
    """The pages, and the table that has four bytes for each of them."""
    rate_bytes_s = min(phase.dirty_rate_bytes_s, BUILTIN_CEILING_BYTES_S)
    size_bytes = _pages(phase.working_set_bytes) * PAGE_BYTES
    if not rate_bytes_s:
        return ()
    if phase.pattern == "hot":
        hot_bytes = _pages(phase.hot_set_bytes) * PAGE_BYTES
        share = phase.hot_writes_percent / 100 if hot_bytes < size_bytes else 1.0
        return (
            *_with_table(Pattern.RANDOM, base_bytes, 0, hot_bytes, rate_bytes_s * share),
            *_with_table(Pattern.RANDOM, base_bytes, hot_bytes, size_bytes - hot_bytes, rate_bytes_s * (1 - share)),
        )
    if phase.pattern not in ("sweep", "random"):
        raise PlanError(f"the built-in guest knows no pattern {phase.pattern}: it has sweep, random and hot")
    return _with_table(Pattern(phase.pattern), base_bytes, 0, size_bytes, rate_bytes_s)


def _with_table(
    pattern: Pattern, base_bytes: int, offset_bytes: int, size_bytes: int, rate_bytes_s: float
) -> tuple[Writes, ...]:
    if size_bytes <= 0 or rate_bytes_s <= 0:
        return ()
    first_table_page = offset_bytes // PAGE_BYTES // 1024
    table_pages = _pages((offset_bytes + size_bytes) // 1024) - first_table_page
    table_rate_bytes_s = rate_bytes_s / 1024 if pattern is Pattern.SWEEP else rate_bytes_s
    return (
        Writes(
            pattern=pattern, start_bytes=base_bytes + offset_bytes, size_bytes=size_bytes, rate_bytes_s=rate_bytes_s
        ),
        Writes(
            pattern=pattern,
            start_bytes=_BUILTIN_TABLE_BYTES + first_table_page * PAGE_BYTES,
            size_bytes=max(1, table_pages) * PAGE_BYTES,
            rate_bytes_s=table_rate_bytes_s,
        ),
    )


def _builtin_housekeeping() -> tuple[Writes, ...]:
    return (
        Writes(
            start_bytes=_BUILTIN_DATA_BYTES,
            size_bytes=_BUILTIN_HOUSEKEEPING_PAGES * PAGE_BYTES,
            rate_bytes_s=_BUILTIN_HOUSEKEEPING_PAGES * _BUILTIN_HOUSEKEEPING_WRITES_S * PAGE_BYTES,
        ),
    )


def _pages(size_bytes: int) -> int:
    return -(-int(size_bytes) // PAGE_BYTES)
