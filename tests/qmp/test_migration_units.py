"""SI units into QEMU's: never the values that do harm."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.core.errors import PlanError
from livemig.qemu.migration_units import (
    to_avail_switchover_bandwidth,
    to_downtime_limit_ms,
    to_max_bandwidth,
)


@given(st.integers(1, 2_000_000))
def test_every_millisecond_is_itself(limit_ms: int) -> None:
    assert to_downtime_limit_ms(limit_ms / 1000) == limit_ms


@given(st.floats(0.001, 2000.0))
def test_a_limit_is_never_raised(limit_s: float) -> None:
    assert 1 <= to_downtime_limit_ms(limit_s) <= limit_s * 1000 + 1e-6


@pytest.mark.parametrize("limit_s", [0, -1, 0.00099, 2001, math.nan, math.inf])
def test_harmful_limits_are_refused(limit_s: float) -> None:
    with pytest.raises(PlanError):
        to_downtime_limit_ms(limit_s)


@pytest.mark.parametrize("rate_bytes_s", [0, 9.99, -5, math.nan, math.inf])
def test_bandwidths_that_mean_unlimited_are_refused(rate_bytes_s: float) -> None:
    with pytest.raises(PlanError):
        to_max_bandwidth(rate_bytes_s)


@pytest.mark.parametrize("rate_bytes_s", [0, 999.9, math.nan])
def test_switchover_bandwidths_that_round_to_0_are_refused(rate_bytes_s: float) -> None:
    with pytest.raises(PlanError):
        to_avail_switchover_bandwidth(rate_bytes_s)


def test_bandwidths() -> None:
    assert to_max_bandwidth(None) == 0
    assert to_max_bandwidth(1e6) == 1_000_000
    assert to_max_bandwidth(1e30) == 2**63 - 1
    assert to_avail_switchover_bandwidth(None) == 0
    assert to_avail_switchover_bandwidth(1000.9) == 1000
