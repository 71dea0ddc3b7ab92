"""D(T): how many distinct pages a guest dirties within T, fitted from measurements. Knows no migration and no link.

For every stationary way of writing D is concave (the forward recurrence time of a page's writes has a falling density),
and by Khinchine's theorem a mixture of ramps min(1, T/tau): a sweep over memory is one ramp, random writes are one
exponential 1 - exp(-T/tau). So D is fitted as a sum of both with weights that are not negative, on a grid of tau: it
is concave and rises by construction, whatever was measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livemig.core.dirty_sample import DirtySample
from livemig.core.least_squares import non_negative_weights

Array = NDArray[np.float64]

PERIOD_LEAST_S = 0.001
PERIOD_MOST_S = 20_000.0
POINTS_PER_OCTAVE = 8
RAMP_RATIO = 1.25
EXPONENTIAL_RATIO = 2.0
SHORTEST_SHARE = 0.4
"""Time constants begin at this share of the shortest period measured: below it nothing tells them apart, and a jump
at zero would be as good a fit."""
LONGEST_SHARE = 1.0
"""And end at this share of the longest: slower parts all look like a straight line, which is one column. How far on it
goes is not known."""
MODEL_ERROR = 0.02
"""Relative, of each measurement: what a guest that is not quite stationary adds to QEMU's own error."""
OUTLIER_AT = 2.5
"""A measurement this many deviations off loses weight in proportion."""
PRIOR_DEVIATION = 0.5
"""Relative: how far a guest is expected to be from an earlier time."""
PRIOR_LEAST_SHARE = 0.02
"""Of all pages, added to it: a guest that was idle then may be busy now."""
UNKNOWN_SHARES = (0.002, 0.6)
UNKNOWN_TIME_CONSTANTS_S = (0.03, 30.0)
"""Of a guest that nothing is known of: it rewrites this share of its pages, each once in such a time, log-uniform."""


class DirtyCurve:
    """One D(T).

    Attributes:
        page_count: The pages there are: D never exceeds them.
        time_constants_s: tau of each part, shape (K,).
        weights: Its pages, shape (K,); the first `ramp_count` are ramps, the others exponentials.
        ramp_count: How many ramps there are.
    """

    def __init__(self, page_count: float, time_constants_s: Array, weights: Array, ramp_count: int) -> None:
        self.page_count = page_count
        self.time_constants_s = time_constants_s
        self.weights = weights
        self.ramp_count = ramp_count

    def dirtied_pages(self, period_s: float | Array) -> Array:
        """Returns D of each period, in pages."""
        parts = _parts(np.asarray(period_s, dtype=float), self.time_constants_s, self.ramp_count)
        return np.minimum(parts @ self.weights, self.page_count)

    @property
    def rate_pages_s(self) -> float:
        """The slope at 0: pages written a second, as far as a short period tells."""
        return float(np.sum(self.weights / self.time_constants_s))


class CurveTable:
    """Many D(T), looked up: interpolated between the points of a fine grid, which keeps them concave.

    Attributes:
        pages: D at the grid's points, shape (M, points); the first point is T = 0.
    """

    def __init__(self, pages: Array) -> None:
        self.pages = pages
        self._flat = np.ascontiguousarray(pages).ravel()
        self._starts = (np.arange(len(pages)) * pages.shape[1])[:, None]

    def repeated(self, times: int) -> CurveTable:
        """Returns the same curves so many times over: a fit costs more than a particle."""
        return CurveTable(np.tile(self.pages, (times, 1)))

    def dirtied_pages(self, period_s: Array) -> Array:
        """Returns D of each period, in pages; row m of `period_s`, shape (M, any), is looked up in curve m."""
        period_s = np.minimum(np.maximum(period_s, 0.0), PERIOD_MOST_S)  # as `np.clip` does, which takes longer
        position = np.log2(np.maximum(period_s, PERIOD_LEAST_S * 0.5) / PERIOD_LEAST_S) * POINTS_PER_OCTAVE + 1.0
        index = np.minimum(np.maximum(position.astype(np.intp), 0), _GRID_S.size - 2)
        share = (period_s - _GRID_S.take(index)) / _STEPS_S.take(index)
        places = self._starts + index
        before, after = self._flat.take(places), self._flat.take(places + 1)
        return np.asarray(before + np.minimum(np.maximum(share, 0.0), 1.0) * (after - before), dtype=float)


