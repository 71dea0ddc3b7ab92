"""How a guest's pace of writing wavers: by how much, and for how long at a time. Told from repeated samples. Pure.

A guest that writes in bursts dirties much in one short period and nothing in the next, and about the same in each long
one. So the variance among repeats of a period, beyond what the measurement explains, and how it falls with the period,
tell both: of a pace that is an Ornstein-Uhlenbeck process with deviation s and time t, the mean over a period T has the
variance s^2 g(T/t) with g(x) = 2/x (1 - (1 - exp(-x))/x). Where bursts come at even intervals (`livemig.core.bursts`)
the pace goes with them: one that wanders would linger in a trough for longer than there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from livemig.core.bursts import Wave, interval_of, since_trough_s
from livemig.core.dirty_sample import DirtySample

Array = NDArray[np.float64]

SAME_PERIOD_RATIO = 1.04
"""Periods so close are repeats of one; those in between were late, and how late within them is not known."""
REPEATS_LEAST_COUNT = 4
TRIMMED_SHARE = 1 / 15
"""Of the repeats, at each end: what a busy host does to single measurements is not the guest's doing."""
TRIMMED_VARIANCE = 0.8
"""What trimming so much leaves of a normal variance."""
PAGES_LEAST = 64.0
"""With fewer, what the guest does drowns in the rounding."""
ELASTICITY_LEAST = 0.5
"""Where twice the time dirties not even half more, the pace hardly shows."""
TIMES_S = np.geomspace(0.05, 12.8, 17)
TIME_UNKNOWN_S = 5.0
NOISE_VARIANCE = 0.02**2
"""Of a pace that wavers less than this nothing is known but that."""
BURSTS_DEVIATION = 0.35
"""Above it the guest writes in bursts, and no bell curve describes it."""
DRIFT = 0.1
"""How far bursts that come at even intervals get out of step in one interval, as a share of it."""
INTERVAL_DEVIATION = 0.01
"""Relative, of what is known of the interval."""
PHASE_DEVIATION = 0.05
"""Of where in its interval the guest is, as far as the samples tell."""
NORMAL_QUANTILES = np.array([NormalDist().inv_cdf((rank + 0.5) / 32) for rank in range(32)])


class Pace(NamedTuple):
    """How the pace wavers.

    Attributes:
        deviation: Its relative standard deviation.
        time_s: How long it stays much the same; from burst to burst where they come at even intervals.
        levels: What it is, over its mean, in ascending order and each as often: of a guest that writes in bursts. Empty
            where it is about log-normal.
        regular: Whether bursts come at even intervals.
        since_trough_s: How long a trough is past as the guest begins to move; None where that isn't known.
    """

    deviation: float
    time_s: float
    levels: tuple[float, ...] = ()
    regular: bool = False
    since_trough_s: float | None = None

    def quantiles(self) -> Array:
        """Returns what the pace is over its mean, in ascending order and each as often."""
        if self.levels:
            return np.array(self.levels)
        return np.asarray(np.exp(self.deviation * NORMAL_QUANTILES - self.deviation**2 / 2), dtype=float)


class Walk:
    """Where in its pace the guest of each of many particles is, as time goes on."""

    def __init__(self, pace: Pace, begun_s: Array, generator: np.random.Generator) -> None:
        """Begins where the guest may be; so long after ``migrate``, shape (M,)."""
        count = len(begun_s)
        self._pace, self._generator = pace, generator
        self._wave = Wave(pace.levels, pace.time_s) if pace.regular else None
        self._levels = pace.quantiles()
        if self._wave is None:
            self._phases = generator.standard_normal(count)
        elif pace.since_trough_s is not None:
            turns = begun_s / self._wave.interval_s
            deviations = np.sqrt(PHASE_DEVIATION**2 + DRIFT**2 * turns + (INTERVAL_DEVIATION * turns) ** 2)
            begun = pace.since_trough_s / self._wave.interval_s
            self._phases = begun + turns + deviations * generator.standard_normal(count)
        else:
            self._phases = generator.permutation((np.arange(count) + generator.random(count)) / count)

    def passed(self, passed_s: Array) -> Array:
        """Takes that so much time went by; returns how much that was of each guest's own, in which its pace is even."""
        moved = self._generator.standard_normal(len(passed_s))
        if self._wave is not None:
            before_s, turns = self._wave.guest_time_s(self._phases), passed_s / self._wave.interval_s
            self._phases = self._phases + np.maximum(turns + DRIFT * np.sqrt(turns) * moved, 0.0)
            return self._wave.guest_time_s(self._phases) - before_s
        kept = np.exp(-passed_s / self._pace.time_s)  # an Ornstein-Uhlenbeck process
        self._phases = np.asarray(kept * self._phases + np.sqrt(1.0 - kept**2) * moved, dtype=float)
        ranks = uniform(self._phases) * len(self._levels) - 0.5
        levels = np.interp(ranks, np.arange(len(self._levels)), self._levels)
        pace = 1.0 + (levels - 1.0) * np.sqrt(averaging(passed_s / self._pace.time_s))
        return np.asarray(passed_s * pace, dtype=float)


class _Repeats(NamedTuple):
    period_s: float
    mean_pages: float
    excess: float
    freedom: int
    levels: tuple[float, ...]


def averaging(periods: Array) -> Array:
    """Returns what share of the pace's variance its mean over a period has; the period in units of the pace's time."""
    x = np.maximum(periods, 1e-6)
    return np.asarray(np.where(x < 1e-3, 1.0, 2.0 / x * (1.0 + np.expm1(-x) / x)), dtype=float)


