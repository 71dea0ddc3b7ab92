"""What the journal keeps of one run: enough for another process to finish or undo it. Only data."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from livemig.core.evidence import Continuation, Evidence, Side, SourceEnd
from livemig.core.outcome import Outcome, RunningOn
from livemig.core.plan import Plan
from livemig.core.status import RunState
from livemig.engine.identity import ProcessIdentity


class SideRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One side as it was before anything was changed.

    Attributes:
        address: Its monitor's address, as `Address.parse` reads it.
        other_addresses: Its other QMP monitors, for a time when that one is held by somebody.
        process: Its process; None when it could not be seen.
        capabilities: Its migration capabilities.
        parameters: Its migration parameters, in QEMU's units.
        own_folder: The folder of a QEMU that livemig launched; None for any other.
        session: The process of the host's sshd that holds the run's connections there; None on this machine.
    """

    address: str
    other_addresses: tuple[str, ...] = ()
    process: ProcessIdentity | None = None
    capabilities: dict[str, bool] = {}
    parameters: dict[str, Any] = {}
    own_folder: str | None = None
    session: ProcessIdentity | None = None


class Stage(StrEnum):
    """How far a run had come when it was written down last; each before what it stands for is done."""

    BEGUN = "begun"
    """The source is held for this run; a destination may have been launched. Neither was changed else."""
    INTENDED = "intended"
    """Settings may be changed, ``migrate`` may be sent and, once the source has completed, ``cont``."""
    COMMITTED = "committed"
    """The source had completed and the guest ran at the destination: the source may be quit."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. See `livemig.core.report.Report` for the other fields.

    Attributes:
        ended_at: When, ISO 8601.
        recovered: Whether another process brought it to its end.
        left: What could not be taken back then, one line each: recovery still has to.
    """

    ended_at: str
    outcome: Outcome
    running_on: RunningOn
    guest_state: str
    reason: str
    total_s: float | None = None
    downtime_s: float | None = None
    sent_bytes: int = 0
    round_count: int = 0
    warnings: tuple[str, ...] = ()
    recovered: bool = False
    left: tuple[str, ...] = ()


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        id: Its id.
        livemig_version: Of the livemig that drives it.
        started_at: When it began, ISO 8601.
        plan: What was asked.
        engine: The process that drives it.
        source: The source.
        destination: The destination.
        launched: Whether livemig launches the destination itself.
        stage: How far it had come.
        state_before: The guest's run state before, or since its owner changed it.
        destination_condemned: Whether the destination is never to be continued any more.
        cancel_requested: Whether somebody asked for the guest to stay.
        temporary_folder: Where the run makes folders of its own, by its id.
        ending: How it ended; None while it has not.
    """

    id: str
    livemig_version: str
    started_at: str
    plan: Plan
    engine: ProcessIdentity
    source: SideRecord
    destination: SideRecord
    launched: bool = False
    stage: Stage = Stage.BEGUN
    state_before: RunState = RunState.RUNNING
    destination_condemned: bool = False
    cancel_requested: bool = False
    temporary_folder: str = ""
    ending: Ending | None = None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be done: it ended, nobody was asked, and all was taken back."""
        return self.ended and self.ending is not None and not self.ending.left

    @property
    def ended(self) -> bool:
        """Whether it is known how it ended, so that at most something has still to be taken back."""
        return self.ending is not None and self.ending.outcome is not Outcome.UNKNOWN

    @property
    def migrating(self) -> bool:
        """Whether ``migrate`` may have been sent."""
        return self.stage is not Stage.BEGUN

    def evidence(self, fence_confirmed: Side | None = None) -> Evidence:
        """What the journal proves, for the outcome table."""
        committed = self.stage is Stage.COMMITTED
        return Evidence(
            state_before=self.state_before,
            continuation=Continuation.INTENDED if self.migrating else Continuation.NOT_SENT,
            source_end=SourceEnd.COMPLETED if committed else SourceEnd.UNKNOWN,
            destination_condemned=self.destination_condemned,
            cancel_requested=self.cancel_requested,
            fence_confirmed=fence_confirmed,
        )
