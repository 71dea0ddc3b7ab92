"""Widens or narrows intervals by how earlier ones turned out: conformal prediction on scores of past forecasts.

A forecast's own spread knows only what the model knows. A score is how far the actual value lay from the median in
units of the interval's half width, on a logarithmic scale; the factor is the quantile of past scores that makes 90 %
of intervals hold what comes (Vovk and others, Algorithmic Learning in a Random World, 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, isfinite, log

import msgspec

from livemig.core.past import PastMigration
from livemig.core.prediction import Interval

COVERAGE = 0.9
PRIOR_FACTOR = 1.3
PRIOR_COUNT = 10
"""The prior weighs as much as so many past forecasts."""
FACTORS = (0.5, 4.0)
LEAST_HALF_WIDTH = 0.005
"""On the logarithm: no interval is narrower than half a percent to either side."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """By how much the intervals of each figure are stretched.

    Attributes:
        total: For the total time.
        downtime: For the downtime.
        sent: For the bytes.
    """

    total: float = PRIOR_FACTOR
    downtime: float = PRIOR_FACTOR
    sent: float = PRIOR_FACTOR


def calibrate(past: Sequence[PastMigration], kind: str) -> Calibration:
    """Learns the factors from past forecasts of one kind: ``start``, ``round`` or ``commit``."""
    pairs = [
        (one, forecast) for one in past if one.completed for forecast in one.forecasts if kind_of(forecast.at) == kind
    ]
    return Calibration(
        total=_factor([_score(forecast.total_s, one.total_s) for one, forecast in pairs]),
        downtime=_factor([_score(forecast.downtime_s, one.downtime_s) for one, forecast in pairs]),
        sent=_factor([_score(forecast.sent_bytes, float(one.sent_bytes)) for one, forecast in pairs]),
    )


def kind_of(at: str) -> str:
    """The kind of a forecast made then: all after rounds are one kind."""
    return at.partition(" ")[0]


def stretched(interval: Interval, factor: float) -> Interval:
    """Returns the interval with its ends moved away from the median, on a logarithmic scale."""
    least, middle, most = interval
    if not middle > 0:
        return interval
    down = max(log(middle / max(least, middle * 1e-6)), LEAST_HALF_WIDTH) * factor
    up = max(log(max(most, middle) / middle), LEAST_HALF_WIDTH) * factor
    return middle * exp(-down), middle, middle * exp(up)


def _score(interval: Interval | None, actual: float | None) -> float | None:
    if interval is None or not actual or not interval[1] > 0:
        return None
    least, middle, most = interval
    distance = log(actual / middle)
    half_width = log(most / middle) if distance > 0 else log(middle / max(least, middle * 1e-6))
    return abs(distance) / max(half_width, LEAST_HALF_WIDTH)


def _factor(scores: Sequence[float | None]) -> float:
    """The conformal quantile; told intervals were stretched before, so a past factor is learned anew each time."""
    found = sorted(score for score in scores if score is not None and isfinite(score))
    if not found:
        return PRIOR_FACTOR
    rank = min(ceil(COVERAGE * (len(found) + 1)), len(found))
    learned = PRIOR_FACTOR * found[rank - 1]
    weight = len(found) / (len(found) + PRIOR_COUNT)
    return min(max(exp(weight * log(max(learned, 1e-3)) + (1 - weight) * log(PRIOR_FACTOR)), FACTORS[0]), FACTORS[1])
