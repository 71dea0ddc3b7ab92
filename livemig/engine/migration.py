"""One live migration from two addresses to a report: the library's `migrate`, and the straight line of a run."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Self, assert_never

import msgspec

from livemig.core import event as events
from livemig.core.errors import LivemigError, RefusedError
from livemig.core.outcome import Outcome
from livemig.core.plan import Plan, PlanChange
from livemig.core.report import Report
from livemig.core.rule import Rule
from livemig.core.trace import TRACE_VERSION, EventRecord, TraceHeader
from livemig.engine.claim import Claim
from livemig.engine.connect import Connected, connect_both
from livemig.engine.control import LiveStatus, Request, StatusKeeper, listening
from livemig.engine.event_stream import EventStream
from livemig.engine.host_pool import HostPool
from livemig.engine.launch_plan import LaunchOptions
from livemig.engine.recorder import TraceRecorder
from livemig.engine.run import Run
from livemig.engine.sampling import Sampling
from livemig.engine.watch import Watch
from livemig.engine.ways import NeverConnectedError, Ways
from livemig.qemu.address import Address

LEAVING_BOUND_S = 30.0
"""How long leaving a migration early may take: cancelling, settling, ending the destination, each bounded itself."""


def new_id() -> str:
    """Returns an id for a run: short enough to type, random enough to be one's own."""
    return secrets.token_hex(4)


