"""Forecasts follow from what is known: the same again for the same, wider for less, worse for a busier guest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.calibration import Calibration, calibrate, stretched
from livemig.core.dirty_sample import DirtySample
from livemig.core.event import DestinationRunning
from livemig.core.forecaster import Forecaster
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.last_step import last_step_of
from livemig.core.link import Link
from livemig.core.observation import Observation
from livemig.core.past import PastMigration
from livemig.core.plan import Plan
from livemig.core.prediction import Forecast
from livemig.core.rounds import Round
from livemig.core.status import MigrationStatus
from livemig.core.trace import EventRecord, decode_trace
from livemig.core.what_if import least_bandwidth_bytes_s, what_if
from livemig.simulation.replay import replay

MIB = 2**20
MEMORY = 256 * MIB
PLAN = Plan(bandwidth_bytes_s=100.0 * MIB, downtime_limit_s=0.3)
TRACES = sorted((Path(__file__).parents[1] / "traces").glob("*.jsonl"))
SHARES = (1.0,) * 16 + (0.0,) * 16


def sampled(rate_mib_s: float, set_mib: float = 96) -> tuple[DirtySample, ...]:
    """What sampling shows of a sweep."""
    found = []
    for period_s in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        pages = min(set_mib, rate_mib_s * period_s) * 256
        found.append(
            DirtySample(periods_s=(period_s,), weights=(1.0,), dirtied_pages=pages, deviation_pages=0.03 * pages + 3)
        )
    return tuple(found)


def at_start(rate_mib_s: float, plan: Plan = PLAN, **known) -> Forecast:
    """The forecast before a guest begins to move that writes so fast."""
    asked = {"samples": sampled(rate_mib_s), "touched_shares": SHARES, "same_host": True, "seed": 3, **known}
    return Forecaster(plan, memory_bytes=MEMORY, **asked).forecast("start", 0.0)


def test_a_guest_that_writes_slowly_converges():
    """In about the time that its touched memory takes, at next to no downtime."""
    found = at_start(5)
    assert found.converges > 0.99
    assert found.total_s is not None
    assert found.total_s[1] == pytest.approx(128 / 100 + 0.2, rel=0.15)
    assert found.sent_bytes is not None
    assert found.sent_bytes[1] == pytest.approx(135 * MIB, rel=0.1)


def test_a_guest_that_writes_faster_than_can_be_sent_does_not():
    """And there are no figures for what does not come."""
    found = at_start(250)
    assert found.converges < 0.05
    plan = Plan(bandwidth_bytes_s=1000.0 * MIB, downtime_limit_s=0.3)
    assert at_start(250, plan).converges > 0.95


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 150), st.floats(1.05, 3), st.integers(0, 100))
def test_more_dirtying_never_helps(rate_mib_s, factor, seed):
    """Neither the odds nor, where both converge, time and bytes; within what 64 particles scatter."""
    less, more = (at_start(rate, seed=seed) for rate in (rate_mib_s, rate_mib_s * factor))
    assert more.converges <= less.converges + 0.1
    if less.converges > 0.9 and more.converges > 0.9:
        assert less.total_s is not None
        assert more.total_s is not None
        assert more.total_s[1] >= less.total_s[1] * 0.9 - 0.11


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 150), st.floats(1.05, 3), st.integers(0, 100))
def test_more_dirtying_never_shortens_the_downtime_at_the_start(rate_mib_s, factor, seed):
    """Where both converge: within what 64 particles scatter, for what is left when QEMU looks is a saw-tooth."""
    less, more = (at_start(rate, seed=seed) for rate in (rate_mib_s, rate_mib_s * factor))
    if less.converges > 0.9 and more.converges > 0.9:
        assert less.downtime_s is not None
        assert more.downtime_s is not None
        assert more.downtime_s[1] >= less.downtime_s[1] * 0.8 - 0.003


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 150), st.floats(1, 3), st.floats(0, 60), st.integers(0, 100))
def test_more_dirtying_never_shortens_the_downtime_at_the_commit(rate_mib_s, factor, left_mib, seed):
    """All quantiles, of the same replies of QEMU's and the same random numbers: by no more than the fits differ."""
    less, more = (at_commit(rate, left_mib, seed) for rate in (rate_mib_s, rate_mib_s * factor))
    assert less.downtime_s is not None
    assert more.downtime_s is not None
    for shorter_s, longer_s in zip(less.downtime_s, more.downtime_s, strict=True):
        assert longer_s >= shorter_s * 0.99


