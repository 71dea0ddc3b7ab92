"""The trace reaches the disk line by line, waits while the guest stands still, and never costs more than itself."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from livemig.core.errors import PlanError
from livemig.core.inputs import Tick
from livemig.core.plan import Plan
from livemig.core.trace import TRACE_VERSION, InputRecord, TraceHeader, TraceRecord, decode_trace, encode_record
from livemig.engine.recorder import HELD_BYTES_MOST, TraceRecorder

HEADER = TraceHeader(version=TRACE_VERSION, livemig_version="0", id="a1", started_at="now", plan=Plan())


def tick(number: int) -> InputRecord:
    """A record, told by its number."""
    return InputRecord(input=Tick(time_s=float(number)))


def read(path: Path) -> list[TraceRecord]:
    """What a reader finds in the file now."""
    with path.open("rb") as lines:
        return list(decode_trace(lines))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "trace.jsonl"


def test_each_record_is_in_the_file_at_once(path):
    """A controller that is killed has lost nothing that it wrote."""
    recorder = TraceRecorder(path)
    recorder.write(HEADER)
    assert read(path) == [HEADER]
    recorder.write(tick(1))
    assert read(path) == [HEADER, tick(1)]
    recorder.close()
    assert recorder.failure is None


def test_while_held_nothing_touches_the_disk(path):
    """The guest stands still: what comes waits in memory, and is written in order on release."""
    recorder = TraceRecorder(path)
    recorder.write(HEADER)
    recorder.hold()
    for number in range(100):
        recorder.write(tick(number))
    assert read(path) == [HEADER]
    recorder.release()
    assert read(path) == [HEADER, *map(tick, range(100))]
    recorder.write(tick(100))
    assert read(path)[-1] == tick(100)
    recorder.close()


def test_what_is_held_is_bounded(path):
    """A switchover that lasts for ever does not fill the memory."""
    recorder = TraceRecorder(path)
    recorder.write(HEADER)
    recorder.hold()
    size_bytes = len(encode_record(tick(1)))
    for _ in range(HELD_BYTES_MOST // size_bytes + 1):
        recorder.write(tick(1))
    assert path.stat().st_size > HELD_BYTES_MOST
    recorder.close()


def test_close_writes_what_was_held(path):
    """The end of a run loses nothing, also when it is closed twice or written to afterwards."""
    recorder = TraceRecorder(path)
    recorder.write(HEADER)
    recorder.hold()
    recorder.write(tick(1))
    recorder.close()
    recorder.close()
    recorder.write(tick(2))
    recorder.release()
    assert read(path) == [HEADER, tick(1)]
    assert recorder.failure is None


def test_an_old_trace_is_replaced(path):
    """A trace is of one run."""
    path.write_bytes(b"old\n" * 1000)
    recorder = TraceRecorder(path)
    recorder.write(HEADER)
    recorder.close()
    assert read(path) == [HEADER]


@pytest.mark.parametrize("old", [None, b"old\n"])
def test_a_run_that_never_began_leaves_the_file_as_it_was(path, old):
    """Refused: an older trace is not lost, and no empty file is left in its place."""
    if old is not None:
        path.write_bytes(old)
    recorder = TraceRecorder(path)
    recorder.hold()
    recorder.write(HEADER)
    recorder.discard()
    assert (path.read_bytes() if path.exists() else None) == old


def test_a_full_disk_costs_the_trace_and_is_said():
    """/dev/full takes nothing: no write raises, and the failure says why."""
    recorder = TraceRecorder(Path("/dev/full"))
    recorder.write(HEADER)
    assert recorder.failure == "the trace could not be written on: No space left on device"
    recorder.write(tick(1))
    recorder.hold()
    recorder.write(tick(2))
    recorder.release()
    recorder.close()
    assert recorder.failure == "the trace could not be written on: No space left on device"


def test_a_disk_that_fills_up_within_a_record_is_noticed(path):
    """The system takes a part of the line and no error: half a line with no word would be a lie."""
    recorder = TraceRecorder(path)
    recorder.write(HEADER)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        recorder.write(tick(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert recorder.failure == "the trace could not be written on: File too large"
    recorder.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("no/such/folder", "No such file or directory"), ("", "Is a directory")],
    ids=["folder", "file"],
)
def test_a_path_that_can_not_be_written_is_refused(tmp_path, name, reason):
    """Before anything is touched, with the path, the reason and the remedy."""
    with pytest.raises(PlanError) as caught:
        TraceRecorder(tmp_path / name)
    assert str(caught.value) == f"the trace {tmp_path / name} can't be written: {reason}; name another file"
