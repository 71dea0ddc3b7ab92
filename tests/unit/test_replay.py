"""A recorded trace gives the same decisions again; a changed decision is found and named by its input.

The traces in tests/traces were recorded from real migrations. When a decision is changed on purpose, record them anew
(tests/traces/README.md): the diff is what there is to review.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from livemig.core.action import Cancel, SetBandwidth, SetDowntimeLimit, Settle
from livemig.core.errors import TraceError
from livemig.core.event import Forecasted
from livemig.core.inputs import CancelRequested, Input, Observed, Prepared, SourceStopped, StatusSeen, Tick
from livemig.core.observation import Observation
from livemig.core.plan import Plan
from livemig.core.policy import Decision, Policy
from livemig.core.status import MigrationStatus
from livemig.core.trace import (
    TRACE_VERSION,
    DecisionRecord,
    EventRecord,
    InputRecord,
    TraceHeader,
    TraceRecord,
    decode_trace,
    worth_recording,
)
from livemig.simulation.replay import Difference, replay

TRACES = sorted((Path(__file__).parents[1] / "traces").glob("*.jsonl"))
HEADER = TraceHeader(version=TRACE_VERSION, livemig_version="0", id="a1", started_at="now", plan=Plan())
INPUTS: list[Input] = [
    Prepared(time_s=0.0, memory_bytes=2**28),
    StatusSeen(time_s=0.1, status=MigrationStatus.ACTIVE),
    Tick(time_s=0.2),
    Observed(
        time_s=0.3,
        observation=Observation(time_s=0.3, status=MigrationStatus.ACTIVE, throughput_bytes_s=1e6, sent_bytes=1),
    ),
    Tick(time_s=0.4),
    CancelRequested(time_s=0.5, reason="enough"),
    StatusSeen(time_s=0.6, status=MigrationStatus.CANCELLED),
]


def recorded(inputs: list[Input], plan: Plan = HEADER.plan) -> list[TraceRecord]:
    """The trace that an engine would have written."""
    policy = Policy(plan)
    records: list[TraceRecord] = [msgspec.structs.replace(HEADER, plan=plan)]
    for one in inputs:
        decision = policy.step(one)
        records.append(InputRecord(input=one))
        if worth_recording(decision):
            records.append(DecisionRecord(decision=decision))
    return records


def read(path: Path) -> list[TraceRecord]:
    """The records of a file."""
    with path.open("rb") as lines:
        return list(decode_trace(lines))


def test_what_was_recorded_is_reproduced():
    """The same decisions, each by the number of its input; what says nothing is left out."""
    found = replay(recorded(INPUTS))
    assert found.differences == ()
    assert found.header == HEADER
    assert found.input_count == len(INPUTS)
    assert [number for number, _ in found.decisions] == [1, 2, 4, 6, 7]
    assert found.decisions[3][1].actions == (Cancel(),)


def test_the_plan_of_the_trace_is_the_one_that_is_replayed():
    """Its limits, not today's defaults."""
    found = replay(recorded(INPUTS, Plan(downtime_limit_s=1.0, bandwidth_bytes_s=1e6)))
    assert found.differences == ()
    assert SetBandwidth(bandwidth_bytes_s=1e6) in found.decisions[0][1].actions


def test_a_changed_decision_is_found():
    """Another limit, another reason, and nothing else."""
    records = recorded(INPUTS)
    at = next(index for index, record in enumerate(records) if isinstance(record, DecisionRecord))
    first = records[at]
    assert isinstance(first, DecisionRecord)
    for changed in (
        msgspec.structs.replace(first.decision, actions=(SetDowntimeLimit(downtime_limit_s=0.5),)),
        msgspec.structs.replace(first.decision, reason="another"),
        msgspec.structs.replace(first.decision, actions=tuple(reversed(first.decision.actions))),
    ):
        (found,) = replay([*records[:at], DecisionRecord(decision=changed), *records[at + 1 :]]).differences
        assert found == Difference(input_number=1, recorded=changed, replayed=first.decision)


def test_a_decision_that_is_no_longer_made_is_found():
    """The trace holds one where the policy now says nothing."""
    records = recorded(INPUTS)
    at = records.index(InputRecord(input=INPUTS[2]))
    extra = Decision(phase=Policy(Plan()).phase, actions=(Cancel(),), reason="once")
    found = replay([*records[: at + 1], DecisionRecord(decision=extra), *records[at + 1 :]])
    assert found.differences == (Difference(input_number=3, recorded=extra, replayed=None),)


