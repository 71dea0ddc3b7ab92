"""Spreads are what they say, for any values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.summary import Summary, percentile

VALUES = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=300)


def test_known_values() -> None:
    """Of 200 values the p99 is the third greatest but one: two may be greater."""
    summary = Summary.of(range(200, 0, -1))

    assert summary == Summary(count=200, minimum=1, median=100.5, p95=190, p99=198, maximum=200)


@given(VALUES, st.floats(min_value=1, max_value=100))
def test_percentile_is_the_smallest_that_enough_do_not_exceed(values: list[float], percent: float) -> None:
    """One of the values; at least so many percent are not above it, and fewer are not above any smaller one."""
    ordered = sorted(values)
    found = percentile(ordered, percent)

    def share_percent(bound: float) -> float:
        return 100 * sum(value <= bound for value in values) / len(values)

    assert found in values
    assert share_percent(found) >= percent - 1e-9
    for smaller in (value for value in values if value < found):
        assert share_percent(smaller) < percent + 1e-9


@given(VALUES)
def test_spread_is_ordered(values: list[float]) -> None:
    """From the least to the greatest."""
    seen = Summary.of(values)
    assert seen.minimum <= seen.median <= seen.p95 <= seen.p99 <= seen.maximum
    assert seen.count == len(values)


def test_nothing_has_no_spread() -> None:
    """Whoever has measured nothing finds out."""
    with pytest.raises(IndexError):
        Summary.of([])
