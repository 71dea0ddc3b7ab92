"""The lines that the built-in guest writes on its serial port, from bytes to typed records.

Pure: reads no clock and no socket. docs/guest.md has the format. A line begins with a capital letter and has
no other, so the rest of a line that was cut at the front is never taken for another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import StrEnum

import msgspec

__all__ = [
    "Banner",
    "Beat",
    "Failure",
    "Fault",
    "FaultKind",
    "LineParser",
    "Notice",
    "Ready",
    "Record",
    "Status",
    "Unreadable",
    "Verdict",
]

LINE_BYTES_LIMIT = 1024
"""The guest's longest line has 320 characters: what is longer is no line of its."""


class FaultKind(StrEnum):
    """What is wrong with a page, or with what the guest knows of it."""

    STALE = "stale"
    """An older generation of the page: a write to it was lost."""
    NEWER = "newer"
    """A newer generation than the table has: the table's page is stale."""
    TORN = "torn"
    """Its first and last 16 bytes are of different generations."""
    LOST = "lost"
    """Zeros where content was."""
    FOREIGN = "foreign"
    """Another page's content."""
    CORRUPT = "corrupt"
    """Its ends make no sense, or a page that must be zero is not."""
    BODY = "body"
    """The ends are right; a word between them is not. `expected` and `found` are that word."""
    TABLE = "table"
    """A page of the generation table against its sum. `page_index` counts the table's pages."""
    TOTAL = "total"
    """The sums of the table against the number of writes."""
    UNKNOWN = "unknown"
    """A kind that this livemig does not know."""

    @classmethod
    def _missing_(cls, _value: object) -> FaultKind:
        return cls.UNKNOWN


