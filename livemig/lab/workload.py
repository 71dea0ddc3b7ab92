"""What the built-in guest does to its memory, validated once and written as the guest reads it.

Knows nothing of how a guest is started. docs/guest.md describes each parameter in full.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from livemig.core.errors import PlanError
from livemig.core.units import format_size

__all__ = ["PAGE_BYTES", "UNLIMITED", "Content", "Pattern", "Phase", "Rewrite", "Workload", "usable_bytes"]

PAGE_BYTES: Final = 4096
UNLIMITED: Final = float("inf")
"""A dirty rate: as fast as the guest can."""

_ADDRESSABLE_BYTES = 2**32
_RATE_MOST_BYTES_S = 2**38
_TIME_MOST_S = 4_233_600.0
_DATA_END = 0x110000
"""Below this address lies what the guest keeps for itself; then its generation table, then the pages."""
_TABLE_BYTES_PER_PAGE = 4


class Pattern(StrEnum):
    """Which page is written next."""

    SWEEP = "sweep"
    """One page after the other through the working set, and again."""
    RANDOM = "random"
    """Any page of the working set, each as likely."""
    HOT = "hot"
    """Any page, but `hot_writes_percent` of the writes go to the first `hot_set_bytes`."""


class Content(StrEnum):
    """What the filled pages hold between their first and last 16 bytes."""

    ENDS = "ends"
    """Nothing but zeros: cheap everywhere, compresses to almost nothing, is no zero page."""
    CONSTANT = "constant"
    """One word, repeated."""
    RANDOM = "random"
    """Words derived from the page's index that no compressor gains on. Slow to fill where KVM emulates."""
    ZERO = "zero"
    """The whole page is zero, its ends too: what a zero page check finds. Has no generation to check."""


class Rewrite(StrEnum):
    """How much of a page a write changes."""

    ENDS = "ends"
    """Generation and checksum in the first and last 16 bytes."""
    WHOLE = "whole"
    """The body too, derived anew from index and generation: nothing for a delta encoder to gain."""


class Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the guest writes to its memory for a time.

    Attributes:
        pattern: Which page is written next.
        working_set_bytes: The memory that is written to, in bytes; rounded up to whole pages.
        dirty_rate_bytes_s: Page writes times 4096, in bytes per second; 0 is idle, `UNLIMITED` as fast as
            it goes. A page that is written twice counts twice.
        hot_set_bytes: With `Pattern.HOT`, the part of the working set that most writes go to, in bytes.
        hot_writes_percent: With `Pattern.HOT`, the share of the writes that go there, in percent.
        burst_period_s: Seconds from one burst's begin to the next, 0 for no bursts. Between them nothing is
            written.
        burst_duty_percent: The share of each period that is burst, in percent; the rate is that within it.

    Raises:
        PlanError: When a value is out of range or two contradict.
    """

    pattern: Pattern = Pattern.SWEEP
    working_set_bytes: int = 16 * 2**20
    dirty_rate_bytes_s: float = 16 * 2**20
    hot_set_bytes: int = 0
    hot_writes_percent: int = 90
    burst_period_s: float = 0.0
    burst_duty_percent: int = 50

    def __post_init__(self) -> None:
        _within("working_set_bytes", self.working_set_bytes, PAGE_BYTES, _ADDRESSABLE_BYTES)
        if self.dirty_rate_bytes_s != UNLIMITED:
            _within("dirty_rate_bytes_s", self.dirty_rate_bytes_s, 0, _RATE_MOST_BYTES_S)
        _within("hot_set_bytes", self.hot_set_bytes, 0, self.working_set_bytes)
        _within("hot_writes_percent", self.hot_writes_percent, 0, 100)
        _within("burst_period_s", self.burst_period_s, 0, 3600)
        _within("burst_duty_percent", self.burst_duty_percent, 1, 100)
        if self.pattern is Pattern.HOT and self.hot_set_bytes < PAGE_BYTES:
            raise PlanError("pattern hot needs hot_set_bytes of at least one page")
        if 0 < self.burst_period_s < 0.002:
            raise PlanError(
                f"burst_period_s is {self.burst_period_s}: at least 0.002, the guest looks every millisecond"
            )

    def parameters(self) -> dict[str, str]:
        """Returns the guest's own names and values for this phase."""
        unlimited = self.dirty_rate_bytes_s == UNLIMITED
        return {
            "pattern": str(self.pattern),
            "working_set_bytes": str(self.working_set_bytes),
            "dirty_rate_bytes_s": "max" if unlimited else str(round(self.dirty_rate_bytes_s)),
            "hot_set_bytes": str(self.hot_set_bytes),
            "hot_writes_percent": str(self.hot_writes_percent),
            "burst_period_ms": _milliseconds(self.burst_period_s),
            "burst_duty_percent": str(self.burst_duty_percent),
        }


