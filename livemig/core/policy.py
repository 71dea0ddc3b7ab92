"""Decides what to do to a migration under way: one input in, one decision out. No I/O, no clock.

When to switch over is the rule's to say (`livemig.core.switchover`). QEMU itself fires: it compares what is left with
the bandwidth of the last ~100 ms slot times ``downtime-limit``, so a rule holds even while livemig stalls. Everything
here keeps that safe: the guard of the first slot, the deadline, the watchdog on progress, and the bound on how long a
guest may stand still. What to do when it is over is not decided here but in the outcome table.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from livemig.core.action import Action, Cancel, ContinueSwitchover, Settle, Yank
from livemig.core.errors import PlanError, PolicyError
from livemig.core.fixed_part import FixedPart, fixed_part
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.inputs import (
    ActionRefused,
    CancelRequested,
    Input,
    Observed,
    PeerLost,
    Prepared,
    RunStateSeen,
    SourceResumed,
    SourceStopped,
    StatusSeen,
    Tick,
    Tuned,
)
from livemig.core.observation import Observation
from livemig.core.phases import Phase, next_phase
from livemig.core.plan import AtDeadline, Plan
from livemig.core.rule import Rule, Wanted
from livemig.core.settings import Settings
from livemig.core.status import MigrationStatus, RunState
from livemig.core.switchover import Switchover, first_crossing
from livemig.core.units import format_duration

SLOT_S = 0.1
"""QEMU counts bandwidth over slots of this length: what it says within the first one after the guard is the guard's."""
FROZEN_AFTER_S = 5.0
"""Counters that have not moved for so long mean a dead link or a hung peer: QEMU itself would wait for ever."""
CANCEL_BOUND_S = 5.0
"""How long a cancel or a yank may take to show before the truth is read from both sides."""

STOPPED_BY_QEMU = frozenset({RunState.FINISH_MIGRATE, RunState.POSTMIGRATE, RunState.RUNNING, RunState.UNKNOWN})
"""Run states, read after a STOP, of a guest that nobody but QEMU's switchover stopped (or that runs again)."""

_NOTHING_TO_FREE = frozenset({Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED, Phase.POSTCOPY})
"""Phases in which nobody waits for the source any more: cutting the connection could only lose the guest."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do now, and why, in words a user understands.

    Attributes:
        phase: The phase after this input.
        actions: What the engine is to do, in order.
        reason: Why; empty only where nothing is done and nothing changed.
    """

    phase: Phase
    actions: tuple[Action, ...] = ()
    reason: str = ""


