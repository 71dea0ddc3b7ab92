"""A run's hold on its two QEMUs: the journal says what it intends before it does it, locks in both keep others away.

Taken before anything is changed, given back in every outcome.
"""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version

import msgspec

from livemig.core.errors import JournalError, LivemigError, RefusedError
from livemig.core.evidence import Evidence
from livemig.core.outcome import Outcome, RunningOn
from livemig.core.plan import Plan
from livemig.core.report import Report
from livemig.core.status import RunState
from livemig.engine.identity import identity_of, own_identity
from livemig.engine.launch_plan import LaunchPlan, folder_of
from livemig.engine.lock import release_lock, take_lock
from livemig.engine.run_journal import RunJournal
from livemig.engine.run_record import Ending, RunRecord, SideRecord, Stage
from livemig.engine.side import Side
from livemig.hosts.host import Host, HostProcess
from livemig.qemu.address import Address
from livemig.qemu.introspection import query_capabilities, query_parameters
from livemig.qemu.monitor import Monitor


class Claim:
    """One run's journal and locks.

    Attributes:
        plan: What the run was asked.
        run_id: The run's id.
        journal: The run's journal.
        notes: What could not be written, one line each.
        left: What could not be taken back, one line each.
    """

    def __init__(self, run_id: str, plan: Plan) -> None:
        """Takes nothing yet."""
        self.journal = RunJournal()
        self.notes: list[str] = []
        self.left: list[str] = []
        self.plan = plan
        self.run_id = run_id
        self._locked: list[Side] = []
        self._unanswered: list[Side] = []

    async def take(self, source: Side, destination: Side | None, destination_address: Address) -> None:
        """Writes the run down and locks the sides that are there.

        Raises:
            JournalError: When nothing can be written. Nothing was touched.
            RefusedError: When another run holds one of them. Nothing was touched.
        """
        there = SideRecord(address=str(_absolute(destination_address)))
        if destination is not None:
            there = await _recorded(destination)
        await self.journal.begin(
            RunRecord(
                id=self.run_id,
                livemig_version=version("livemig"),
                started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                plan=self.plan,
                engine=own_identity(),
                source=await _recorded(source),
                destination=there,
                state_before=source.facts.run_state,
                temporary_folder=tempfile.gettempdir(),
            )
        )
        await self._lock(source)
        if destination is not None:
            await self._lock(destination)

    async def launching(self, plan: LaunchPlan) -> None:
        """Writes down what is about to be launched.

        Raises:
            JournalError: When it can't be written.
        """
        there = SideRecord(
            address=self._record.destination.address,
            other_addresses=_addresses(self._record.destination.address, str(plan.spare_path)),
            own_folder=str(plan.folder),
            session=identity_of(plan.host, await _session(plan.host)),
        )
        await self.journal.change(launched=True, destination=there)

    async def launched(self, host: Host, process: HostProcess) -> None:
        """Writes down the process that was started.

        Raises:
            JournalError: When it can't be written.
        """
        there = msgspec.structs.replace(self._record.destination, process=identity_of(host, process))
        await self.journal.change(destination=there)

    async def lock_launched(self, destination: Side) -> None:
        """Locks the launched destination.

        Raises:
            LivemigError: When it can't be.
        """
        await self._lock(destination)

    async def intend(self, source: Side, destination: Side) -> None:
        """Writes down what both sides are like, and that from now on they are changed, and may be told to run.

        Raises:
            RefusedError: When it can't be written.
        """
        here, there = [await _with_settings(side, record) for side, record in self._sides(source, destination)]
        try:
            await self.journal.change(
                source=here, destination=there, stage=Stage.INTENDED, state_before=source.facts.run_state
            )
        except JournalError as error:
            raise RefusedError((str(error),)) from error

    async def keep(self, evidence: Evidence, *, committing: bool) -> bool:
        """As `RunJournal.keep`, and takes note of a failure."""
        kept = await self.journal.keep(evidence, committing=committing)
        if not kept:
            self._note_failure()
        return kept

    async def keep_state(self, state: RunState) -> str | None:
        """Writes down that the guest's owner changed its state; returns why that can't be, or None."""
        try:
            await self.journal.change(state_before=state)
        except JournalError as error:
            return str(error)
        return None

    async def release(self) -> None:
        """Takes the locks off. Raises nothing; see `left`. Can be repeated."""
        while self._locked:
            side = self._locked.pop()
            record = self._record.source if side.name == "source" else self._record.destination
            note = await release_lock(side, self.run_id, record.other_addresses)
            if note is None and side in self._unanswered and not await side.is_gone():
                note = (
                    f"the {side.name} may yet be given the lock of run {self.run_id}, which it did not answer to: "
                    f"`livemig recover {self.run_id}` once it does"
                )
            if note is not None:
                self.left.append(note)

    async def end(self, report: Report) -> None:
        """Writes down how the run ended. Raises nothing; see `notes`."""
        if self.journal.record is None:
            return
        await self.journal.end(ending_of(report, left=tuple(self.left)))
        self._note_failure()

    async def end_refused(self, reason: str, outcome: Outcome = Outcome.REFUSED) -> None:
        """Writes down that nothing was moved. Raises nothing."""
        if self.journal.record is None:
            return
        state = str(self.journal.record.state_before)
        ending = Ending(
            ended_at=now_text(),
            outcome=outcome,
            running_on=RunningOn.SOURCE,
            guest_state=state,
            reason=reason,
            left=tuple(self.left),
        )
        await self.journal.end(ending)

    @property
    def _record(self) -> RunRecord:
        record = self.journal.record
        assert record is not None  # noqa: S101  # `take` came before
        return record

    def _sides(self, source: Side, destination: Side) -> list[tuple[Side, SideRecord]]:
        return [(source, self._record.source), (destination, self._record.destination)]

    async def _lock(self, side: Side) -> None:
        self._locked.append(side)
        try:
            await take_lock(side, self.run_id)
        except RefusedError:
            self._locked.remove(side)
            raise
        except LivemigError:  # a command that is stuck on its way may arrive after all, when its way is free again
            self._unanswered.append(side)
            raise

    def _note_failure(self) -> None:
        failure = self.journal.failure
        if failure is not None and failure not in self.notes:
            self.notes.append(failure)