def test_a_decision_that_is_made_newly_is_found():
    """The trace holds none where the policy now acts."""
    records = recorded(INPUTS)
    last = records.pop()
    assert isinstance(last, DecisionRecord)
    found = replay(records)
    assert found.differences == (Difference(input_number=7, recorded=None, replayed=last.decision),)


def test_an_impossible_status_is_replayed_as_it_was_driven():
    """The engine settled there; the replay does not break off, it comes to the same."""
    found = replay(recorded([*INPUTS, StatusSeen(time_s=0.7, status=MigrationStatus.ACTIVE)]))
    assert found.differences == ()
    assert found.decisions[-1][1].actions == (Settle(),)


def test_a_second_attempt_begins_anew():
    """Where the two QEMUs did not come together the first time, the trace holds both, apart."""
    first = [INPUTS[0], Tick(time_s=0.1), StatusSeen(time_s=0.2, status=MigrationStatus.FAILED)]
    both = [*recorded(first), *recorded(INPUTS)[1:]]
    found = replay(both)
    assert found.differences == ()
    assert found.input_count == len(first) + len(INPUTS)
    assert sum(decision.reason.startswith("begin with") for _, decision in found.decisions) == 2
    assert [forecast.at for forecast in found.forecasts] == ["start", "start"]


def test_a_forecast_that_changed_in_the_first_attempt_is_found():
    """That the second one makes its own under the same name hides nothing."""
    attempt = [INPUTS[0], StatusSeen(time_s=0.2, status=MigrationStatus.FAILED)]
    forecast = replay(recorded(attempt)).forecasts[0]
    told = EventRecord(event=Forecasted(time_s=0.0, forecast=forecast))
    other = EventRecord(
        event=Forecasted(time_s=0.0, forecast=msgspec.structs.replace(forecast, total_s=(0.1, 0.2, 0.3)))
    )
    one, two = recorded(attempt), recorded(attempt)[1:]
    assert replay([*one, told, *two, told]).forecast_differences == ()
    (found,) = replay([*one, other, *two, told]).forecast_differences
    assert found.recorded != found.replayed == forecast


@pytest.mark.parametrize(
    "records", [[], [HEADER], [InputRecord(input=Tick(time_s=0.0))]], ids=["none", "header", "input"]
)
def test_a_trace_without_inputs_is_refused(records):
    """A run that was refused leaves a header alone: there is nothing to replay."""
    with pytest.raises(TraceError, match="the trace holds no input"):
        replay(records)


def test_there_are_recorded_traces():
    """The tests below would show nothing without."""
    assert len(TRACES) >= 3


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_recorded_migration_is_reproduced(path):
    """Every decision of a real run comes out again, word for word."""
    records = read(path)
    found = replay(records)
    assert found.differences == ()
    assert len(found.decisions) == sum(isinstance(record, DecisionRecord) for record in records)
    assert isinstance(records[-1], EventRecord)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_recorded_migration_tells_another_policy_apart(path):
    """With a limit that is a tenth the same inputs are decided otherwise: the traces can fail."""
    records = read(path)
    header = records[0]
    assert isinstance(header, TraceHeader)
    plan = msgspec.structs.replace(header.plan, downtime_limit_s=header.plan.downtime_limit_s / 10)
    assert replay([msgspec.structs.replace(header, plan=plan), *records[1:]]).differences


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_recorded_migration_cut_anywhere_and_entered_anew_is_driven_safely(path):
    """A policy that sees only the rest of a real run raises no limit above the user's, cancels nothing after STOP."""
    records = read(path)
    header, inputs = records[0], [record.input for record in records if isinstance(record, InputRecord)]
    assert isinstance(header, TraceHeader)
    for cut in range(1, len(inputs)):
        policy, stopped = Policy(header.plan), False
        for one in inputs[cut:]:
            stopped = stopped or isinstance(one, SourceStopped)
            for action in policy.step(one).actions:
                assert not (stopped and action == Cancel())
                if isinstance(action, SetDowntimeLimit):
                    assert action.downtime_limit_s <= policy.plan.downtime_limit_s or _deadline_over(policy.plan, one)


def _deadline_over(plan: Plan, one: Input) -> bool:
    return plan.deadline_s is not None and one.time_s >= plan.deadline_s and plan.at_deadline == "pause"


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_every_trace_counts_from_1(path: Path):
    """What livemig's rounds stand on, in what 7.2, 10.0 and 11.1 have said."""
    with path.open("rb") as lines:
        inputs = [record.input for record in decode_trace(lines) if isinstance(record, InputRecord)]
    counts = [one.observation.dirty_sync_count for one in inputs if isinstance(one, Observed)]
    assert next(filter(None, counts)) == 1