def at_commit(rate_mib_s: float, left_mib: float, seed: int) -> Forecast:
    """The forecast as of a guest's standing still that wrote so fast, a moment after so much was left."""
    forecaster = Forecaster(PLAN, memory_bytes=MEMORY, samples=sampled(rate_mib_s), same_host=True, seed=seed)
    observation = Observation(
        time_s=3.0,
        status=MigrationStatus.ACTIVE,
        sent_bytes=200 * MIB,
        remaining_bytes=int(left_mib * MIB),
        throughput_bytes_s=100.0 * MIB,
    )
    forecaster.observe(3.0, observation)
    fresh_bytes = int(min(2 * rate_mib_s, 96) * MIB)
    forecaster.round_completed(
        Round(
            number=1,
            start_s=0.0,
            duration_s=2.0,
            sent_bytes=200 * MIB,
            newly_dirtied_bytes=fresh_bytes,
            remaining_bytes=int(left_mib * MIB) + fresh_bytes,
            throughput_bytes_s=100.0 * MIB,
        )
    )
    return forecaster.forecast("commit", 3.05)


def sample(period_s: float, pages: float, deviation_pages: float) -> DirtySample:
    """One measurement."""
    return DirtySample(periods_s=(period_s,), weights=(1.0,), dirtied_pages=pages, deviation_pages=deviation_pages)


@pytest.mark.parametrize(
    "samples",
    [
        (),
        (sample(0.1, 400.0, 20.0),),
        (sample(0.1, 0.0, 0.0),),
        (sample(0.1, 1e12, 0.0),),
        (sample(0.1, 400.0, 0.0),) * 40,
        tuple(sample(period_s, 400.0, 1.0) for period_s in (0.05, 0.1, 1.0, 10.0)),
        (sample(0.1, 1.0, 0.01), sample(0.1, 60000.0, 0.01)),
        (sample(0.05, 60000.0, 0.01), sample(10.0, 1.0, 0.01)),
        (sample(1e-6, 400.0, 1.0), sample(1e6, 400.0, 1.0)),
    ],
    ids=["none", "one", "nothing", "too much", "the same", "constant", "contradictory", "falling", "absurd periods"],
)
def test_whatever_was_sampled_there_is_a_forecast(samples):
    """No NaN, no exception, probabilities and intervals in order; as of the start, a round and the commit."""
    forecaster = Forecaster(PLAN, memory_bytes=MEMORY, samples=samples, same_host=True, seed=1)
    finished = Round(
        number=1,
        start_s=0.0,
        duration_s=1.0,
        sent_bytes=100 * MIB,
        newly_dirtied_bytes=10 * MIB,
        remaining_bytes=20 * MIB,
        throughput_bytes_s=100.0 * MIB,
    )
    for at in ("start", "round 1", "commit"):
        found = forecaster.forecast(at, 0.0 if at == "start" else 1.0)
        assert 0 <= found.keeps_limit <= 1
        assert 0 <= found.converges <= 1
        for interval in (found.total_s, found.downtime_s, found.sent_bytes):
            assert interval is None or (0 <= interval[0] <= interval[1] <= interval[2] < float("inf"))
        forecaster.round_completed(finished)


@pytest.mark.parametrize("rate_mib_s", [5.0, 20.0, 40.0])
def test_more_samples_narrow_the_forecast(rate_mib_s):
    """The same figures, each far off, once and 24 times."""
    vague = [msgspec.structs.replace(one, deviation_pages=0.4 * one.dirtied_pages + 3) for one in sampled(rate_mib_s)]
    widths = []
    for repeats in (1, 24):
        found = at_start(rate_mib_s, samples=tuple(vague) * repeats)
        assert found.total_s is not None
        widths.append(found.total_s[2] - found.total_s[0])
    assert widths[1] < widths[0]


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 300), st.integers(0, 1000))
def test_figures_are_in_order_and_the_same_again(rate_mib_s, seed):
    """Quantiles rise, probabilities are some, and a seed gives one forecast."""
    first, second = (at_start(rate_mib_s, seed=seed) for _ in range(2))
    assert first == second
    assert 0 <= first.converges <= 1
    for interval in (first.total_s, first.downtime_s, first.sent_bytes):
        assert interval is None or (0 <= interval[0] <= interval[1] <= interval[2] < float("inf"))


