"""The outcome table, cell by cell: every run state and status of both sides, with every evidence.

The product has 19^4 readings x 960 evidences = 125 million cells. A verdict depends on a reading only through the
state it folds into, so the 361 readings of each side are checked one by one, and then all 13 x 11 states with all
evidences and, in each cell, every verdict that any set of spent steps can bring up: together that is every cell.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from livemig.core.evidence import (
    LIVE,
    Absence,
    Continuation,
    Evidence,
    Reading,
    Side,
    SourceEnd,
    View,
    learn,
    view_states,
)
from livemig.core.outcome import RULES, Outcome, RunningOn, Situation, Step, Verdict, intend, judge, settle
from livemig.core.readings import DestinationState as D
from livemig.core.readings import SourceState as S
from livemig.core.readings import destination_state, source_state
from livemig.core.status import MigrationStatus, RunState

READINGS = [Reading(state, status) for state in (*RunState, *Absence) for status in (*MigrationStatus, None)]
EVIDENCES = [
    Evidence(
        state_before=state_before,
        continuation=continuation,
        source_end=source_end,
        destination_condemned=condemned,
        guest_shut_down=shut_down,
        cancel_requested=cancel,
        fence_confirmed=fence,
    )
    for state_before in (RunState.RUNNING, RunState.PAUSED)
    for continuation in Continuation
    for source_end in SourceEnd
    for condemned in (False, True)
    for shut_down in (False, True)
    for cancel in (False, True)
    for fence in (None, *Side)
]
KEEPS = (S.RUNS, S.REVIVED, S.COMPLETED, S.UNDONE, S.STANDS)
LIVES = (S.RUNS, S.REVIVED)


def reading(words: str) -> Reading:
    """``running active``, ``gone``, ``postmigrate completed``, …"""
    state, _, status = words.partition(" ")
    if state in ("gone", "unreachable"):
        return Reading(Absence(state))
    return Reading(RunState(state), MigrationStatus(status) if status else None)


@functools.cache
def verdicts(seen: View) -> list[Verdict]:
    """Each verdict that some set of spent steps brings up: a step comes up first when all before it are spent."""
    found, spent = [], frozenset[Step]()
    while True:
        verdict = judge(seen, spent)
        found.append(verdict)
        if verdict.settled:
            return found
        assert verdict.step not in spent
        spent |= {verdict.step}


# What may never be, told in terms of states and evidence alone, apart from the table's own words.


def ran_or_runs(destination: D, evidence: Evidence) -> bool:
    return destination in (D.RUNS, D.POSTCOPY) or evidence.continuation is Continuation.RAN


def proven_not_run(source: S, destination: D, evidence: Evidence) -> bool:
    if ran_or_runs(destination, evidence) or destination is D.UNCLEAR:
        return False
    if evidence.destination_condemned or destination in (D.LISTENING, D.LOADING, D.FAILED):
        return True
    match evidence.continuation:
        case Continuation.NOT_SENT | Continuation.DISPROVED:
            return True
        case Continuation.INTENDED:
            never_completed = source in (S.MOVING, S.SWITCHING, S.ENDING, S.RUNS, S.UNDONE, S.STANDS)
            return never_completed or (source is S.REVIVED and destination is D.GONE)
        case _:
            return source in (S.MOVING, S.RUNS)


def fenced(source: S, destination: D, evidence: Evidence) -> tuple[S, D]:
    if source is S.UNREACHABLE and evidence.fence_confirmed is Side.SOURCE:
        source = S.GONE
    if destination is D.UNREACHABLE and evidence.fence_confirmed is Side.DESTINATION:
        destination = D.GONE
    return source, destination


def allowed(verdict: Verdict, source: S, destination: D, evidence: Evidence) -> bool:
    """Whether the verdict is one that is safe in this cell."""
    unread = source is S.UNCLEAR or destination is D.UNCLEAR
    if unread and verdict.step not in (Step.KEEP_OBSERVING, Step.ASK_A_PERSON):
        moving = source is S.MOVING and evidence.continuation is not Continuation.POSTCOPY
        return moving and verdict.step in (Step.CANCEL, Step.YANK_SOURCE)
    if source is S.POSTCOPY or destination is D.POSTCOPY:
        return verdict.step in (Step.KEEP_OBSERVING, Step.ASK_A_PERSON)
    check = CHECKS[verdict.step]
    return check(verdict, source, destination, evidence)


def check_continue_source(_verdict, source, destination, evidence):
    no_longer_there = destination is D.GONE or evidence.destination_condemned
    ended = evidence.guest_shut_down or destination is D.OFF
    return (
        source in (S.COMPLETED, S.UNDONE)
        and no_longer_there
        and proven_not_run(source, destination, evidence)
        and evidence.state_before in LIVE
        and not ended
    )


def handed_over(source: S, evidence: Evidence, *, ran: bool) -> bool:
    if evidence.destination_condemned or evidence.source_end is SourceEnd.WENT_ON:
        return False
    if source is S.COMPLETED:
        return True
    if source is S.UNREACHABLE:
        after_cont = ran and evidence.continuation in (Continuation.INTENDED, Continuation.RAN)
        return evidence.source_end is SourceEnd.COMPLETED or after_cont
    vouched = evidence.fence_confirmed is Side.SOURCE
    return source is S.GONE and (evidence.source_end is not SourceEnd.UNKNOWN or vouched or ran)


def check_continue_destination(_verdict, source, destination, evidence):
    return (
        destination is D.READY
        and handed_over(source, evidence, ran=False)
        and evidence.state_before in LIVE
        and not evidence.guest_shut_down
    )


def check_end_destination(_verdict, source, destination, evidence):
    if destination is D.RUNS:
        return evidence.destination_condemned and source in LIVES
    if destination in (D.GONE, D.OFF) or not proven_not_run(source, destination, evidence):
        return False
    if source in KEEPS or evidence.guest_shut_down or source is S.OFF:
        return True
    return source in (S.GONE, S.UNREACHABLE) and destination in (D.FAILED, D.LISTENING)


def check_retire_source(_verdict, source, destination, evidence):
    gone = evidence.guest_shut_down or destination is D.OFF
    ended_there = gone and not proven_not_run(source, destination, evidence)
    arrived = evidence.state_before not in LIVE and destination in (D.READY, D.HALTED)
    if source is not S.COMPLETED:
        return False
    return ended_there or (handed_over(source, evidence, ran=False) and (destination is D.RUNS or arrived))


def check_cancel(_verdict, source, destination, evidence):
    if evidence.continuation is Continuation.POSTCOPY:
        return False
    if source is S.SWITCHING:
        return proven_not_run(source, destination, evidence)
    return source is S.MOVING and not ran_or_runs(destination, evidence)


def check_yank_source(_verdict, source, destination, evidence):
    if evidence.continuation is Continuation.POSTCOPY:
        return False
    if source is S.UNREACHABLE:
        return evidence.source_end is SourceEnd.UNKNOWN and not ran_or_runs(destination, evidence)
    in_play = source in (S.MOVING, S.SWITCHING, S.ENDING)
    return in_play and proven_not_run(source, destination, evidence)


def check_yank_destination(_verdict, source, destination, _evidence):
    return destination is D.LOADING and source in (S.GONE, S.UNREACHABLE, S.COMPLETED)


def check_condemn(_verdict, source, destination, evidence):
    went_on = source in (S.GONE, S.UNREACHABLE) and evidence.source_end is SourceEnd.WENT_ON
    return (source in KEEPS or went_on) and proven_not_run(source, destination, evidence)


def check_done(verdict, source, destination, evidence):
    match verdict.outcome, verdict.running_on:
        case Outcome.COMPLETED, RunningOn.DESTINATION:
            there = destination in (D.RUNS, D.READY, D.HALTED)
            seen_there = destination is D.UNREACHABLE and evidence.continuation is Continuation.RAN
            ran = ran_or_runs(destination, evidence)
            return (there or seen_there) and handed_over(source, evidence, ran=ran)
        case ((Outcome.FAILED | Outcome.CANCELLED as outcome), RunningOn.SOURCE):
            still = source in LIVES or source is S.STANDS or evidence.state_before not in LIVE
            label = outcome is Outcome.CANCELLED
            elsewhere = not proven_not_run(source, destination, evidence)
            return source in KEEPS and still and label == evidence.cancel_requested and not elsewhere
        case Outcome.GUEST_SHUT_DOWN, RunningOn.NONE:
            ended = evidence.guest_shut_down or source is S.OFF or destination is D.OFF
            return ended and source not in LIVES and destination is not D.RUNS
    return False


def check_ask(verdict, source, destination, _evidence):
    if verdict.outcome is not Outcome.UNKNOWN:
        return False
    if verdict.running_on is RunningOn.NONE:
        handed_over = source is S.UNREACHABLE and destination is D.READY
        still = source not in (*LIVES, S.MOVING, S.UNREACHABLE) and destination is not D.RUNS
        return still or handed_over
    return verdict.running_on in (RunningOn.UNKNOWN, RunningOn.DESTINATION)


CHECKS: dict[Step, Callable[[Verdict, S, D, Evidence], bool]] = {
    Step.KEEP_OBSERVING: lambda *_: True,
    Step.CANCEL: check_cancel,
    Step.YANK_SOURCE: check_yank_source,
    Step.YANK_DESTINATION: check_yank_destination,
    Step.CONDEMN_DESTINATION: check_condemn,
    Step.END_DESTINATION: check_end_destination,
    Step.CONTINUE_SOURCE: check_continue_source,
    Step.CONTINUE_DESTINATION: check_continue_destination,
    Step.RETIRE_SOURCE: check_retire_source,
    Step.DONE: check_done,
    Step.ASK_A_PERSON: check_ask,
}


def test_every_cell_has_only_safe_verdicts_and_ends():
    used = set()
    for source, destination in itertools.product(S, D):
        for evidence in EVIDENCES:
            true_source, true_destination = fenced(source, destination, evidence)
            found = verdicts(view_states(source, destination, evidence))
            for verdict in found:
                used.add(verdict.rule)
                assert (verdict.outcome is None) == (verdict.step not in (Step.DONE, Step.ASK_A_PERSON))
                assert allowed(verdict, true_source, true_destination, evidence), (
                    source,
                    destination,
                    evidence,
                    verdict,
                )
            assert found[-1].step in (Step.DONE, Step.ASK_A_PERSON)
    assert used == {rule.name for rule in RULES}, "each rule decides somewhere"


def test_rules_have_names_of_their_own():
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_every_reading_folds_into_a_state():
    for each in READINGS:
        for live_before in (True, False):
            source = source_state(each, live_before=live_before)
            destination = destination_state(each, live_before=live_before)
            if each.state in Absence:
                assert (source.value, destination.value) == (each.state.value, each.state.value)
                continue
            assert source not in (S.GONE, S.UNREACHABLE)
            assert destination not in (D.GONE, D.UNREACHABLE)
            live = each.state in LIVE
            assert (source in LIVES) <= live
            assert (destination is D.RUNS) <= live
            if live:
                assert source in (*LIVES, S.MOVING, S.SWITCHING, S.ENDING, S.POSTCOPY, S.UNCLEAR)
                assert destination in (D.RUNS, D.POSTCOPY, D.UNCLEAR)
            if destination in (D.READY, D.HALTED, D.RUNS, D.OFF):
                assert each.migration is MigrationStatus.COMPLETED
            if source in (S.COMPLETED, S.REVIVED):
                assert each.migration is MigrationStatus.COMPLETED
            if RunState.UNKNOWN is each.state or each.migration in (MigrationStatus.UNKNOWN, None):
                assert source is S.UNCLEAR
                assert destination is D.UNCLEAR


def test_a_verdict_depends_on_a_reading_only_through_its_state():
    evidence = Evidence()
    for source, destination in itertools.product(READINGS[::7], READINGS[::5]):
        for spent in (frozenset(), frozenset({Step.KEEP_OBSERVING})):
            folded = view_states(
                source_state(source, live_before=True), destination_state(destination, live_before=True), evidence
            )
            situation = Situation(source=source, destination=destination, evidence=evidence, spent=spent)
            assert settle(situation) == judge(folded, spent)


def step_for(source: str, destination: str, *spent: Step, **known: Any) -> str:
    verdict = settle(
        Situation(
            source=reading(source),
            destination=reading(destination),
            evidence=Evidence(**known),
            spent=frozenset(spent),
        )
    )
    return " ".join(word for word in (verdict.step, verdict.outcome, verdict.running_on) if word)


WAIT = Step.KEEP_OBSERVING


@pytest.mark.parametrize(
    ("source", "destination", "spent", "known", "expected"),
    [
        # The straight way.
        ("postmigrate completed", "paused completed", (), {}, "continue-destination"),
        ("postmigrate completed", "running completed", (), {"continuation": "ran"}, "retire-source"),
        ("gone", "running completed", (), {"continuation": "ran"}, "done completed destination"),
        # It ended before the handover: recorded in reference/observed.
        ("running failed", "gone", (), {}, "done failed source"),
        ("running cancelled", "gone", (), {"cancel_requested": True}, "done cancelled source"),
        ("running failed", "gone", (), {"cancel_requested": True}, "done cancelled source"),
        ("running failed", "inmigrate failed", (), {}, "end-destination"),
        ("running cancelled", "paused completed", (), {}, "condemn-destination"),
        ("running cancelled", "paused completed", (), {"destination_condemned": True}, "end-destination"),
        ("running active", "inmigrate active", (), {}, "cancel"),
        ("finish-migrate active", "inmigrate active", (), {}, "keep-observing"),
        ("finish-migrate device", "inmigrate active", (WAIT,), {}, "cancel"),
        ("finish-migrate pre-switchover", "inmigrate active", (), {}, "cancel"),
        ("running active", "inmigrate active", (), {"continuation": "postcopy"}, "keep-observing"),
        # Black hole after STOP.
        ("unreachable", "inmigrate active", (WAIT,), {}, "yank-source"),
        ("unreachable", "paused completed", (WAIT,), {}, "yank-source"),
        # The source is gone, or out of reach, and the destination complete.
        ("gone", "paused completed", (), {"source_end": "completed"}, "continue-destination"),
        ("unreachable", "paused completed", (), {"source_end": "completed"}, "continue-destination"),
        ("gone", "paused completed", (), {"source_end": "ended-quietly"}, "continue-destination"),
        ("gone", "paused completed", (), {}, "ask-a-person unknown none"),
        ("unreachable", "paused completed", (), {"fence_confirmed": "source"}, "continue-destination"),
        ("gone", "paused completed", (), {"source_end": "went-on"}, "condemn-destination"),
        ("gone", "inmigrate active", (WAIT,), {}, "yank-destination"),
        # The destination is gone, or out of reach, after the handover.
        ("postmigrate completed", "gone", (), {}, "continue-source"),
        ("postmigrate completed", "gone", (), {"continuation": "intended"}, "ask-a-person unknown none"),
        ("postmigrate completed", "gone", (), {"continuation": "ran"}, "ask-a-person unknown none"),
        ("postmigrate completed", "gone", (), {"continuation": "disproved"}, "continue-source"),
        ("postmigrate completed", "unreachable", (), {}, "keep-observing"),
        ("postmigrate completed", "unreachable", (WAIT,), {}, "condemn-destination"),
        ("postmigrate completed", "unreachable", (WAIT,), {"continuation": "intended"}, "ask-a-person unknown unknown"),
        ("postmigrate completed", "unreachable", (WAIT,), {"continuation": "ran"}, "done completed destination"),
        (
            "postmigrate completed",
            "unreachable",
            (WAIT, Step.END_DESTINATION),
            {"continuation": "intended", "destination_condemned": True},
            "continue-source",
        ),
        # The destination refuses.
        ("postmigrate completed", "paused completed", (), {"continuation": "disproved"}, "condemn-destination"),
        # A guest that did not run stays so.
        ("postmigrate completed", "paused completed", (), {"state_before": "paused"}, "retire-source"),
        ("postmigrate failed", "gone", (), {"state_before": "paused"}, "done failed source"),
        ("postmigrate completed", "gone", (), {"state_before": "paused"}, "done failed source"),
        # 7.2: suspended arrives suspended; 10.0: paused, and `cont` makes it suspended.
        ("postmigrate completed", "suspended completed", (), {"state_before": "suspended"}, "retire-source"),
        ("postmigrate completed", "paused completed", (), {"state_before": "suspended"}, "continue-destination"),
        # What the guest got into by itself is left as it is.
        ("io-error failed", "gone", (), {}, "done failed source"),
        ("guest-panicked cancelled", "gone", (), {}, "done failed source"),
        ("postmigrate completed", "guest-panicked completed", (), {}, "done completed destination"),
        ("shutdown failed", "gone", (), {}, "done guest_shut_down none"),
        ("gone", "inmigrate failed", (), {"guest_shut_down": True}, "end-destination"),
        ("gone", "gone", (), {"guest_shut_down": True}, "done guest_shut_down none"),
        ("postmigrate completed", "gone", (), {"guest_shut_down": True, "continuation": "ran"}, "retire-source"),
        # Two runners, unknown states, post-copy: look, then ask.
        ("running completed", "running completed", (WAIT,), {}, "ask-a-person unknown unknown"),
        ("running failed", "colo completed", (WAIT,), {}, "ask-a-person unknown unknown"),
        ("running what-next", "inmigrate active", (), {}, "keep-observing"),
        ("finish-migrate postcopy-active", "running postcopy-active", (), {}, "keep-observing"),
        ("postmigrate cancelled", "running postcopy-paused", (WAIT,), {}, "ask-a-person unknown unknown"),
        ("postmigrate cancelled", "gone", (), {"continuation": "postcopy"}, "ask-a-person unknown none"),
    ],
)
def test_a_cell(source, destination, spent, known, expected):
    kinds = {
        "continuation": Continuation,
        "source_end": SourceEnd,
        "state_before": RunState,
        "fence_confirmed": Side,
    }
    evidence = {name: kinds.get(name, bool)(value) for name, value in known.items()}
    assert step_for(source, destination, *spent, **evidence) == expected


def test_what_a_reading_proves_is_kept():
    completed = learn(Evidence(), reading("postmigrate completed"), reading("paused completed"))
    assert completed.source_end is SourceEnd.COMPLETED
    assert learn(completed, reading("unreachable"), reading("unreachable")) == completed
    assert learn(Evidence(), reading("running failed"), reading("gone")).source_end is SourceEnd.WENT_ON
    assert learn(completed, reading("running completed"), reading("gone")).source_end is SourceEnd.WENT_ON
    assert learn(Evidence(), reading("running none"), reading("inmigrate setup")) == Evidence()
    ran = learn(completed, reading("postmigrate completed"), reading("running completed"))
    assert ran.continuation is Continuation.RAN


def test_what_must_be_known_before_a_step_is_recorded():
    assert intend(Evidence(), Step.CONTINUE_DESTINATION).continuation is Continuation.INTENDED
    disproved = Evidence(continuation=Continuation.DISPROVED)
    assert intend(disproved, Step.CONTINUE_DESTINATION).continuation is Continuation.INTENDED
    ran = Evidence(continuation=Continuation.RAN)
    assert intend(ran, Step.CONTINUE_DESTINATION) == ran
    assert intend(Evidence(), Step.CONTINUE_SOURCE).source_end is SourceEnd.WENT_ON
    assert intend(Evidence(), Step.CONDEMN_DESTINATION).destination_condemned
    assert intend(Evidence(), Step.CANCEL) == Evidence()
