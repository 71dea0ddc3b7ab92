"""The policy, told what an engine would tell it: each phase and status, each limit, each way it may end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
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
from livemig.core.phases import TRANSITIONS, Phase
from livemig.core.plan import AtDeadline, Plan, PlanChange
from livemig.core.policy import (
    CANCEL_BOUND_S,
    FROZEN_AFTER_S,
    STOPPED_BY_QEMU,
    Decision,
    Policy,
)
from livemig.core.status import MigrationStatus, RunState
from livemig.core.switchover import FIXED_DOWNTIME_PRIOR_S

MiB = 2**20
PLAN = Plan(downtime_limit_s=0.3)
LATE = Plan(downtime_limit_s=0.3, deadline_s=10, at_deadline=AtDeadline.CANCEL)
LATE_PAUSE = Plan(downtime_limit_s=0.3, deadline_s=10, at_deadline=AtDeadline.PAUSE)
LIMIT = SetDowntimeLimit(downtime_limit_s=0.3 - FIXED_DOWNTIME_PRIOR_S)
LIFTED = SetDowntimeLimit(downtime_limit_s=2000.0)
STOP_BOUND_S = 3 * 0.3 + 1


def seen(time_s: float, status: str = "active", **counters: Any) -> Observed:
    """What a poll brings; the counters differ from poll to poll unless they are given."""
    given = {"sent_bytes": int(time_s * 40 * MiB), "remaining_bytes": 64 * MiB, "dirty_sync_count": 1, **counters}
    return Observed(
        time_s=time_s,
        observation=Observation(time_s=time_s, status=MigrationStatus(status), status_text=status, **given),
    )


def said(time_s: float, status: str) -> StatusSeen:
    """QEMU's MIGRATION event."""
    return StatusSeen(time_s=time_s, status=MigrationStatus(status))


class Play:
    """A policy and what it was told so far: call it with inputs, read what the last made it do."""

    def __init__(self, plan: Plan = PLAN) -> None:
        self.policy = Policy(plan)
        self.decisions: list[Decision] = []

    def __call__(self, *told: Input) -> tuple[Action, ...]:
        self.decisions += [self.policy.step(one) for one in told]
        return self.decisions[-1].actions

    @property
    def actions(self) -> list[Action]:
        return [action for decision in self.decisions for action in decision.actions]

    @property
    def reason(self) -> str:
        return self.decisions[-1].reason


def precopy(plan: Plan = PLAN) -> Play:
    """A guest that moves: its first slot was counted at 0.2 s, the first without the guard at 0.4 s."""
    play = Play(plan)
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB), said(0.01, "setup"), said(0.02, "active"))
    play(seen(0.2, throughput_bytes_s=40.0 * MiB), seen(0.4, throughput_bytes_s=40.0 * MiB))
    return play


def stopped(plan: Plan = PLAN, at_s: float = 5.0) -> Play:
    """A guest that stands still for the switchover since `at_s`."""
    play = precopy(plan)
    play(seen(at_s, throughput_bytes_s=40.0 * MiB), SourceStopped(time_s=at_s), said(at_s, "device"))
    return play


WAYS = {
    Phase.SETUP: ["setup"],
    Phase.PRECOPY: ["setup", "active"],
    Phase.SWITCHOVER: ["setup", "active", "device"],
    Phase.POSTCOPY: ["setup", "active", "device", "postcopy-active"],
    Phase.CANCELLING: ["setup", "active", "cancelling"],
    Phase.FAILING: ["setup", "active", "failing"],
    Phase.COMPLETED: ["setup", "active", "device", "completed"],
    Phase.CANCELLED: ["setup", "active", "cancelling", "cancelled"],
    Phase.FAILED: ["setup", "active", "failed"],
}


def in_phase(phase: Phase, plan: Plan = PLAN) -> Play:
    """A migration in a phase since 0.1 s, as QEMU's events lead there."""
    play = Play(plan)
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB))
    for status in WAYS[phase]:
        play(said(0.1, status))
    assert play.policy.phase is phase
    return play


# Statuses