def test_less_knowledge_is_a_wider_interval():
    """No samples, no history: honestly wide."""
    known, unknown = at_start(40), at_start(40, samples=())
    assert known.total_s is not None
    assert unknown.total_s is None or unknown.total_s[2] - unknown.total_s[0] > known.total_s[2] - known.total_s[0]


@pytest.mark.parametrize(
    "observation",
    [
        Observation(time_s=1.0, status=MigrationStatus.ACTIVE),
        Observation(time_s=1.0, status=MigrationStatus.ACTIVE, sent_bytes=0, remaining_bytes=0, throughput_bytes_s=0.0),
        Observation(time_s=1.0, status=MigrationStatus.ACTIVE, remaining_bytes=2**60, throughput_bytes_s=1e18),
    ],
)
@pytest.mark.parametrize("duration_s", [1e-6, 1.0])
def test_weird_replies_give_a_forecast_all_the_same(observation, duration_s):
    """Whatever QEMU says: no NaN, no exception."""
    forecaster = Forecaster(PLAN, memory_bytes=MEMORY, samples=sampled(20), seed=1)
    forecaster.observe(1.0, observation)
    forecaster.round_completed(
        Round(
            number=1,
            start_s=0.0,
            duration_s=duration_s,
            sent_bytes=0,
            newly_dirtied_bytes=2**40,
            remaining_bytes=0,
            throughput_bytes_s=0.0,
        )
    )
    for at in ("round 1", "commit"):
        found = forecaster.forecast(at, 1.0)
        assert found.total_s is None or np.all(np.isfinite(found.total_s))
    assert (forecaster.left_s(1.0) or (0.0, 0.0)) >= (0.0, 0.0)


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_recorded_traces_give_the_recorded_forecasts(path):
    """Bit for bit but for rounding; and a changed knowledge is told apart."""
    records = list(decode_trace(path.read_bytes().splitlines(keepends=True)))
    found = replay(records)
    assert found.forecasts
    assert found.forecast_differences == ()


@pytest.mark.parametrize("name", ["loaded", "gated"])
def test_what_was_forecast_at_the_commit_came(name):
    """Of recorded migrations: the time within the interval, or within a slot of it."""
    path = next(path for path in TRACES if path.stem == name)
    records = list(decode_trace(path.read_bytes().splitlines(keepends=True)))
    (running,) = [
        one.event for one in records if isinstance(one, EventRecord) and isinstance(one.event, DestinationRunning)
    ]
    total_s = replay(records).forecasts[-1].total_s
    assert total_s is not None
    assert total_s[0] - 0.1 <= running.time_s <= total_s[2] + 0.1


def test_the_link_is_never_taken_better_than_this_run_has_shown():
    """A low quantile of its own slots; history lowers it and never raises it."""
    fast, slow = (past(throughput_bytes_s=rate) for rate in (9e9, 1e6))
    for known, expected in (((), 1e8), ((fast,), 1e8), ((slow,), 1e6)):
        link = Link(None, known)
        assert link.safe_bytes_s is None
        for _ in range(20):
            link.observe_slot(1e8)
        assert link.safe_bytes_s == pytest.approx(expected)