class Banner(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's first line.

    Attributes:
        version: Of the line format.
        at_boot: Whether it began just now; False when it only answers a host that asked.
        ram_bytes: The machine's memory, in bytes.
        usable_bytes: The part of it that pages can be in, in bytes: below 4 GiB, without the guest's own.
        page_base: Address of page 0.
        table_base: Address of the generation table, 4 bytes for each page.
        sum_base: Address of that table's sums, 4 bytes for each of its pages.
        tsc_hz: The time stamp counter's measured frequency.
    """

    version: int
    at_boot: bool
    ram_bytes: int
    usable_bytes: int
    page_base: int
    table_base: int
    sum_base: int
    tsc_hz: float


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The memory is filled and the ceiling known: the workload begins.

    Attributes:
        time_s: The guest's time, in seconds after its boot.
        fill_bytes: Memory that holds content and is checked, in bytes.
        fill_s: How long filling it took, in seconds.
        ceiling_bytes_s: The most it can dirty, in bytes per second, beats and checks going on.
        beat_cost_s: CPU time of one beat, in seconds.
        heartbeat_interval_s: What it keeps; longer than asked if a beat would cost more than 5 % of it.
    """

    time_s: float
    fill_bytes: int
    fill_s: float
    ceiling_bytes_s: int
    beat_cost_s: float
    heartbeat_interval_s: float


class Beat(msgspec.Struct, frozen=True):
    """One heartbeat. The counter begins at 1 and never goes back or repeats, but by a reset.

    Attributes:
        counter: Of this beat.
    """

    counter: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The guest's account, by default once a second.

    Attributes:
        time_s: The guest's time, in seconds after its boot.
        rate_bytes_s: Page writes times 4096 since the last status, in bytes per second.
        write_count: Page writes since boot.
        beat_count: Beats since boot.
        checked_page_count: Page checks since boot.
        sweep_count: Checks of all filled memory that were finished.
        fault_count: Faults found since boot.
        dropped_line_count: Lines that were not sent because nobody read.
    """

    time_s: float
    rate_bytes_s: int
    write_count: int
    beat_count: int
    checked_page_count: int
    sweep_count: int
    fault_count: int
    dropped_line_count: int


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong in memory; the guest has repaired it, so each is named once.

    Attributes:
        kind: What is wrong.
        page_index: The page, counted from `Banner.page_base`; for `FaultKind.TABLE` the table's page.
        address: Guest-physical address of the page, or of the wrong word.
        expected: The generation that must be there; for a body the word, for table and total the sum.
        found: What is there instead.
        found_by: ``write``, ``check`` or ``verdict``.
        time_s: The guest's time, in seconds after its boot.
    """

    kind: FaultKind
    page_index: int
    address: int
    expected: int
    found: int
    found_by: str
    time_s: float


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the host's question whether all memory is right.

    Attributes:
        all_bodies: Whether each byte was looked at; False when of bodies only a sample.
        page_count: Pages that were looked at: all filled ones.
        bad_count: Faults that this look found.
        fault_count: Faults found since boot, these included.
        beat_count: Beats since boot.
        sweep_count: Finished background checks since boot.
        write_count: Page writes since boot.
        generation_sum: The sum of all generations modulo 2^32.
        duration_s: How long the look took, in seconds.
        time_s: The guest's time, in seconds after its boot.
    """

    all_bodies: bool
    page_count: int
    bad_count: int
    fault_count: int
    beat_count: int
    sweep_count: int
    write_count: int
    generation_sum: int
    duration_s: float
    time_s: float

    @property
    def good(self) -> bool:
        """Whether nothing was ever wrong, neither now nor since boot."""
        return self.bad_count == 0 and self.fault_count == 0


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something the guest does now.

    Attributes:
        event: ``phase2``, ``set``, ``poweroff``, ``reset``, ``suspend``, ``wake``, ``heartbeat_stretched`` or
            ``no_power_management``.
        time_s: The guest's time, in seconds after its boot.
    """

    event: str
    time_s: float


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The guest can't do what it was told, and at boot stands still then.

    Attributes:
        error: What is wrong, such as ``unknown_parameter`` or ``memory_too_small``.
        facts: What belongs to it, as the guest named it.
    """

    error: str
    facts: Mapping[str, str]

    def __str__(self) -> str:
        facts = " ".join(f"{name}={value}" for name, value in self.facts.items())
        return f"{self.error} {facts}".strip()


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """No line of the guest's: usually the rest of one that was cut by connecting, or by a switchover.

    Attributes:
        text: What it read, shortened.
        first: Whether it was the stream's first line, where that is normal.
    """

    text: str
    first: bool


Record = Banner | Ready | Beat | Status | Fault | Verdict | Notice | Failure | Unreadable


class LineParser:
    """Takes the stream in any pieces and returns the records that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._first = True
        self._skipping = False

    @property
    def rest(self) -> bytes:
        """What came after the last whole line."""
        return self._rest

    def feed(self, data: bytes) -> list[Record]:
        """Returns the records that end in `data`, in their order."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        records = [record for line in lines if (record := self._line(line)) is not None]
        if len(self._rest) > LINE_BYTES_LIMIT:
            if not self._skipping:
                records.append(self._unreadable(self._rest))
            self._skipping = True
            self._rest = b""
        return records

    def _line(self, line: bytes) -> Record | None:
        if line == _CUT_MARK:
            return None
        if self._skipping:  # the end of a line that was too long and has been told of
            self._skipping = False
            return None
        record = parse_line(line)
        if record is None:
            return self._unreadable(line)
        self._first = False
        return record

    def _unreadable(self, line: bytes) -> Unreadable:
        first, self._first = self._first, False
        return Unreadable(text=line[:100].decode("ascii", "replace"), first=first)


_CUT_MARK = b"!"
"""What the guest sends first at its boot, so that a line that a reset cut is none."""
_BEAT = re.compile(rb"B(\d{1,10})\Z")
_LINE = re.compile(rb"([LCRFVNE])((?: [a-z0-9_]+=[a-z0-9_?]*)+)\Z")


def parse_line(line: bytes) -> Record | None:
    """Returns what a line without its newline says, or None when it is none of the guest's."""
    if beat := _BEAT.match(line):
        return Beat(int(beat[1]))
    match = _LINE.match(line)
    if match is None:
        return None
    fields = dict(field.split("=", 1) for field in match[2].decode("ascii").split())
    try:
        return _READERS[match[1].decode("ascii")](fields)
    except (KeyError, ValueError):
        return None


def _banner(fields: dict[str, str]) -> Banner:
    return Banner(
        version=int(fields["version"]),
        at_boot=fields["boot"] == "1",
        ram_bytes=int(fields["ram_bytes"]),
        usable_bytes=int(fields["usable_bytes"]),
        page_base=int(fields["page_base"], 16),
        table_base=int(fields["table_base"], 16),
        sum_base=int(fields["sum_base"], 16),
        tsc_hz=int(fields["tsc_khz"]) * 1e3,
    )


def _ready(fields: dict[str, str]) -> Ready:
    return Ready(
        time_s=int(fields["time_ms"]) / 1e3,
        fill_bytes=int(fields["fill_bytes"]),
        fill_s=int(fields["fill_ms"]) / 1e3,
        ceiling_bytes_s=int(fields["ceiling_bytes_s"]),
        beat_cost_s=int(fields["beat_cost_us"]) / 1e6,
        heartbeat_interval_s=int(fields["heartbeat_us"]) / 1e6,
    )


def _status(fields: dict[str, str]) -> Status:
    return Status(
        time_s=int(fields["time_ms"]) / 1e3,
        rate_bytes_s=int(fields["rate_bytes_s"]),
        write_count=int(fields["writes"]),
        beat_count=int(fields["beats"]),
        checked_page_count=int(fields["checked"]),
        sweep_count=int(fields["sweeps"]),
        fault_count=int(fields["bad"]),
        dropped_line_count=int(fields["dropped"]),
    )


def _fault(fields: dict[str, str]) -> Fault:
    return Fault(
        kind=FaultKind(fields["kind"]),
        page_index=int(fields["page"]),
        address=int(fields["address"], 16),
        expected=int(fields["expected"]),
        found=int(fields["found"]),
        found_by=fields["by"],
        time_s=int(fields["time_ms"]) / 1e3,
    )


def _verdict(fields: dict[str, str]) -> Verdict:
    return Verdict(
        all_bodies=fields["bodies"] == "all",
        page_count=int(fields["pages"]),
        bad_count=int(fields["bad"]),
        fault_count=int(fields["bad_total"]),
        beat_count=int(fields["beats"]),
        sweep_count=int(fields["sweeps"]),
        write_count=int(fields["writes"]),
        generation_sum=int(fields["generation_sum"]),
        duration_s=int(fields["took_ms"]) / 1e3,
        time_s=int(fields["time_ms"]) / 1e3,
    )


def _notice(fields: dict[str, str]) -> Notice:
    return Notice(event=fields["event"], time_s=int(fields["time_ms"]) / 1e3)


def _failure(fields: dict[str, str]) -> Failure:
    return Failure(error=fields.pop("error"), facts=fields)


_READERS: Mapping[str, Callable[[dict[str, str]], Record]] = {
    "L": _banner,
    "C": _ready,
    "R": _status,
    "F": _fault,
    "V": _verdict,
    "N": _notice,
    "E": _failure,
}