@pytest.mark.parametrize("status", MigrationStatus)
@pytest.mark.parametrize("phase", Phase)
def test_a_status_by_itself_only_continues_a_waiting_switchover_or_settles(phase, status):
    """In every phase, any status acts in two ways alone: `pre-switchover` is continued, an impossible one settled."""
    play = in_phase(phase)
    after = TRANSITIONS[phase].get(status)
    actions = play(StatusSeen(time_s=0.2, status=status))
    if after is None:
        assert actions == (Settle(),)
        assert play.policy.phase is phase
        assert f"QEMU says {status}, which can't follow {phase}" in play.reason
        return
    assert play.policy.phase is after
    waits = status is MigrationStatus.PRE_SWITCHOVER and after is Phase.SWITCHOVER
    assert actions == ((ContinueSwitchover(),) if waits else ())


@pytest.mark.parametrize("status", MigrationStatus)
@pytest.mark.parametrize("phase", Phase)
def test_a_poll_means_the_same_as_an_event(phase, status):
    """A status seen by polling leads to the same phase and actions as the event of it would."""
    by_event, by_poll = in_phase(phase), in_phase(phase)
    event_actions = by_event(StatusSeen(time_s=0.2, status=status))
    assert by_poll(seen(0.2, status)) == event_actions
    assert by_poll.policy.phase is by_event.policy.phase


@pytest.mark.parametrize("phase", Phase)
def test_an_unknown_status_never_acts(phase):
    """A status of a newer QEMU changes nothing, whatever the phase, by event or by poll."""
    play = in_phase(phase)
    assert play(said(0.2, "what-comes-next")) == ()
    assert play(seen(0.3, "what-comes-next")) == ()
    assert play.policy.phase is phase


def test_a_change_of_phase_is_explained_also_when_a_poll_sees_it():
    """Polls skip events; a phase that a poll finds changed has its reason, too."""
    play = Play()
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB), seen(0.1, "active"))
    assert play.reason == "QEMU says active"


# The guard of the first slot


@pytest.mark.parametrize(
    ("memory_bytes", "guard_bytes_s"),
    [
        (16 * MiB, 2e6),
        (256 * MiB, 65536 * 9 / 0.2),
        (3072 * MiB, 3072 * 256 * 9 / 0.2),
        (7 * 2**30, 64.0 * MiB),
        (0, 2e6),
    ],
    ids=["16 MiB", "256 MiB", "3 GiB", "7 GiB", "unknown"],
)
def test_the_guard_stretches_a_pass_of_zero_pages_over_the_first_slot(memory_bytes, guard_bytes_s):
    """Before `migrate` the bandwidth is low enough that not even a guest of zero pages is through in one slot."""
    play = Play()
    actions = play(Prepared(time_s=0.0, memory_bytes=memory_bytes))
    (_, bandwidth) = actions
    assert isinstance(bandwidth, SetBandwidth)
    assert bandwidth.bandwidth_bytes_s == pytest.approx(guard_bytes_s)


def test_a_large_guest_needs_no_guard():
    """A pass over 8 GiB takes longer than the first slot whatever it finds: it goes at the full rate from the start."""
    play = Play()
    assert play(Prepared(time_s=0.0, memory_bytes=8 * 2**30))[1] == SetBandwidth(bandwidth_bytes_s=None)
    assert "first slot" not in play.reason
    play(said(0.01, "active"))
    assert play(seen(0.15, throughput_bytes_s=1e9, remaining_bytes=2**33)) == ()


def test_the_guard_is_never_above_the_users_cap():
    """A cap below the guard holds from the first byte, and its words say so."""
    play = Play(Plan(bandwidth_bytes_s=1e6))
    assert play(Prepared(time_s=0.0, memory_bytes=7 * 2**30))[1] == SetBandwidth(bandwidth_bytes_s=1e6)
    assert "begin with bandwidth 976.6 KiB/s" in play.reason