class Migration:
    """A live migration; enter it to start, iterate it for its events, and read `report` at its end.

    Leaving early cancels it, within a bound, and waits for the guest to run at the source, unless the switchover had
    begun: then that finishes. Entering raises when the migration can't be; the source was not touched then.

    Attributes:
        id: The run's id.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        source: str,
        destination: str,
        launch: LaunchOptions | None = None,
        run_id: str | None = None,
        trace_path: Path | None = None,
        rule: Rule | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        """Reads the addresses and touches nothing.

        A rule takes the place of livemig's own for the switchover: that is how rules are compared.

        Raises:
            AddressError: When an address can't be read.
        """
        self.id = run_id or new_id()
        self._plan = plan
        self._launch = launch or LaunchOptions()
        self._addresses = (Address.parse(source), Address.parse(destination))
        self._trace_path = trace_path
        self._rule = rule
        self._sampling = sampling
        self._stream = EventStream()
        self._run: Run | None = None
        self._report: Report | None = None
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._cancel_reason: str | None = None
        self._cut_off = False
        self._changes: list[PlanChange] = []
        self._retries: list[str] = []
        self._status = StatusKeeper(self.id, source, destination)

    @property
    def report(self) -> Report:
        """How it ended.

        Raises:
            LivemigError: While it has not.
        """
        if self._report is None and self._cut_off:
            raise LivemigError(f"the migration was cut off: `livemig recover {self.id}` finishes it")
        if self._report is None:
            raise LivemigError("the migration has not ended: leave its context first")
        return self._report

    def cancel(self, reason: str = "cancelled by the caller") -> None:
        """Asks that the guest stay at the source. Once the switchover has begun, that finishes. Can be repeated."""
        is_first, self._cancel_reason = self._cancel_reason is None, self._cancel_reason or reason
        if self._run is not None:
            self._run.cancel(reason)
        elif self._task is not None and is_first:
            self._task.cancel()  # once: a second one would cut short what is given back

    def tune(self, change: PlanChange) -> None:
        """Changes limits, before the migration begins or while it runs.

        Raises:
            PlanError: When the changed plan makes no sense; then nothing was changed.
        """
        if self._run is None:
            self._plan = change.applied_to(self._plan)
            return
        self._run.tune(change)
        self._changes.append(change)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._live(), name=f"livemig {self.id}")
        begun = asyncio.create_task(self._begun.wait())
        try:
            await asyncio.wait((self._task, begun), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._leave("cancelled before it began")
            raise
        finally:
            begun.cancel()
        if self._task.done() and not self._begun.is_set():
            await self._raise_refusal(self._task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._leave("its caller left early")

    async def __aiter__(self) -> AsyncIterator[events.Event]:
        async for event in self._stream:
            yield event

    async def _raise_refusal(self, task: asyncio.Task[None]) -> None:
        try:
            await task
        except asyncio.CancelledError as error:
            raise RefusedError((self._cancel_reason or "cancelled before it began",)) from error

    async def _leave(self, reason: str) -> None:
        """Ends the run: waits for one that has ended anyhow, cancels one that has not."""
        task = self._task
        if task is None:
            return
        if not task.done():
            self.cancel(reason)
            await asyncio.wait((task,), timeout=LEAVING_BOUND_S)
        if not task.done():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()) is not None and self._begun.is_set():
            raise error

    async def _live(self) -> None:
        """The straight line: connect, compare, prepare, migrate, settle, give everything back, report."""
        claim = Claim(self.id, self._plan)
        try:
            async with contextlib.AsyncExitStack() as stack:
                recorder = self._recorder()
                if recorder is not None:
                    stack.callback(self._close_trace, recorder)
                stack.push_async_callback(claim.journal.close)
                try:
                    if self._cancel_reason is not None:
                        raise RefusedError((self._cancel_reason,))
                    await claim.journal.open()
                    report = await self._by_some_way(claim, recorder)
                except BaseException as error:
                    if not self._cut_off:
                        await asyncio.shield(claim.end_refused(self._cancel_reason or str(error) or repr(error)))
                    for note in claim.left:
                        error.add_note(note)
                    raise
                await claim.end(report)
                self._finish(report, claim)
        finally:
            self._stream.close()

    async def _by_some_way(self, claim: Claim, recorder: TraceRecorder | None) -> Report:
        """A handshake that hangs is worth another port, and then the way through SSH."""
        ways, silent_count = Ways(more=True), 0
        before: NeverConnectedError | None = None
        run: Run | None = None
        async with HostPool() as hosts:
            while True:
                try:
                    if before is not None and self._cancel_reason is not None:
                        raise RefusedError((self._cancel_reason,))
                    return await self._moved(ways, hosts, claim, recorder)
                except NeverConnectedError as error:
                    silent_count += error.silent
                    if not error.silent or silent_count > 1:
                        ways = Ways(tunnelled=True)
                    way = "the way through SSH" if ways.tunnelled else "another port"
                    self._retry(f"{error}; {way} is tried", recorder)
                    before, run = error, self._run
                except (LivemigError, asyncio.CancelledError) as error:
                    if before is None or self._run is not run:
                        raise
                    return self._without_another_way(before.report, error)

    def _without_another_way(self, report: Report, error: BaseException) -> Report:
        """How a run ended that did not come together, and whose next attempt was cancelled or refused beforehand."""
        if self._cancel_reason is None:
            return msgspec.structs.replace(report, reason=f"{report.reason}; it could not be tried again: {error}")
        return msgspec.structs.replace(
            report,
            outcome=Outcome.CANCELLED,
            reason=f"{self._cancel_reason}, before another attempt; {report.reason}",
            cancel_reason=self._cancel_reason,
        )

    def _retry(self, text: str, recorder: TraceRecorder | None) -> None:
        event = events.Warned(time_s=0.0, text=text)
        self._retries.append(text)
        self._put(event)
        if recorder is not None:
            recorder.write(EventRecord(event=event))

    async def _moved(self, ways: Ways, hosts: HostPool, claim: Claim, recorder: TraceRecorder | None) -> Report:
        """Moves the guest, or not, and lets go of everything; what is left is to say so."""
        async with contextlib.AsyncExitStack() as stack:
            loading = asyncio.ensure_future(asyncio.to_thread(import_module, "livemig.core.forecaster"))
            stack.push_async_callback(asyncio.wait, [loading])
            connected = await connect_both(*self._addresses, self._launch, hosts, claim)
            stack.push_async_callback(self._let_go, connected, claim)
            await stack.enter_async_context(listening(self.id, self._answer))
            watch = await stack.enter_async_context(Watch(connected.source, connected.destination))
            run = Run(
                self.id,
                self._plan,
                connected,
                watch,
                claim=claim,
                put=self._put,
                recorder=recorder,
                ways=ways,
                rule=self._rule,
            )
            if self._sampling is not None:
                run.use_sampling(self._sampling)
            channel = await stack.enter_async_context(run.prepared())
            self._run = run
            self._ask_again(run)
            self._begun.set()
            if recorder is not None:
                recorder.release()
            try:
                self._report = await run.migrate(channel)
            except NeverConnectedError:
                raise
            except BaseException:
                self._cut_off = True
                raise
        return self._report

    def _ask_again(self, run: Run) -> None:
        """What was asked while another way was tried holds for this one too."""
        for change in self._changes:
            run.live.tune(change)
        if self._cancel_reason is not None:
            run.cancel(self._cancel_reason)

    def _finish(self, report: Report, claim: Claim) -> None:
        """Tells the end, with what giving back left to be said."""
        assert self._run is not None  # noqa: S101  # there is a report
        live = self._run.live
        for note in (*claim.left, *claim.notes):
            if note not in live.warnings:
                live.warn(note)
        self._report = msgspec.structs.replace(
            report, warnings=(*self._retries, *live.warnings), journal_s=claim.journal.cost_s
        )
        live.tell(self._report.ended(live.now_s))

    def _put(self, event: events.Event) -> None:
        self._status.take(event)
        self._stream.put(event)

    def _answer(self, request: Request) -> LiveStatus:
        """Does what another process asks over the control socket."""
        run = self._run
        plan = self._plan if run is None else run.live.policy.plan
        match request.do:
            case "tune":
                self.tune(request.change)
                plan = request.change.applied_to(plan)  # the policy takes it with its next input
            case "cancel":
                self.cancel(request.reason or "cancelled by `livemig cancel`")
            case "status":
                pass
            case _:
                assert_never(request.do)
        return self._status.now(plan, None if run is None else run.live.now_s)

    async def _let_go(self, connected: Connected, claim: Claim) -> None:
        """Closes both monitors. What was launched is gone again, unless it has the guest, or may have it.

        One that was cut off while it migrated, by a fault of ours or by a caller that waits no longer, leaves all as it
        is, as one that was killed does: where the guest is now, the table says to who recovers it.
        """
        if not self._cut_off:
            await claim.release()
        launched = connected.launched
        if launched is not None:
            outcome = None if self._report is None else self._report.outcome
            if self._cut_off or outcome in (Outcome.COMPLETED, Outcome.UNKNOWN):
                launched.close()
            else:
                claim.left += await launched.end_or_say()
        await connected.source.close()
        await connected.destination.close()

    def _close_trace(self, recorder: TraceRecorder) -> None:
        """A refusal leaves no trace, and an older one as it was."""
        if not self._begun.is_set():
            recorder.discard()
        recorder.close()

    def _recorder(self) -> TraceRecorder | None:
        if self._trace_path is None:
            return None
        recorder = TraceRecorder(self._trace_path)
        recorder.hold()
        recorder.write(
            TraceHeader(
                version=TRACE_VERSION,
                livemig_version=version("livemig"),
                id=self.id,
                started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                plan=self._plan,
            )
        )
        return recorder


def migrate(
    plan: Plan,
    *,
    source: str,
    destination: str,
    launch: LaunchOptions | None = None,
    trace_path: Path | None = None,
    sampling: Sampling | None = None,
) -> Migration:
    """Moves a running guest from one QEMU to another.

    The other one waits for it (``-S -incoming defer``), or, when nobody listens at its address, is launched there by
    the source's own command line.

    Example:
        async with livemig.migrate(Plan(), source="a.qmp", destination="b.qmp") as migration:
            async for event in migration:
                print(event)
        print(migration.report.outcome)

    Args:
        plan: What is asked.
        source: The QMP monitor of the QEMU whose guest is to move: ``PATH``, ``unix:PATH`` or ``tcp:HOST:PORT``.
        destination: The QMP monitor of the QEMU that waits, or the socket where that of a launched one will be.
        launch: What to change in the command line of a launched one.
        trace_path: Where to write the trace, or None for none.
        sampling: What `livemig.engine.sampling` found of the guest just before; then it is not sampled again.

    Returns:
        A `Migration` that was not entered yet; entering starts it.

    Raises:
        AddressError: When an address can't be read. Entering raises `ConnectError` or `RefusedError` when the migration
            can't be; the guest runs on at the source then, untouched.
    """
    return Migration(
        plan, source=source, destination=destination, launch=launch, trace_path=trace_path, sampling=sampling
    )