_GRID_S: Array = np.concatenate(
    (
        [0.0],
        PERIOD_LEAST_S
        * 2.0 ** (np.arange(np.log2(PERIOD_MOST_S / PERIOD_LEAST_S) * POINTS_PER_OCTAVE + 1) / POINTS_PER_OCTAVE),
    )
)
_STEPS_S: Array = np.diff(_GRID_S)


def fit_curve(samples: Sequence[DirtySample], page_count: float, *, prior: Sequence[DirtySample] = ()) -> DirtyCurve:
    """Fits one D(T).

    Args:
        samples: What was measured; where there is nothing, the middle of what is possible is returned.
        page_count: The pages there are.
        prior: What was measured at earlier times: a guest may have changed since, so these count less.
    """
    if not samples and not prior:
        share, time_constant_s = (float(np.sqrt(a * b)) for a, b in (UNKNOWN_SHARES, UNKNOWN_TIME_CONSTANTS_S))
        return DirtyCurve(page_count, np.array([time_constant_s]), np.array([share * page_count]), 1)
    fit = _Fit(samples, prior, page_count)
    constants_s, weights = fit.time_constants_s.copy(), fit.middle.copy()
    least_s, most_s = fit.line_ends_s(weights[None, :], page_count)
    _extend(constants_s, weights, fit.line, float(np.sqrt(least_s * most_s[0])))
    return DirtyCurve(page_count, constants_s, weights, fit.ramp_count)


def fit_curves(
    samples: Sequence[DirtySample],
    page_count: float,
    *,
    count: int,
    generator: np.random.Generator,
    prior: Sequence[DirtySample] = (),
) -> CurveTable:
    """Fits many D(T), as far apart as the measurements leave open: each to other values within their deviations.

    Args:
        samples: See `fit_curve`.
        page_count: The pages there are.
        count: How many.
        generator: Where the random numbers come from; the same state gives the same curves.
        prior: See `fit_curve`.
    """
    if not samples and not prior:
        return _unknown(page_count, count, generator)
    fit = _Fit(samples, prior, page_count)
    noise = normal_strata(generator, count, fit.values.size)
    weights = non_negative_weights(fit.rows, np.maximum(fit.values + noise, 0.0))
    least_s, most_s = fit.line_ends_s(weights, page_count)
    strata = generator.permutation((np.arange(count) + 0.5) / count)
    ends_s = least_s * (most_s / least_s) ** strata
    line = weights[:, fit.line] / least_s  # pages a second
    weights[:, fit.line] = 0.0
    parts = _parts(_GRID_S, fit.time_constants_s, fit.ramp_count)
    lines = line[:, None] * np.minimum(_GRID_S[None, :], ends_s[:, None])
    return CurveTable(np.minimum(weights @ parts.T + lines, page_count))


