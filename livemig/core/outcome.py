"""The outcome table: from what both sides say and what was done, who may run, what to do next, what to say.

The engine reads both sides, lets `learn` add to the evidence, asks `settle`, records what `intend` says, does
the one step, and reads again, until the verdict is settled. A later process does the same with what the
journal kept. Every step is safe even if the readings are out of date when it is done.
"""

from __future__ import annotations

import msgspec

from livemig.core.evidence import Continuation, Evidence, SourceEnd, View, view
from livemig.core.rules import CHAPTERS, RULES
from livemig.core.verdict import Outcome, Rule, RunningOn, Situation, Step, Verdict

__all__ = [
    "CHAPTERS",
    "RULES",
    "Outcome",
    "Rule",
    "RunningOn",
    "Situation",
    "Step",
    "Verdict",
    "intend",
    "judge",
    "settle",
]


def settle(situation: Situation) -> Verdict:
    """What to do next, or how it ended. The same situation always gives the same verdict."""
    seen = view(situation.source, situation.destination, situation.evidence)
    return judge(seen, situation.spent)


def judge(seen: View, spent: frozenset[Step] = frozenset(), rules: tuple[Rule, ...] = RULES) -> Verdict:
    """As `settle`, from what the rules see."""
    for rule in rules:
        if rule.applies(seen):
            verdict = rule.verdict(spent)
            if verdict is not None:
                return verdict
    raise AssertionError(f"no rule speaks about {seen}")


def intend(evidence: Evidence, step: Step) -> Evidence:
    """What must be known before a step is done, since its answer may never come.

    Where this differs from the evidence in what is journalled, it is synced before the step; if that can't be
    done the step is not done either, and spent.
    """
    match step:
        case Step.CONTINUE_SOURCE:
            return msgspec.structs.replace(evidence, source_end=SourceEnd.WENT_ON)
        case Step.CONDEMN_DESTINATION:
            return msgspec.structs.replace(evidence, destination_condemned=True)
        case Step.CONTINUE_DESTINATION:
            if evidence.continuation in (Continuation.NOT_SENT, Continuation.DISPROVED):
                return msgspec.structs.replace(evidence, continuation=Continuation.INTENDED)
        case _:
            pass
    return evidence