def wavering(samples: Sequence[DirtySample], pace: Pace) -> list[DirtySample]:
    """Returns the samples with what the guest's pace adds to the deviation of each.

    It is a share of what is dirtied on average in such a time, and not of what this one sample was: of a guest that
    writes in bursts one that met a pause would else count for exact, and for more than all others.
    """
    if pace.deviation < BURSTS_DEVIATION or not samples:
        return list(samples)
    groups = _by_period(samples)
    periods_s = np.array([group[0].periods_s[0] for group in groups])
    means = np.array([np.mean([one.dirtied_pages for one in group]) for group in groups])
    found = []
    for sample in samples:
        period_s = float(np.dot(sample.periods_s, sample.weights))
        mean_pages = float((means * np.minimum(1.0, period_s / periods_s)).max())  # D rises, and is concave
        share = pace.deviation * _averaged(pace, period_s)
        deviation_pages = float(np.hypot(sample.deviation_pages, share * mean_pages))
        found.append(msgspec.structs.replace(sample, deviation_pages=deviation_pages))
    return found


def _averaged(pace: Pace, period_s: float) -> float:
    """What of the pace's deviation its mean over a period has; for one that wanders the variance's share is taken."""
    if pace.regular:
        return float(np.sqrt(Wave(pace.levels, pace.time_s).averaging(period_s)))
    return float(averaging(np.array(period_s / pace.time_s)))


def uniform(normal: Array) -> Array:
    """Returns the standard normal's distribution function, to 1e-3: Bowling and others, 2009, a logistic."""
    bounded = np.clip(normal, -6.0, 6.0)
    return np.asarray(1.0 / (1.0 + np.exp(-(1.5976 * bounded + 0.07056 * bounded**3))), dtype=float)


def pace_of(samples: Sequence[DirtySample], ended_before_s: float | None = None) -> Pace | None:
    """Returns how the pace wavers, as far as repeated samples show; None when too little was measured twice.

    Args:
        samples: In the order in which they were taken.
        ended_before_s: How long before ``migrate`` the last one ended.
    """
    repeats = _by_period(samples)
    found = [one for one in map(_repeats, repeats) if one is not None]
    usable = [(one, slope) for one, slope in zip(found, _elasticities(found), strict=True) if slope > ELASTICITY_LEAST]
    usable = [(one, slope) for one, slope in usable if one.freedom >= REPEATS_LEAST_COUNT - 1]
    if not usable:
        return None
    periods = np.array([one.period_s for one, _ in usable])
    excess = np.array([one.excess / slope**2 for one, slope in usable])
    weights = np.array([float(one.freedom) for one, _ in usable])
    shares = averaging(periods[None, :] / TIMES_S[:, None])
    variances = np.maximum((shares * excess) @ weights / (shares**2 @ weights), 0.0)
    expected = variances[:, None] * shares
    errors = ((expected - excess) / np.maximum(expected, NOISE_VARIANCE)) ** 2 @ weights / 2
    odds = np.exp(-(errors - errors.min()) / 2)
    time_s = float(np.exp(odds @ np.log(TIMES_S) / odds.sum()))
    best = int(np.abs(np.log(TIMES_S / time_s)).argmin())
    deviation = float(np.sqrt(variances[best]))
    if deviation < NOISE_VARIANCE**0.5:
        return Pace(deviation, TIME_UNKNOWN_S)
    if deviation <= BURSTS_DEVIATION:
        return Pace(deviation, time_s)
    levels = usable[0][0].levels
    interval_s = interval_of(samples, repeats, levels)
    if interval_s is None:
        return Pace(deviation, time_s, levels)
    past_s = None
    if ended_before_s is not None:
        past_s = since_trough_s(samples, repeats, Wave(levels, interval_s), ended_before_s)
    return Pace(deviation, interval_s, levels, regular=True, since_trough_s=past_s)


def _by_period(samples: Sequence[DirtySample]) -> list[list[DirtySample]]:
    """Groups the samples of one period each by it; the ones that came late are left out."""
    groups: list[list[DirtySample]] = []
    for sample in sorted((one for one in samples if len(one.periods_s) == 1), key=lambda one: one.periods_s[0]):
        if groups and sample.periods_s[0] <= groups[-1][0].periods_s[0] * SAME_PERIOD_RATIO:
            groups[-1].append(sample)
        elif not groups or sample.periods_s[0] >= groups[-1][0].periods_s[0] * 1.8:
            groups.append([sample])
    return groups


def _repeats(group: list[DirtySample]) -> _Repeats | None:
    pages = np.sort([one.dirtied_pages for one in group])
    cut = int(len(pages) * TRIMMED_SHARE)
    kept = pages[cut : len(pages) - cut]
    mean = float(kept.mean())
    if mean < PAGES_LEAST:
        return None
    levels = tuple(float(level) for level in pages / pages.mean())
    explained = float(np.mean([one.deviation_pages**2 for one in group]))
    if len(kept) < 2:
        return _Repeats(group[0].periods_s[0], mean, 0.0, 0, levels)
    variance = float(kept.var(ddof=1)) / (TRIMMED_VARIANCE if cut else 1.0)
    return _Repeats(group[0].periods_s[0], mean, (variance - explained) / mean**2, len(kept) - 1, levels)


def _elasticities(found: Sequence[_Repeats]) -> list[float]:
    """How much more twice the time dirties: 1 is in proportion, 0 is nothing more."""
    if len(found) < 2:
        return [1.0] * len(found)
    times, pages = (np.log([getattr(one, name) for one in found]) for name in ("period_s", "mean_pages"))
    return [float(np.clip(slope, 0.0, 1.0)) for slope in np.gradient(pages, times)]
