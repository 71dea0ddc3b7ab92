"""The policy, told anything at all in any order: the laws that hold whatever comes."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.action import Action, Cancel, ContinueSwitchover, SetBandwidth, SetDowntimeLimit, Settle, Yank
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
from livemig.core.phases import Phase
from livemig.core.plan import AtDeadline, Plan, PlanChange
from livemig.core.policy import (
    CANCEL_BOUND_S,
    STOPPED_BY_QEMU,
    Decision,
    Policy,
)
from livemig.core.status import MigrationStatus, RunState
from tests.unit.policy_play import (
    MiB,
    said,
    seen,
)


class Laws:
    """Watches one policy from outside and asserts after each input what must hold, whatever it was told."""

    def __init__(self, plan: Plan) -> None:
        self.policy = Policy(plan)
        self.limit_s = 0.0
        self.cap_bytes_s: float | None = None
        self.cap_known = False
        self.stopped_since_s: float | None = None
        self.ending_since_s: float | None = None
        self.sent: list[type[Action]] = []

    def step(self, told: Input) -> Decision:
        """Steps the policy and checks what it decides."""
        before = self.policy.phase
        self._note(told)
        decision = self.policy.step(told)
        assert decision.phase is self.policy.phase
        assert decision.reason or (not decision.actions and decision.phase is before)
        for action in decision.actions:
            self._check(action, told)
            self.sent.append(type(action))
        if decision.phase in (Phase.CANCELLING, Phase.FAILING) and self.ending_since_s is None:
            self.ending_since_s = told.time_s
        if decision.phase is Phase.SWITCHOVER and self.stopped_since_s is None:
            self.stopped_since_s = told.time_s
        self._check_in_force(told.time_s)
        return decision

    def _note(self, told: Input) -> None:
        match told:
            case SourceStopped(time_s=time_s):
                self.stopped_since_s = time_s if self.stopped_since_s is None else self.stopped_since_s
            case SourceResumed(time_s=time_s):
                self.stopped_since_s = None
                if self.policy.phase is Phase.SWITCHOVER and self.ending_since_s is None:
                    self.ending_since_s = time_s
            case RunStateSeen(run_state=run_state) if run_state not in STOPPED_BY_QEMU:
                if self.policy.phase in (Phase.SETUP, Phase.PRECOPY):
                    self.stopped_since_s = None

    def _lifted(self, time_s: float) -> bool:
        plan = self.policy.plan
        return plan.at_deadline is AtDeadline.PAUSE and plan.deadline_s is not None and time_s >= plan.deadline_s

    def _check(self, action: Action, told: Input) -> None:
        waits = isinstance(told, StatusSeen | Observed) and status_of(told) is MigrationStatus.PRE_SWITCHOVER
        match action:
            case SetDowntimeLimit(downtime_limit_s=limit_s):
                assert limit_s >= 0.001
                self.limit_s = limit_s
            case SetBandwidth(bandwidth_bytes_s=cap_bytes_s):
                assert cap_bytes_s is None or cap_bytes_s >= 1e6
                self.cap_bytes_s, self.cap_known = cap_bytes_s, True
            case Cancel():
                assert Cancel not in self.sent, "cancelled twice"
                assert self.stopped_since_s is None or waits, "cancelled after STOP"
                assert self.policy.phase in (Phase.SETUP, Phase.PRECOPY) or waits
                assert ContinueSwitchover not in self.sent, "cancelled after the word to go on"
                self.ending_since_s = told.time_s
            case ContinueSwitchover():
                assert waits
                assert ContinueSwitchover not in self.sent, "continued twice"
                assert self.policy.cancel_reason is None
                assert self.policy.failure_reason is None
            case Yank():
                assert Yank not in self.sent, "cut twice"
                overdue = self.stopped_since_s is not None and told.time_s - self.stopped_since_s > 1
                without_effect = self.ending_since_s is not None and told.time_s - self.ending_since_s > CANCEL_BOUND_S
                assert overdue or without_effect, "cut without need"
                self.ending_since_s = told.time_s
            case Settle():
                lost = isinstance(told, PeerLost) and told.side == "source"
                impossible = isinstance(told, StatusSeen | Observed)
                no_sign = Yank in self.sent and told.time_s - (self.ending_since_s or 0) > CANCEL_BOUND_S
                assert lost or impossible or no_sign
        if self.policy.phase.terminal:
            assert isinstance(action, Settle | SetDowntimeLimit | SetBandwidth), "acted after the end"

    def _check_in_force(self, time_s: float) -> None:
        """What QEMU was told last is never beyond what the user asked."""
        plan = self.policy.plan
        if self._lifted(time_s):
            return
        assert self.limit_s <= plan.downtime_limit_s
        if self.cap_known and plan.bandwidth_bytes_s is not None:
            assert self.cap_bytes_s is not None
            assert self.cap_bytes_s <= plan.bandwidth_bytes_s


def status_of(told: StatusSeen | Observed) -> MigrationStatus:
    """The status that an event or a poll brought."""
    return told.status if isinstance(told, StatusSeen) else told.observation.status


PLANS = st.builds(
    Plan,
    downtime_limit_s=st.sampled_from([0.001, 0.012, 0.3, 5.0, 2000.0]) | st.floats(0.001, 2000),
    bandwidth_bytes_s=st.none() | st.floats(1e6, 1e12),
    deadline_s=st.floats(0.1, 30),
    at_deadline=st.sampled_from(AtDeadline),
    fixed_downtime_s=st.none() | st.floats(0, 5),
)
CHANGES = st.builds(
    PlanChange,
    downtime_limit_s=st.none() | st.floats(-1, 3000),
    bandwidth_bytes_s=st.none() | st.floats(0, 1e10),
    deadline_s=st.none() | st.floats(-1, 60),
    at_deadline=st.none() | st.sampled_from(AtDeadline),
)
OBSERVATIONS = st.builds(
    Observation,
    time_s=st.just(0.0),
    status=st.sampled_from(["active"] * 10 + list(MigrationStatus)).map(MigrationStatus),
    sent_bytes=st.none() | st.integers(0, 2**50),
    remaining_bytes=st.none() | st.integers(0, 2**50),
    throughput_bytes_s=st.none() | st.floats(0, 1e11),
    dirty_sync_count=st.none() | st.integers(0, 100),
)
NOW = st.just(0.0)
INPUTS: st.SearchStrategy[Input] = st.one_of(
    st.builds(Observed, time_s=NOW, observation=OBSERVATIONS),
    st.builds(StatusSeen, time_s=NOW, status=st.sampled_from(MigrationStatus)),
    st.builds(Tick, time_s=NOW),
    st.builds(SourceStopped, time_s=NOW),
    st.builds(SourceResumed, time_s=NOW),
    st.builds(RunStateSeen, time_s=NOW, run_state=st.sampled_from(RunState)),
    st.builds(Tuned, time_s=NOW, change=CHANGES),
    st.builds(CancelRequested, time_s=NOW, reason=st.just("the user asks")),
    st.builds(PeerLost, time_s=NOW, side=st.sampled_from(["source", "destination"])),
    st.builds(ActionRefused, time_s=NOW, action=st.just("cancel"), reason=st.just("no answer")),
)
BEGINNING: tuple[Input, ...] = (
    Prepared(time_s=0.0, memory_bytes=256 * MiB),
    said(0.0, "setup"),
    said(0.0, "active"),
    seen(0.0, throughput_bytes_s=40e6, sent_bytes=1),
    SourceStopped(time_s=0.0),
    said(0.0, "pre-switchover"),
    said(0.0, "device"),
)
STEPS_S = st.sampled_from([0.0, 0.001, 0.1, 0.1, 0.1, 1.0, 3.0, 5.5])


@st.composite
def told_in_order(draw: st.DrawFn) -> list[Input]:
    """A migration that begins as they do, up to any point, and goes on with anything at all."""
    begun = BEGINNING[: draw(st.integers(1, len(BEGINNING)))]
    following = draw(st.lists(st.tuples(STEPS_S, INPUTS), max_size=25))
    inputs, time_s = list(begun), 0.0
    for step_s, one in following:
        time_s += step_s
        inputs.append(at(one, time_s))
    return inputs


def at(one: Input, time_s: float) -> Input:
    """The same input at another time."""
    if isinstance(one, Observed):
        observation = msgspec.structs.replace(one.observation, time_s=time_s)
        return Observed(time_s=time_s, observation=observation)
    return msgspec.structs.replace(one, time_s=time_s)


@given(PLANS, told_in_order())
@settings(max_examples=200, deadline=None)
def test_whatever_comes_the_laws_hold(plan, inputs):
    """No limit above the user's, no limit of 0, no second cancel, no cancel after STOP, no cut without need."""
    laws = Laws(plan)
    for one in inputs:
        laws.step(one)


