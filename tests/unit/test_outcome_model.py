"""Every interleaving of two QEMUs, an engine that follows the outcome table, and a fault; and tables that are wrong.

`two_qemus` says what must never happen. With no fault, with any one, for a guest that runs and for one that is
paused, all reachable worlds are visited. Torn readings and a guest that shuts itself down are looked at apart here;
``python -m tests.unit.exploration 2`` takes them together, with two faults, within a minute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from livemig.core.evidence import Fact, View
from livemig.core.outcome import RULES, Rule, Step, Verdict, judge
from livemig.core.readings import DestinationState as D
from livemig.core.readings import SourceState as S
from livemig.core.status import MigrationStatus
from tests.unit.exploration import explore
from tests.unit.two_qemus import Model
from tests.unit.two_qemus_world import Broken, Steps, World

MOST_STEPS = 100


@pytest.mark.parametrize("live", [True, False], ids=["running", "paused"])
@pytest.mark.parametrize("faults", [0, 1])
@pytest.mark.parametrize(("torn", "powers_off"), [(False, True), (True, False)], ids=["powers-off", "torn"])
def test_whatever_happens_nothing_is_broken_and_it_ends(live, faults, torn, powers_off):
    explored = explore(Model(live=live, torn=torn, powers_off=powers_off), faults=faults)

    assert explored.longest < MOST_STEPS
    assert explored.state_count > 500
    assert "stays" in explored.ends


def test_without_a_fault_a_person_is_asked_only_about_a_qemu_that_hangs():
    explored = explore(Model(powers_off=False), faults=0)

    assert explored.ends == {"stays", "runs-at-destination-alone", "hangs"}


# Wrong tables. Each breaks one rule of the design, and must be caught.


def seeing(change: Callable[[View], View]) -> Callable[[View, Steps], Verdict]:
    """The table, looking through wrong eyes."""

    def wrong(seen: View, spent: Steps) -> Verdict:
        return judge(change(seen), spent)

    return wrong


def ruled(change: Callable[[Rule], Rule | None]) -> Callable[[View, Steps], Verdict]:
    """The table with its rules changed; None takes a rule out."""
    rules = tuple(rule for each in RULES if (rule := change(each)) is not None)

    def wrong(seen: View, spent: Steps) -> Verdict:
        return judge(seen, spent, rules)

    return wrong


def changed(name: str, **fields: Any) -> Callable[[Rule], Rule]:
    def change(rule: Rule) -> Rule:
        return dataclasses.replace(rule, **fields) if rule.name == name else rule

    return change


def without(*names: str) -> Callable[[Rule], Rule | None]:
    assert set(names) <= {rule.name for rule in RULES}
    return lambda rule: None if rule.name in names else rule


def first(name: str, **fields: object) -> Callable[[View, Steps], Verdict]:
    """The table with one rule changed and put before all others."""
    rule = next(changed(name, **fields)(rule) for rule in RULES if rule.name == name)

    def wrong(seen: View, spent: Steps) -> Verdict:
        return judge(seen, spent, (rule, *RULES))

    return wrong


def view(
    seen: View, *, add: frozenset[Fact] = frozenset(), drop: frozenset[Fact] = frozenset(), **states: object
) -> View:
    source, destination = states.get("source", seen.source), states.get("destination", seen.destination)
    assert isinstance(source, S)
    assert isinstance(destination, D)
    return View(source=source, destination=destination, facts=(seen.facts | add) - drop)


def taking_silence_for_death(seen: View) -> View:
    return view(seen, destination=D.GONE) if seen.destination is D.UNREACHABLE else seen


def taking_a_silent_source_for_handed_over(seen: View) -> View:
    absent = seen.source in (S.UNREACHABLE, S.GONE)
    return view(seen, add=frozenset({Fact.HANDED_OVER})) if absent else seen


def taking_any_ended_source_for_handed_over(seen: View) -> View:
    return view(seen, add=frozenset({Fact.HANDED_OVER})) if seen.source is S.GONE else seen


def taking_a_time_out_for_not_run(seen: View) -> View:
    return seen if Fact.RAN in seen.facts else view(seen, drop=frozenset({Fact.MAY_HAVE_RUN}))


def continuing_what_was_paused(seen: View) -> View:
    return view(seen, add=frozenset({Fact.LIVE_BEFORE}))


def overlooking_that_the_guest_ended(seen: View) -> View:
    return view(seen, drop=frozenset({Fact.GUEST_ENDED}))


def forgetting_condemnation(seen: View) -> View:
    handed_over = frozenset({Fact.HANDED_OVER}) if seen.source in (S.COMPLETED, S.GONE) else frozenset[Fact]()
    return view(seen, drop=frozenset({Fact.CONDEMNED}), add=handed_over)


def never_spent(seen: View, _spent: Steps) -> Verdict:
    return judge(seen)


ANY_INCOMPLETE = frozenset({D.LISTENING, D.LOADING, D.FAILED})
NO_FACTS = frozenset[Fact]()
WRONG = {
    "a time-out proves that it did not run": (seeing(taking_a_time_out_for_not_run), True),
    "an unreachable destination is dead": (seeing(taking_silence_for_death), True),
    "a silent source handed over": (seeing(taking_a_silent_source_for_handed_over), True),
    "an ended source handed over": (seeing(taking_any_ended_source_for_handed_over), True),
    "a paused guest is continued": (seeing(continuing_what_was_paused), False),
    "a guest's own end is a failure": (seeing(overlooking_that_the_guest_ended), True),
    "a condemned destination is continued": (seeing(forgetting_condemnation), True),
    "a loading destination is ended while the source is away": (
        ruled(changed("cut-off-copy", steps=(Step.KEEP_OBSERVING, Step.END_DESTINATION), end=None)),
        True,
    ),
    "a complete destination is ended while the source is away": (
        ruled(changed("failed-copy", destination=frozenset({D.READY, D.FAILED}), needs=NO_FACTS)),
        True,
    ),
    "the source is retired before the destination runs": (
        ruled(changed("runs-at-destination", destination=frozenset({D.READY}))),
        True,
    ),
    "the source is retired when the destination is out of reach": (
        ruled(changed("runs-at-destination", destination=frozenset({D.RUNS, D.UNREACHABLE}))),
        True,
    ),
    "the destination is continued before the source has completed": (
        first("handed-over", source=frozenset({S.SWITCHING, S.ENDING, S.COMPLETED}), needs=NO_FACTS),
        True,
    ),
    "the source is continued once the destination has run": (
        first("take-back", needs=NO_FACTS),
        True,
    ),
    "a source that hangs is not freed": (ruled(without("source-silent")), True),
    "the destination is given up when the source has handed over": (ruled(without("handed-over-alone")), True),
    "the source is never taken back": (ruled(without("take-back")), True),
    "steps are repeated for ever": (never_spent, True),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_table_is_caught(name):
    wrong, live = WRONG[name]
    with pytest.raises(Broken):
        explore(Model(judge=wrong, live=live, torn=False), faults=1)


def test_asking_for_the_run_state_before_the_status_is_caught():
    with pytest.raises(Broken, match="claims failed on source"):
        explore(Model(state_first=True), faults=1)


def lost_after_handover(model: Model) -> World:
    """The source has completed, the destination is ready and out of reach."""
    return model.start(1)._replace(
        source_runs=False,
        source_status=MigrationStatus.COMPLETED,
        destination_status=MigrationStatus.COMPLETED,
        destination_contact=False,
        follows_destination=False,
        all_sent=True,
        blind=True,
    )


def test_a_destination_lost_after_the_handover_and_one_more_fault():
    model = Model(losses=False, torn=False)

    explored = explore(model, begin=lost_after_handover(model))

    assert {"stays", "take-back-from-condemned"} & explored.ends


def test_continuing_the_source_beside_a_destination_that_was_not_condemned_is_caught():
    spare = ("condemn", "condemn-incomplete", "end-destination", "stale-copy")
    wrong = ruled(lambda rule: None if rule.name in spare else changed("take-back", destination=frozenset(D))(rule))
    model = Model(judge=wrong, losses=False, torn=False)

    with pytest.raises(Broken, match="memory older than the disks"):
        explore(model, begin=lost_after_handover(model))