@pytest.mark.parametrize("cap_bytes_s", [None, 100e6])
def test_the_guard_ends_at_the_first_counters(cap_bytes_s):
    """Counters without a first slot keep the guard; the first slot raises it to the user's cap, or to none; once."""
    play = Play(Plan(bandwidth_bytes_s=cap_bytes_s))
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB), said(0.01, "active"))
    assert play(seen(0.05, throughput_bytes_s=None)) == ()
    assert play(seen(0.07, throughput_bytes_s=0.0)) == ()
    assert play(seen(0.2, throughput_bytes_s=3e6)) == (SetBandwidth(bandwidth_bytes_s=cap_bytes_s),)
    assert play(seen(0.4, throughput_bytes_s=40e6)) == ()


def test_no_cap_is_said_to_qemu_too():
    """QEMU has a default of its own: that there is no cap must be set, also by a policy that begins late."""
    play = Play()
    play(said(5.0, "active"))
    assert play(Tuned(time_s=5.1, change=PlanChange(downtime_limit_s=0.3))) == (
        LIMIT,
        SetBandwidth(bandwidth_bytes_s=None),
    )


def test_a_cap_below_the_guard_is_not_set_twice():
    """When the guard ends and the cap was the lower, nothing changes for QEMU."""
    play = Play(Plan(bandwidth_bytes_s=1e6))
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB), said(0.01, "active"))
    assert play(seen(0.2, throughput_bytes_s=1e6)) == ()


def test_the_guard_waits_for_precopy():
    """Counters in `setup` are left over from before; they do not end the guard."""
    play = Play()
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB))
    assert play(seen(0.05, "setup", throughput_bytes_s=40e6)) == ()


# The downtime limit


@pytest.mark.parametrize(
    ("limit_s", "fixed_s", "expected_s"),
    [
        (0.3, None, 0.3 - FIXED_DOWNTIME_PRIOR_S),
        (0.3, 0.1, 0.2),
        (0.3, 0.0, 0.3),
        (0.3, 0.3, 0.001),
        (0.3, 5.0, 0.001),
        (0.001, None, 0.001),
        (0.0015, 0.0, 0.0015),
        (2000.0, 0.0, 2000.0),
    ],
)
def test_qemu_gets_the_users_limit_less_the_fixed_part(limit_s, fixed_s, expected_s):
    """What QEMU may use for the rest is the limit less what no bandwidth shortens, and never less than 1 ms."""
    play = Play(Plan(downtime_limit_s=limit_s, fixed_downtime_s=fixed_s))
    (limit, _) = play(Prepared(time_s=0.0, memory_bytes=256 * MiB))
    assert isinstance(limit, SetDowntimeLimit)
    assert limit.downtime_limit_s == pytest.approx(expected_s, abs=1e-12)


def test_the_reason_names_where_the_fixed_part_is_from():
    """The first decision says whether the fixed part is the prior or was measured for this pair."""
    prior, measured = Play(), Play(Plan(fixed_downtime_s=0.02))
    for play in (prior, measured):
        play(Prepared(time_s=0.0, memory_bytes=256 * MiB))
    assert "12.0 ms fixed part (prior)" in prior.reason
    assert "20.0 ms fixed part (measured)" in measured.reason


def test_the_expected_downtime_is_the_rest_over_the_throughput_plus_the_fixed_part():
    """What the screen shows beside the limit; nothing before the first slot is counted."""
    play = precopy()
    assert play.policy.expected_downtime_s == pytest.approx(64 / 40 + FIXED_DOWNTIME_PRIOR_S)
    assert Play().policy.expected_downtime_s is None
    play(seen(0.6, throughput_bytes_s=0.0))
    assert play.policy.expected_downtime_s is None


def test_no_downtime_is_expected_from_the_guards_slot():
    """The slot that the guard held down says nothing of the link; the next whole one does."""
    play = Play()
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB), said(0.01, "active"))
    for time_s, known in ((0.2, False), (0.25, False), (0.29, False), (0.31, True)):
        play(seen(time_s, throughput_bytes_s=3e6))
        assert (play.policy.expected_downtime_s is not None) == known, time_s


# Deadline


