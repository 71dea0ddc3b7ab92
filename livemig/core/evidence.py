"""What was seen and sent before, which no reading can show again, and all of it as the rules see it.

`learn` adds to the evidence what a reading proves. Which of it outlives the process is said at each field.
Decides nothing: `livemig.core.outcome` does.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from livemig.core.readings import (
    LIVE,
    Absence,
    DestinationState,
    Reading,
    SourceState,
    destination_state,
    source_state,
)
from livemig.core.status import MigrationStatus, RunState

__all__ = [
    "LIVE",
    "Absence",
    "Continuation",
    "Evidence",
    "Fact",
    "Reading",
    "Side",
    "SourceEnd",
    "View",
    "learn",
    "view",
    "view_states",
]


class Side(StrEnum):
    """One of the two QEMUs."""

    SOURCE = "source"
    DESTINATION = "destination"


class Continuation(StrEnum):
    """What is known of whether the guest has run at the destination."""

    NOT_SENT = "not-sent"
    """No ``cont`` was sent there: no intent is journalled, or this very process knows that it sent none."""
    INTENDED = "intended"
    """The intent is journalled: once the source had completed, a ``cont`` may have been sent, and obeyed."""
    DISPROVED = "disproved"
    """A ``cont`` was sent and the guest did not run: an error reply, and a run state read after it that is
    not live; or the destination's events followed to the end of its process with no RESUME."""
    POSTCOPY = "postcopy"
    """Post-copy was asked for: the guest may run there in any state of the source but before STOP."""
    RAN = "ran"
    """RESUME was seen, or a live run state was read."""


class SourceEnd(StrEnum):
    """What is known of how the migration ended for the source."""

    UNKNOWN = "unknown"
    COMPLETED = "completed"
    """Its own ``completed`` was read: from there it never runs on by itself."""
    ENDED_QUIETLY = "ended-quietly"
    """Its events were followed to the end of its process with no RESUME, failed or cancelled since STOP."""
    WENT_ON = "went-on"
    """Its RESUME, failed or cancelled was read, or ``cont`` was sent to it: its disks may be newer than what
    the destination holds."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What no reading can show again. One attempt, one evidence: a second ``migrate`` begins afresh.

    Attributes:
        state_before: The guest's run state before the migration, or since its owner or the guest changed it.
            Decides whether anything is to be continued. Journalled.
        continuation: Whether the guest may have run at the destination. Of this the intent and the start of
            post-copy are journalled.
        source_end: How the migration ended for the source. Journalled before the source is retired, not before.
        destination_condemned: The destination was proven not to have run and is never to be continued any
            more. Journalled.
        guest_shut_down: The guest ended itself where it ran: SHUTDOWN with ``guest: true``. Not journalled.
        cancel_requested: Somebody asked for the guest to stay. Journalled, for the words only.
        fence_confirmed: The side that a person vouches is dead, and, of the source, that it did not run on
            after its STOP. Counts while the side gives no run state.
    """

    state_before: RunState = RunState.RUNNING
    continuation: Continuation = Continuation.NOT_SENT
    source_end: SourceEnd = SourceEnd.UNKNOWN
    destination_condemned: bool = False
    guest_shut_down: bool = False
    cancel_requested: bool = False
    fence_confirmed: Side | None = None

    @property
    def live_before(self) -> bool:
        """Whether the guest lived before, so that it has to live afterwards."""
        return self.state_before in LIVE


def learn(evidence: Evidence, source: Reading, destination: Reading) -> Evidence:
    """Adds what a reading of both sides proves, so that it is still known when they can't be read."""
    source_end, continuation = evidence.source_end, evidence.continuation
    state = source_state(source, live_before=evidence.live_before)
    if state is SourceState.COMPLETED and source_end is SourceEnd.UNKNOWN:
        source_end = SourceEnd.COMPLETED
    over = source.migration in (MigrationStatus.FAILED, MigrationStatus.CANCELLED)
    if state is SourceState.REVIVED or (over and not isinstance(source.state, Absence)):
        source_end = SourceEnd.WENT_ON
    if destination.state in LIVE:
        continuation = Continuation.RAN
    return msgspec.structs.replace(evidence, source_end=source_end, continuation=continuation)


