"""livemig's rule for the switchover, through the policy and the simulator: its limits, its patience, its verdicts."""

from __future__ import annotations

import re
from functools import cache

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from livemig.core.action import Cancel, SetDowntimeLimit, SetSwitchoverBandwidth
from livemig.core.inputs import Input, Prepared, SourceStopped, Tuned
from livemig.core.observation import Observation
from livemig.core.outcome import Outcome
from livemig.core.plan import DOWNTIME_LIMIT_LEAST_S, DOWNTIME_LIMIT_MOST_S, AtDeadline, Plan, PlanChange, Prefer
from livemig.core.policy import Policy
from livemig.core.status import MigrationStatus
from livemig.core.switchover import Switchover, first_crossing
from livemig.core.trace import DecisionRecord, InputRecord
from livemig.core.units import parse_duration_s, parse_rate_bytes_s
from livemig.simulation.link import LinkSetting, Outage
from livemig.simulation.replay import replay
from livemig.simulation.setting import Setting
from livemig.simulation.simulate import SimulatedRun, Wish, simulate
from livemig.simulation.workloads import Pattern, SimulatedGuest, Stage, Writes

MiB = 2**20
LINK_BYTES_S = 200e6
VERSIONS = ("7.2", "10.0", "11.1")


def guest(*writes: Writes, burst_period_s: float = 0.0, burst_duty_percent: float = 50.0) -> SimulatedGuest:
    """A guest of 512 MiB, three quarters of it with content, in pieces of 64 KiB."""
    stage = Stage(writes=writes, burst_period_s=burst_period_s, burst_duty_percent=burst_duty_percent)
    return SimulatedGuest(memory_bytes=512 * MiB, content_bytes=384 * MiB, page_bytes=65536, stages=(stage,))


def random(size_mib: int, rate: float, pattern: Pattern = Pattern.RANDOM) -> Writes:
    """Writes to a region, at a multiple of what the link carries."""
    return Writes(pattern=pattern, size_bytes=size_mib * MiB, rate_bytes_s=rate * LINK_BYTES_S)


GUESTS = {
    "idle": guest(),
    "hot": guest(random(16, 3.0), Writes(size_bytes=384 * MiB, rate_bytes_s=0.02 * LINK_BYTES_S)),
    "warm": guest(random(128, 0.7)),
    "zipf": guest(random(256, 1.0, Pattern.ZIPF)),
    "sweep": guest(random(48, 1.5, Pattern.SWEEP)),
    "bursts": guest(random(64, 2.0), burst_period_s=1.0),
    "hopeless": guest(random(256, 8.0)),
    "edge": guest(random(84, 3.0)),
}
DEADLINE_S = 12.0
PLAN = Plan(downtime_limit_s=0.3, deadline_s=DEADLINE_S)


@cache
def moved(name: str, plan: Plan = PLAN, qemu: str = "10.0", noise_ratio: float = 0.0, seed: int = 1) -> SimulatedRun:
    """One simulated migration, with its trace."""
    link = LinkSetting(rate_bytes_s=LINK_BYTES_S, noise_ratio=noise_ratio)
    setting = Setting(guest=GUESTS[name], link=link, qemu=qemu, bound_s=30.0)
    return simulate(setting, plan, seed=seed, keep_trace=True)


def preferring(prefer: str, plan: Plan = PLAN) -> Plan:
    """The same plan with another preference."""
    return msgspec.structs.replace(plan, prefer=Prefer(prefer))


def actions_of(run: SimulatedRun) -> list[object]:
    """All that the policy did."""
    return [
        action for record in run.records if isinstance(record, DecisionRecord) for action in record.decision.actions
    ]


def verdict_of(run: SimulatedRun) -> str:
    """Why it was cancelled."""
    [verdict] = [
        record.decision.reason
        for record in run.records
        if isinstance(record, DecisionRecord) and Cancel() in record.decision.actions
    ]
    return verdict


