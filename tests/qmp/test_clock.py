"""The relation of two clocks, from numbers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.qemu.clock import ClockOffset


def test_nothing_is_known_at_first() -> None:
    clock = ClockOffset()
    assert clock.offset_s is None
    assert clock.uncertainty_s is None
    assert clock.to_monotonic_s(5.0) is None
    clock.add_round_trip(0.001)
    assert clock.offset_s is None


@given(
    offset_s=st.floats(-2e9, 2e9),
    delays_s=st.lists(st.floats(0, 0.5), min_size=1, max_size=50),
    way_s=st.floats(0.00001, 0.01),
)
def test_the_offset_is_found_within_its_uncertainty(offset_s: float, delays_s: list[float], way_s: float) -> None:
    """One event and one round trip without delay are enough, whatever else happens."""
    clock = ClockOffset()
    for number, delay_s in enumerate([*delays_s, 0.0]):
        happened_s = 1000.0 + number
        clock.add_event(arrival_s=happened_s + way_s + delay_s, timestamp_s=happened_s - offset_s)
        clock.add_round_trip(2 * way_s + delay_s)
    assert clock.offset_s is not None
    assert clock.uncertainty_s is not None
    assert clock.offset_s == pytest.approx(offset_s, abs=1e-5)
    assert abs(clock.offset_s - offset_s) <= clock.uncertainty_s + 1e-5


def test_old_events_are_forgotten() -> None:
    """Two hosts' clocks drift apart: what was true ten minutes ago is not the offset of now."""
    clock = ClockOffset(window_s=60.0)
    for second in range(600):
        clock.add_event(arrival_s=second + 0.001, timestamp_s=second * (1 - 50e-6))
    assert clock.offset_s == pytest.approx(0.001 + 540 * 50e-6, abs=1e-3)


def test_the_last_event_is_kept_however_old() -> None:
    clock = ClockOffset(window_s=1.0)
    clock.add_event(arrival_s=10.0, timestamp_s=0.0)
    clock.add_event(arrival_s=110.0, timestamp_s=50.0)
    assert clock.offset_s == 60.0
