"""A slot without the user's cap: sent once, only where it would decide; the limit is kept by what it showed."""

from __future__ import annotations

from functools import partial

import msgspec
import pytest

from livemig.core.action import SetBandwidth
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.outcome import Outcome
from livemig.core.plan import Plan, PlanChange, Prefer
from livemig.simulation.link import LinkSetting
from livemig.simulation.replay import replay
from livemig.simulation.setting import Setting
from livemig.simulation.simulate import SimulatedRun, Wish, simulate
from livemig.simulation.workloads import Pattern, Writes
from tests.unit.test_history import record
from tests.unit.test_switchover import LINK_BYTES_S, MiB, actions_of, guest

HOSTS = "a to b"
CAP_BYTES_S = LINK_BYTES_S / 4
PLAN = Plan(downtime_limit_s=0.3, bandwidth_bytes_s=CAP_BYTES_S, deadline_s=40.0)
HOT = guest(Writes(pattern=Pattern.RANDOM, size_bytes=32 * MiB, rate_bytes_s=3 * LINK_BYTES_S))
"""What it leaves takes 0.17 s at what the link carries, and 0.67 s under the cap."""
CALM = guest(Writes(pattern=Pattern.RANDOM, size_bytes=8 * MiB, rate_bytes_s=3 * LINK_BYTES_S))
past = partial(msgspec.structs.replace, record(hosts=HOSTS))
FAST = Foreknowledge(hosts=HOSTS, past=(past(throughput_bytes_s=LINK_BYTES_S),))
SLOW = Foreknowledge(hosts=HOSTS, past=(past(throughput_bytes_s=1.2 * CAP_BYTES_S),))
ELSEWHERE = Foreknowledge(hosts="a to c", past=FAST.past)
OFF, ON = SetBandwidth(bandwidth_bytes_s=None), SetBandwidth(bandwidth_bytes_s=CAP_BYTES_S)


def moved(known: Foreknowledge, plan: Plan = PLAN, **changes: object) -> SimulatedRun:
    """A simulated migration of the hot guest, unless it says otherwise."""
    given = {"guest": HOT, "link": LinkSetting(rate_bytes_s=LINK_BYTES_S), "bound_s": 60.0, **changes}
    return simulate(msgspec.convert(given, Setting), plan, seed=1, known=known, keep_trace=True)


def bandwidths(run: SimulatedRun) -> list[SetBandwidth]:
    """What the cap was set to after the guard."""
    return [action for action in actions_of(run) if isinstance(action, SetBandwidth)][2:]


@pytest.mark.parametrize("qemu", ["7.2", "10.0", "11.1"])
@pytest.mark.parametrize("prefer", Prefer)
@pytest.mark.parametrize(
    "known", [FAST, Foreknowledge(hosts=HOSTS, past=(past(switchover_bytes_s=LINK_BYTES_S),))], ids=["copy", "rest"]
)
def test_it_decides_where_only_the_link_can_keep_the_limit(known, prefer, qemu):
    """In the slot without the cap QEMU fires, and the limit is kept; a replay decides the same."""
    run = moved(known, msgspec.structs.replace(PLAN, prefer=prefer), qemu=qemu)
    assert run.outcome is Outcome.COMPLETED
    assert run.downtime_s is not None
    assert run.downtime_s <= PLAN.downtime_limit_s
    assert bandwidths(run)[:1] == [OFF]
    assert bandwidths(run).count(OFF) == 1
    assert replay(run.records).differences == ()


@pytest.mark.parametrize(
    ("known", "changes"),
    [
        (Foreknowledge(), {}),
        (Foreknowledge(hosts=HOSTS, past=(past(),)), {}),
        (SLOW, {}),
        (ELSEWHERE, {}),
        (FAST, {"guest": CALM}),
        (FAST, {"link": LinkSetting(rate_bytes_s=0.7 * CAP_BYTES_S)}),
    ],
    ids=[
        "nothing known",
        "nothing told",
        "too slow",
        "other hosts",
        "the cap will do",
        "the link holds",
    ],
)
def test_it_is_not_sent_where_it_would_not_decide(known, changes):
    """The user's cap holds from the first slot to the last."""
    run = moved(known, **changes)
    assert bandwidths(run) == []
    assert run.outcome is (Outcome.COMPLETED if changes.get("guest") is CALM else Outcome.CANCELLED)


def test_a_link_that_became_slow_shows_nothing():
    """History is never believed over what the slot shows: the cap comes back, and the guest stays where it is."""
    run = moved(FAST, link=LinkSetting(rate_bytes_s=1.1 * CAP_BYTES_S))
    assert bandwidths(run) == [OFF, ON]
    assert run.outcome is Outcome.CANCELLED


def test_a_guest_that_does_not_fit_even_so_is_told_so():
    """It leaves more than the link now can send in time: one slot, then the cap again, and no hope."""
    faster = Foreknowledge(hosts=HOSTS, past=(past(throughput_bytes_s=2 * LINK_BYTES_S),))
    run = moved(faster, msgspec.structs.replace(PLAN, downtime_limit_s=0.21), link=LinkSetting(rate_bytes_s=1.4e8))
    assert bandwidths(run) == [OFF, ON]
    assert run.outcome is Outcome.CANCELLED


def test_the_link_before_a_cap_that_came_later_counts_as_known():
    """Without history: this run's own slots were faster, until the user asked for the cap."""
    free = msgspec.structs.replace(PLAN, bandwidth_bytes_s=None, downtime_limit_s=0.15)
    asked = [Wish(time_s=1.5, change=PlanChange(bandwidth_bytes_s=CAP_BYTES_S, downtime_limit_s=0.3))]
    setting = Setting(guest=HOT, link=LinkSetting(rate_bytes_s=LINK_BYTES_S), bound_s=60.0)
    run = simulate(setting, free, seed=1, wishes=asked, keep_trace=True)
    assert OFF in bandwidths(run)
    assert run.outcome is Outcome.COMPLETED
    assert run.downtime_s is not None
    assert run.downtime_s <= 0.3
