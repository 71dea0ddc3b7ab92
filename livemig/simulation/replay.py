"""Runs a recorded trace through the policy again and compares the decisions. Pure: records in, comparison out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from livemig.core.errors import TraceError
from livemig.core.policy import Decision, Policy
from livemig.core.trace import DecisionRecord, InputRecord, TraceHeader, TraceRecord, worth_recording


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that came out otherwise than recorded.

    Attributes:
        input_number: The input it answers, counted from 1.
        recorded: What the trace holds; None where it holds no decision.
        replayed: What the policy decides now; None where it decides nothing.
    """

    input_number: int
    recorded: Decision | None
    replayed: Decision | None


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found.

    Attributes:
        header: The trace's header.
        input_count: How many inputs were stepped through.
        decisions: The decisions now, each with the number of its input.
        differences: Where they differ from the trace; empty when it is reproduced.
    """

    header: TraceHeader
    input_count: int
    decisions: tuple[tuple[int, Decision], ...]
    differences: tuple[Difference, ...]


def replay(records: Iterable[TraceRecord]) -> Replay:
    """Steps the policy through a trace's inputs.

    Raises:
        TraceError: When there is no header or no input in it.
    """
    header: TraceHeader | None = None
    policy: Policy | None = None
    input_count = 0
    recorded: dict[int, Decision] = {}
    replayed: dict[int, Decision] = {}
    for record in records:
        match record:
            case TraceHeader():
                header, policy = record, Policy(record.plan)
            case InputRecord() if policy is not None:
                input_count += 1
                decision = policy.step(record.input)
                if worth_recording(decision):
                    replayed[input_count] = decision
            case DecisionRecord():
                recorded[input_count] = record.decision
            case _:
                pass
    if header is None or input_count == 0:
        raise TraceError("the trace holds no input: the run ended before it began", line_number=1)
    differences = tuple(
        Difference(input_number=number, recorded=recorded.get(number), replayed=replayed.get(number))
        for number in sorted(recorded.keys() | replayed.keys())
        if recorded.get(number) != replayed.get(number)
    )
    return Replay(
        header=header,
        input_count=input_count,
        decisions=tuple(sorted(replayed.items())),
        differences=differences,
    )