@pytest.mark.parametrize("qemu", VERSIONS)
@pytest.mark.parametrize("prefer", Prefer)
@pytest.mark.parametrize("name", GUESTS)
def test_the_limit_is_never_exceeded_by_choice_and_the_deadline_ends_it(name, prefer, qemu):
    """Whatever the guest does: QEMU is never allowed more than the limit less the fixed part, nor a threshold of 0."""
    run = moved(name, preferring(prefer), qemu)
    limits_s = [action.downtime_limit_s for action in actions_of(run) if isinstance(action, SetDowntimeLimit)]
    assert limits_s
    assert all(DOWNTIME_LIMIT_LEAST_S <= limit_s <= first_crossing(PLAN).downtime_limit_s for limit_s in limits_s)
    assert not any(isinstance(action, SetSwitchoverBandwidth) for action in actions_of(run))
    assert run.total_s <= DEADLINE_S + 0.2
    assert run.outcome is (Outcome.CANCELLED if name in ("hopeless", "edge") else Outcome.COMPLETED)
    if run.downtime_s is not None:
        assert run.downtime_s <= PLAN.downtime_limit_s


@pytest.mark.parametrize("qemu", VERSIONS)
def test_a_link_that_wavers_does_not_break_the_limit(qemu):
    """QEMU is allowed what its own last slot's share, which the link has with 99.5 %, sends within the limit."""
    for seed in range(3):
        run = moved("zipf", qemu=qemu, noise_ratio=0.15, seed=seed)
        assert run.outcome is Outcome.COMPLETED
        assert run.downtime_s is not None
        assert run.downtime_s <= PLAN.downtime_limit_s


@pytest.mark.parametrize("deadline_s", [None, DEADLINE_S])
@pytest.mark.parametrize("seed", range(6))
def test_a_run_never_ends_in_neither_crossing_nor_telling(seed, deadline_s):
    """A guest that leaves most of the limit, over a link that wavers: it moves, or it is told what would do.

    And QEMU is not told a new limit each time that the link is looked at.
    """
    slow = Writes(size_bytes=20 * MiB, rate_bytes_s=60e6)
    guest_and_link = Setting(
        guest=SimulatedGuest(
            memory_bytes=128 * MiB, content_bytes=64 * MiB, page_bytes=65536, stages=(Stage(writes=(slow,)),)
        ),
        link=LinkSetting(rate_bytes_s=27e6, noise_ratio=0.25, noise_s=0.8),
        bound_s=120.0,
    )
    plan = Plan(downtime_limit_s=0.4, deadline_s=deadline_s)
    run = simulate(guest_and_link, plan, seed=seed, keep_trace=True)
    if run.outcome is not Outcome.COMPLETED:
        assert run.outcome is Outcome.CANCELLED
        assert "would do" in verdict_of(run)
    limits = [action for action in actions_of(run) if isinstance(action, SetDowntimeLimit)]
    assert len(limits) <= 2 + run.total_s


def test_without_a_deadline_what_never_fits_is_told_after_a_while():
    """Not hopeless, were the guest a third as quick; but nothing else would end it. `keep_trying` is told once."""
    plan = Plan(downtime_limit_s=0.3)
    run = moved("edge", plan)
    assert run.outcome is Outcome.CANCELLED
    assert run.first_copy_s is not None
    assert run.first_copy_s + 20 <= run.total_s <= run.first_copy_s + 21
    assert "has not fitted into a limit of 300 ms" in verdict_of(run)
    assert "would do" in verdict_of(run)
    trying = moved("edge", msgspec.structs.replace(plan, keep_trying=True))
    assert trying.total_s >= 30
    reasons = [record.decision.reason for record in trying.records if isinstance(record, DecisionRecord)]
    assert sum("trying on, as asked" in reason for reason in reasons) == 1
    setting = Setting(guest=GUESTS["edge"], link=LinkSetting(rate_bytes_s=LINK_BYTES_S), bound_s=60.0)
    tuned = simulate(setting, plan, seed=1, wishes=[Wish(time_s=15.0, change=PlanChange(downtime_limit_s=0.29))])
    assert 35 <= tuned.total_s <= 36


def test_at_the_deadline_it_is_told_what_would_do():
    """Also where it was not without hope before."""
    assert "the deadline of 12.00 s has come: a downtime limit of" in verdict_of(moved("edge"))