class Workload(Phase, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the built-in guest is told at its start; the phase it inherits is the one it begins with.

    Attributes:
        fill_bytes: Memory that holds content from the start, in bytes; at least all working sets are filled.
        content: What filled pages hold.
        rewrite: How much of a page a write changes.
        seed: Begins the guest's random numbers and the content of random bodies.
        phase2_at_s: Seconds after boot at which `phase2` begins; 0 is never.
        phase2: How the guest writes from then on.
        heartbeat_interval_s: Seconds from one beat to the next, from 0.001. Where a beat costs more than 5 % of
            that, the guest stretches it and says so.
        status_interval_s: Seconds from one status line to the next.
        check_sweep_s: Seconds that one check of all filled pages should take.
        check_share_percent: The most CPU time that the check may take, in percent; a sweep takes longer then.
        check_body_word_count: Words of each body that one sweep looks at; the next takes those behind.
        poweroff_at_s: Seconds after boot at which the guest switches itself off; 0 is never.
        reset_at_s: Likewise, resets itself.
        suspend_at_s: Likewise, goes to sleep (ACPI S3); woken, it goes on.

    Raises:
        PlanError: When a value is out of range or two contradict.
    """

    fill_bytes: int = 0
    content: Content = Content.ENDS
    rewrite: Rewrite = Rewrite.ENDS
    seed: int = 1
    phase2_at_s: float = 0.0
    phase2: Phase | None = None
    heartbeat_interval_s: float = 0.01
    status_interval_s: float = 1.0
    check_sweep_s: float = 2.0
    check_share_percent: int = 20
    check_body_word_count: int = 4
    poweroff_at_s: float = 0.0
    reset_at_s: float = 0.0
    suspend_at_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _within("fill_bytes", self.fill_bytes, 0, _ADDRESSABLE_BYTES)
        _within("seed", self.seed, 0, 2**32 - 1)
        _within("heartbeat_interval_s", self.heartbeat_interval_s, 0.001, 60)
        _within("status_interval_s", self.status_interval_s, 0.01, 3600)
        _within("check_sweep_s", self.check_sweep_s, 0.001, 3600)
        _within("check_share_percent", self.check_share_percent, 1, 90)
        _within("check_body_word_count", self.check_body_word_count, 1, 1016)
        for name in ("phase2_at_s", "poweroff_at_s", "reset_at_s", "suspend_at_s"):
            _within(name, getattr(self, name), 0, _TIME_MOST_S)
        if (self.phase2 is None) != (self.phase2_at_s == 0):
            raise PlanError("phase2 and phase2_at_s go together: give both or neither")

    @property
    def filled_bytes(self) -> int:
        """The memory that holds content after boot, in bytes, as far as whole pages allow."""
        sets = [self.fill_bytes, self.working_set_bytes, self.phase2.working_set_bytes if self.phase2 else 0]
        return -(-max(sets) // PAGE_BYTES) * PAGE_BYTES

    def check_fits(self, memory_bytes: int) -> None:
        """Sees that a guest of `memory_bytes` can hold the filled memory.

        The guest says the same itself, but only once it runs. Of memory above 4 GiB nothing can be used; how much
        lies below depends on the machine type (3 GiB on ``pc``; on ``q35`` with more than 2.75 GiB, 2 GiB).

        Raises:
            PlanError: When it can't; the message says how much it can hold.
        """
        most_bytes = usable_bytes(memory_bytes)
        if self.filled_bytes > most_bytes:
            raise PlanError(
                f"a guest of {format_size(memory_bytes)} can't hold {format_size(self.filled_bytes)} of content: "
                f"{most_bytes} bytes at most"
            )

    def parameters(self) -> dict[str, str]:
        """Returns the guest's own names and values, its units (ms, bytes) included."""
        named = super().parameters()
        if self.phase2 is not None:
            named |= {f"phase2_{name}": value for name, value in self.phase2.parameters().items()}
        return named | {
            "phase2_at_ms": _milliseconds(self.phase2_at_s),
            "fill_bytes": str(self.fill_bytes),
            "content": str(self.content),
            "rewrite": str(self.rewrite),
            "seed": str(self.seed),
            "heartbeat_interval_ms": _milliseconds(self.heartbeat_interval_s),
            "status_interval_ms": _milliseconds(self.status_interval_s),
            "check_sweep_ms": _milliseconds(self.check_sweep_s),
            "check_share_percent": str(self.check_share_percent),
            "check_body_words": str(self.check_body_word_count),
            "poweroff_at_ms": _milliseconds(self.poweroff_at_s),
            "reset_at_ms": _milliseconds(self.reset_at_s),
            "suspend_at_ms": _milliseconds(self.suspend_at_s),
        }

    def fw_cfg_argument(self) -> str:
        """Returns what follows ``-fw_cfg`` on QEMU's command line; needs no quoting in a shell."""
        text = ":".join(f"{name}={value}" for name, value in self.parameters().items())
        return f"name=opt/livemig,string={text}"


def usable_bytes(memory_bytes: int) -> int:
    """Returns how much of a guest's memory below 4 GiB can hold pages, in bytes."""
    free_bytes = max(0, memory_bytes - _DATA_END)
    page_count = free_bytes // (PAGE_BYTES + _TABLE_BYTES_PER_PAGE)
    table_bytes = -(-page_count * _TABLE_BYTES_PER_PAGE // PAGE_BYTES) * PAGE_BYTES
    if table_bytes + page_count * PAGE_BYTES > free_bytes:
        page_count -= 1
    return page_count * PAGE_BYTES


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise PlanError(f"{name} is {value}: it must be from {least} to {most}")


def _milliseconds(duration_s: float) -> str:
    return str(round(duration_s * 1000))