def test_the_deadline_cancels():
    """At the deadline, not before, the guest is kept at the source, with the deadline as the reason."""
    play = precopy(LATE)
    assert play(seen(9.99)) == ()
    assert play(Tick(time_s=10.0)) == (Cancel(),)
    assert play.policy.cancel_reason == "the deadline of 10.00 s has come"


def test_the_deadline_lifts_the_limits_when_asked_to():
    """With `pause` the deadline lifts limit and cap, once, and cancels nothing."""
    play = precopy(msgspec.structs.replace(LATE_PAUSE, bandwidth_bytes_s=50e6))
    assert play(seen(9.99)) == ()
    assert play(seen(10.0)) == (LIFTED, SetBandwidth(bandwidth_bytes_s=None))
    assert play(seen(10.2)) == ()
    assert play(Tick(time_s=10.3)) == ()
    assert len([decision for decision in play.decisions if "the deadline" in decision.reason]) == 1
    assert play.policy.cancel_reason is None


def test_a_deadline_in_setup_counts():
    """A connection that takes longer than the deadline is cancelled, too."""
    play = in_phase(Phase.SETUP, Plan(deadline_s=1))
    assert play(Tick(time_s=1.0)) == (Cancel(),)


def test_a_deadline_in_the_switchover_lets_it_finish():
    """A guest that stands still already is nearly there: the deadline does nothing any more."""
    play = stopped(LATE, at_s=9.9)
    assert play(Tick(time_s=10.1)) == ()


# Tuning


def test_a_tuned_limit_and_cap_go_to_qemu():
    """Both are sent at once; what did not change is not sent."""
    play = precopy()
    change = PlanChange(downtime_limit_s=0.1, bandwidth_bytes_s=10e6)
    assert play(Tuned(time_s=1.0, change=change)) == (
        SetDowntimeLimit(downtime_limit_s=0.1 - FIXED_DOWNTIME_PRIOR_S),
        SetBandwidth(bandwidth_bytes_s=10e6),
    )
    assert play(Tuned(time_s=1.1, change=change)) == ()
    assert play(Tuned(time_s=1.2, change=PlanChange(bandwidth_bytes_s=20e6))) == (SetBandwidth(bandwidth_bytes_s=20e6),)


def test_a_cap_tuned_under_the_guard_stays_under_it():
    """The guard outlives a change of the cap."""
    play = Play()
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB), said(0.01, "active"))
    assert play(Tuned(time_s=0.05, change=PlanChange(bandwidth_bytes_s=100e6))) == ()
    assert play(seen(0.2, throughput_bytes_s=3e6)) == (SetBandwidth(bandwidth_bytes_s=100e6),)


def test_a_deadline_moved_later_takes_the_lifting_back():
    """The user's limits hold again, until the new deadline comes."""
    play = precopy(LATE_PAUSE)
    assert play(Tick(time_s=4.0), seen(9.0), Tick(time_s=10.0)) == (LIFTED,)
    assert play(Tuned(time_s=10.1, change=PlanChange(deadline_s=13))) == (LIMIT,)
    assert play(seen(12.9)) == ()
    assert play(Tick(time_s=13.0)) == (LIFTED,)


def test_cancel_instead_of_pause_takes_the_lifting_back_and_cancels():
    """Who changes `pause` to `cancel` after the deadline wants the limit held and the guest kept."""
    play = precopy(LATE_PAUSE)
    assert play(seen(9.0), Tick(time_s=10.0)) == (LIFTED,)
    assert play(Tuned(time_s=10.1, change=PlanChange(at_deadline=AtDeadline.CANCEL))) == (LIMIT,)
    assert play(Tick(time_s=10.2)) == (Cancel(),)


def test_a_deadline_moved_into_the_past_acts_at_the_next_tick():
    """A deadline that is over when it is set is heeded as one that has come."""
    play = precopy()
    assert play(seen(3.0), Tuned(time_s=3.1, change=PlanChange(deadline_s=1.0))) == ()
    assert play(Tick(time_s=3.2)) == (Cancel(),)


