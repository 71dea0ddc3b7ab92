"""Bursts that come at even intervals are told from a pace that wanders, and are forecast as what they are."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from livemig.core import pace as pace_module
from livemig.core.bursts import BETWEEN_SAMPLES_S, Wave
from livemig.core.dirty_sample import DirtySample
from livemig.core.forecaster import Forecaster
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.outcome import Outcome
from livemig.core.pace import Pace, Walk, pace_of
from livemig.core.plan import Plan
from livemig.engine.sampling import sampling_periods
from livemig.simulation.link import LinkSetting
from livemig.simulation.setting import Setting
from livemig.simulation.simulate import simulate
from livemig.simulation.workloads import BuiltinPhase, builtin_guest

MiB = 2**20
SQUARE = (0.0,) * 16 + (2.0,) * 16


def sampled(on_s, *, rate_pages_s: float = 20000.0, most_pages: float = 1e9, seed: int = 1) -> list[DirtySample]:
    """What 15 s of sampling show of a guest that writes for so much of the time from one moment to another."""
    generator = np.random.default_rng(seed)
    begin_s, found = generator.uniform(0, 10), []
    for period_s in sampling_periods(15.0):
        pages = min(rate_pages_s * on_s(begin_s, begin_s + period_s), most_pages)
        deviation_pages = 0.02 * pages + 3
        pages = max(pages + deviation_pages * generator.standard_normal(), 0.0)
        found.append(
            DirtySample(periods_s=(period_s,), weights=(1.0,), dirtied_pages=pages, deviation_pages=deviation_pages)
        )
        begin_s += period_s + generator.uniform(0.8, 1.2) * BETWEEN_SAMPLES_S
    return found


def ended_s(seed: int = 1) -> float:
    """When on the guest's clock the last of `sampled` ended."""
    generator = np.random.default_rng(seed)
    begin_s = generator.uniform(0, 10)
    for period_s in sampling_periods(15.0):
        generator.standard_normal()
        begin_s += period_s + generator.uniform(0.8, 1.2) * BETWEEN_SAMPLES_S
    return float(begin_s)


def in_bursts(interval_s: float, duty: float = 0.5):
    """Writes in that share of each interval."""

    def until(time_s: float) -> float:
        turns, rest = divmod(time_s, interval_s)
        return turns * interval_s * duty + min(rest, interval_s * duty)

    return lambda begin_s, end_s: until(end_s) - until(begin_s)


def wandering(mean_s: float, seed: int):
    """Writes and pauses for times drawn anew each time."""
    generator = np.random.default_rng(seed)
    edges_s = np.concatenate(([0.0], np.cumsum(generator.exponential(mean_s, 4000))))
    writing_s = np.concatenate(([0.0], np.cumsum(np.where(np.arange(4000) % 2 == 0, np.diff(edges_s), 0.0))))
    return lambda begin_s, end_s: float(np.diff(np.interp((begin_s, end_s), edges_s, writing_s))[0])


