"""One run from two connected sides to its report: prepare, migrate, hand over, settle, report. The straight line.

Each part decides nothing that belongs elsewhere: the policy decides while the guest moves, the outcome table after.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from livemig.core import event as events
from livemig.core.errors import LivemigError, RefusedError
from livemig.core.evidence import Continuation, Evidence, SourceEnd
from livemig.core.observation import Observation
from livemig.core.outcome import Outcome, RunningOn, Step, Verdict
from livemig.core.plan import Plan, PlanChange
from livemig.core.readings import Absence
from livemig.core.report import Downtime, Report, fixed_downtime_found_s
from livemig.core.rule import Rule
from livemig.core.status import MigrationStatus, RunState
from livemig.engine.channel import Channel
from livemig.engine.claim import Claim
from livemig.engine.connect import Connected
from livemig.engine.finish import continue_destination, final_figures, measured_downtime
from livemig.engine.foresight import Foresight
from livemig.engine.handover import Handover
from livemig.engine.handshake import Connecting
from livemig.engine.live import LiveMigration
from livemig.engine.preflight import examine, keeps_sleep
from livemig.engine.prepare import Preparation
from livemig.engine.recorder import TraceRecorder
from livemig.engine.retire import retire
from livemig.engine.sampling import Sampling
from livemig.engine.settle import Settlement
from livemig.engine.watch import Watch
from livemig.engine.ways import DIRECT, NeverConnectedError, Ways
from livemig.qemu.introspection import query_parameters

ASLEEP_FOR_GOOD = (
    "the guest arrived asleep at a QEMU that `cont` does not prepare for its waking (before 9.0): once it is woken it "
    "stands still until you give `stop` and `cont` there"
)
"""Measured: after `system_wakeup` it reads as running and does nothing; after `stop` and `cont` the guest goes on."""

WOKEN_WITHIN_S = 0.1
"""A QEMU that wakes a guest to hand it over says so just before its STOP, or after it; earlier it was somebody else."""

logger = logging.getLogger(__name__)


class Run:
    """A run whose sides are connected.

    Attributes:
        live: The loop, and what it saw.
    """

    def __init__(
        self,
        run_id: str,
        plan: Plan,
        connected: Connected,
        watch: Watch,
        *,
        claim: Claim,
        put: Callable[[events.Event], None],
        recorder: TraceRecorder | None,
        ways: Ways = DIRECT,
        rule: Rule | None = None,
    ) -> None:
        self._put = put
        self.live = LiveMigration(
            plan,
            connected.source,
            watch,
            tell=self._take,
            recorder=recorder,
            on_guest_state=self._keep_state,
            rule=rule,
        )
        self._id = run_id
        self._source, self._destination, self._watch = connected.source, connected.destination, watch
        self._launched = connected.launched
        self._preparation = Preparation(
            connected.source, connected.destination, plan, claim.left, tunnelled=ways.tunnelled
        )
        self._ways = ways
        self._recorder, self._claim = recorder, claim
        self._failure: str | None = None
        self._destination_words = ""
        self._resumed_s: float | None = None
        self._source_kept = False
        self._cut_probation = False
        self._figures: Observation | None = None
        self._foresight = Foresight(plan, connected.source, connected.destination, int(run_id, 16))
        self._handover = Handover(plan, run_id, connected.source, connected.destination, warn=self.live.warn)

    def use_sampling(self, sampling: Sampling) -> None:
        """Takes what the guest was sampled before, instead of sampling it; before `prepared`."""
        self._foresight.use(sampling)

    def cancel(self, reason: str) -> None:
        """Asks that the guest stay at the source; in the probation: that it end now, and the source be kept."""
        self._cut_probation = True
        self.live.cancel(reason)

    def tune(self, change: PlanChange) -> None:
        """Changes the plan while the migration runs.

        Raises:
            PlanError: When the result makes no sense; then nothing was changed.
        """
        change.applied_to(self.live.policy.plan)
        self.live.tune(change)

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[Channel]:
        """Compares the sides and makes both ready; the destination listens afterwards.

        Raises:
            RefusedError: When the guest can't be moved. Nothing was changed, or all of it was put back.
        """
        policy = self.live.policy
        await self._foresight.remember()
        fixed = self._foresight.fixed_part(policy.plan)
        found = await examine(self._source, self._destination, policy.plan, fixed)
        if found.refusals:
            raise RefusedError(found.refusals)
        await self._foresight.sample(self._tell_sampled)
        async with (
            self._handover.ready(found.source),
            self._preparation.channel(self._id, self._intend, self._set_limits) as channel,
        ):
            self._tell_prepared(channel)
            for text in self._handover.notes:
                self.live.warn(text)
            for text in self._foresight.notes:
                self.live.warn(text)
            for text in (*(self._launched.plan.warnings if self._launched else ()), *found.warnings):
                self.live.warn(text)
            yield channel

    def _take(self, event: events.Event) -> None:
        """Hands an event on, and the switchover's beginning to those who wait for it."""
        if isinstance(event, events.SourceStopped):
            self._handover.source_stopped()
        self._put(event)

    async def _intend(self, channel: Channel) -> None:
        del channel
        await self._claim.intend(self._source, self._destination)

    async def _keep(self, evidence: Evidence, step: Step) -> bool:
        return await self._claim.keep(evidence, committing=step is Step.RETIRE_SOURCE)

    async def _keep_state(self, state: RunState) -> None:
        """The guest's owner changed its state: a process that takes over must not change it back."""
        failure = await self._claim.keep_state(state)
        if failure is not None:
            self.live.cancel(failure)

    async def _set_limits(self) -> None:
        parameters = await query_parameters(self._source.monitor)
        takes_bandwidth = "avail-switchover-bandwidth" in parameters
        if parameters.get("avail-switchover-bandwidth"):  # else QEMU would reckon the limit with somebody else's figure
            await self._source.settings.set_switchover_bandwidth(None)
        first = self.live.begin(
            self._source.facts.memory_bytes, self._foresight.known_now(), takes_switchover_bandwidth=takes_bandwidth
        )
        for action in first:
            await self.live.apply(action)

    def _tell_sampled(self, passed_s: float, wanted_s: float) -> None:
        self.live.tell(events.Sampled(time_s=self.live.now_s, passed_s=passed_s, wanted_s=wanted_s))

    def _tell_prepared(self, channel: Channel) -> None:
        source, destination, policy = self._source.facts, self._destination.facts, self.live.policy
        if self._launched is not None:
            plan = self._launched.plan
            self.live.tell(
                events.DestinationLaunched(time_s=self.live.now_s, command=plan.command, changes=plan.changes)
            )
        self.live.tell(
            events.Prepared(
                time_s=self.live.now_s,
                id=self._id,
                guest_name=source.guest_name,
                memory_bytes=source.memory_bytes,
                source=str(self._source.address),
                destination=str(self._destination.address),
                source_version=source.version,
                destination_version=destination.version,
                channel=channel.description,
                downtime_limit_s=policy.plan.downtime_limit_s,
                fixed_downtime_s=policy.fixed_downtime_s,
            )
        )

    async def migrate(self, channel: Channel) -> Report:
        """Moves the guest and returns how it ended. Whatever fails is in the report, not raised.

        Raises:
            NeverConnectedError: When the two did not come together, and another way is worth trying.
        """
        self._handover.migrating()
        connecting = Connecting(
            self._source, self._destination, channel, self._preparation.connect_uri, self._is_moving
        )
        try:
            await self.live.drive(
                lambda: self._source.monitor.execute("migrate", {"uri": self._preparation.connect_uri})
            )
        except LivemigError as error:
            self._failure = str(error)
        except Exception as error:
            logger.exception("the loop failed")
            self._failure = f"livemig itself failed: {error!r}"  # a bug of ours must not leave a guest half-way
        finally:
            self._failure = await connecting.end() or self._failure
        settlement = Settlement(
            self._source,
            self._destination,
            self._watch,
            await self._evidence(),
            migrating=self.live.migrating,
            tell_step=self._tell_step,
            keep=self._keep,
            retire=self._retire,
        )
        downtime = await self._hand_over(settlement)
        if self._recorder is not None:
            self._recorder.release()
        verdict = await settlement.run()
        await self._put_back(verdict)
        if await self._must_look_again(verdict):
            verdict = await settlement.run()  # it may have died at the last moment: say what is so now
        if self.live.last is None:
            await connecting.give_up()
            failed = verdict.outcome is Outcome.FAILED and self.live.policy.cancel_reason is None
            if failed and self._launched is not None and self._ways.after(self.live.policy.plan, channel.security):
                report = self._report(verdict, settlement, downtime)
                raise NeverConnectedError(report.reason, silent=connecting.silent, report=report)
        if verdict.outcome is Outcome.FAILED and self._launched is not None:
            self._destination_words = await self._launched.read_stderr()
        await self.live.look_ahead.finish()
        report = self._report(verdict, settlement, downtime)
        unkept = await self._foresight.keep(
            report,
            switchover_sent_bytes=None if self._figures is None else self._figures.downtime_bytes,
            throughput_bytes_s=self.live.outlook.throughput_bytes_s,
        )
        for note in unkept:
            self.live.warn(note)
        return msgspec.structs.replace(report, warnings=tuple(self.live.warnings))

    def _is_moving(self) -> bool:
        return self.live.last is not None and bool(self.live.last.sent_bytes)

    async def _hand_over(self, settlement: Settlement) -> Downtime | None:
        """The straight way, without reading both sides first: their own ``completed`` was just read from both.

        The table says the same in this situation; a test holds the two together.
        """
        if not self._watch.both_completed:
            return None
        completed_s = time.monotonic()
        self._resumed_s = completed_s - self.live.started_s
        if not settlement.evidence.live_before:
            self._figures = await final_figures(self._source.monitor)
            return None
        await self._handover.before_continue()
        settlement.note_continued(await continue_destination(self._destination, self._watch))
        continued, stopped = settlement.continued, self.live.stopped
        if continued is None or not continued.runs:
            return None
        if continued.resume is not None:
            self._resumed_s = continued.resume.arrival_s - self.live.started_s
        elif continued.run_state is RunState.SUSPENDED:
            self.live.warn(ASLEEP_FOR_GOOD)
        downtime = None
        if stopped is not None:
            downtime = measured_downtime(self._source, self._destination, stopped, completed_s, continued)
        self.live.tell(
            events.DestinationRunning(
                time_s=self._resumed_s,
                downtime_s=None if downtime is None else downtime.total_s,
                run_state=str(continued.run_state),
            )
        )
        self._handover.resumed(self.live.started_s + self._resumed_s)
        self._figures = await final_figures(self._source.monitor) or self._figures
        await self.live.look_ahead.commit()
        return downtime

    async def _evidence(self) -> Evidence:
        return Evidence(
            state_before=self.live.guest_state,
            continuation=Continuation.NOT_SENT,
            source_end=await self._source_end(),
            guest_shut_down=self._watch.guest_ended_itself,
            cancel_requested=self.live.policy.cancel_reason is not None,
        )

    async def _source_end(self) -> SourceEnd:
        status = self._watch.statuses.get("source")
        if status is MigrationStatus.COMPLETED:
            return SourceEnd.COMPLETED
        if status in (MigrationStatus.FAILED, MigrationStatus.CANCELLED):
            return SourceEnd.WENT_ON
        orderly = self.live.stopped is not None and "source" in self._watch.ended_orderly
        if orderly and await self._source.is_gone():
            return SourceEnd.ENDED_QUIETLY
        return SourceEnd.UNKNOWN

    def _tell_step(self, verdict: Verdict) -> None:
        if self._recorder is not None:
            self._recorder.release()
        self.live.tell(events.Settling(time_s=self.live.now_s, step=verdict.step, reason=verdict.reason))

    async def _retire(self) -> None:
        """Watches the destination; quits the source when all is well there and nobody wants it kept."""
        self._source_kept = await retire(
            self._source,
            self._watch,
            self.live.policy.plan,
            since_s=self.live.started_s + (self._resumed_s or self.live.now_s),
            cut_short=lambda: self._cut_probation,
            probed=self._probed,
            warn=self.live.warn,
        )
        self.live.tell(events.SourceRetired(time_s=self.live.now_s, kept=self._source_kept))

    async def _probed(self) -> str | None:
        """Returns what the user's own probe has against the guest at the destination."""
        self._handover.resumed(self.live.started_s + (self._resumed_s or self.live.now_s))
        return await self._handover.trouble()

    async def _put_back(self, verdict: Verdict) -> None:
        """Leaves both QEMUs as they were before, as far as they live."""
        stayed = verdict.outcome in (Outcome.FAILED, Outcome.CANCELLED)
        if not await self._source.is_gone() and stayed and self.live.was_stopped:
            for text in await self._handover.stayed():
                self.live.warn(text)
        await self._preparation.restore()
        await self._claim.release()
        for note in (*self._claim.left, *self._claim.notes):
            self.live.warn(note)

    async def _must_look_again(self, verdict: Verdict) -> bool:
        """Whether the side that is said to have the guest may have ended since: a monitor closes before its process."""
        sides = {RunningOn.SOURCE: self._source, RunningOn.DESTINATION: self._destination}
        side = sides.get(verdict.running_on or RunningOn.UNKNOWN)
        return side is not None and (side.monitor.closed or await side.is_gone())

    def _report(self, verdict: Verdict, settlement: Settlement, downtime: Downtime | None) -> Report:
        outcome = verdict.outcome or Outcome.UNKNOWN
        running_on = verdict.running_on or RunningOn.UNKNOWN
        if self._recorder is not None and self._recorder.failure is not None:
            self.live.warn(self._recorder.failure)
        guest_state = _guest_state(running_on, settlement)
        self._warn_if_woken(outcome, guest_state)
        live, policy, figures = self.live, self.live.policy, self._figures or self.live.last
        return Report(
            id=self._id,
            plan=policy.plan,
            outcome=outcome,
            running_on=running_on,
            guest_state=guest_state,
            reason=self._reason(verdict, settlement),
            cancel_reason=policy.cancel_reason,
            total_s=self._resumed_s if outcome is Outcome.COMPLETED else live.now_s,
            downtime=downtime,
            qemu_downtime_s=None if figures is None else figures.downtime_s,
            qemu_total_s=None if figures is None else figures.total_s,
            sent_bytes=0 if figures is None else figures.sent_bytes or 0,
            round_count=live.round_count,
            rounds=tuple(live.outlook.rounds),
            samples=live.outlook.samples,
            sampled_s=self._foresight.sampled_s,
            forecasts=tuple(live.outlook.forecasts),
            fixed_downtime_s=policy.fixed_downtime_s,
            fixed_downtime_measured=policy.fixed_part.measured,
            fixed_downtime_origin=policy.fixed_part.origin,
            fixed_downtime_found_s=fixed_downtime_found_s(
                downtime, None if self._figures is None else self._figures.downtime_bytes
            ),
            source_kept=self._source_kept,
            blackout=self._handover.blackout,
            warnings=tuple(live.warnings),
        )

    def _warn_if_woken(self, outcome: Outcome, guest_state: str) -> None:
        """Before 9.0 QEMU wakes a sleeping guest that it hands over; its WAKEUP may come after ``completed``."""
        asleep = self.live.guest_state is RunState.SUSPENDED or self._woken_as_it_stopped()
        by_itself = ("destination", "WAKEUP") in self._watch.latest
        if outcome is Outcome.COMPLETED and asleep and guest_state == RunState.RUNNING and not by_itself:
            self.live.warn(
                "the guest slept, and QEMU woke it in the middle of handing it over: it may stand still, reset it then"
            )

    def _woken_as_it_stopped(self) -> bool:
        """Whether such a QEMU's WAKEUP came before the STOP that it belongs to: its main loop was the quicker one."""
        wakeup, stopped = self._watch.latest.get(("source", "WAKEUP")), self.live.stopped
        if wakeup is None or stopped is None or keeps_sleep(self._source.facts):
            return False
        return 0.0 <= stopped.arrival_s - wakeup.arrival_s < WOKEN_WITHIN_S

    def _reason(self, verdict: Verdict, settlement: Settlement) -> str:
        """The verdict's words, and what brought it about: livemig's own reason first, then QEMU's words."""
        policy = self.live.policy
        causes = [policy.cancel_reason, policy.failure_reason, self._failure]
        if verdict.outcome is Outcome.COMPLETED:
            causes = [policy.cancel_reason and f"{policy.cancel_reason}, but too late"]
        if verdict.outcome is Outcome.UNKNOWN:
            causes += settlement.refusals
        if verdict.outcome is Outcome.FAILED:
            if settlement.continued is not None and settlement.continued.refused:
                causes.append(f"destination: {settlement.continued.refusal}")
            causes += [f"QEMU says: {text}" for text in settlement.error_texts]
            if self._destination_words:
                causes.append(f"the destination wrote: {self._destination_words}")
            if not any(causes):
                causes = ["QEMU names no reason: see what the destination printed on stderr"]
        return "; ".join([verdict.reason, *(cause for cause in causes if cause)])


def _guest_state(running_on: RunningOn, settlement: Settlement) -> str:
    readings = settlement.readings
    if readings is None or running_on in (RunningOn.NONE, RunningOn.UNKNOWN):
        return "unknown" if running_on is RunningOn.UNKNOWN else "none"
    reading = readings[0 if running_on is RunningOn.SOURCE else 1]
    return "unknown" if isinstance(reading.state, Absence) else str(reading.state)
