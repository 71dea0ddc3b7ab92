"""How a guest's pace wavers is told from repeats: bursts by their period, a steady guest by its silence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.dirty_sample import DirtySample
from livemig.core.pace import Pace, averaging, pace_of, uniform

PERIODS_S = (0.05,) * 34 + (0.1,) * 18 + (0.2,) * 10 + (0.4,) * 5 + (0.8, 0.8, 1.6, 3.2)


def repeats(pages_in, *, error_pages: float = 5.0, seed: int = 1) -> list[DirtySample]:
    """What sampling shows of a guest of which is known what it dirties from one time to another."""
    generator = np.random.default_rng(seed)
    return [
        DirtySample(
            periods_s=(period_s,),
            weights=(1.0,),
            dirtied_pages=max(pages_in(begin_s, begin_s + period_s) + error_pages * generator.standard_normal(), 0.0),
            deviation_pages=error_pages,
        )
        for period_s in PERIODS_S
        for begin_s in [generator.uniform(0, 100)]
    ]


def in_bursts(period_s: float):
    """20000 pages a second in the first half of each period, nothing in the second."""

    def until(time_s: float) -> float:
        turns, rest = divmod(time_s, period_s)
        return 20000 * (turns * period_s / 2 + min(rest, period_s / 2))

    return lambda begin_s, end_s: until(end_s) - until(begin_s)


@pytest.mark.parametrize("seed", range(5))
def test_a_steady_guest_has_no_pace(seed):
    """What the measurement explains is not the guest's doing."""
    found = pace_of(repeats(lambda begin_s, end_s: 10000 * (end_s - begin_s), seed=seed))
    assert found is not None
    assert found.deviation < 0.08
    assert found.levels == ()


def test_bursts_show_by_their_period():
    """Long bursts last longer; short ones even out; both go from nothing to twice the mean."""
    short, long = (pace_of(repeats(in_bursts(period_s))) for period_s in (0.2, 4.0))
    assert short is not None
    assert long is not None
    for found in (short, long):
        assert found.deviation > 0.5
        assert found.quantiles()[0] < 0.3
        assert found.quantiles()[-1] == pytest.approx(2.0, rel=0.3)
    assert short.time_s < 0.5 * long.time_s


def test_one_wild_repeat_is_not_the_guest():
    """A busy host delays one measurement in thirty."""
    samples = repeats(lambda begin_s, end_s: 10000 * (end_s - begin_s))
    wild = DirtySample(periods_s=(0.05,), weights=(1.0,), dirtied_pages=5000, deviation_pages=5)
    found = pace_of([*samples, wild])
    assert found is not None
    assert found.deviation < 0.1


def test_too_little_tells_nothing():
    """No repeats, no pages."""
    assert pace_of([]) is None
    assert pace_of(repeats(lambda begin_s, end_s: 0.0)) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.001, 60), st.floats(0, 1e9), st.floats(0, 1e9)), max_size=40))
def test_whatever_was_measured_it_is_a_pace(found):
    """Never NaN, never negative."""
    samples = [
        DirtySample(periods_s=(period_s,), weights=(1.0,), dirtied_pages=pages, deviation_pages=deviation)
        for period_s, pages, deviation in found
    ]
    pace = pace_of(samples)
    if pace is not None:
        assert math.isfinite(pace.deviation)
        assert pace.time_s > 0
        assert np.all(np.isfinite(pace.quantiles()))
        assert np.all(pace.quantiles() >= 0)


def test_the_mean_of_a_long_time_wavers_less():
    """And a normal's distribution function is one."""
    shares = averaging(np.array([1e-6, 0.1, 1.0, 10.0, 1000.0]))
    assert shares[0] == pytest.approx(1.0)
    assert np.all(np.diff(shares) < 0)
    assert np.all(shares > 0)
    assert uniform(np.array([-40.0, 0.0, 40.0])) == pytest.approx([0.0, 0.5, 1.0], abs=1e-3)
    assert Pace(0.3, 1.0).quantiles().mean() == pytest.approx(1.0, rel=0.02)
