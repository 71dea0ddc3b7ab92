"""Runs one simulated migration under a policy: setting, plan and seed in, trace and figures out. Pure.

The engine's side is here: it polls, takes QEMU's events, asks the policy and carries out its actions as
`livemig.engine.live` does, in the same order and with the delays of a real monitor.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import msgspec
import numpy as np

from livemig.core import inputs
from livemig.core.action import (
    Action,
    Cancel,
    ContinueSwitchover,
    SetBandwidth,
    SetDowntimeLimit,
    SetSwitchoverBandwidth,
    Settle,
    Yank,
)
from livemig.core.errors import PlanError
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.observation import Observation
from livemig.core.outcome import Outcome
from livemig.core.plan import Plan, PlanChange
from livemig.core.policy import STOPPED_BY_QEMU, Decision, Policy
from livemig.core.rounds import Round, RoundTracker
from livemig.core.status import MigrationStatus
from livemig.core.trace import (
    TRACE_VERSION,
    DecisionRecord,
    InputRecord,
    TraceHeader,
    TraceRecord,
    worth_recording,
)
from livemig.simulation.guest_memory import GuestMemory
from livemig.simulation.link import Link
from livemig.simulation.reply import observe
from livemig.simulation.setting import Branch, Setting
from livemig.simulation.source_qemu import Said, SourceQemu

TICK_S = 0.1
POLL_S = 0.2
GUARD_POLL_S = 0.02
"""As `livemig.engine.live` has them."""
NOTHING_KNOWN = Foreknowledge()
UNHEEDED_S = 30.0
"""How long after its bound a simulation is broken off, whatever the policy does."""

_OUTCOMES = {
    MigrationStatus.COMPLETED: Outcome.COMPLETED,
    MigrationStatus.CANCELLED: Outcome.CANCELLED,
    MigrationStatus.FAILED: Outcome.FAILED,
}


class Decides(Protocol):
    """What can decide a migration: `livemig.core.policy.Policy`, or another rule."""

    def step(self, seen: inputs.Input, /) -> Decision:
        """Takes one input and decides."""


class SimulatedRun(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a simulated migration.

    Attributes:
        outcome: What came of it.
        reason: The last reason that the policy gave.
        total_s: From ``migrate`` to RESUME at the destination, or to the end at the source.
        downtime_s: From STOP to RESUME at the destination; None when the guest was not handed over.
        qemu_downtime_s: QEMU's own figure, likewise.
        first_copy_s: When all of the memory had been sent once: the first sync after the setup's, or STOP.
        sent_bytes: What went over the wire.
        stopped_sent_bytes: That part of it that was sent while the guest stood still, device state included.
        round_count: Passes over dirty memory, as livemig counts them.
        sync_count: QEMU's own count.
        rounds: The passes that were seen to end.
        records: Its trace; empty unless asked for.
    """

    outcome: Outcome
    reason: str
    total_s: float
    downtime_s: float | None
    qemu_downtime_s: float | None
    first_copy_s: float | None
    sent_bytes: int
    stopped_sent_bytes: int
    round_count: int
    sync_count: int
    rounds: tuple[Round, ...]
    records: tuple[TraceRecord, ...] = ()


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks for while it runs.

    Attributes:
        time_s: When, in seconds since ``migrate``.
        change: A change to the plan; None cancels.
    """

    time_s: float
    change: PlanChange | None = None


def simulate(
    setting: Setting,
    plan: Plan,
    policy: Decides | None = None,
    *,
    seed: int,
    wishes: Iterable[Wish] = (),
    branch: Branch | None = None,
    known: Foreknowledge = NOTHING_KNOWN,
    keep_trace: bool = False,
) -> SimulatedRun:
    """Simulates one migration. The same arguments give the same result.

    Guest, link and delays have generators of their own, so that different policies with one seed meet one guest on one
    link, as far as their own doing lets them.

    Args:
        setting: What is simulated.
        plan: What the user asks.
        policy: What decides; None takes livemig's own with that plan.
        seed: Of everything random.
        wishes: What somebody asks for on the way.
        branch: Another future than the seed's; None is the seed's.
        known: What is known beforehand of earlier migrations.
        keep_trace: Return the trace, as a real run writes it; ``livemig replay`` takes it.
    """
    run = _Simulation(setting, plan, policy or Policy(plan), seed=seed, known=known, keep_trace=keep_trace)
    for wish in wishes:
        run.at(wish.time_s, partial(run.take_wish, wish))
    if branch is not None:
        run.at(branch.time_s, partial(run.branch, branch))
    return run.run()


class _Simulation:
    def __init__(
        self,
        setting: Setting,
        plan: Plan,
        policy: Decides,
        *,
        seed: int,
        known: Foreknowledge,
        keep_trace: bool,
    ) -> None:
        guest_seed, link_seed, source_seed = np.random.SeedSequence(seed).spawn(3)
        self._setting, self._plan, self._policy, self._seed = setting, plan, policy, seed
        self._known = known
        self._costs = setting.costs
        self._now_s = 0.0
        self._order = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._records: list[TraceRecord] | None = [] if keep_trace else None
        self._memory = GuestMemory(setting.guest, np.random.default_rng(guest_seed))
        self._link = Link(setting.link, np.random.default_rng(link_seed))
        self._source = SourceQemu(
            setting,
            memory=self._memory,
            link=self._link,
            generator=np.random.default_rng(source_seed),
            say=self._hear,
            horizon_s=self._next_event_s,
        )
        self._source.pause_before_switchover = plan.pause_before_switchover
        self._thread, self._thread_turn = self._source.run(), 0
        self._tracker, self._rounds = RoundTracker(), list[Round]()
        self._last: Observation | None = None
        self._poll_turn, self._polling, self._poll_again = 0, False, False
        self._waiting: list[Callable[[], None]] = []
        self._ticked_s = self._seen_s = 0.0
        self._actions_free_s = 0.0
        self._stopped = self._over = self._settled = False
        self._stop_s: float | None = None
        self._resumed_s: float | None = None
        self._first_copy_s: float | None = None
        self._reason = ""

    def run(self) -> SimulatedRun:
        if self._records is not None:
            started_at = "1970-01-01T00:00:00.000+00:00"
            name = f"simulated {self._setting.qemu}"
            header = TraceHeader(
                version=TRACE_VERSION,
                livemig_version=name,
                id=f"{self._seed:08x}",
                started_at=started_at,
                plan=self._plan,
            )
            self._records.append(header)
        memory_bytes = self._setting.guest.memory_bytes
        prepared = inputs.Prepared(
            time_s=0.0,
            memory_bytes=memory_bytes,
            known=self._known,
            takes_switchover_bandwidth=self._source.rules.takes_bandwidth,
        )
        for action in self._decide(prepared).actions:
            self._apply(action)
        self.at(0.0, self._resume_thread)
        self.at(self._costs.connect_s, self._await_poll)
        self.at(TICK_S, self._idle)
        self.at(self._setting.bound_s, self._give_up)
        while self._events and not self._over:
            self._now_s, _, action_due = heapq.heappop(self._events)
            action_due()
            self._let_go()
        return self._result()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Has something done at a time."""
        self._order += 1
        heapq.heappush(self._events, (max(time_s, self._now_s), self._order, action))

    def _next_event_s(self) -> float:
        return self._events[0][0] if self._events else math.inf

    def _resume_thread(self) -> None:
        self._thread_turn += 1
        turn = self._thread_turn
        self._source.now_s = self._now_s
        wake_s = next(self._thread, math.inf)
        if wake_s < math.inf:
            self.at(wake_s, lambda: self._resume_thread() if turn == self._thread_turn else None)

    def _hear(self, said: Said, value: MigrationStatus | int | None) -> None:
        """Takes what QEMU says now; livemig hears it a moment later."""
        time_s = self._now_s
        copied_once = said is Said.STOP or (said is Said.PASS and self._source.sync_count > 1)
        if copied_once and self._first_copy_s is None:
            self._first_copy_s = time_s
        if said is Said.STOP:
            self._stop_s = time_s
        if said is Said.DESTINATION_RESUME:
            self._resumed_s, self._over = time_s, True
            return
        self.at(time_s + self._costs.event_s, partial(self._take_event, said, value))

    def _take_event(self, said: Said, value: MigrationStatus | int | None) -> None:
        match said:
            case Said.STATUS if isinstance(value, MigrationStatus):
                self._step(inputs.StatusSeen(time_s=self._now_s, status=value))
                terminal = value in (MigrationStatus.CANCELLED, MigrationStatus.FAILED)
                self._over = self._over or terminal
            case Said.PASS:
                if not self._stopped:
                    self._tracker.note_sync(int(value or 0))
                self._poll_again = self._polling
                if not self._polling:
                    self._poll()
            case Said.STOP:
                self._stopped = True
                self._step(inputs.SourceStopped(time_s=self._now_s))
                self._when_answering(self._tell_run_state)
            case Said.RESUME:
                self._stopped = False
                self._step(inputs.SourceResumed(time_s=self._now_s))
            case _:
                pass

    def _tell_run_state(self) -> None:
        run_state = self._source.run_state
        if run_state not in STOPPED_BY_QEMU:
            self._stopped = False
        self._step(inputs.RunStateSeen(time_s=self._now_s, run_state=run_state))

    def _await_poll(self) -> None:
        """Waits for the next round boundary, or as long as livemig does."""
        self._polling = False
        if self._poll_again:
            self._poll_again = False
            self._poll()
            return
        self._poll_turn += 1
        turn = self._poll_turn
        guarded = self._last is None or not self._last.throughput_bytes_s
        uncapped = isinstance(self._policy, Policy) and self._policy.uncapped
        wait_s = GUARD_POLL_S if guarded or uncapped else POLL_S
        self.at(self._now_s + wait_s, lambda: self._poll() if turn == self._poll_turn else None)

    def _poll(self) -> None:
        self._polling, self._poll_turn = True, self._poll_turn + 1
        self._when_answering(self._take_reply)

    def _when_answering(self, take: Callable[[], None]) -> None:
        """Has an answer taken: a reply's time from now, or from when QEMU lets go of its lock."""

        def answer() -> None:
            if self._source.locked:
                self._waiting.append(take)
            else:
                take()

        self.at(self._now_s + self._costs.reply_s, answer)

    def _let_go(self) -> None:
        if self._waiting and not self._source.locked:
            waiting, self._waiting = self._waiting, []
            for take in waiting:
                take()

    def _take_reply(self) -> None:
        observation = observe(self._source, self._now_s)
        self._step(inputs.Observed(time_s=self._now_s, observation=observation))
        if observation.status is MigrationStatus.ACTIVE and not self._stopped:
            self._last = observation
            finished = self._tracker.observe(observation)
            if finished is not None:
                self._rounds.append(finished)
        self._await_poll()

    def _idle(self) -> None:
        if self._now_s - self._seen_s >= TICK_S - 1e-9 and self._now_s - self._ticked_s >= TICK_S - 1e-9:
            self._tick()
        self.at(max(self._seen_s, self._ticked_s) + TICK_S, self._idle)

    def _tick(self) -> None:
        self._ticked_s = self._now_s
        self._perform(self._decide(inputs.Tick(time_s=self._now_s)))

    def _step(self, seen: inputs.Input) -> None:
        if self._over:
            return
        self._seen_s = self._now_s
        self._perform(self._decide(seen))
        if self._now_s - self._ticked_s >= TICK_S:
            self._tick()

    def _decide(self, seen: inputs.Input) -> Decision:
        decision = self._policy.step(seen)
        self._reason = decision.reason or self._reason
        if self._records is not None:
            self._records.append(InputRecord(input=seen))
            if worth_recording(decision):
                self._records.append(DecisionRecord(decision=decision))
        return decision

    def _perform(self, decision: Decision) -> None:
        """Has the actions carried out one after the other; a yank is never behind a command that hangs."""
        for action in decision.actions:
            if isinstance(action, Settle):
                self._settled = self._over = True
                continue
            if isinstance(action, Yank):
                self.at(self._now_s + self._costs.reply_s / 2, self._yank)
                continue
            self._actions_free_s = max(self._now_s, self._actions_free_s) + self._costs.reply_s
            self.at(self._actions_free_s - self._costs.reply_s / 2, partial(self._apply, action))

    def _apply(self, action: Action) -> None:
        source = self._source
        match action:
            case SetDowntimeLimit(downtime_limit_s=limit_s):
                source.downtime_limit_ms = round(limit_s * 1000)
            case SetBandwidth(bandwidth_bytes_s=bandwidth_bytes_s):
                source.max_bandwidth_bytes_s = int(bandwidth_bytes_s or 0)
            case SetSwitchoverBandwidth(bandwidth_bytes_s=bandwidth_bytes_s):
                source.avail_switchover_bandwidth_bytes_s = int(bandwidth_bytes_s or 0)
            case ContinueSwitchover():
                source.continued = True
                self._resume_thread()
            case Cancel():
                self._interrupt(source.cancel)
            case _:
                raise PlanError(f"the simulation knows no action {action}")

    def _yank(self) -> None:
        self._interrupt(self._source.yank)

    def _interrupt(self, end: Callable[[], None]) -> None:
        """Ends the copy. A thread that waits for the link is woken; one that waits for its next slot is not."""
        before, self._source.now_s = self._source.status, self._now_s
        end()
        blocked = not self._source.link.rate_bytes_s(self._now_s)
        if before is MigrationStatus.PRE_SWITCHOVER or (blocked and self._source.status is not before):
            self._resume_thread()

    def branch(self, branch: Branch) -> None:
        """Draws guest and link anew from now on."""
        guest_seed, link_seed = np.random.SeedSequence((self._seed, branch.seed)).spawn(2)
        self._memory.branch(branch.time_s, np.random.default_rng(guest_seed))
        self._link.branch(branch.time_s, np.random.default_rng(link_seed))

    def take_wish(self, wish: Wish) -> None:
        """Tells the policy what somebody asks for."""
        if wish.change is None:
            self._step(inputs.CancelRequested(time_s=self._now_s, reason="the user wants the guest to stay"))
        else:
            self._step(inputs.Tuned(time_s=self._now_s, change=wish.change))

    def _give_up(self) -> None:
        """Asks for an end, and makes one where the policy does not heed it."""
        self._step(inputs.CancelRequested(time_s=self._now_s, reason="the simulation ends here"))
        self.at(self._now_s + UNHEEDED_S, self._break_off)

    def _break_off(self) -> None:
        self._over = True

    def _result(self) -> SimulatedRun:
        source = self._source
        arrived = self._resumed_s is not None
        outcome = _OUTCOMES.get(source.status, Outcome.UNKNOWN)
        stopped_bytes = source.sent_bytes - source.stopped_at_bytes if source.stopped_at_bytes else 0
        return SimulatedRun(
            outcome=outcome,
            reason=self._reason,
            total_s=self._now_s,
            downtime_s=self._now_s - self._stop_s if arrived and self._stop_s is not None else None,
            qemu_downtime_s=source.downtime_ms / 1000 if arrived else None,
            first_copy_s=self._first_copy_s,
            sent_bytes=source.sent_bytes,
            stopped_sent_bytes=stopped_bytes,
            round_count=self._tracker.round_number,
            sync_count=source.sync_count,
            rounds=tuple(self._rounds),
            records=tuple(self._records or ()),
        )
