"""The loop of a live migration: observe, ask the policy, act, until the guest has been handed over or has not.

Starts with two sides that were compared and ends with what was seen; continuing the destination and sorting out
failures come after it, in `livemig.engine.finish` and `livemig.engine.settle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from livemig.core import event as events
from livemig.core import inputs
from livemig.core.action import Action, Settle, Yank
from livemig.core.errors import LivemigError, MonitorLost
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.observation import Observation
from livemig.core.outlook import Outlook
from livemig.core.phases import TRANSITIONS, Phase
from livemig.core.plan import Plan, PlanChange
from livemig.core.policy import STOPPED_BY_QEMU, Decision, Policy
from livemig.core.prediction import Forecast
from livemig.core.progress import Progress
from livemig.core.rounds import Round
from livemig.core.rule import Rule
from livemig.core.status import MigrationStatus, RunState
from livemig.core.trace import DecisionRecord, EventRecord, InputRecord, worth_recording
from livemig.engine.act import carry_out, carry_out_once_there
from livemig.engine.doubt import Doubt
from livemig.engine.look_ahead import LookAhead
from livemig.engine.recorder import TraceRecorder
from livemig.engine.return_of_monitor import return_of
from livemig.engine.side import Side, SideName
from livemig.engine.watch import SideEvent, Watch
from livemig.qemu.event_stream import MonitorEvent

TICK_S = 0.1
POLL_S = 0.2
"""A net under the round boundaries, which come as events; a query costs QEMU about half a millisecond of its lock."""
GUARD_POLL_S = 0.02
"""While the guard holds the bandwidth down, and while the cap is lifted for a slot: look often, both are short."""
COMPLETION_BOUND_S = 5.0
"""How long the destination's ``completed`` may come after the source's."""


class LiveMigration:
    """Drives one migration from ``migrate`` to its end at both QEMUs.

    Attributes:
        policy: What decides.
        outlook: What forecasts, and cuts the copy into rounds.
        phase: Where it stands.
        warnings: What the user should know, in the order it was seen.
        last: The source's last observation before the switchover, or None.
        stopped: The source's STOP of the switchover, or None.
        watch: The events of both sides.
        was_stopped: Whether the switchover's STOP was ever seen, even if the source resumed since.
        guest_state: The guest's run state as its owner wants it: before the migration, or since somebody stopped it.
        migrating: Whether the source took ``migrate``.
    """

    def __init__(
        self,
        plan: Plan,
        source: Side,
        watch: Watch,
        *,
        tell: Callable[[events.Event], None],
        recorder: TraceRecorder | None,
        on_guest_state: Callable[[RunState], Coroutine[Any, Any, None]] | None = None,
        rule: Rule | None = None,
    ) -> None:
        self.policy = Policy(plan, rule)
        self.outlook = Outlook(plan)
        self.look_ahead = LookAhead(self.outlook, self._tell_forecast)
        self.warnings: list[str] = []
        self.last: Observation | None = None
        self.stopped: MonitorEvent | None = None
        self.watch = watch
        self.was_stopped = False
        self.guest_state = source.facts.run_state
        self.migrating = False
        self.started_s = time.monotonic()
        self._source = source
        self._tell_listener, self._recorder, self._on_guest_state = tell, recorder, on_guest_state
        self._actions: asyncio.Queue[Action] = asyncio.Queue()
        self._poll_now = asyncio.Event()
        self._progress = Progress()
        self._settle = False
        self._away: set[SideName] = set()
        self._doubt = Doubt(source)
        self._completed_s: float | None = None
        self._replied_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def now_s(self) -> float:
        """Seconds since ``migrate``; negative before it."""
        return time.monotonic() - self.started_s

    @property
    def phase(self) -> Phase:
        """Where the migration stands."""
        return self.policy.phase

    @property
    def round_count(self) -> int:
        """Passes over dirty memory so far, the one under way included."""
        return self.outlook.round_number

    def tell(self, event: events.Event) -> None:
        """Hands an event to the listener and the trace."""
        self._tell_listener(event)
        if self._recorder is not None:
            self._recorder.write(EventRecord(event=event))

    def warn(self, text: str) -> None:
        """Tells the user something that does not end the migration."""
        self.warnings.append(text)
        self.tell(events.Warned(time_s=self.now_s, text=text))

    def cancel(self, reason: str) -> None:
        """Asks that the guest stay at the source; honoured until the switchover has begun."""
        self.watch.put(inputs.CancelRequested(time_s=self.now_s, reason=reason))

    def tune(self, change: PlanChange) -> None:
        """Changes the plan while the migration runs."""
        self.watch.put(inputs.Tuned(time_s=self.now_s, change=change))

    def begin(self, memory_bytes: int, known: Foreknowledge, *, takes_switchover_bandwidth: bool) -> tuple[Action, ...]:
        """Makes the first forecast; returns the settings to make before ``migrate``."""
        self.started_s = time.monotonic()
        item = inputs.Prepared(
            time_s=self.now_s,
            memory_bytes=memory_bytes,
            known=known,
            takes_switchover_bandwidth=takes_switchover_bandwidth,
        )
        decision = self.step(item)
        self.look_ahead.begin(item)
        return decision.actions

    async def drive(self, migrate: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Sends ``migrate`` and follows it to its end: until both sides have completed, or it is to be settled.

        Raises:
            LivemigError: When ``migrate`` itself was refused; the guest runs at the source.
        """
        try:
            self.started_s = time.monotonic()
            await migrate()
            self.migrating = True
            self._spawn(self._poll())
            self._spawn(self._apply_actions())
            await self._loop()
        finally:
            await self._end_tasks()

    async def _loop(self) -> None:
        ticked_s = self.now_s
        while not self._over():
            item = await self.watch.next(TICK_S)
            if isinstance(item, SideEvent):
                self._take_event(item)
            elif item is not None:
                self._take_input(item)
            if self.now_s - ticked_s >= TICK_S and not self._out_of_reach():
                ticked_s = self.now_s
                self._handle(inputs.Tick(time_s=ticked_s))

    def _out_of_reach(self) -> bool:
        """Whether the source's host is, or may be: time alone proves no standstill then."""
        return "source" in self._away or self._doubt.holds

    def _over(self) -> bool:
        if self.watch.both_completed or self._settle:
            return True
        if self._completed_s is not None and self.now_s - self._completed_s > COMPLETION_BOUND_S:
            return True
        return self.phase.terminal and self.phase is not Phase.COMPLETED

    def _take_event(self, item: SideEvent) -> None:
        if item.event is None and self.watch.side(item.side).may_return:
            self._spawn(self._await_return(item.side))
        elif item.event is None:
            self._handle(inputs.PeerLost(time_s=self.now_s, side=item.side))
        elif item.side == "source":
            self._doubt.heard()
            self._take_source_event(item.event)

    async def _await_return(self, name: SideName) -> None:
        """The way to a host broke, not its QEMU: that goes on, within the limits it was given."""
        self._away.add(name)
        self.warn(f"the connection to the {name}'s host is lost; its QEMU goes on")
        if await return_of(self.watch.side(name), self.watch, self.started_s):
            self.warn(f"the connection to the {name}'s host is back")
        else:
            self.watch.put(inputs.PeerLost(time_s=self.now_s, side=name))
        self._away.discard(name)

    def _take_input(self, item: inputs.Input) -> None:
        if isinstance(item, inputs.Observed):
            if self._overtaken(item.observation):
                return
            self._replied_s = item.observation.time_s
            self._doubt.heard()
        if isinstance(item, inputs.RunStateSeen) and item.run_state not in STOPPED_BY_QEMU:
            self.stopped = None
            self._set_guest_state(item.run_state)
            self._release()
        finished = self._handle(item)
        if isinstance(item, inputs.Observed):
            self._take_observation(item.observation, finished)

    def _overtaken(self, observation: Observation) -> bool:
        """Whether events have said more since this reply left QEMU: they come in order, a poll's reply may not.

        Seen in 3 % of short switchovers: a polled ``device`` taken after the event that said ``completed``.
        """
        told_by_event = ("source", "MIGRATION") in self.watch.latest
        return told_by_event and observation.status not in TRANSITIONS[self.phase]

    def _take_status(self, status: MigrationStatus, time_s: float) -> None:
        """Takes the status of an event, unless a reply that left QEMU later was taken before it and said more."""
        if status is MigrationStatus.COMPLETED:
            self._completed_s = self.now_s
        if time_s >= self._replied_s or status in TRANSITIONS[self.phase]:
            self._handle(inputs.StatusSeen(time_s=time_s, status=status))

    def _take_source_event(self, event: MonitorEvent) -> None:
        time_s = event.arrival_s - self.started_s
        match event.name:
            case "STOP":
                self.stopped, self.was_stopped = event, True
                if self._recorder is not None:
                    self._recorder.hold()
                self.tell(events.SourceStopped(time_s=time_s))
                self._handle(inputs.SourceStopped(time_s=time_s))
                self._spawn(self._ask_run_state())
            case "RESUME":
                self.stopped = None
                if self.guest_state not in (RunState.RUNNING, RunState.SUSPENDED):
                    self._set_guest_state(RunState.RUNNING)
                self._release()
                self._handle(inputs.SourceResumed(time_s=time_s))
            case "MIGRATION":
                self._take_status(self.watch.statuses["source"], time_s)
            case "MIGRATION_PASS":
                if self.stopped is None:
                    self.outlook.note_sync(int(event.data.get("pass", 0)))
                self._poll_now.set()
            case "SUSPEND":
                self._set_guest_state(RunState.SUSPENDED)
            case "WAKEUP" if self.stopped is None:  # later it is QEMU's own doing, which the report tells
                self._set_guest_state(RunState.RUNNING)
            case "RESET" | "GUEST_PANICKED" | "WATCHDOG" | "BLOCK_IO_ERROR":
                self.warn(f"the guest had a {event.name} while it moved")
            case _:
                pass

    def _set_guest_state(self, state: RunState) -> None:
        """Takes a state that the guest or its owner chose, which is to be kept."""
        if state is not self.guest_state:
            self.guest_state = state
            if self._on_guest_state is not None:
                self._spawn(self._on_guest_state(state))

    def _take_observation(self, observation: Observation, finished: Round | None) -> None:
        self.watch.statuses["source"] = observation.status
        if observation.status is MigrationStatus.COMPLETED and self._completed_s is None:
            self._completed_s = self.now_s
        if observation.status is not MigrationStatus.ACTIVE or self.stopped is not None:
            return  # the rest that goes over in the switchover is no round
        self.last = observation
        expected_downtime_s = self.policy.expected_downtime_s
        limit_s = self.policy.plan.downtime_limit_s
        if finished is not None:
            self.tell(
                events.RoundCompleted(
                    time_s=self.now_s,
                    round=finished,
                    expected_downtime_s=expected_downtime_s,
                    downtime_limit_s=limit_s,
                )
            )
        left_s = self.outlook.left_s(self.now_s)
        last_round = self.outlook.rounds[-1] if self.outlook.rounds else None
        self.tell(
            events.Progressed(
                time_s=self.now_s,
                phase=self.phase,
                progress=self._progress.after(observation, left_s),
                round_number=self.outlook.round_number,
                remaining_bytes=observation.remaining_bytes or 0,
                sent_bytes=observation.sent_bytes or 0,
                throughput_bytes_s=observation.throughput_bytes_s or None,
                newly_dirtied_bytes_s=None
                if last_round is None
                else last_round.newly_dirtied_bytes / last_round.duration_s,
                expected_downtime_s=expected_downtime_s,
                downtime_limit_s=limit_s,
                left_s=left_s,
            )
        )

    def _tell_forecast(self, forecast: Forecast) -> None:
        self.tell(events.Forecasted(time_s=self.now_s, forecast=forecast))

    def _handle(self, item: inputs.Input) -> Round | None:
        """Decides and acts, and only then looks ahead; returns the round that the input ended."""
        decision = self.step(item)
        self._perform(decision)
        if decision.actions and self.policy.uncapped:
            self._poll_now.set()  # the wait under way is a long one for a slot without the cap
        return self.look_ahead.take(item)

    def step(self, item: inputs.Input) -> Decision:
        """Asks the policy; writes the question and the answer to the trace and tells the answer."""
        decision = self.policy.step(item)
        if self._recorder is not None:
            self._recorder.write(InputRecord(input=item))
            if worth_recording(decision):
                self._recorder.write(DecisionRecord(decision=decision))
        if worth_recording(decision):
            self.tell(
                events.Decided(
                    time_s=item.time_s, phase=decision.phase, actions=decision.actions, reason=decision.reason
                )
            )
        return decision

    def _perform(self, decision: Decision) -> None:
        for action in decision.actions:
            match action:
                case Settle():
                    self._settle = True
                case Yank():
                    self._spawn(self._carry_out(action))  # never behind a command that hangs
                case _:
                    self._actions.put_nowait(action)

    async def _apply_actions(self) -> None:
        while True:
            await self._carry_out(await self._actions.get())

    async def _carry_out(self, action: Action) -> None:
        try:
            await carry_out_once_there(action, self._source)
        except LivemigError as error:
            refused = inputs.ActionRefused(time_s=self.now_s, action=str(action), reason=str(error))
            self.watch.put(refused)

    async def apply(self, action: Action) -> None:
        """Carries an action out on the source.

        Raises:
            LivemigError: When QEMU refused it or did not answer.
        """
        await carry_out(action, self._source)

    async def _poll(self) -> None:
        """Asks the source for its counters. No bound: in the switchover silence is normal, and the watchdog decides."""
        while True:
            often = self.last is None or not self.last.throughput_bytes_s or self.policy.uncapped
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GUARD_POLL_S if often else POLL_S):
                    await self._poll_now.wait()
            self._poll_now.clear()
            try:
                observation = await self._source.monitor.query_migrate(timeout_s=None, origin_s=self.started_s)
            except MonitorLost:
                if not self._source.may_return:
                    return
                await asyncio.sleep(POLL_S)
                continue
            except LivemigError as error:
                self.warn(str(error))
                await asyncio.sleep(POLL_S)
                continue
            self.watch.put(inputs.Observed(time_s=observation.time_s, observation=observation))

    async def _ask_run_state(self) -> None:
        """After STOP: was it QEMU's switchover, or somebody's ``stop``? May hang as long as the switchover does."""
        with contextlib.suppress(LivemigError):
            run_state = await self._source.monitor.query_status(timeout_s=None)
            self.watch.put(inputs.RunStateSeen(time_s=self.now_s, run_state=run_state))

    def _release(self) -> None:
        if self._recorder is not None:
            self._recorder.release()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._doubt.end(), return_exceptions=True)