def test_with_little_time_after_the_first_copy_some_of_it_is_for_holding_out():
    """Not all of it is kept for crossing the limit."""
    fast = moved("zipf", Plan(downtime_limit_s=0.2, deadline_s=DEADLINE_S))
    assert fast.first_copy_s is not None
    plan = Plan(downtime_limit_s=0.2, deadline_s=fast.first_copy_s + 1.4, prefer=Prefer.DOWNTIME)
    short = moved("zipf", plan)
    assert short.outcome is Outcome.COMPLETED
    assert short.downtime_s is not None
    assert fast.downtime_s is not None
    assert short.downtime_s < 0.7 * fast.downtime_s


def test_a_link_that_was_slow_for_a_while_is_no_verdict():
    """What it left meanwhile is judged by what the link has now."""
    outage = Outage(start_s=1.6, duration_s=1.2, left_percent=15)
    setting = Setting(guest=GUESTS["sweep"], link=LinkSetting(rate_bytes_s=LINK_BYTES_S, outages=(outage,)))
    run = simulate(setting, PLAN, seed=1)
    assert run.outcome is Outcome.COMPLETED
    assert run.total_s > outage.start_s + outage.duration_s


def test_a_growing_guest_is_not_waited_for():
    """What comes down no more and is near the limit is taken: later it would not fit."""
    stages = tuple(
        Stage(start_s=0.5 * step, writes=(Writes(size_bytes=int(40 * MiB * 1.05**step), rate_bytes_s=2e9),))
        for step in range(20)
    )
    growing = SimulatedGuest(memory_bytes=512 * MiB, content_bytes=384 * MiB, page_bytes=65536, stages=stages)
    setting = Setting(guest=growing, link=LinkSetting(rate_bytes_s=LINK_BYTES_S))
    run = simulate(setting, Plan(downtime_limit_s=0.4, deadline_s=DEADLINE_S, prefer=Prefer.DOWNTIME), seed=1)
    assert run.outcome is Outcome.COMPLETED
    assert run.total_s < DEADLINE_S / 2


@pytest.mark.parametrize("name", ["hot", "warm", "zipf", "sweep", "bursts"])
def test_preferring_downtime_stands_still_less_and_preferring_time_ends_sooner(name):
    """The two preferences do what they say."""
    fast, short = moved(name), moved(name, preferring("downtime"))
    assert fast.downtime_s is not None
    assert short.downtime_s is not None
    assert short.downtime_s <= fast.downtime_s
    assert fast.total_s <= short.total_s


@pytest.mark.parametrize("name", ["hot", "warm", "zipf", "sweep"])
def test_patience_bounds_the_waiting_by_the_downtime_at_stake(name):
    """It stands still no longer than at the first crossing, and waits from there no longer than it says."""
    fast = moved(name)
    assert fast.downtime_s is not None
    for ratio in (0.5, 2.0, 10.0):
        run = moved(name, msgspec.structs.replace(preferring("downtime"), patience_ratio=ratio))
        assert run.downtime_s is not None
        assert run.downtime_s <= 1.05 * fast.downtime_s
        assert run.total_s <= fast.total_s + ratio * fast.downtime_s + 0.3


def test_a_large_share_of_memory_is_not_sent_for_the_first_time_while_the_guest_stands_still():
    """Pages new to the destination take longer than the slots say: the limit holds, were they 1.4 times as dear."""
    link = LinkSetting(rate_bytes_s=800e6, fresh_page_s=0.4 * 4104 / 800e6)
    setting = Setting(guest=GUESTS["idle"], link=link)
    for limit_s in (0.2, 0.25, 0.3, 0.4):
        run = simulate(setting, Plan(downtime_limit_s=limit_s, bandwidth_bytes_s=800e6), seed=1)
        assert run.downtime_s is not None
        assert run.downtime_s <= limit_s


def test_a_periodic_guest_is_met_in_its_trough():
    """Half of each second it writes nothing: that is when it moves, with next to nothing left.

    Its bursts leave some 260 ms: were the limit as near as that, a trough would not be waited for.
    """
    run = moved("bursts", preferring("downtime", msgspec.structs.replace(PLAN, downtime_limit_s=0.45)))
    assert run.downtime_s is not None
    assert run.downtime_s < 0.03


def test_without_a_deadline_it_holds_out_for_a_while_only():
    """As long as the first copy took, or 10 s."""
    run = moved("hot", Plan(downtime_limit_s=0.3, prefer=Prefer.DOWNTIME))
    assert run.outcome is Outcome.COMPLETED
    assert run.total_s < 20