def test_intervals_learn_from_how_earlier_ones_turned_out():
    """Too narrow ones are widened, too wide ones narrowed, and none without a reason."""
    said = Forecast(
        at="start",
        time_s=0.0,
        converges=1.0,
        keeps_limit=1.0,
        total_s=(9.0, 10.0, 11.0),
        downtime_s=None,
        sent_bytes=None,
        basis="",
    )
    missed = [past(total_s=20.0, forecasts=(said,)) for _ in range(30)]
    hit = [past(total_s=10.05, forecasts=(said,)) for _ in range(30)]
    assert calibrate([], "start") == Calibration()
    assert calibrate(missed, "start").total > 2
    assert calibrate(hit, "start").total < 1.3
    assert calibrate(missed, "round") == Calibration()
    later = [msgspec.structs.replace(said, at=at, total_s=(19.9, 20.0, 20.1)) for at in ("round 2", "round 7")]
    both = [past(total_s=10.5, forecasts=(msgspec.structs.replace(said, at="round 1"), *later)) for _ in range(30)]
    assert calibrate(both, "round 1").total < 1.0, "what later rounds missed says nothing of the first"
    assert calibrate(both, "round").total > 4
    few, many = (calibrate(missed[:count], "start").total for count in (3, 30))
    assert few < 2 < many, "a few don't outweigh the prior"
    assert many == pytest.approx(10.0, rel=0.2), "and the prior does not hold many back"
    held_out = [past(total_s=20.0, forecasts=(msgspec.structs.replace(said, first_crossing=True),)) for _ in range(30)]
    assert calibrate(held_out, "start") == Calibration()
    assert stretched((9.0, 10.0, 11.0), 2.0) == pytest.approx((8.0, 10.0, 12.0))
    assert stretched((9.0, 10.0, 11.0), 2.0, least=3.0) == pytest.approx((4.0, 10.0, 16.0))
    assert stretched((9.0, 10.0, 11.0), 4.0, offset=8.0)[0] > 8.0
    told = msgspec.structs.replace(said, widened=(3.0, 1.0, 1.0))
    edge = [past(total_s=11.0, forecasts=(told,)) for _ in range(30)]
    assert calibrate(edge, "start").total == pytest.approx(3.0, rel=0.3)


def test_the_last_step_is_learned_as_a_whole():
    """A fixed part and so much a byte, told apart by long and short ones; one that was delayed moves little."""
    steps = [past(rest_bytes=size, downtime_s=0.004 + size / 1.2e9) for size in (0, 2**20, 2**24, 2**26, 2**27) * 3]
    found = last_step_of([*steps, past(rest_bytes=2**20, downtime_s=0.2)], 1.5e9)
    assert found.fixed_s == pytest.approx(0.004, rel=0.1)
    assert found.bytes_s == pytest.approx(1.2e9, rel=0.1)
    assert found.deviation < 0.15
    blank = last_step_of([], 1.5e9)
    assert blank.bytes_s == 1.5e9
    assert blank.deviation > found.deviation


def test_fresh_pages_are_learned_from_first_copies():
    """One that its cap held back says only that more was possible."""
    normal = np.array([0.0])
    capped = [past(fresh_bytes_s=1e8, bandwidth_bytes_s=1e8) for _ in range(20)]
    slow = [past(fresh_bytes_s=2e8, bandwidth_bytes_s=4e8) for _ in range(20)]
    unknown, held, known = (
        float(Link(4e8, some, same_host=True).fresh_bytes_s(normal, normal)[0]) for some in ([], capped, slow)
    )
    assert held >= 0.9 * unknown
    assert known == pytest.approx(2e8, rel=0.15)


def test_what_if_there_were_more_bandwidth():
    """More never hurts; the least that does is between what does and what does not."""
    known = Foreknowledge(samples=sampled(120), touched_shares=SHARES, same_host=True, seed=1)
    least_bytes_s = least_bandwidth_bytes_s(PLAN, MEMORY, known)
    assert least_bytes_s is not None
    assert 60 * MIB < least_bytes_s < 250 * MIB
    table = what_if(PLAN, MEMORY, known)
    of_limit = [one for one in table if one.downtime_limit_s == PLAN.downtime_limit_s]
    assert [one.converges > 0.5 for one in of_limit] == [one.bandwidth_bytes_s > least_bytes_s for one in of_limit]


def past(**known) -> PastMigration:
    """An earlier migration of another guest."""
    blank = PastMigration(
        guest="other",
        hosts="a to b",
        ended_at="2026-01-01T00:00:00+00:00",
        completed=True,
        memory_bytes=MEMORY,
        bandwidth_bytes_s=None,
        downtime_limit_s=0.3,
    )
    return msgspec.structs.replace(blank, **known)