def normal_strata(generator: np.random.Generator, count: int, columns: int) -> Array:
    """Returns standard normal numbers, shape (count, columns), each column in pairs of x and -x: less noise by half."""
    half = generator.standard_normal(((count + 1) // 2, columns))
    return np.concatenate((half, -half))[:count]


def _extend(constants_s: Array, weights: Array, line: int, end_s: float) -> None:
    """Makes the straight line the ramp that ends there; in place."""
    weights[line] *= end_s / constants_s[line]
    constants_s[line] = end_s


def _unknown(page_count: float, count: int, generator: np.random.Generator) -> CurveTable:
    """Spreads the curves over all that a guest may be, evenly: by strata, not by chance."""
    strata = (np.arange(count) + generator.random(count)) / count
    least, most = np.log(UNKNOWN_SHARES)
    shares = np.exp(least + (most - least) * strata)
    least, most = np.log(UNKNOWN_TIME_CONSTANTS_S)
    time_constants_s = np.exp(least + (most - least) * generator.permutation(strata))
    return CurveTable(page_count * shares[:, None] * np.minimum(1.0, _GRID_S / time_constants_s[:, None]))


class _Fit:
    """The least squares problem of some samples, its rows divided by their deviations, and its middle solution."""

    def __init__(self, samples: Sequence[DirtySample], prior: Sequence[DirtySample], page_count: float) -> None:
        every = [*samples, *prior]
        floor_pages = max(page_count * 1e-6, 1e-3)
        values = np.array([min(max(sample.dirtied_pages, 0.0), page_count) for sample in every])
        deviations = np.hypot(
            [max(sample.deviation_pages, floor_pages) for sample in every],
            np.repeat([MODEL_ERROR, PRIOR_DEVIATION], [len(samples), len(prior)]) * values
            + np.repeat([0.0, PRIOR_LEAST_SHARE], [len(samples), len(prior)]) * page_count,
        )
        shortest_s = min(min(sample.periods_s) for sample in every)
        longest_s = max(max(sample.periods_s) for sample in every) * LONGEST_SHARE
        ramps_s = _time_constants_s(shortest_s, longest_s, RAMP_RATIO)
        self.ramp_count = len(ramps_s)
        self.line = self.ramp_count - 1
        self.time_constants_s = np.concatenate((ramps_s, _time_constants_s(shortest_s, longest_s, EXPONENTIAL_RATIO)))
        parts = np.stack([self._row(sample) for sample in every])
        self._weigh(parts, values, deviations)
        for _ in range(2):
            errors = np.abs(self.rows @ self.middle - self.values)
            deviations = deviations * np.sqrt(np.maximum(1.0, errors / OUTLIER_AT))
            self._weigh(parts, values, deviations)

    def line_ends_s(self, weights: Array, page_count: float) -> tuple[float, Array]:
        """Returns where each straight line may end: at the longest period measured, to where all pages are dirtied."""
        least_s = float(self.time_constants_s[self.line])
        slopes = weights[:, self.line] / least_s
        room_pages = np.maximum(page_count - weights.sum(axis=1) + weights[:, self.line], weights[:, self.line])
        return least_s, np.clip(room_pages / np.maximum(slopes, 1e-9), least_s, PERIOD_MOST_S)

    def _row(self, sample: DirtySample) -> Array:
        parts = _parts(np.array(sample.periods_s), self.time_constants_s, self.ramp_count)
        return np.asarray(np.array(sample.weights) @ parts, dtype=float)

    def _weigh(self, parts: Array, values: Array, deviations: Array) -> None:
        self.rows = parts / deviations[:, None]
        self.values = values / deviations
        self.middle = non_negative_weights(self.rows, self.values[None, :])[0]


def _time_constants_s(shortest_s: float, longest_s: float, ratio: float) -> Array:
    """A log grid from below the shortest period to the longest, both ends on it."""
    most_s = max(longest_s, 4 * PERIOD_LEAST_S)
    least_s = min(max(shortest_s * SHORTEST_SHARE, 2 * PERIOD_LEAST_S), most_s / 2)
    count = int(np.ceil(np.log(most_s / least_s) / np.log(ratio))) + 1
    return np.asarray(np.geomspace(least_s, most_s, count), dtype=float)


def _parts(period_s: Array, time_constants_s: Array, ramp_count: int) -> Array:
    """Returns each part's share of its pages dirtied within each period, shape (..., K)."""
    turns = period_s[..., None] / time_constants_s
    ramps = np.minimum(1.0, turns[..., :ramp_count])
    return np.concatenate((ramps, -np.expm1(-turns[..., ramp_count:])), axis=-1)