@pytest.mark.parametrize("qemu", VERSIONS)
def test_no_hope_is_declared_within_a_round_after_the_first_copy(qemu):
    """With what would do; without a deadline too, where it warns and cancels."""
    for plan in (PLAN, Plan(downtime_limit_s=0.3)):
        run = moved("hopeless", plan, qemu)
        assert run.outcome is Outcome.CANCELLED
        assert len(run.rounds) == 2
        reasons = [record.decision for record in run.records if isinstance(record, DecisionRecord)]
        [verdict] = [decision for decision in reasons if Cancel() in decision.actions]
        assert "even at a third of its pace: a downtime limit of" in verdict.reason
        assert "or a bandwidth of" in verdict.reason


def test_what_it_says_would_do_does():
    """The limit and the bandwidth that a verdict names are enough."""
    found = re.search(r"a downtime limit of (.+) or a bandwidth of (.+) would do", verdict_of(moved("hopeless")))
    assert found is not None
    limit_s, bandwidth_bytes_s = parse_duration_s(found[1].replace(" ", "")), parse_rate_bytes_s(found[2])
    assert moved("hopeless", Plan(downtime_limit_s=limit_s, deadline_s=30)).outcome is Outcome.COMPLETED
    link = LinkSetting(rate_bytes_s=bandwidth_bytes_s)
    assert simulate(Setting(guest=GUESTS["hopeless"], link=link), PLAN, seed=1).outcome is Outcome.COMPLETED


def test_keep_trying_goes_on_to_the_deadline_and_says_so_once():
    """The verdict is told, and nothing is done."""
    run = moved("hopeless", msgspec.structs.replace(PLAN, keep_trying=True))
    assert run.outcome is Outcome.CANCELLED
    assert run.total_s == pytest.approx(DEADLINE_S, abs=0.3)
    reasons = [record.decision.reason for record in run.records if isinstance(record, DecisionRecord)]
    assert sum("trying on, as asked" in reason for reason in reasons) == 1


def test_at_deadline_pause_is_done_at_once_without_hope():
    """What the user wanted at the deadline need not wait for it: the limits are lifted."""
    run = moved("hopeless", msgspec.structs.replace(PLAN, at_deadline=AtDeadline.PAUSE))
    assert run.outcome is Outcome.COMPLETED
    assert run.total_s < DEADLINE_S
    assert SetDowntimeLimit(downtime_limit_s=DOWNTIME_LIMIT_MOST_S) in actions_of(run)


SHORT = Setting(
    guest=SimulatedGuest(
        memory_bytes=64 * MiB, content_bytes=48 * MiB, page_bytes=65536, stages=(Stage(writes=(random(24, 0.2),)),)
    ),
    link=LinkSetting(rate_bytes_s=LINK_BYTES_S / 2),
)
SHORT_PLAN = Plan(downtime_limit_s=0.06, deadline_s=6.0)


@cache
def short_run(prefer: str) -> SimulatedRun:
    """A migration of few steps."""
    run = simulate(SHORT, preferring(prefer, SHORT_PLAN), seed=1, keep_trace=True)
    assert run.outcome is Outcome.COMPLETED
    assert len(run.rounds) >= 2
    return run


def inputs_of(run: SimulatedRun) -> list[Input]:
    """All that the policy was told."""
    return [record.input for record in run.records if isinstance(record, InputRecord)]


@pytest.mark.parametrize("prefer", Prefer)
def test_a_cancel_at_every_step_ends_it(prefer):
    """The guest is at one of the two sides soon after."""
    times_s = [one.time_s for one in inputs_of(short_run(prefer))]
    outcomes = []
    for time_s in times_s:
        run = simulate(SHORT, preferring(prefer, SHORT_PLAN), seed=1, wishes=[Wish(time_s=time_s)])
        outcomes.append(run.outcome)
        assert run.outcome in (Outcome.CANCELLED, Outcome.COMPLETED)
        if run.outcome is Outcome.CANCELLED:
            assert run.total_s < time_s + 0.5
    assert outcomes[0] is Outcome.CANCELLED
    assert outcomes[-1] is Outcome.COMPLETED