class Policy:
    """Steps through one migration. Deterministic: the same inputs give the same decisions.

    Attributes:
        plan: What the user asks now; `Tuned` changes it.
        phase: Where the migration stands.
        cancel_reason: Why somebody wants the guest to stay at the source (the user, or the deadline), or None.
        failure_reason: What livemig saw fail, so that it gave up; or None.
    """

    def __init__(self, plan: Plan, rule: Rule | None = None) -> None:
        """Takes a plan, and a rule for the switchover; None is livemig's own."""
        self.plan = plan
        self.phase = Phase.SETUP
        self.cancel_reason: str | None = None
        self.failure_reason: str | None = None
        self._rule: Rule = Switchover() if rule is None else rule
        self._wanted = first_crossing(plan)
        self._begun = False
        self._known = Foreknowledge()
        self._limits = Settings()
        self._hopeless = False
        self._progress: tuple[int, int] | None = None
        self._progress_time_s: float | None = None
        self._last: Observation | None = None
        self._counts_from_s = 0.0
        self._stopped_time_s: float | None = None
        self._ending_time_s: float | None = None
        self._continued = False
        self._yanked = False

    @property
    def fixed_downtime_s(self) -> float:
        """The part of the downtime taken as fixed, in seconds."""
        return self.fixed_part.value_s

    @property
    def fixed_part(self) -> FixedPart:
        """The same, and where it is from."""
        return fixed_part(self.plan, self._known.past, self._known.hosts)

    @property
    def uncapped(self) -> bool:
        """Whether the user's cap is lifted for a slot, which is to be short: look often."""
        return self._wanted.uncapped and self.phase is Phase.PRECOPY

    @property
    def expected_downtime_s(self) -> float | None:
        """What a switchover now would cost in seconds by the last observation, or None before the first counters."""
        last = self._last
        if last is None or not last.throughput_bytes_s or last.remaining_bytes is None:
            return None
        return last.remaining_bytes / last.throughput_bytes_s + self.fixed_downtime_s

    def step(self, seen: Input) -> Decision:
        """Takes one input and decides. A status that can't follow is no error here: the migration is settled then."""
        if self._progress_time_s is None:
            self._progress_time_s = seen.time_s
        try:
            return self._answer(seen)
        except PolicyError as error:
            return self._decide(Settle(), reason=str(error))

    def _answer(self, seen: Input) -> Decision:
        match seen:
            case Prepared():
                return self._prepared(seen)
            case Observed():
                return self._observed(seen)
            case StatusSeen():
                return self._status(seen.status, seen.time_s)
            case SourceStopped():
                return self._stopped(seen.time_s)
            case SourceResumed():
                return self._not_in_switchover("the guest runs at the source", seen.time_s)
            case RunStateSeen():
                return self._run_state(seen)
            case Tick():
                return self._ticked(seen.time_s)
            case Tuned():
                return self._tuned(seen)
            case CancelRequested():
                return self._cancel(seen.reason, seen.time_s)
            case PeerLost():
                return self._peer_lost(seen)
            case ActionRefused():
                return self._refused(seen)
            case _:
                assert_never(seen)

    def _prepared(self, seen: Prepared) -> Decision:
        self._limits.guard(seen.memory_bytes)
        self._limits.takes_switchover_bandwidth = seen.takes_switchover_bandwidth
        self._progress_time_s = seen.time_s
        self._known = seen.known
        self._wanted, self._begun = self._rule.begin(self._ruled_plan(), seen), True
        guard = " until QEMU has counted its first slot, lest it stop the guest too early"
        return self._decide(
            *self._settings(),
            reason=f"begin with {self._limits.bandwidth_words(self.plan)}{guard if self._limits.guarded else ''}; "
            f"{self._wanted.reason}{self._fixed_words()}",
        )

    def _observed(self, seen: Observed) -> Decision:
        observation = seen.observation
        progress = (observation.sent_bytes or 0, observation.dirty_sync_count or 0)
        if progress != self._progress:
            self._progress, self._progress_time_s = progress, seen.time_s
        decision = self._status(observation.status, seen.time_s)
        counts = not self._limits.guarded and seen.time_s >= self._counts_from_s
        if counts and self._stopped_time_s is None:
            self._last = observation  # what is left in the middle of a switchover is not what one would cost
        if decision.actions or self.phase is not Phase.PRECOPY:
            return decision
        if self._limits.guarded and observation.throughput_bytes_s:
            self._limits.let_go()
            self._counts_from_s = seen.time_s + SLOT_S
            bandwidth = self._limits.bandwidth_words(self.plan)
            return self._decide(*self._settings(), reason=f"QEMU counts: {bandwidth}")
        watched = self._watch(seen.time_s)
        if watched.reason or self._stopped_time_s is not None or not self._begun:
            return watched if watched.reason else decision
        ruled = self._follow(self._rule.observe(observation), seen.time_s)
        return ruled if ruled.reason else decision

    def _follow(self, wanted: Wanted, time_s: float) -> Decision:
        """Does what the rule wants, and what is to be done where it sees no hope."""
        before, self._wanted = self._wanted, wanted
        if wanted.hopeless and not self._hopeless and not self._limits.lifted:
            self._hopeless = True
            if not self.plan.keep_trying:
                return self._without_hope(wanted.hopeless, time_s)
            return self._decide(*self._settings(), reason=f"{wanted.hopeless}; trying on, as asked")
        self._hopeless = bool(wanted.hopeless)
        if wanted == before:
            return self._decide()
        actions = self._settings()
        return self._decide(*actions, reason=wanted.reason if actions else "")

    def _without_hope(self, reason: str, time_s: float) -> Decision:
        """Does at once what the deadline would bring."""
        if self.plan.at_deadline is AtDeadline.CANCEL:
            return self._cancel(reason, time_s)
        self._limits.lift()
        return self._decide(
            *self._settings(),
            reason=f"{reason}; lift the limits now, as asked for the deadline, so that the guest stops and the rest is "
            "sent",
        )

    def _status(self, status: MigrationStatus, time_s: float) -> Decision:
        before = self.phase
        self.phase = next_phase(self.phase, status)
        if self.phase is Phase.SWITCHOVER and self._stopped_time_s is None:
            self._stopped_time_s = time_s  # a guest that stood still already gives no STOP, but must not hang either
        if self.phase in (Phase.CANCELLING, Phase.FAILING) and self._ending_time_s is None:
            self._ending_time_s = time_s  # not by us, but it must not hang either
        waits = status is MigrationStatus.PRE_SWITCHOVER and self.phase is Phase.SWITCHOVER
        if waits and not self._continued and self._ending_time_s is None:
            return self._pre_switchover(time_s)
        if self.phase is before:
            return self._decide()
        return self._decide(reason=f"QEMU says {status}")

    def _pre_switchover(self, time_s: float) -> Decision:
        """Gives the one word that a QEMU waits for; it may say ``pre-switchover`` again before that has arrived."""
        unwanted = self.cancel_reason or self.failure_reason
        if unwanted is not None:
            self._ending_time_s = time_s
            return self._decide(Cancel(), reason=f"{unwanted}: the guest stands still but nothing was handed over")
        self._continued = True
        return self._decide(ContinueSwitchover(), reason="the guest stands still and nobody objects: hand it over")

    def _stopped(self, time_s: float) -> Decision:
        if self._stopped_time_s is None:
            self._stopped_time_s = time_s
        bound = format_duration(self._stop_bound_s())
        return self._decide(reason=f"the guest stands still; the source is freed if this takes over {bound}")

    def _run_state(self, seen: RunStateSeen) -> Decision:
        """Tells QEMU's own switchover from somebody's ``stop``: only the first ends by itself, and is bounded."""
        if seen.run_state in STOPPED_BY_QEMU or self.phase not in (Phase.SETUP, Phase.PRECOPY):
            return self._decide()
        return self._not_in_switchover(
            f"the guest is {seen.run_state} by somebody else's doing: it will arrive so", seen.time_s
        )

    def _not_in_switchover(self, reason: str, time_s: float) -> Decision:
        """Takes back that the switchover is under way; what was too late to be heeded since its STOP is heeded now."""
        self._stopped_time_s = None
        if self.phase is Phase.SWITCHOVER and self._ending_time_s is None:
            self._ending_time_s = time_s  # the switchover has failed: QEMU will say so, or must not hang
        unwanted = self.cancel_reason or self.failure_reason
        if unwanted is None or self._ending_time_s is not None or self.phase not in (Phase.SETUP, Phase.PRECOPY):
            return self._decide(reason=reason)
        return self._end(unwanted, time_s)

    def _ticked(self, time_s: float) -> Decision:
        watched = self._watch(time_s)
        copies = self.phase is Phase.PRECOPY and self._stopped_time_s is None and self._ending_time_s is None
        if watched.reason or not copies or not self._begun:
            return watched
        return self._follow(self._rule.passed(time_s), time_s)

    def _watch(self, time_s: float) -> Decision:
        """What time alone brings: the deadline, the watchdog, the bound on standing still, the bound on ending."""
        if self._ending_time_s is not None:
            return self._watch_ending(time_s)
        if self.phase in _NOTHING_TO_FREE:
            return self._decide()
        if self._stopped_time_s is not None and time_s - self._stopped_time_s > self._stop_bound_s():
            self._yanked, self._ending_time_s = True, time_s
            self.failure_reason = "the switchover did not end in time: the link is dead or the peer hangs"
            return self._decide(
                Yank(),
                reason=f"the guest has stood still for {format_duration(time_s - self._stopped_time_s)}: "
                "cut the connection, so that it runs on at the source",
            )
        if self.phase not in (Phase.SETUP, Phase.PRECOPY) or self._stopped_time_s is not None:
            return self._decide()
        if time_s - (self._progress_time_s or 0.0) > FROZEN_AFTER_S:
            return self._give_up(
                f"nothing was sent for {FROZEN_AFTER_S:.0f} s: the link is dead or the peer hangs", time_s
            )
        return self._deadline(time_s)

    def _watch_ending(self, time_s: float) -> Decision:
        if self.phase.terminal or time_s - (self._ending_time_s or 0.0) <= CANCEL_BOUND_S:
            return self._decide()
        if not self._yanked:
            self._yanked, self._ending_time_s = True, time_s
            return self._decide(Yank(), reason="the cancel shows no effect: cut the connection")
        return self._decide(Settle(), reason="the source gives no sign: read the truth from both sides")

    def _deadline(self, time_s: float) -> Decision:
        plan = self.plan
        if plan.deadline_s is None or time_s < plan.deadline_s or self._limits.lifted:
            return self._decide()
        if plan.at_deadline is AtDeadline.CANCEL:
            remedy = f": {self._wanted.remedy}" if self._wanted.remedy else ""
            return self._cancel(f"the deadline of {format_duration(plan.deadline_s)} has come{remedy}", time_s)
        self._limits.lift()
        return self._decide(
            *self._settings(),
            reason=f"the deadline of {format_duration(plan.deadline_s)} has come: lift the limits, as asked, "
            "so that the guest stops and the rest is sent",
        )

    def _tuned(self, seen: Tuned) -> Decision:
        try:
            self.plan = seen.change.applied_to(self.plan)
        except PlanError as error:
            return self._decide(reason=f"not changed: {error}")
        pause = self.plan.at_deadline is AtDeadline.PAUSE
        if not pause or self.plan.deadline_s is None or seen.time_s < self.plan.deadline_s:
            self._limits.lifted = False
        self._wanted = self._rule.tuned(self._ruled_plan(), seen.time_s) if self._begun else first_crossing(self.plan)
        self._hopeless = False
        bandwidth = self._limits.bandwidth_words(self.plan)
        return self._decide(*self._settings(), reason=f"as the user asks: {self._wanted.reason}; {bandwidth}")

    def _cancel(self, reason: str, time_s: float) -> Decision:
        ending = self._ending_time_s is not None
        if self.phase.terminal or (ending and self.failure_reason is not None):
            return self._decide()
        self.cancel_reason = self.cancel_reason or reason
        return self._decide() if ending else self._end(reason, time_s)

    def _give_up(self, reason: str, time_s: float) -> Decision:
        if self.phase.terminal or self._ending_time_s is not None:
            return self._decide()
        self.failure_reason = self.failure_reason or reason
        return self._end(reason, time_s)

    def _end(self, reason: str, time_s: float) -> Decision:
        if self.phase in (Phase.SWITCHOVER, Phase.POSTCOPY) or self._stopped_time_s is not None:
            return self._decide(reason=f"{reason}: too late to cancel, the switchover is under way and finishes")
        self._ending_time_s = time_s
        return self._decide(Cancel(), reason=reason)

    def _peer_lost(self, seen: PeerLost) -> Decision:
        if seen.side == "source":
            self.failure_reason = self.failure_reason or "the source's monitor ended"
            return self._decide(Settle(), reason="the source's monitor ended: read the truth from both sides")
        return self._give_up("the destination's monitor ended", seen.time_s)

    def _refused(self, seen: ActionRefused) -> Decision:
        """A setting that QEMU did not take ends the migration: without it the user's limit would not hold."""
        if self.phase.terminal or self._ending_time_s is not None or self._stopped_time_s is not None:
            return self._decide(reason=f"{seen.action}: {seen.reason}")
        return self._give_up(f"{seen.action} was not taken: {seen.reason}", seen.time_s)

    def _stop_bound_s(self) -> float:
        """How long the guest may stand still before the source is freed: three times what was expected, and 1 s."""
        expected_s = self.plan.downtime_limit_s
        if self._limits.lifted:
            expected_s = max(expected_s, self.expected_downtime_s or 0.0)
        return 3 * expected_s + 1.0

    def _ruled_plan(self) -> Plan:
        """The plan as the rule takes it, with the fixed part that was learned."""
        part = self.fixed_part
        return msgspec.structs.replace(self.plan, fixed_downtime_s=part.value_s) if part.measured else self.plan

    def _fixed_words(self) -> str:
        """Where the fixed part is from, if it was learned."""
        part = self.fixed_part
        return f"; the fixed part is {part.origin}" if part.measured and self.plan.fixed_downtime_s is None else ""

    def _settings(self) -> tuple[Action, ...]:
        """The settings that differ from what QEMU was told last."""
        return self._limits.actions(self.plan, self._wanted)

    def _decide(self, *actions: Action, reason: str = "") -> Decision:
        return Decision(phase=self.phase, actions=actions, reason=reason)
