"""The trace of a run as JSON lines: every input, decision and event. Turns lines into records and back; no files.

A trace holds all that the policy was told, so `livemig.simulation.replay` reproduces its decisions from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from livemig.core.errors import TraceError
from livemig.core.event import Event
from livemig.core.inputs import Input
from livemig.core.json_text import encoded
from livemig.core.plan import Plan
from livemig.core.policy import Decision

TRACE_VERSION = 2


class TraceHeader(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="header"):
    """The first line: what the trace is of.

    Attributes:
        version: The trace format.
        livemig_version: The livemig that wrote it.
        id: The run's id.
        started_at: Wall-clock time of the start, ISO 8601 with zone; all other times are monotonic.
        plan: What the user asked.
    """

    version: int
    livemig_version: str
    id: str
    started_at: str
    plan: Plan


class InputRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="input"):
    """What the policy was told."""

    input: Input


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="decision"):
    """What the policy made of the input before it; left out where it neither acts nor says anything."""

    decision: Decision


class EventRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="event"):
    """What was told to the user."""

    event: Event


TraceRecord = TraceHeader | InputRecord | DecisionRecord | EventRecord

_decoder = msgspec.json.Decoder(TraceRecord)
_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding raises: for what is no JSON or no record, for a plan that makes no sense, for brackets without end."""


class _Version(msgspec.Struct):
    record: str
    version: int


def worth_recording(decision: Decision) -> bool:
    """Whether a decision gets a line: it acts, or says something."""
    return bool(decision.actions or decision.reason)


def encode_record(record: TraceRecord) -> bytes:
    """Returns the record as one line, newline included."""
    return encoded(record) + b"\n"


def decode_trace(lines: Iterable[bytes]) -> Iterator[TraceRecord]:
    """Reads a trace line by line, its header first.

    Raises:
        TraceError: When a line is no record, the header is missing or of another version, or the last line was cut.
    """
    number = 0
    for number, line in enumerate(lines, start=1):
        if number == 1:
            _check_version(line)
        if not line.endswith(b"\n"):
            raise TraceError(f"the trace is cut short in line {number}", line_number=number)
        try:
            record: TraceRecord = _decoder.decode(line)
        except _UNREADABLE as error:
            raise TraceError(f"line {number} is no trace record: {error}", line_number=number) from error
        if isinstance(record, TraceHeader) != (number == 1):
            raise TraceError(f"line {number}: the header must be the first line, and only that", line_number=number)
        yield record
    if number == 0:
        raise TraceError("the trace is empty", line_number=1)


def _check_version(line: bytes) -> None:
    """Looks at the version before anything else of the header is read, since another version may hold other fields."""
    try:
        found = msgspec.json.decode(line, type=_Version)
    except _UNREADABLE as error:
        raise TraceError("this is no livemig trace: its first line is no header", line_number=1) from error
    if found.record != "header":
        raise TraceError("this is no livemig trace: its first line is no header", line_number=1)
    if found.version != TRACE_VERSION:
        raise TraceError(
            f"the trace is of version {found.version}, this livemig reads version {TRACE_VERSION}",
            line_number=1,
        )