@pytest.mark.parametrize(
    "change",
    [
        PlanChange(downtime_limit_s=0.0),
        PlanChange(bandwidth_bytes_s=10.0),
        PlanChange(deadline_s=-1.0),
        PlanChange(at_deadline=AtDeadline.PAUSE),
        PlanChange(downtime_limit_s=0.1, bandwidth_bytes_s=1.0),
    ],
)
def test_nonsense_changes_nothing(change):
    """A change that makes no plan is told and dropped whole: no setting is touched, the old plan goes on."""
    play = precopy()
    assert play(Tuned(time_s=1.0, change=change)) == ()
    assert play.reason.startswith("not changed: ")
    assert play.policy.plan == PLAN


# The watchdog on progress


def test_frozen_counters_are_given_up_after_five_seconds():
    """A silent link leaves the source `active` for ever: counters that stand still for 5 s end the migration."""
    play = precopy()
    frozen: dict[str, Any] = {"sent_bytes": 1000, "dirty_sync_count": 2, "throughput_bytes_s": 40e6}
    play(seen(1.0, **frozen))
    assert play(seen(1.0 + FROZEN_AFTER_S, **frozen)) == ()
    assert play(seen(1.01 + FROZEN_AFTER_S, **frozen)) == (Cancel(),)
    assert play.policy.failure_reason == "nothing was sent for 5 s: the link is dead or the peer hangs"
    assert play.policy.cancel_reason is None


def test_a_source_that_answers_no_poll_is_given_up_too():
    """Time alone is enough: a monitor that hangs brings no counters at all."""
    play = precopy()
    assert play(Tick(time_s=0.4 + FROZEN_AFTER_S)) == ()
    assert play(Tick(time_s=0.41 + FROZEN_AFTER_S)) == (Cancel(),)


def test_a_destination_that_never_connects_is_given_up():
    """`setup` without end is bounded as well."""
    play = in_phase(Phase.SETUP)
    assert play(Tick(time_s=5.1)) == (Cancel(),)


