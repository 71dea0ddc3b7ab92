"""One run that is being recovered: its two sides, the evidence of its journal, and what is cleaned up in the end."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from livemig.core import event as events
from livemig.core.errors import LivemigError
from livemig.core.evidence import Evidence, Fact, view
from livemig.core.evidence import Side as Fenced
from livemig.core.outcome import Outcome, RunningOn, Situation, Step, Verdict
from livemig.core.outcome import settle as judge_situation
from livemig.core.plan import SwitchoverMoment
from livemig.core.readings import Absence, DestinationState, Reading, SourceState
from livemig.core.status import RunState
from livemig.engine.handover import announce
from livemig.engine.host_pool import HostPool
from livemig.engine.lock import release_lock
from livemig.engine.recovered_side import RecoveredSide
from livemig.engine.retire import retire
from livemig.engine.run_journal import RunJournal
from livemig.engine.run_record import RunRecord, SideRecord, Stage
from livemig.engine.settle import Settlement
from livemig.engine.shared_folder import may_be_elsewheres
from livemig.engine.watch import Watch
from livemig.qemu.address import Address
from livemig.qemu.capabilities import Changes, MigrationSettings
from livemig.qemu.introspection import query_capabilities, query_parameters

CONNECT_BOUND_S = 1.0
_STAGES = {
    Stage.BEGUN: "nothing was changed yet, `migrate` was not sent",
    Stage.INTENDED: "`migrate` may have been sent, and once the source had completed, `cont` to the destination",
    Stage.COMMITTED: "the source had completed and the guest ran at the destination",
}


class RecoveryRun:
    """Both sides of a run, as far as they can be reached, for as long as it is entered.

    Attributes:
        journal: The run's journal.
        record: What stood in it.
        steps: What was done, one line each.
        warnings: What the user should know.
        left: What could not be taken back, one line each.
    """

    def __init__(
        self,
        journal: RunJournal,
        record: RunRecord,
        fence_confirmed: Fenced | None,
        tell: Callable[[events.Event], None],
    ) -> None:
        """Reaches nothing yet."""
        self.journal, self.record = journal, record
        self.steps: list[str] = []
        self.warnings: list[str] = []
        self.left: list[str] = []
        self._tell, self._fenced = tell, fence_confirmed
        self._began_s = time.monotonic()
        self._hosts = HostPool()
        unmarked = not record.migrating
        self._source = RecoveredSide("source", record.source, record.id, unmarked=unmarked)
        self._destination = RecoveredSide("destination", record.destination, record.id, unmarked=unmarked)
        # With a QEMU that somebody else started and nothing was begun with, there is nothing to settle.
        self._other = self._destination if record.migrating or record.launched else _nobody(record)
        self._watch = Watch(self._source, self._other)
        self._settlement = Settlement(
            self._source,
            self._other,
            self._watch,
            record.evidence(fence_confirmed),
            migrating=record.migrating,
            tell_step=self._tell_step,
            keep=self._keep,
            retire=self._retire,
        )

    async def __aenter__(self) -> Self:
        await asyncio.gather(
            self._source.reach(self._hosts, launched=False, timeout_s=CONNECT_BOUND_S),
            self._destination.reach(self._hosts, launched=self.record.launched, timeout_s=CONNECT_BOUND_S),
        )
        await self._watch.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._watch.__aexit__(kind, error, traceback)
        await self._source.close()
        await self._destination.close()
        await self._hosts.close()

    async def look(self) -> Verdict:
        """Reads both sides; returns what the table says first. Does nothing."""
        source, destination = await self._settlement.read()
        evidence = self._settlement.evidence
        return judge_situation(Situation(source=source, destination=destination, evidence=evidence))

    async def settle(self) -> Verdict:
        """Finishes or undoes the run and cleans up; returns how it ended.

        A run of which that is known already is only cleaned up.
        """
        ending = self.record.ending
        if self.record.ended and ending is not None:
            await self._settlement.read()
            verdict = Verdict(
                rule="ended-before",
                step=Step.DONE,
                reason=ending.reason,
                outcome=ending.outcome,
                running_on=ending.running_on,
            )
            await self._end_what_stayed(ending.outcome)
        else:
            verdict = await self._settlement.run()
        await self._put_back(verdict)
        await self._remove_what_is_left(verdict)
        return verdict

    def guest_state(self, verdict: Verdict) -> str:
        """Returns the guest's run state where it is, in QEMU's word."""
        readings = self._settlement.readings
        if readings is None or verdict.running_on in (RunningOn.UNKNOWN, None):
            return "unknown"
        if verdict.running_on is RunningOn.NONE:
            return "none"
        reading = readings[0 if verdict.running_on is RunningOn.SOURCE else 1]
        return "unknown" if isinstance(reading.state, Absence) else str(reading.state)

    def refusals(self, verdict: Verdict) -> tuple[str, ...]:
        """Returns what a QEMU refused to do, where that has left the guest without a place to run."""
        return tuple(self._settlement.refusals) if verdict.outcome is Outcome.UNKNOWN else ()

    def known(self) -> tuple[str, ...]:
        """Returns what each side said last and what the journal says, one line each."""
        source, destination = self._settlement.readings or (Reading(Absence.UNREACHABLE), Reading(Absence.UNREACHABLE))
        condemned = "; the destination is condemned" if self.record.destination_condemned else ""
        return (
            f"source {self._source.address}: {_words(source, self._source)}",
            f"destination {self._destination.address}: {_words(destination, self._destination)}",
            f"journal: {_STAGES[self.record.stage]}{condemned}",
        )

    def advice(self, verdict: Verdict) -> tuple[str, ...]:
        """Returns what a person has to look at or to say, where the table asks one."""
        if verdict.step is not Step.ASK_A_PERSON or self._settlement.readings is None:
            return ()
        seen = view(*self._settlement.readings, self._settlement.evidence)
        again, lines = f"livemig recover {self.record.id}", []
        if SourceState.UNREACHABLE is seen.source or DestinationState.UNREACHABLE is seen.destination:
            lines.append(f"bring back the way to what is out of reach, and `{again}`")
        if DestinationState.UNREACHABLE is seen.destination and Fact.MAY_HAVE_RUN in seen.facts:
            lines.append(
                "or see to it that the destination's QEMU runs nowhere (its host is off, its process has ended), and "
                f"`{again} --fence-confirmed destination`"
            )
        complete = seen.destination in (DestinationState.READY, DestinationState.HALTED)
        if complete and seen.source in (SourceState.UNREACHABLE, SourceState.GONE) and Fact.WENT_ON not in seen.facts:
            lines.append(
                "or see to it that the source is dead and did not run on after it was stopped to be handed over (then "
                f"its disks would be newer than the destination's memory), and `{again} --fence-confirmed source`"
            )
        return (*lines, "never `cont` both")

    def _tell_step(self, verdict: Verdict) -> None:
        self.steps.append(f"{verdict.step}: {verdict.reason}")
        time_s = time.monotonic() - self._began_s
        self._tell(events.Settling(time_s=time_s, step=verdict.step, reason=verdict.reason))

    async def _keep(self, evidence: Evidence, step: Step) -> bool:
        return await self.journal.keep(evidence, committing=step is Step.RETIRE_SOURCE)

    async def _retire(self) -> None:
        kept = await retire(
            self._source,
            self._watch,
            self.record.plan,
            since_s=time.monotonic(),
            cut_short=lambda: False,
            warn=self.warnings.append,
        )
        self._tell(events.SourceRetired(time_s=time.monotonic() - self._began_s, kept=kept))

    async def _end_what_stayed(self, outcome: Outcome) -> None:
        """Ends a destination that was given up and out of reach when the run ended: it waits for nobody any more."""
        given_up = self.record.launched or self.record.destination_condemned
        readings = self._settlement.readings
        if outcome not in (Outcome.FAILED, Outcome.CANCELLED, Outcome.REFUSED) or not given_up or readings is None:
            return
        state = readings[1].state
        if isinstance(state, Absence) or state in (RunState.RUNNING, RunState.SUSPENDED):
            return
        self.steps.append(f"{Step.END_DESTINATION}: the guest stayed at the source: end what was still waiting for it")
        if not await self._destination.end():
            self.left.append(f"the destination's QEMU is still there: `livemig recover {self.record.id}`")

    async def _put_back(self, verdict: Verdict) -> None:
        """Leaves both QEMUs as they were before, as far as they live; announces the guest where it was set running."""
        for side, record in ((self._source, self.record.source), (self._destination, self.record.destination)):
            if await side.is_gone() or side.monitor.closed:
                continue
            try:
                if self.record.migrating:
                    self.left += [f"{side.name}: {failure}" for failure in await _restored(side, record)]
            except LivemigError as error:
                self.left.append(f"{side.name}: migration settings may not be as before: {error}")
        for side in (self._source, self._destination):
            if side.name == self._fenced and side.monitor.closed:
                continue  # a person vouches that it is dead, and its lock with it
            note = await release_lock(side, self.record.id)
            if note is not None:
                self.left.append(note)
        if self.record.ended:
            return
        self._tell_of_hook(verdict)
        if verdict.running_on is RunningOn.SOURCE and self.record.migrating:
            await announce(self._source)
        elif verdict.running_on is RunningOn.DESTINATION:
            await announce(self._destination)

    def _tell_of_hook(self, verdict: Verdict) -> None:
        """Recovery runs no command of the user's: it can't know whether the engine had, and twice may be worse."""
        plan = self.record.plan
        if not plan.on_switchover or not self.record.migrating:
            return
        command = shlex.join(plan.on_switchover)
        if verdict.running_on is RunningOn.DESTINATION:
            self.warnings.append(f"--on-switchover may not have run, or not to its end; see to it yourself: {command}")
        elif verdict.running_on is RunningOn.SOURCE and plan.switchover_moment is SwitchoverMoment.STOPPED:
            self.warnings.append(
                f"--on-switchover may have run although the guest stayed; see to it yourself: {command}"
            )

    async def _remove_what_is_left(self, verdict: Verdict) -> None:
        """Removes folders, keys and sockets that belonged to the run or to a QEMU that has ended."""
        for side, record in ((self._source, self.record.source), (self._destination, self.record.destination)):
            if not side.host_reached:
                self.left.append(f"the {side.name}'s host is out of reach: {side.why_away}")
                continue
            try:
                if verdict.outcome is not Outcome.UNKNOWN:
                    await side.host.remove_private_folders_of(self.record.id, self.record.temporary_folder)
                if record.own_folder is not None and await side.is_gone():
                    await side.host.remove_launch_folder(Path(record.own_folder), self.record.id)
                    for address in map(Address.parse, (*record.other_addresses, record.address)):
                        if address.path is not None:
                            await self._remove_socket(side, address.path)
            except LivemigError as error:
                self.left.append(f"folders of the run may be left on the {side.name}'s host: {error}")

    async def _remove_socket(self, side: RecoveredSide, path: str) -> None:
        """Removes a dead one; one that may be listened at from the other host stays."""
        other = self._destination if side is self._source else self._source
        if not await side.host.existing_among([path]):
            return
        if not other.host_reached or await may_be_elsewheres(path, side.host, other.host):
            self.left.append(f"the socket {path} is left: somebody at the other host may listen at it")
            return
        await side.host.remove_dead_socket(Path(path))


def _nobody(record: RunRecord) -> RecoveredSide:
    side = RecoveredSide("destination", record.destination, record.id, unmarked=True)
    side.take_for_gone()
    return side


async def _restored(side: RecoveredSide, record: SideRecord) -> tuple[str, ...]:
    """Puts back what is not as it was, whoever changed it."""
    capabilities = await query_capabilities(side.monitor)
    parameters: dict[str, Any] = await query_parameters(side.monitor)
    changes = Changes(
        capabilities={name: on for name, on in record.capabilities.items() if capabilities.get(name, on) != on},
        parameters={name: value for name, value in record.parameters.items() if parameters.get(name) != value},
    )
    return await MigrationSettings(side.monitor, changes).restore()


def _words(reading: Reading, side: RecoveredSide) -> str:
    if reading.state is Absence.GONE:
        return "its process has ended"
    if reading.state is Absence.UNREACHABLE:
        return f"out of reach ({side.why_away})" if side.why_away else "out of reach"
    return f"{reading.state}, its migration {reading.migration}"
