"""A trace read back is what was written; what is no trace is refused with its line, whatever it is."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core import event as events
from livemig.core import inputs
from livemig.core.action import (
    Action,
    Cancel,
    ContinueSwitchover,
    SetBandwidth,
    SetDowntimeLimit,
    SetSwitchoverBandwidth,
    Settle,
    Yank,
)
from livemig.core.errors import TraceError
from livemig.core.event import DestinationLaunched
from livemig.core.observation import CompressionThreads, Observation, SocketAddress, XbzrleCache
from livemig.core.phases import Phase
from livemig.core.plan import AtDeadline, Plan, PlanChange
from livemig.core.policy import Decision
from livemig.core.prediction import Forecast
from livemig.core.rounds import Round
from livemig.core.status import MigrationStatus, RunState
from livemig.core.trace import (
    TRACE_VERSION,
    DecisionRecord,
    EventRecord,
    InputRecord,
    TraceHeader,
    TraceRecord,
    decode_trace,
    encode_record,
    worth_recording,
)

SMALL = Observation(time_s=0.25, status=MigrationStatus.ACTIVE, status_text="active", sent_bytes=2**40)
FULL = Observation(
    time_s=1.5,
    status=MigrationStatus.UNKNOWN,
    status_text="what-comes-next",
    total_s=1.25,
    error_text='it said "no" Ωμέγα\n',
    blocked_reasons=("a", "b"),
    remaining_bytes=0,
    throughput_bytes_s=1e11 / 3,
    xbzrle=XbzrleCache(
        cache_size_bytes=1,
        sent_bytes=2,
        page_count=3,
        miss_count=4,
        miss_ratio=0.5,
        encoding_ratio=2.0**64,
        overflow_count=5,
    ),
    compression=CompressionThreads(
        page_count=1, busy_count=2, busy_ratio=0.1, compressed_bytes=3, compression_ratio=4.5
    ),
    postcopy_vcpu_blocktimes_s=(0.1, 0.2),
    postcopy_latency_counts=(1, 2, 3),
    socket_addresses=(SocketAddress(kind="inet", host="::1", port=4444), SocketAddress(kind="unix", path="/x")),
)
FORECAST = Forecast(
    at="start",
    time_s=0.0,
    converges=0.97,
    keeps_limit=1.0,
    total_s=(1.0, 2.0, 3.0),
    downtime_s=(0.01, 0.02, 0.03),
    sent_bytes=(1e6, 2e6, 3e6),
    basis="3 samples",
)
ROUND = Round(
    number=1,
    start_s=0.0,
    duration_s=1.0,
    sent_bytes=2,
    newly_dirtied_bytes=3,
    remaining_bytes=4,
    throughput_bytes_s=2.0,
)

INPUTS: list[inputs.Input] = [
    inputs.Prepared(time_s=-0.1, memory_bytes=2**28),
    inputs.Observed(time_s=0.25, observation=SMALL),
    inputs.Observed(time_s=1.5, observation=FULL),
    *(inputs.StatusSeen(time_s=1.0, status=status) for status in MigrationStatus),
    inputs.SourceStopped(time_s=2.0),
    inputs.SourceResumed(time_s=2.0),
    *(inputs.RunStateSeen(time_s=2.0, run_state=run_state) for run_state in RunState),
    inputs.Tick(time_s=1e-9),
    inputs.Tuned(time_s=3.0, change=PlanChange()),
    inputs.Tuned(time_s=3.0, change=PlanChange(downtime_limit_s=0.1, deadline_s=5.0, at_deadline=AtDeadline.PAUSE)),
    inputs.CancelRequested(time_s=4.0, reason="Ctrl-C"),
    inputs.PeerLost(time_s=4.0, side="destination"),
    inputs.ActionRefused(time_s=4.0, action="cancel", reason="no answer"),
]
ACTIONS: list[Action] = [
    SetDowntimeLimit(downtime_limit_s=0.288),
    SetBandwidth(bandwidth_bytes_s=1e6),
    SetBandwidth(bandwidth_bytes_s=None),
    SetSwitchoverBandwidth(bandwidth_bytes_s=1e8),
    SetSwitchoverBandwidth(bandwidth_bytes_s=None),
    ContinueSwitchover(),
    Cancel(),
    Yank(),
    Settle(),
]
EVENTS: list[events.Event] = [
    events.Prepared(
        time_s=-0.1,
        id="a1",
        guest_name="",
        memory_bytes=1,
        source="unix:a",
        destination="unix:b",
        source_version="10.0.2",
        destination_version="11.1.3",
        channel="UNIX socket",
        downtime_limit_s=0.3,
        fixed_downtime_s=0.012,
    ),
    events.DestinationLaunched(time_s=-0.05, command="qemu-system-x86_64 -S", changes=("-name: a to b",)),
    events.Progressed(
        time_s=1.0,
        phase=Phase.PRECOPY,
        progress=0.5,
        round_number=1,
        remaining_bytes=2,
        sent_bytes=3,
        throughput_bytes_s=None,
        newly_dirtied_bytes_s=None,
        expected_downtime_s=None,
        downtime_limit_s=0.3,
    ),
    events.RoundCompleted(time_s=1.0, round=ROUND, expected_downtime_s=0.1, downtime_limit_s=0.3),
    events.Decided(time_s=1.0, phase=Phase.SETUP, actions=tuple(ACTIONS), reason="so"),
    events.Forecasted(time_s=1.0, forecast=FORECAST),
    events.Sampled(time_s=-1.0, passed_s=1.0, wanted_s=15.0),
    events.Warned(time_s=1.0, text="look"),
    events.SourceStopped(time_s=1.0),
    events.DestinationRunning(time_s=1.0, downtime_s=None, run_state="paused"),
    events.Settling(time_s=1.0, step="cancel", reason="so"),
    events.SourceRetired(time_s=1.0, kept=True),
    events.Ended(
        time_s=1.0,
        id="a1",
        outcome="completed",
        running_on="destination",
        guest_state="running",
        total_s=1.0,
        downtime_s=0.02,
        qemu_downtime_s=None,
        sent_bytes=1,
        round_count=2,
        warnings=("one",),
        reason="because",
    ),
]
HEADER = TraceHeader(
    version=TRACE_VERSION,
    livemig_version="0.1.0",
    id="a1",
    started_at="2026-01-01T00:00:00.000+00:00",
    plan=Plan(bandwidth_bytes_s=5e6, deadline_s=60.0, at_deadline=AtDeadline.PAUSE, fixed_downtime_s=0.01),
)
RECORDS: list[TraceRecord] = [
    HEADER,
    *(InputRecord(input=one) for one in INPUTS),
    *(DecisionRecord(decision=Decision(phase=phase)) for phase in Phase),
    DecisionRecord(decision=Decision(phase=Phase.PRECOPY, actions=tuple(ACTIONS), reason="all at once")),
    *(EventRecord(event=one) for one in EVENTS),
]
LINES = [encode_record(record) for record in RECORDS]


@pytest.mark.parametrize(
    ("union", "samples"),
    [
        (inputs.Input, INPUTS),
        (Action, ACTIONS),
        (events.Event, EVENTS),
        (TraceRecord, RECORDS),
    ],
    ids=["inputs", "actions", "events", "records"],
)
def test_there_is_a_sample_of_every_kind(union: Any, samples: list[Any]):
    """A new kind without a sample here would be one that nobody saw read back."""
    assert {type(one) for one in samples} == set(get_args(union))


@pytest.mark.parametrize("record", RECORDS[1:], ids=lambda record: type(record).__name__)
def test_every_record_is_read_back_as_it_was_written(record):
    """One line each, equal in value and in type."""
    line = encode_record(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert list(decode_trace([LINES[0], line])) == [HEADER, record]


def test_a_whole_trace_is_read_back():
    """All kinds in one file, in order."""
    assert list(decode_trace(LINES)) == RECORDS


def test_every_line_says_what_it_is():
    """A reader of the lines needs no livemig: each names its kind, and what it carries names its own."""
    for line, record in zip(LINES, RECORDS, strict=True):
        shown = msgspec.json.decode(line)
        expected = {TraceHeader: "header", InputRecord: "input", DecisionRecord: "decision", EventRecord: "event"}
        assert shown["record"] == expected[type(record)]
        if isinstance(record, InputRecord):
            assert shown["input"]["type"]
        if isinstance(record, EventRecord):
            assert shown["event"]["event"]


def test_only_decisions_that_act_or_speak_are_worth_a_line():
    """The policy is asked at each tick; most answers say nothing."""
    assert not worth_recording(Decision(phase=Phase.PRECOPY))
    assert worth_recording(Decision(phase=Phase.PRECOPY, reason="so"))
    assert worth_recording(Decision(phase=Phase.PRECOPY, actions=(Cancel(),)))


def test_a_newer_trace_may_say_more():
    """A field that this version does not know is passed over."""
    line = LINES[1].replace(b'"memory_bytes"', b'"more":[1,{"a":2}],"memory_bytes"')
    assert list(decode_trace([LINES[0], line])) == RECORDS[:2]


def refusal(lines: list[bytes]) -> TraceError:
    """The error that reading these lines ends in."""
    with pytest.raises(TraceError) as caught:
        list(decode_trace(lines))
    return caught.value


def test_another_version_is_refused_before_anything_else_is_read():
    """Its header may hold other fields; both versions are named."""
    error = refusal([b'{"record":"header","version":3,"something":"else"}\n'])
    assert str(error) == "the trace is of version 3, this livemig reads version 2"
    assert error.line_number == 1


def test_a_cut_line_is_named():
    """A controller that was killed leaves half a line: all before it was read."""
    read: list[TraceRecord] = []
    with pytest.raises(TraceError, match="the trace is cut short in line 3") as caught:
        read.extend(decode_trace([*LINES[:2], LINES[2][:-1]]))
    assert caught.value.line_number == 3
    iterator = decode_trace([*LINES[:2], LINES[2][:20]])
    assert [next(iterator), next(iterator)] == RECORDS[:2]


@pytest.mark.parametrize(
    ("lines", "message", "line_number"),
    [
        ([], "the trace is empty", 1),
        ([b"\n"], "this is no livemig trace", 1),
        ([b"hello\n"], "this is no livemig trace", 1),
        ([b"\x7fELF\xff\n"], "this is no livemig trace", 1),
        ([b"[1,2]\n"], "this is no livemig trace", 1),
        ([LINES[1]], "this is no livemig trace", 1),
        ([b'{"record":"input","version":1}\n'], "its first line is no header", 1),
        ([LINES[0][:-1]], "cut short in line 1", 1),
        ([b'{"record":"header","version":2}\n'], "line 1 is no trace record: Object missing required field", 1),
        ([LINES[0].replace(b'"downtime_limit_s":0.3', b'"downtime_limit_s":0')], "downtime limit 0 us is out of", 1),
        ([LINES[0], LINES[0]], "line 2: the header must be the first line, and only that", 2),
        ([LINES[0], LINES[1], b"{}\n"], "line 3 is no trace record", 3),
        ([LINES[0], b"\n"], "line 2 is no trace record", 2),
        ([LINES[0], b'{"record":"rumour"}\n'], "line 2 is no trace record", 2),
        ([LINES[0], b'{"record":"input","input":{"type":"tick","time_s":NaN}}\n'], "line 2 is no trace record", 2),
        ([LINES[0], b'{"record":"input","input":{"type":"tick","time_s":1e999}}\n'], "line 2 is no trace record", 2),
        (
            [LINES[0], b'{"record":"input","input":{"type":"tick","time_s":1,"x":' + b"[" * 10**5 + b"\n"],
            "line 2 is",
            2,
        ),
        ([b'{"record":"header","version":1,"x":' + b"[" * 10**5 + b"\n"], "this is no livemig trace", 1),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value)[:40],
)
def test_what_is_no_trace_is_refused(lines, message, line_number):
    """Each with its line and in words; brackets without end are no way to break it."""
    error = refusal(lines)
    assert message in str(error)
    assert error.line_number == line_number


@given(st.lists(st.binary(max_size=60)))
@settings(max_examples=50, deadline=None)
def test_garbage_raises_nothing_but_a_trace_error(lines):
    """Any bytes at all."""
    with pytest.raises(TraceError):
        list(decode_trace(lines))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_trace_is_read_or_refused(data):
    """Bytes flipped, lines lost, doubled or moved: every record that still comes out is a record."""
    lines = [LINES[0], *data.draw(st.lists(st.sampled_from(LINES), min_size=1, max_size=6))]
    damaged = bytearray(b"".join(lines))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read: list[TraceRecord] = []
    try:
        read.extend(decode_trace(bytes(damaged).splitlines(keepends=True)))
    except TraceError as error:
        assert error.line_number >= 1  # noqa: PT017
    assert all(isinstance(record, get_args(TraceRecord)) for record in read)


def test_a_name_that_is_no_unicode_is_written_out():
    """A file's name may hold any byte; the trace has it readable, and stays JSON."""
    event = DestinationLaunched(time_s=0.0, command="qemu a\udcff.img", changes=("x\udcfe -> y",))
    (_, record) = decode_trace([encode_record(HEADER), encode_record(EventRecord(event=event))])
    assert isinstance(record, EventRecord)
    assert record.event == DestinationLaunched(time_s=0.0, command="qemu a\\udcff.img", changes=("x\\udcfe -> y",))