@pytest.mark.parametrize("prefer", Prefer)
def test_a_change_at_every_step_holds_from_then_on(prefer):
    """A tighter limit, an earlier deadline, the other preference: what is set afterwards obeys it."""
    change = PlanChange(downtime_limit_s=0.05, deadline_s=4.0, prefer=Prefer.DOWNTIME, keep_trying=True)
    for time_s in [one.time_s for one in inputs_of(short_run(prefer))]:
        wishes = [Wish(time_s=time_s, change=change)]
        run = simulate(SHORT, preferring(prefer, SHORT_PLAN), seed=1, wishes=wishes, keep_trace=True)
        tuned = False
        for record in run.records:
            tuned = tuned or (isinstance(record, InputRecord) and isinstance(record.input, Tuned))
            if tuned and isinstance(record, DecisionRecord):
                limits_s = [
                    one.downtime_limit_s for one in record.decision.actions if isinstance(one, SetDowntimeLimit)
                ]
                assert all(limit_s <= 0.05 - 0.012 for limit_s in limits_s)
        assert tuned
        assert run.total_s <= 4.2


@pytest.mark.parametrize("prefer", Prefer)
def test_cut_after_every_step_and_entered_again_it_decides_alike(prefer):
    """A policy that is told again what was seen so far goes on as if it had never ended; so a trace replays."""
    run = short_run(prefer)
    inputs = inputs_of(run)
    whole = Policy(run_plan := preferring(prefer, SHORT_PLAN))
    decisions = [whole.step(one) for one in inputs]
    for cut in range(len(inputs)):
        again = Policy(run_plan)
        assert [again.step(one) for one in inputs[:cut]] == decisions[:cut]
        assert [again.step(one) for one in inputs[cut:]] == decisions[cut:]


@pytest.mark.parametrize("prefer", Prefer)
def test_cut_after_every_step_one_that_knows_only_the_rest_is_safe(prefer):
    """It allows no more than the limit, and cancels nothing after STOP."""
    inputs = inputs_of(short_run(prefer))
    for cut in range(len(inputs)):
        policy, stopped = Policy(preferring(prefer, SHORT_PLAN)), False
        for one in inputs[cut:]:
            stopped = stopped or isinstance(one, SourceStopped)
            for action in policy.step(one).actions:
                assert not (stopped and action == Cancel())
                if isinstance(action, SetDowntimeLimit):
                    assert action.downtime_limit_s <= SHORT_PLAN.downtime_limit_s


@pytest.mark.parametrize("prefer", Prefer)
@pytest.mark.parametrize("name", ["sweep", "hopeless"])
def test_a_simulated_trace_replays(name, prefer):
    """Every decision comes out again."""
    run = moved(name, preferring(prefer))
    found = replay(run.records)
    assert found.reproduced
    assert len(found.decisions) == sum(isinstance(record, DecisionRecord) for record in run.records)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.floats(0.02, 2.0), st.integers(0, 300 * MiB)), min_size=1, max_size=30),
    st.sampled_from(Prefer),
    st.none() | st.floats(0.1, 100.0),
)
@example([*[(0.05, 0)] * 12, *[(0.05, MiB)] * 14, (0.05, 0)], Prefer.DOWNTIME, None)
def test_whatever_rounds_leave_qemu_is_allowed_something_and_no_more_than_the_limit(rounds, prefer, patience_ratio):
    """Nothing at all left after rounds that left more and more, too: a threshold of 0 would stop the guest with all."""
    plan = msgspec.structs.replace(preferring(prefer), patience_ratio=patience_ratio)
    rule = Switchover()
    rule.begin(plan, Prepared(time_s=0.0, memory_bytes=512 * MiB))
    time_s, sent_bytes = 0.0, 0
    for number, (duration_s, left_bytes) in enumerate(rounds, start=2):
        time_s, sent_bytes = time_s + duration_s, sent_bytes + int(duration_s * LINK_BYTES_S)
        observation = Observation(
            time_s=time_s,
            status=MigrationStatus.ACTIVE,
            dirty_sync_count=number,
            sent_bytes=sent_bytes,
            normal_pages=sent_bytes // 4096,
            zero_pages=0,
            remaining_bytes=left_bytes,
            throughput_bytes_s=LINK_BYTES_S * (1 + number / 1000),
        )
        wanted = rule.observe(observation)
        assert DOWNTIME_LIMIT_LEAST_S <= wanted.downtime_limit_s <= first_crossing(plan).downtime_limit_s
