"""What the outcome table is made of: steps, verdicts, the form of a rule. `livemig.core.rules` has them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from livemig.core.readings import DestinationState, SourceState

if TYPE_CHECKING:
    from livemig.core.evidence import Evidence, Fact, View
    from livemig.core.readings import Reading


class Step(StrEnum):
    """What the engine does next; each within a bound of its own, and each harmless if done twice."""

    KEEP_OBSERVING = "keep-observing"
    """Read again, until something changes or the bound is over."""
    CANCEL = "cancel"
    """``migrate_cancel`` at the source."""
    YANK_SOURCE = "yank-source"
    """Cut the migration's connection at the source, out of band."""
    YANK_DESTINATION = "yank-destination"
    """Cut it at the destination: an incomplete one fails, a complete one refuses and stays as it is."""
    CONDEMN_DESTINATION = "condemn-destination"
    """Journal that the destination is never to be continued, and sync."""
    END_DESTINATION = "end-destination"
    """``quit``, else kill by pid; done when its process is proven gone."""
    CONTINUE_SOURCE = "continue-source"
    CONTINUE_DESTINATION = "continue-destination"
    """``cont``, after its intent was journalled and synced."""
    RETIRE_SOURCE = "retire-source"
    """After the probation: ``quit``. Spent at once where the source is to be kept."""
    ASK_A_PERSON = "ask-a-person"
    """Settled: nothing more can be done without knowing more."""
    DONE = "done"
    """Settled."""

    @property
    def settles(self) -> bool:
        """Whether nothing is done any more."""
        return self in (Step.ASK_A_PERSON, Step.DONE)


class Outcome(StrEnum):
    """How a migration ended, as the report states it."""

    COMPLETED = "completed"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    GUEST_SHUT_DOWN = "guest_shut_down"


class RunningOn(StrEnum):
    """Which side has the guest afterwards, in the state it had before."""

    SOURCE = "source"
    DESTINATION = "destination"
    NONE = "none"
    UNKNOWN = "unknown"


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """All that a verdict rests on.

    Attributes:
        source: What the source said last.
        destination: What the destination said last.
        evidence: What was seen and sent before.
        spent: The steps done to their bound since a reading changed last. Emptied whenever one changes.
    """

    source: Reading
    destination: Reading
    evidence: Evidence
    spent: frozenset[Step] = frozenset()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What to do next, or how it ended.

    Attributes:
        rule: The name of the rule that decided.
        step: The one thing to do.
        reason: Why, as the user is told.
        outcome: How it ended; None until settled.
        running_on: Which side has the guest; None until settled.
    """

    rule: str
    step: Step
    reason: str
    outcome: Outcome | None = None
    running_on: RunningOn | None = None

    @property
    def settled(self) -> bool:
        """Whether this is the end."""
        return self.outcome is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of the table: applies where the states are among these, all `needs` hold and no `lacks` does.

    Attributes:
        name: Names it in verdicts, traces and tests.
        source: Where the source must be.
        destination: Where the destination must be.
        needs: What must hold.
        lacks: What must not hold.
        steps: What to do, in this order: the first that is not spent. With all spent the rule is passed over.
        says: Why, as the user is told.
        end: The outcome and the side that has the guest, where the last step settles.
        says_at_end: What the user is told then, where it differs.
    """

    name: str
    source: frozenset[SourceState] = frozenset(SourceState)
    destination: frozenset[DestinationState] = frozenset(DestinationState)
    needs: frozenset[Fact] = frozenset()
    lacks: frozenset[Fact] = frozenset()
    steps: tuple[Step, ...]
    says: str
    end: tuple[Outcome, RunningOn] | None = None
    says_at_end: str = ""

    def applies(self, view: View) -> bool:
        """Whether the rule speaks about this situation."""
        return (
            view.source in self.source
            and view.destination in self.destination
            and self.needs <= view.facts
            and self.lacks.isdisjoint(view.facts)
        )

    def verdict(self, spent: frozenset[Step]) -> Verdict | None:
        """What the rule says when these steps are spent; None when it has nothing left."""
        for step in self.steps:
            if step.settles and self.end is not None:
                outcome, running_on = self.end
                reason = self.says_at_end or self.says
                return Verdict(rule=self.name, step=step, reason=reason, outcome=outcome, running_on=running_on)
            if step not in spent:
                return Verdict(rule=self.name, step=step, reason=self.says)
        return None
