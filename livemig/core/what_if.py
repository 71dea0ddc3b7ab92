"""What would be under other limits and bandwidths: the table and the least bandwidth that ``livemig plan`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log

from msgspec import structs

from livemig.core.errors import PlanError
from livemig.core.forecaster import Forecaster
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.plan import BANDWIDTH_LEAST_BYTES_S, DOWNTIME_LIMIT_LEAST_S, DOWNTIME_LIMIT_MOST_S, Plan
from livemig.core.plan_report import WhatIf
from livemig.core.prediction import Forecast

LIMIT_FACTORS = (1 / 3, 1.0, 3.0)
BANDWIDTH_FACTORS = (0.5, 1.0, 2.0, 4.0)
BANDWIDTHS_BYTES_S = (50e6, 100e6, 250e6, 500e6, 1e9)
"""Where nothing tells what the link carries."""
BANDWIDTH_MOST_BYTES_S = 50e9
SURE_ENOUGH = 0.9
STEPS = 12
"""Of the bisection: to a third of a percent over the whole range."""


def forecast_start(plan: Plan, memory_bytes: int, known: Foreknowledge) -> Forecast:
    """Forecasts a migration that has not begun."""
    return Forecaster.knowing(plan, memory_bytes, known).forecast("start", 0.0)


def what_if(plan: Plan, memory_bytes: int, known: Foreknowledge) -> tuple[WhatIf, ...]:
    """Forecasts a grid of limits around the plan's and of bandwidths around its cap, row by row."""
    found = []
    for factor in LIMIT_FACTORS:
        limit_s = min(max(plan.downtime_limit_s * factor, DOWNTIME_LIMIT_LEAST_S), DOWNTIME_LIMIT_MOST_S)
        for bandwidth_bytes_s in _bandwidths(plan, known):
            changed = structs.replace(plan, downtime_limit_s=limit_s, bandwidth_bytes_s=bandwidth_bytes_s)
            forecast = forecast_start(changed, memory_bytes, known)
            found.append(
                WhatIf(
                    downtime_limit_s=limit_s,
                    bandwidth_bytes_s=bandwidth_bytes_s,
                    converges=forecast.converges,
                    total_s=forecast.total_s,
                )
            )
    return tuple(found)


def least_bandwidth_bytes_s(plan: Plan, memory_bytes: int, known: Foreknowledge) -> float | None:
    """Returns the least cap under which it converges, nine times in ten, within the plan's limit and deadline.

    None when none does. More bandwidth never makes it harder, so it is found by bisection.
    """
    least, most = log(BANDWIDTH_LEAST_BYTES_S), log(BANDWIDTH_MOST_BYTES_S)
    if not _converges(plan, exp(most), memory_bytes, known):
        return None
    for _ in range(STEPS):
        middle = (least + most) / 2
        if _converges(plan, exp(middle), memory_bytes, known):
            most = middle
        else:
            least = middle
    return exp(most)


def _converges(plan: Plan, bandwidth_bytes_s: float, memory_bytes: int, known: Foreknowledge) -> bool:
    try:
        changed = structs.replace(plan, bandwidth_bytes_s=bandwidth_bytes_s)
    except PlanError:
        return False
    return forecast_start(changed, memory_bytes, known).converges >= SURE_ENOUGH


def _bandwidths(plan: Plan, known: Foreknowledge) -> Sequence[float]:
    shown = [one.throughput_bytes_s for one in known.past if one.throughput_bytes_s]
    around_bytes_s = plan.bandwidth_bytes_s or (min(shown) if shown else None)
    if around_bytes_s is None:
        return BANDWIDTHS_BYTES_S
    found = (max(around_bytes_s * factor, BANDWIDTH_LEAST_BYTES_S) for factor in BANDWIDTH_FACTORS)
    return tuple(dict.fromkeys(found))
