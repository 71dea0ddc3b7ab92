"""Widens or narrows intervals by how earlier ones turned out: conformal prediction on scores of past forecasts.

A forecast's own spread knows only what the model knows. A score is how far the actual value lay from the median in
units of the interval's half width on that side, before it was widened; the factor is the quantile of past scores that
makes 90 % of intervals hold what comes (Vovk and others, Algorithmic Learning in a Random World, 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, isfinite, log

import msgspec

from livemig.core.past import PastMigration
from livemig.core.prediction import FIRST_ROUND, Interval

COVERAGE = 0.9
PRIOR_FACTOR = 1.3
PRIOR_COUNT = 10
"""So many past forecasts weigh as much as the prior; its weight then falls with the square of their number, or it would
hold the intervals short of the 90 % for as long as there is a history."""
FACTORS = (0.5, 10.0)
LEAST_HALF_WIDTH = 0.002
"""Relative: no interval is narrower than that to either side."""


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
    """Learns the factors from past forecasts of one kind, as `kind_of` has it.

    Not from those that were of the first crossing alone, which was not taken.
    """
    pairs = [
        (one, forecast)
        for one in past
        if one.completed
        for forecast in one.forecasts
        if kind_of(forecast.at) == kind and not forecast.first_crossing
    ]
    return Calibration(
        total=_factor([_score(forecast.total_s, one.total_s, forecast.widened[0]) for one, forecast in pairs]),
        downtime=_factor([_score(forecast.downtime_s, one.downtime_s, forecast.widened[1]) for one, forecast in pairs]),
        sent=_factor(
            [_score(forecast.sent_bytes, float(one.sent_bytes), forecast.widened[2]) for one, forecast in pairs]
        ),
    )


def kind_of(at: str) -> str:
    """The kind of a forecast made then: ``start``, ``round 1``, ``round`` for all after later ones, or ``commit``.

    After the first copy the rest is most of the run; after later rounds it is little, and an error is many of its
    intervals' half widths: taken together, the ones after round 1 would be far too wide.
    """
    return at if at == FIRST_ROUND else at.partition(" ")[0]


def stretched(interval: Interval, factor: float, *, least: float = 0.0, offset: float = 0.0) -> Interval:
    """Returns the interval with its ends moved away from the median.

    Args:
        interval: As the model has it.
        factor: By how much.
        least: How far both ends are from the median at least, before that.
        offset: What has been already: no end goes below it, nor to it.
    """
    low, middle, high = interval
    least = max(least, LEAST_HALF_WIDTH * abs(middle))
    down, up = max(middle - low, least) * factor, max(high - middle, least) * factor
    floor = offset + max(min(low, middle - least / factor) - offset, 0.0) / max(factor, 1.0) / 2
    return min(max(middle - down, floor), middle), middle, middle + up


def _score(interval: Interval | None, actual: float | None, widened: float) -> float | None:
    if interval is None or not actual or not interval[1] > 0:
        return None
    low, middle, high = interval
    half_width = high - middle if actual > middle else middle - low
    return widened * abs(actual - middle) / max(half_width, LEAST_HALF_WIDTH * middle)


def _factor(scores: Sequence[float | None]) -> float:
    """The conformal quantile, drawn towards the prior while there are few scores."""
    found = sorted(score for score in scores if score is not None and isfinite(score))
    if not found:
        return PRIOR_FACTOR
    rank = min(ceil(COVERAGE * (len(found) + 1)), len(found))
    learned = found[rank - 1]
    weight = len(found) ** 2 / (len(found) ** 2 + PRIOR_COUNT**2)
    return min(max(exp(weight * log(max(learned, 1e-3)) + (1 - weight) * log(PRIOR_FACTOR)), FACTORS[0]), FACTORS[1])
