"""The policy, told how it ends: a guest that stands still, a cancel, the last gate, lost peers, refused actions."""

from __future__ import annotations

import pytest

from livemig.core.action import Cancel, ContinueSwitchover, Settle, Yank
from livemig.core.inputs import (
    ActionRefused,
    CancelRequested,
    PeerLost,
    RunStateSeen,
    SourceResumed,
    SourceStopped,
    Tick,
)
from livemig.core.phases import Phase
from livemig.core.plan import Plan
from livemig.core.policy import (
    CANCEL_BOUND_S,
)
from livemig.core.status import RunState
from tests.unit.policy_play import (
    LATE_PAUSE,
    STOP_BOUND_S,
    MiB,
    in_phase,
    precopy,
    said,
    seen,
    stopped,
)

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