def test_slow_is_not_frozen():
    """One byte or one sync in four seconds is progress, for as long as it takes, when asked to keep trying."""
    play = precopy(Plan(downtime_limit_s=0.3, keep_trying=True))
    for step in range(1, 50):
        moved: dict[str, Any] = {"sent_bytes": 1000 + step // 2, "dirty_sync_count": 1 + (step + 1) // 2}
        assert play(seen(4.0 * step, throughput_bytes_s=1.0, **moved), Tick(time_s=4.0 * step + 3.9)) == ()


def test_a_policy_that_begins_late_counts_from_its_first_input():
    """One built anew for a migration under way knows no counters yet: that is no standstill of five seconds."""
    play = Play()
    assert play(Tick(time_s=1000.0)) == ()
    assert play(Tick(time_s=1005.1)) == (Cancel(),)


# The bound on standing still


def test_a_guest_that_stands_still_too_long_is_freed():
    """Past three limits and a second the connection is cut; when that shows no effect the truth is read."""
    play = stopped()
    assert play(Tick(time_s=5.0 + STOP_BOUND_S - 0.01)) == ()
    assert play(Tick(time_s=5.0 + STOP_BOUND_S + 0.01)) == (Yank(),)
    assert play.policy.failure_reason is not None
    assert play(Tick(time_s=5.0 + STOP_BOUND_S + CANCEL_BOUND_S)) == ()
    assert play(Tick(time_s=5.1 + STOP_BOUND_S + CANCEL_BOUND_S)) == (Settle(),)
    assert Cancel() not in play.actions


def test_stop_alone_arms_the_bound():
    """7.2 says no `device`: the STOP event is all there is."""
    play = precopy()
    play(SourceStopped(time_s=5.0))
    assert play(Tick(time_s=5.1 + STOP_BOUND_S)) == (Yank(),)


@pytest.mark.parametrize("status", ["device", "pre-switchover"])
def test_a_guest_that_was_paused_before_is_bounded_too(status):
    """It gives no STOP; the status arms the bound."""
    play = precopy()
    play(said(5.0, status))
    assert play(Tick(time_s=5.1 + STOP_BOUND_S)) == (Yank(),)


def test_the_bound_follows_the_limit():
    """A longer limit gives the switchover longer, by three times as much."""
    play = stopped(Plan(downtime_limit_s=2.0))
    assert play(Tick(time_s=11.9)) == ()
    assert play(Tick(time_s=12.1)) == (Yank(),)


def test_lifted_limits_get_the_time_the_rest_takes():
    """A consented pause takes as long as the rest takes; only three times that is too long."""
    play = precopy(LATE_PAUSE)
    play(seen(9.0), seen(9.9, remaining_bytes=400 * MiB, throughput_bytes_s=40.0 * MiB), Tick(time_s=10.0))
    play(SourceStopped(time_s=10.1), said(10.1, "device"))
    assert play(Tick(time_s=10.1 + 30)) == ()
    assert play(Tick(time_s=10.1 + 31.2)) == (Yank(),)


def test_what_is_left_in_the_switchover_does_not_shorten_its_bound():
    """A poll that is answered near the end of a long, consented pause must not make the pause look overdue."""
    play = precopy(LATE_PAUSE)
    play(seen(9.0), seen(9.9, remaining_bytes=400 * MiB, throughput_bytes_s=40.0 * MiB), Tick(time_s=10.0))
    play(SourceStopped(time_s=10.1), said(10.1, "device"))
    play(seen(18.0, "device", remaining_bytes=0, throughput_bytes_s=40.0 * MiB))
    assert play(Tick(time_s=20.0)) == ()


@pytest.mark.parametrize("status", ["completed", "cancelled", "failed", "postcopy-active"])
def test_nothing_is_cut_once_the_switchover_is_over(status):
    """A destination that is slow to say `completed`, or runs in post-copy, is not cut off for it."""
    play = stopped()
    play(said(5.1, status))
    assert play(Tick(time_s=5.1 + STOP_BOUND_S), Tick(time_s=1000.0)) == ()
    assert play.policy.failure_reason is None


@pytest.mark.parametrize("run_state", ["paused", "io-error", "guest-panicked", "suspended", "shutdown", "debug"])
def test_a_guest_stopped_by_somebody_else_is_not_in_a_switchover(run_state):
    """The bound is disarmed, the copy goes on, and a cancel is possible again."""
    play = precopy()
    play(SourceStopped(time_s=1.0), RunStateSeen(time_s=1.001, run_state=RunState(run_state)))
    assert f"the guest is {run_state} by somebody else's doing" in play.reason
    for step in range(2, 20):
        assert play(seen(float(step), throughput_bytes_s=40e6)) == ()
    assert play(CancelRequested(time_s=20.0, reason="enough")) == (Cancel(),)


@pytest.mark.parametrize("run_state", ["finish-migrate", "postmigrate", "running", "what-comes-next"])
def test_qemus_own_stop_stays_bounded(run_state):
    """A run state of the switchover, or one that livemig does not know, keeps the bound."""
    play = precopy()
    play(SourceStopped(time_s=5.0), RunStateSeen(time_s=5.001, run_state=RunState(run_state)))
    assert play(Tick(time_s=5.1 + STOP_BOUND_S)) == (Yank(),)


def test_a_paused_guest_in_the_switchover_stays_bounded():
    """Once QEMU has said `device`, whoever stopped the guest before: what hangs now is the switchover."""
    play = stopped()
    play(RunStateSeen(time_s=5.01, run_state=RunState.PAUSED))
    assert play(Tick(time_s=5.1 + STOP_BOUND_S)) == (Yank(),)


def test_a_guest_that_runs_again_is_not_bounded():
    """A RESUME at the source ends the bound."""
    play = precopy()
    play(SourceStopped(time_s=5.0), SourceResumed(time_s=5.1))
    for step in range(6, 20):
        assert play(seen(float(step))) == ()


def test_a_switchover_that_failed_without_a_word_is_bounded():
    """The guest runs at the source again, but QEMU never says `failed`: after 5 s it is cut, then the truth is read."""
    play = stopped()
    assert play(SourceResumed(time_s=5.5)) == ()
    assert play(seen(5.6, "device"), Tick(time_s=10.5)) == ()
    assert play(Tick(time_s=10.6)) == (Yank(),)
    assert play(Tick(time_s=15.7)) == (Settle(),)


# Cancelling


@pytest.mark.parametrize(
    ("phase", "cancels"),
    [(phase, phase in (Phase.SETUP, Phase.PRECOPY)) for phase in Phase],
)
def test_a_cancel_in_each_phase(phase, cancels):
    """Before the switchover it is sent; from there on it is too late, and in post-copy it would lose the guest."""
    play = in_phase(phase)
    assert play(CancelRequested(time_s=0.2, reason="the user asks")) == ((Cancel(),) if cancels else ())
    assert play.policy.cancel_reason == (None if phase.terminal else "the user asks")
    assert play(CancelRequested(time_s=0.3, reason="again")) == ()


def test_post_copy_is_not_cancelled_even_when_its_stop_was_missed():
    """7.2 takes a `migrate_cancel` there, and the guest is lost; whether a STOP was seen must not matter."""
    play = precopy()
    play(said(1.0, "postcopy-active"))
    assert play(CancelRequested(time_s=1.1, reason="the user asks")) == ()
    assert play(PeerLost(time_s=1.2, side="destination")) == ()


def test_a_cancel_after_stop_is_too_late_and_says_so():
    """After STOP `migrate_cancel` hangs on a dead link; the switchover finishes instead."""
    play = precopy()
    play(SourceStopped(time_s=5.0))
    assert play(CancelRequested(time_s=5.001, reason="the user asks")) == ()
    assert play.reason == "the user asks: too late to cancel, the switchover is under way and finishes"
    assert play.policy.cancel_reason == "the user asks"


@pytest.mark.parametrize(
    "not_in_switchover",
    [RunStateSeen(time_s=5.002, run_state=RunState.PAUSED), SourceResumed(time_s=5.002)],
    ids=["paused by somebody", "runs again"],
)
def test_a_cancel_that_seemed_too_late_is_heeded_when_it_was_not(not_in_switchover):
    """When the STOP turns out not to be the switchover's, the cancel that came meanwhile is sent."""
    play = precopy()
    play(SourceStopped(time_s=5.0), CancelRequested(time_s=5.001, reason="the user asks"))
    assert play(not_in_switchover) == (Cancel(),)


def test_a_cancel_without_effect_is_followed_by_a_cut_and_then_the_truth():
    """Five seconds for the cancel, five for the yank, then both sides are read; each is sent once."""
    play = precopy()
    assert play(CancelRequested(time_s=1.0, reason="the user asks")) == (Cancel(),)
    assert play(Tick(time_s=1.0 + CANCEL_BOUND_S)) == ()
    assert play(Tick(time_s=1.1 + CANCEL_BOUND_S)) == (Yank(),)
    assert play(Tick(time_s=1.1 + 2 * CANCEL_BOUND_S)) == ()
    assert play(Tick(time_s=1.2 + 2 * CANCEL_BOUND_S)) == (Settle(),)
    assert play.actions.count(Cancel()) == play.actions.count(Yank()) == 1


def test_a_cancel_with_effect_is_followed_by_nothing():
    """Once QEMU says `cancelled` no bound runs any more."""
    play = precopy()
    play(CancelRequested(time_s=1.0, reason="the user asks"), said(1.1, "cancelling"), SourceResumed(time_s=1.1))
    assert play(said(1.2, "cancelled"), Tick(time_s=100.0)) == ()


@pytest.mark.parametrize("status", ["cancelling", "failing"])
def test_an_end_that_somebody_else_began_is_bounded(status):
    """A QEMU that another client cancelled, or that fails, must get there: after 5 s it is cut, then read."""
    play = precopy()
    play(said(1.0, status))
    assert play(Tick(time_s=5.9)) == ()
    assert play(Tick(time_s=6.1)) == (Yank(),)
    assert play(Tick(time_s=11.2)) == (Settle(),)


# The last gate: pre-switchover


def test_a_waiting_switchover_is_continued_once():
    """QEMU says `pre-switchover` by event and by poll until the word arrives; it gets the word once."""
    play = precopy()
    play(SourceStopped(time_s=5.0))
    assert play(said(5.001, "pre-switchover")) == (ContinueSwitchover(),)
    assert play(seen(5.002, "pre-switchover")) == ()
    assert play(CancelRequested(time_s=5.003, reason="the user asks")) == ()
    assert play(seen(5.004, "pre-switchover")) == ()


@pytest.mark.parametrize(
    "unwanted",
    [CancelRequested(time_s=5.0, reason="the user asks"), PeerLost(time_s=5.0, side="destination")],
    ids=["the user", "the destination"],
)
def test_a_waiting_switchover_that_nobody_wants_is_cancelled_once(unwanted):
    """The one moment after STOP at which a cancel is certain; a poll that says it again sends no second."""
    play = precopy()
    play(SourceStopped(time_s=4.999), unwanted)
    assert play(said(5.001, "pre-switchover")) == (Cancel(),)
    assert play(seen(5.1, "pre-switchover"), seen(8.0, "pre-switchover")) == ()
    assert play(Tick(time_s=5.001 + CANCEL_BOUND_S + 0.1)) == (Yank(),)


def test_a_cancel_under_way_is_not_repeated_in_pre_switchover():
    """QEMU may get there before it takes the cancel: it will take it, and must not be told to go on."""
    play = precopy()
    assert play(CancelRequested(time_s=4.9, reason="the user asks")) == (Cancel(),)
    assert play(SourceStopped(time_s=5.0), said(5.001, "pre-switchover")) == ()
    assert play(Tick(time_s=4.9 + CANCEL_BOUND_S + 0.1)) == (Yank(),)


# Lost peers and refused actions


@pytest.mark.parametrize("phase", Phase)
def test_a_lost_source_is_settled(phase):
    """Without the source's monitor nothing can be driven: the truth is read from both sides."""
    assert in_phase(phase)(PeerLost(time_s=0.2, side="source")) == (Settle(),)


@pytest.mark.parametrize("phase", Phase)
def test_a_lost_destination_in_each_phase(phase):
    """Before the switchover the migration is given up; later the switchover shows by itself how it ends."""
    play = in_phase(phase)
    begun = phase in (Phase.SETUP, Phase.PRECOPY)
    assert play(PeerLost(time_s=0.2, side="destination")) == ((Cancel(),) if begun else ())
    noticed = phase in (Phase.SETUP, Phase.PRECOPY, Phase.SWITCHOVER, Phase.POSTCOPY)
    assert play.policy.failure_reason == ("the destination's monitor ended" if noticed else None)
    assert play.policy.cancel_reason is None


@pytest.mark.parametrize("phase", Phase)
def test_a_refused_setting_in_each_phase(phase):
    """Without the setting the user's limit would not hold: given up while that is possible, else only told."""
    play = in_phase(phase)
    begun = phase in (Phase.SETUP, Phase.PRECOPY)
    refused = ActionRefused(time_s=0.2, action="downtime-limit 288 ms", reason="QEMU refused it")
    assert play(refused) == ((Cancel(),) if begun else ())
    assert (play.policy.failure_reason is not None) == begun
    assert "downtime-limit 288 ms" in play.reason


def test_a_refused_cancel_leads_to_the_cut():
    """Nothing is sent in answer to the refusal; the bound on ending goes on."""
    play = precopy()
    play(CancelRequested(time_s=1.0, reason="the user asks"))
    assert play(ActionRefused(time_s=1.1, action="cancel", reason="no answer")) == ()
    assert play(Tick(time_s=6.1)) == (Yank(),)
    assert play(ActionRefused(time_s=6.2, action="cut", reason="no such instance")) == ()
    assert play(Tick(time_s=11.2)) == (Settle(),)


def test_a_refusal_after_stop_gives_nothing_up():
    """A setting that hangs in the switchover is past caring about."""
    play = stopped()
    assert play(ActionRefused(time_s=5.1, action="bandwidth unlimited", reason="no answer")) == ()
    assert play.policy.failure_reason is None


# Whatever comes


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
