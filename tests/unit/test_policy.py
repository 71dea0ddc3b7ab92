"""The policy, told what an engine would tell it, while memory is copied: each status, each limit, and progress."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from livemig.core.action import Cancel, ContinueSwitchover, SetBandwidth, SetDowntimeLimit, Settle
from livemig.core.inputs import (
    Prepared,
    StatusSeen,
    Tick,
    Tuned,
)
from livemig.core.phases import TRANSITIONS, Phase
from livemig.core.plan import AtDeadline, Plan, PlanChange
from livemig.core.policy import (
    FROZEN_AFTER_S,
)
from livemig.core.status import MigrationStatus
from livemig.core.switchover import FIXED_DOWNTIME_PRIOR_S
from tests.unit.policy_play import (
    LATE,
    LATE_PAUSE,
    LIFTED,
    LIMIT,
    PLAN,
    MiB,
    Play,
    in_phase,
    precopy,
    said,
    seen,
    stopped,
)

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
