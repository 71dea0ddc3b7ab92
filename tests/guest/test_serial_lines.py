"""The parser of the guest's lines: every kind, in any pieces, cut anywhere."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.lab.serial_lines import (
    Banner,
    Beat,
    Failure,
    Fault,
    FaultKind,
    LineParser,
    Notice,
    Ready,
    Record,
    Status,
    Unreadable,
    Verdict,
    parse_line,
)

LINES: dict[str, Record] = {
    "L version=1 boot=1 ram_bytes=67108864 usable_bytes=65937408 page_base=0x0011e000 "
    "table_base=0x0010e000 sum_base=0x00104000 tsc_khz=2596070": Banner(
        version=1,
        at_boot=True,
        ram_bytes=67108864,
        usable_bytes=65937408,
        page_base=0x11E000,
        table_base=0x10E000,
        sum_base=0x104000,
        tsc_hz=2596070000.0,
    ),
    "C time_ms=140 fill_bytes=16777216 fill_ms=75 ceiling_bytes_s=45370744409 beat_cost_us=4 heartbeat_us=10000": Ready(
        time_s=0.14,
        fill_bytes=16777216,
        fill_s=0.075,
        ceiling_bytes_s=45370744409,
        beat_cost_s=4e-6,
        heartbeat_interval_s=0.01,
    ),
    "B4294967295": Beat(4294967295),
    "R time_ms=1140 rate_bytes_s=4324 writes=11 beats=114 checked=2174 sweeps=3 bad=1 dropped=2": Status(
        time_s=1.14,
        rate_bytes_s=4324,
        write_count=11,
        beat_count=114,
        checked_page_count=2174,
        sweep_count=3,
        fault_count=1,
        dropped_line_count=2,
    ),
    "F kind=stale page=100 address=0x00192000 expected=563 found=560 by=write time_ms=738": Fault(
        kind=FaultKind.STALE,
        page_index=100,
        address=0x192000,
        expected=563,
        found=560,
        found_by="write",
        time_s=0.738,
    ),
    "V bodies=all pages=2048 bad=0 bad_total=1 beats=77 sweeps=5 writes=576658 generation_sum=576658 "
    "took_ms=5 time_ms=746": Verdict(
        all_bodies=True,
        page_count=2048,
        bad_count=0,
        fault_count=1,
        beat_count=77,
        sweep_count=5,
        write_count=576658,
        generation_sum=576658,
        duration_s=0.005,
        time_s=0.746,
    ),
    "N event=poweroff time_ms=3639": Notice(event="poweroff", time_s=3.639),
    "E error=bad_value name=working_set_bytes value=8?": Failure(
        error="bad_value", facts={"name": "working_set_bytes", "value": "8?"}
    ),
}
STREAM = "".join(f"{line}\n" for line in LINES).encode()


@pytest.mark.parametrize(("line", "record"), LINES.items(), ids=[line[0] for line in LINES])
def test_each_kind_of_line_is_read(line: str, record: Record) -> None:
    """Every field arrives, in SI units."""
    assert record == parse_line(line.encode())


@given(st.lists(st.integers(0, len(STREAM))))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    """However the stream is cut into pieces, the records are the same."""
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = LineParser()

    records = [record for start, end in itertools.pairwise(edges) for record in parser.feed(STREAM[start:end])]

    assert list(LINES.values()) == records
    assert parser.rest == b""


@given(st.integers(1, len(STREAM) - 1))
def test_a_stream_that_begins_within_a_line(start: int) -> None:
    """What is left of the first line is never taken for a record; all behind it is read."""
    whole_lines = STREAM[start:].count(b"\n") - (STREAM[start - 1] != ord("\n"))

    records = LineParser().feed(STREAM[start:])

    whole = list(LINES.values())[len(LINES) - whole_lines :]
    assert whole == [record for record in records if not isinstance(record, Unreadable)]
    assert all(record.first for record in records if isinstance(record, Unreadable))


@given(st.binary(max_size=5000))
def test_garbage_is_no_record_and_takes_no_memory(data: bytes) -> None:
    """Anything may come: what is kept is bounded, and a good line behind it is still read."""
    parser = LineParser()

    parser.feed(data.replace(b"B", b"b"))
    records = parser.feed(b"\nB7\n")

    assert Beat(7) == records[-1]
    assert len(parser.rest) <= 1024


def test_a_line_cut_by_a_reset_is_none() -> None:
    """The guest ends it with a mark before its banner: half a counter is not taken for a whole one."""
    records = LineParser().feed(b"B123\nB1!\nB1\n!\nB2\n")

    assert records == [Beat(123), Unreadable(text="B1!", first=False), Beat(1), Beat(2)]


def test_a_line_that_never_ends_is_told_once() -> None:
    """Its pieces are dropped, and the line behind it is read."""
    parser = LineParser()

    told = [record for _ in range(100) for record in parser.feed(b"x" * 999)]

    assert len(told) == 1
    assert [Beat(1)] == parser.feed(b"x\nB1\n")


@pytest.mark.parametrize(
    "line", [b"", b"B", b"B-1", b"B1 ", b"R", b"R time_ms=1", b"X a=1", b"R time_ms=x", b"\xff\xfe", b"N event=a\r"]
)
def test_what_is_no_line_is_none(line: bytes) -> None:
    """Half a line, another alphabet, a number that is none."""
    assert parse_line(line) is None


def test_every_fault_of_the_guest_has_a_kind() -> None:
    """The names in the guest's source and here are the same."""
    source = (Path(__file__).parents[2] / "livemig/lab/guest/pages.c").read_text()
    names = re.search(r"fault_names\[\] = \{(.*?)\};", source, re.DOTALL)
    assert names is not None

    assert {kind.value for kind in FaultKind} - {"unknown"} == set(re.findall(r'"(\w+)"', names[1])) - {"none"}