def ending_of(report: Report, *, left: tuple[str, ...]) -> Ending:
    """Returns what the journal keeps of a report."""
    return Ending(
        ended_at=now_text(),
        outcome=report.outcome,
        running_on=report.running_on,
        guest_state=report.guest_state,
        reason=report.reason,
        total_s=report.total_s,
        downtime_s=None if report.downtime is None else report.downtime.total_s,
        sent_bytes=report.sent_bytes,
        round_count=report.round_count,
        warnings=report.warnings,
        left=left,
    )


def now_text() -> str:
    """Returns the time of day, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


async def _recorded(side: Side) -> SideRecord:
    folder = await folder_of(side)
    return SideRecord(
        address=str(_absolute(side.address)),
        other_addresses=await _other_monitors(side.monitor, side.address),
        process=identity_of(side.host, side.process),
        own_folder=None if folder is None else str(folder),
        session=identity_of(side.host, await _session(side.host)),
    )


async def _session(host: Host) -> HostProcess | None:
    try:
        return await host.session_process()
    except (LivemigError, OSError):
        return None  # of use for recovery alone


async def _with_settings(side: Side, record: SideRecord) -> SideRecord:
    return msgspec.structs.replace(
        record,
        capabilities=await query_capabilities(side.monitor),
        parameters=await query_parameters(side.monitor),
    )


async def _other_monitors(monitor: Monitor, own: Address) -> tuple[str, ...]:
    """The sockets of a QEMU that are monitors by its own names; human ones are told apart by their greeting."""
    try:
        found = await monitor.execute("query-chardev")
        paths = [str(one["filename"]) for one in found if str(one["label"]).startswith("compat_monitor")]
    except (LivemigError, LookupError, TypeError):
        return ()
    sockets = [text.partition("unix:")[2].partition(",")[0] for text in paths if "unix:" in text]
    return _addresses(str(own), *(path for path in sockets if path.startswith("/") and path != own.path))


def _absolute(address: Address) -> Address:
    """The address as it holds in every folder."""
    if address.path is None or address.login is not None:
        return address
    return Address(path=os.path.abspath(address.path))  # noqa: PTH100  # a link is the user's own choice: not followed


def _addresses(own: str, *paths: str) -> tuple[str, ...]:
    """Returns the addresses of sockets on the host that an address is on."""
    login = Address.parse(own).login
    return tuple(str(Address(path=path, login=login)) for path in paths)