@pytest.mark.parametrize("interval_s", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("duty", [0.3, 0.5])
def test_how_often_they_come_is_told(interval_s, duty):
    """By when the samples were taken, though nobody wrote that down."""
    found = pace_of(sampled(in_bursts(interval_s, duty)))
    assert found is not None
    assert found.regular
    assert found.time_s == pytest.approx(interval_s, rel=0.1)


@pytest.mark.parametrize("interval_s", [1.0, 2.0])
@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_where_in_its_interval_the_guest_is_is_told(interval_s, after_s, seed):
    """So long after the last sample: the middle of its burst is half an interval after its trough's."""
    found = pace_of(sampled(in_bursts(interval_s), seed=seed), after_s)
    assert found is not None
    assert found.since_trough_s is not None
    since_burst = ((ended_s(seed) + after_s) / interval_s) % 1.0  # a burst begins a quarter after the trough
    off = (found.since_trough_s / interval_s - 0.25 - since_burst + 0.5) % 1.0 - 0.5
    assert abs(off) < 0.12


def test_without_a_time_it_is_not_told():
    """A plan is not carried out at once, and who knows when."""
    found = pace_of(sampled(in_bursts(2.0)))
    assert found is not None
    assert found.since_trough_s is None


def test_a_walk_begins_where_the_guest_is():
    """In the midst of a pause nothing is written at first; many intervals later nobody knows."""
    pace = Pace(1.0, 2.0, SQUARE, regular=True, since_trough_s=0.0)
    at_once = Walk(pace, np.zeros(64), np.random.default_rng(1)).passed(np.full(64, 0.1))
    later = Walk(pace, np.full(64, 400.0), np.random.default_rng(1)).passed(np.full(64, 0.1))
    assert np.all(at_once < 0.01)
    assert later.mean() == pytest.approx(0.1, rel=0.3)


def test_it_is_told_of_a_small_set_too():
    """Which one burst dirties whole: longer samples all look alike."""
    found = pace_of(sampled(in_bursts(2.0), most_pages=4000.0))
    assert found is not None
    assert found.regular
    assert found.time_s == pytest.approx(2.0, rel=0.1)


def test_a_pace_that_wanders_is_rarely_taken_for_it():
    """Of writing and pausing at random."""
    found = [pace_of(sampled(wandering(0.8, seed), seed=seed)) for seed in range(20)]
    assert all(each is not None and each.levels for each in found)
    assert sum(each is not None and each.regular for each in found) <= 5


def test_a_steady_guest_has_none():
    """Its samples differ by what the measurement explains."""
    found = pace_of(sampled(lambda begin_s, end_s: end_s - begin_s))
    assert found is not None
    assert (found.regular, found.levels) == (False, ())


def test_a_wave_has_its_mean_and_comes_again():
    """As much in each interval, a half apart the contrary, one apart the same."""
    wave = Wave(SQUARE, 2.0)
    phases = np.linspace(-3.0, 3.0, 61)
    written_s = wave.guest_time_s(phases)
    assert np.all(np.diff(written_s) >= 0)
    assert wave.guest_time_s(phases + 1.0) - written_s == pytest.approx(2.0)
    assert wave.likeness(np.array([0.0, 1.0, 2.0])) == pytest.approx([1.0, -1.0, 1.0])
    assert wave.averaging(0.01) == pytest.approx(1.0, rel=0.05)
    assert wave.averaging(1.0) == pytest.approx(1 / 3, rel=0.05)
    assert wave.averaging(2.0) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("pace", [Pace(1.0, 0.5, SQUARE, regular=True), Pace(1.0, 0.5, SQUARE), Pace(0.2, 0.5)])
def test_a_walk_keeps_the_mean(pace):
    """Over many particles and a long time, in steps of any length; it never goes back."""
    walk, generator = Walk(pace, np.zeros(64), np.random.default_rng(1)), np.random.default_rng(2)
    passed_s = written_s = np.zeros(64)
    for _ in range(200):
        step_s = generator.uniform(0.0, 0.4, 64)
        moved_s = walk.passed(step_s)
        assert np.all(moved_s >= 0)
        passed_s, written_s = passed_s + step_s, written_s + moved_s
    assert written_s.sum() == pytest.approx(passed_s.sum(), rel=0.05)


def test_no_trough_lasts_longer_than_there_is_one():
    """At even intervals; one that wanders lingers."""
    longest_s = []
    for regular in (True, False):
        walk = Walk(Pace(1.0, 1.0, SQUARE, regular=regular), np.zeros(64), np.random.default_rng(1))
        still_s, longest = np.zeros(64), 0.0
        for _ in range(1000):
            still_s = np.where(walk.passed(np.full(64, 0.02)) < 1e-4, still_s + 0.02, 0.0)
            longest = max(longest, float(np.max(still_s)))
        longest_s.append(longest)
    assert longest_s[0] < 0.8 < longest_s[1]


def test_a_guest_that_pauses_too_briefly_does_not_converge(monkeypatch):
    """It never does in the simulation; a pace that wandered would find a pause that is long enough."""
    phase = BuiltinPhase(
        working_set_bytes=120 * MiB, dirty_rate_bytes_s=377.0 * MiB, burst_period_s=0.2, burst_duty_percent=50
    )
    guest = builtin_guest(phase, memory_bytes=512 * MiB, fill_bytes=260 * MiB)
    plan = Plan(bandwidth_bytes_s=171.0 * MiB, downtime_limit_s=0.297, deadline_s=8.3)
    samples = sampled(in_bursts(0.2), rate_pages_s=377.0 * MiB / 4096, most_pages=120 * MiB / 4096)
    known = Foreknowledge(samples=tuple(samples), touched_shares=(1.0,) * 18 + (0.0,) * 14, same_host=True)
    setting = Setting(guest=guest, link=LinkSetting(rate_bytes_s=1.5e9), bound_s=10.0)
    for seed in range(4):
        assert simulate(setting, plan, seed=seed, known=known).outcome is not Outcome.COMPLETED
    assert Forecaster.knowing(plan, guest.memory_bytes, known).forecast("start", 0.0).converges < 0.1
    monkeypatch.setattr(pace_module, "interval_of", lambda *_: None)
    assert Forecaster.knowing(plan, guest.memory_bytes, known).forecast("start", 0.0).converges > 0.5


def test_samples_of_whole_seconds_tell_no_interval():
    """As QEMU before 8.2 measures: each sees bursts and pauses."""
    samples = [msgspec.structs.replace(each, periods_s=(1.0,)) for each in sampled(in_bursts(2.0))]
    found = pace_of(samples)
    assert found is None or not found.regular