@given(PLANS, told_in_order())
@settings(max_examples=50, deadline=None)
def test_the_same_inputs_give_the_same_decisions(plan, inputs):
    """A policy holds no clock and no chance: that is what replay rests on."""
    first, second = Policy(plan), Policy(plan)
    assert [first.step(one) for one in inputs] == [second.step(one) for one in inputs]


@given(PLANS, told_in_order())
@settings(max_examples=40, deadline=None)
def test_cut_after_every_step_and_entered_anew_the_laws_hold(plan, inputs):
    """A policy that knows only the plan and what comes from now on is as safe as one that saw the beginning."""
    for cut in range(1, len(inputs)):
        laws = Laws(plan)
        for one in inputs[cut:]:
            laws.step(one)


@given(PLANS, told_in_order())
@settings(max_examples=60, deadline=None)
def test_whatever_came_a_silent_qemu_is_left_within_bounds(plan, inputs):
    """If nothing more comes, time alone ends it: by an end QEMU named, or by reading the truth from both sides.

    Except in post-copy, which has its own ends; and a bound on standing still is as long as the user's limit makes it.
    """
    policy = Policy(plan)
    for one in inputs:
        policy.step(one)
    actions: list[Action] = []
    time_s = inputs[-1].time_s
    for step_s in (3 * 2000.0 + 2, 1e15, 6.0, 6.0, 6.0):
        time_s += step_s
        actions += policy.step(Tick(time_s=time_s)).actions
    assert Settle() in actions or policy.phase.terminal or policy.phase is Phase.POSTCOPY