class Fact(StrEnum):
    """What the rules ask about."""

    LIVE_BEFORE = "the guest lived before"
    RAN = "the guest was seen running at the destination"
    MAY_HAVE_RUN = "the guest may have run at the destination"
    REFUSED = "the destination was told to continue the guest and did not"
    HANDED_OVER = "the source can't have run on, and the destination is not condemned"
    WENT_ON = "the source failed, was cancelled, resumed or was continued after its STOP"
    CONDEMNED = "the destination is condemned"
    UNDECIDED = "neither was it read how the migration ended for the source, nor was the guest seen running elsewhere"
    POSTCOPY = "post-copy was asked for"
    GUEST_ENDED = "the guest shut itself down"
    CANCEL_REQUESTED = "a cancel was asked for"


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides and the evidence, as the rules see them.

    Attributes:
        source: What the source's word means.
        destination: What the destination's word means.
        facts: What holds.
    """

    source: SourceState
    destination: DestinationState
    facts: frozenset[Fact]


def view(source: Reading, destination: Reading, evidence: Evidence) -> View:
    """Draws from the readings and the evidence what the rules ask about."""
    return view_states(
        source_state(source, live_before=evidence.live_before),
        destination_state(destination, live_before=evidence.live_before),
        evidence,
    )


def view_states(source: SourceState, destination: DestinationState, evidence: Evidence) -> View:
    """As `view`, from states."""
    if source is SourceState.UNREACHABLE and evidence.fence_confirmed is Side.SOURCE:
        source = SourceState.GONE
    if destination is DestinationState.UNREACHABLE and evidence.fence_confirmed is Side.DESTINATION:
        destination = DestinationState.GONE
    continuation, source_end = evidence.continuation, evidence.source_end
    ran = continuation is Continuation.RAN or destination is DestinationState.RUNS
    decided = source_end is not SourceEnd.UNKNOWN or ran or continuation is Continuation.POSTCOPY
    holds = {
        Fact.LIVE_BEFORE: evidence.live_before,
        Fact.RAN: ran,
        Fact.MAY_HAVE_RUN: ran or _may_have_run(source, destination, evidence),
        Fact.REFUSED: continuation is Continuation.DISPROVED,
        Fact.HANDED_OVER: _handed_over(source, evidence, ran=ran),
        Fact.WENT_ON: source_end is SourceEnd.WENT_ON,
        Fact.CONDEMNED: evidence.destination_condemned,
        Fact.UNDECIDED: not decided,
        Fact.POSTCOPY: continuation is Continuation.POSTCOPY,
        Fact.GUEST_ENDED: evidence.guest_shut_down or source is SourceState.OFF or destination is DestinationState.OFF,
        Fact.CANCEL_REQUESTED: evidence.cancel_requested,
    }
    facts = frozenset(fact for fact, so in holds.items() if so)
    return View(source=source, destination=destination, facts=facts)


_NOT_COMPLETED = frozenset(
    {
        SourceState.MOVING,
        SourceState.SWITCHING,
        SourceState.ENDING,
        SourceState.RUNS,
        SourceState.UNDONE,
        SourceState.STANDS,
    }
)
"""A source that says so never completed, hence no ``cont`` was sent to the destination."""
_NEVER_LEFT_INMIGRATE = frozenset({DestinationState.LISTENING, DestinationState.LOADING, DestinationState.FAILED})


def _may_have_run(source: SourceState, destination: DestinationState, evidence: Evidence) -> bool:
    """Whether the guest may have run at the destination, not having been seen to."""
    if destination in (DestinationState.POSTCOPY, DestinationState.UNCLEAR):
        return True
    if evidence.destination_condemned or destination in _NEVER_LEFT_INMIGRATE:
        return False
    if evidence.continuation is Continuation.POSTCOPY:
        return source not in (SourceState.MOVING, SourceState.RUNS)
    if evidence.continuation is not Continuation.INTENDED:
        return False
    # Livemig continues a source only after it proved the destination not to have run, or condemned it.
    revived_alone = source is SourceState.REVIVED and destination is DestinationState.GONE
    return source not in _NOT_COMPLETED and not revived_alone


def _handed_over(source: SourceState, evidence: Evidence, *, ran: bool) -> bool:
    """Whether the source can't have run on, so that what the destination holds is as new as the disks."""
    if evidence.destination_condemned or evidence.source_end is SourceEnd.WENT_ON:
        return False
    if source is SourceState.COMPLETED:
        return True
    if source not in (SourceState.GONE, SourceState.UNREACHABLE):
        return False
    if evidence.source_end is SourceEnd.COMPLETED:
        return True
    if source is SourceState.GONE:
        vouched = evidence.fence_confirmed is Side.SOURCE
        return ran or vouched or evidence.source_end is SourceEnd.ENDED_QUIETLY
    # Livemig sends `cont` only after the handover: that the guest runs there proves it.
    return ran and evidence.continuation in (Continuation.INTENDED, Continuation.RAN)
