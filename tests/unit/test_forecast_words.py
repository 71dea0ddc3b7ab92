"""Forecasts in words: what a rule that holds out for less downtime makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from livemig.cli.forecast_words import figures, forecast_line
from livemig.core.calibration import Calibration
from livemig.core.forecast import Reached, summarise
from livemig.core.plan import Plan, Prefer
from livemig.core.prediction import Forecast

REACHED = Reached(
    converged=np.ones(8, dtype=np.bool_),
    total_s=np.linspace(2.0, 3.0, 8),
    downtime_s=np.linspace(0.1, 0.2, 8),
    sent_bytes=np.linspace(1e9, 2e9, 8),
)


def forecast(prefer: Prefer, at: str) -> Forecast:
    """What particles that all converge come to."""
    plan = Plan(prefer=prefer)
    return summarise(
        REACHED, Calibration(), plan, at=at, time_s=0.0, sent_bytes=0.0, basis="next to nothing", quota_bytes=None
    )


@pytest.mark.parametrize("at", ["start", "round 1"])
def test_before_the_switchover_a_forecast_only_bounds_what_holds_out(at):
    """It is of the first crossing: no sooner than that, and no longer a downtime."""
    found = dict(figures(forecast(Prefer.DOWNTIME, at)))
    assert found["time"].startswith("at least 2.50 s (")
    assert found["downtime"].startswith("at most 150 ms (")
    assert found["sent"].startswith("at least ")
    assert "downtime at most 150 ms" in forecast_line(forecast(Prefer.DOWNTIME, at))


TAKEN = [(Prefer.TIME, "start"), (Prefer.TIME, "commit"), (Prefer.DOWNTIME, "commit")]


@pytest.mark.parametrize(("prefer", "at"), TAKEN)
def test_where_the_first_crossing_is_taken_or_was_it_is_the_forecast(prefer, at):
    """Nothing is held out for then."""
    assert "least" not in forecast_line(forecast(prefer, at))
    assert "most" not in forecast_line(forecast(prefer, at))


def test_a_forecast_of_a_guest_that_never_converges_knows_too():
    """What is held out for does not depend on it."""
    never = REACHED._replace(converged=np.zeros(8, dtype=np.bool_))
    plan = Plan(prefer=Prefer.DOWNTIME)
    found = summarise(
        never, Calibration(), plan, at="start", time_s=0.0, sent_bytes=0.0, basis="next to nothing", quota_bytes=None
    )
    assert found.first_crossing
    assert figures(found) == []
