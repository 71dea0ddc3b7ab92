"""D(T) is concave, rises, and never exceeds the pages there are, whatever was measured; known ones are found again."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from livemig.core.dirty_curve import CurveTable, fit_curve, fit_curves
from livemig.core.dirty_sample import DirtySample
from livemig.core.least_squares import non_negative_weights

PAGES = 65536
PERIODS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
TIMES_S = np.geomspace(0.001, 100, 120)


def measured(curve, deviation: float = 0.02) -> list[DirtySample]:
    """Samples of a known curve."""
    return [
        DirtySample(
            periods_s=(period_s,),
            weights=(1.0,),
            dirtied_pages=float(curve(period_s)),
            deviation_pages=deviation * float(curve(period_s)) + 1,
        )
        for period_s in PERIODS_S
    ]


def sweep(period_s: float) -> float:
    """A sweep over 16384 pages, once in a second."""
    return min(16384.0, 16384.0 * period_s)


def random_writes(period_s: float) -> float:
    """Writes to any of 16384 pages, as many a second."""
    return -16384 * math.expm1(-period_s)


def hot_and_cold(period_s: float) -> float:
    """A small set all the time, a large one now and then."""
    return -1000 * math.expm1(-period_s / 0.05) - 30000 * math.expm1(-period_s / 5)


samples = st.lists(
    st.builds(
        lambda period_s, pages, deviation: DirtySample(
            periods_s=(period_s,), weights=(1.0,), dirtied_pages=pages, deviation_pages=deviation
        ),
        st.floats(0.01, 20),
        st.floats(0, 2 * PAGES),
        st.floats(0, PAGES),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(samples)
def test_whatever_was_measured_it_is_a_curve_that_can_be(found):
    """Concave, rising, within the pages there are, no NaN; so is every particle."""
    curve = fit_curve(found, PAGES)
    table = fit_curves(found, PAGES, count=8, generator=np.random.default_rng(1))
    even_s = np.linspace(0, 30, 300)
    many = table.dirtied_pages(np.tile(even_s, (8, 1)))
    for pages in (curve.dirtied_pages(even_s), *many):
        assert np.all(np.isfinite(pages))
        assert pages[0] == 0
        assert np.all(np.diff(pages) >= -1e-6)
        assert np.all(np.diff(pages, 2) <= PAGES * 1e-6)
        assert pages[-1] <= PAGES * (1 + 1e-9)


@pytest.mark.parametrize("curve", [sweep, random_writes, hot_and_cold])
def test_known_curves_are_found_again(curve):
    """Within a few percent over all periods that were measured, at its corner too."""
    times_s = np.geomspace(0.05, 3.2, 60)
    found = fit_curve(measured(curve), PAGES).dirtied_pages(times_s)
    expected = np.array([curve(time_s) for time_s in times_s])
    assert np.median(np.abs(found / expected - 1)) < 0.03
    assert np.max(np.abs(found / expected - 1)) < 0.2


def test_one_wrong_sample_moves_little():
    """A measurement ten times too high, among good ones."""
    good = measured(sweep) * 3
    bad = DirtySample(periods_s=(0.4,), weights=(1.0,), dirtied_pages=60000, deviation_pages=300)
    times_s = np.array([0.1, 0.8, 1.6])
    before, after = (fit_curve(some, PAGES).dirtied_pages(times_s) for some in (good, [*good, bad]))
    assert np.all(np.abs(after / before - 1) < 0.15)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([sweep, random_writes, hot_and_cold]), st.floats(1, 64))
def test_so_many_times_the_pages_is_as_many_times_the_curve(curve, times):
    """Nothing depends on the unit: a page may be as large as one likes."""
    once = fit_curve(measured(curve), PAGES)
    more = fit_curve(measured(lambda period_s: times * curve(period_s)), times * PAGES)
    assert more.dirtied_pages(TIMES_S) == pytest.approx(times * once.dirtied_pages(TIMES_S), rel=0.02)


def test_more_measurements_narrow_the_curves():
    """And the same generator gives the same ones."""
    period_s = np.full((64, 1), 0.5)
    spreads = []
    for repeats in (1, 16):
        found = [
            fit_curves(measured(sweep, 0.2) * repeats, PAGES, count=64, generator=np.random.default_rng(7))
            for _ in range(2)
        ]
        first, second = (table.dirtied_pages(period_s) for table in found)
        assert np.array_equal(first, second)
        spreads.append(float(first.std()))
    assert spreads[1] < 0.6 * spreads[0]


def test_of_nothing_known_all_is_possible():
    """Curves from next to nothing to most of memory."""
    pages = fit_curves([], PAGES, count=64, generator=np.random.default_rng(1)).dirtied_pages(np.full((64, 1), 10.0))
    assert pages.min() < 0.01 * PAGES
    assert pages.max() > 0.3 * PAGES


def test_an_earlier_time_counts_less_than_now():
    """A guest that was idle then is busy now: what is measured now wins."""
    idle = measured(lambda _: 0.0)
    found = fit_curve(measured(sweep), PAGES, prior=idle).dirtied_pages(0.5)
    assert found == pytest.approx(8192, rel=0.1)
    alone = fit_curve([], PAGES, prior=measured(sweep)).dirtied_pages(0.5)
    assert alone == pytest.approx(8192, rel=0.2)


def test_the_table_is_the_curve():
    """Looked up on the grid's points and between them."""
    grid = fit_curves(measured(random_writes, 1e-4), PAGES, count=1, generator=np.random.default_rng(1))
    assert isinstance(grid, CurveTable)
    times_s = np.geomspace(0.05, 3.0, 50)
    found = grid.dirtied_pages(times_s[None, :])[0]
    assert found == pytest.approx([random_writes(time_s) for time_s in times_s], rel=0.06)


@settings(max_examples=80, deadline=None)
@given(
    arrays.arrays(
        float,
        st.tuples(st.integers(2, 6), st.integers(1, 5)),
        elements=st.integers(-30, 30).map(lambda tenths: tenths / 10),
    ),
    st.integers(0, 10**6),
)
def test_the_solver_is_as_good_as_trying_every_set_of_columns(rows, seed):
    """Small problems have few sets: the best of all is known."""
    values = np.random.default_rng(seed).normal(size=(2, len(rows)))
    found = non_negative_weights(rows, values)
    assert np.all(found >= 0)
    for value, weights in zip(values, found, strict=True):
        best = min(_error(rows, value, chosen) for chosen in _choices(rows.shape[1]))
        assert float(((rows @ weights - value) ** 2).sum()) <= best * (1 + 1e-4) + 1e-5


def _choices(count: int):
    return itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(count + 1))


def _error(rows, value, chosen) -> float:
    weights = np.zeros(rows.shape[1])
    if chosen:
        weights[list(chosen)] = np.linalg.lstsq(rows[:, chosen], value, rcond=None)[0]
    if np.any(weights < -1e-9):
        return math.inf
    return float(((rows @ weights - value) ** 2).sum())
