"""A pace that goes up and down at even intervals: that of a guest that writes in bursts, and how often. Pure.

How often is told by when samples were taken: those of one short period that lie one interval apart are alike, those
half an interval apart are each other's contrary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livemig.core.dirty_sample import DirtySample

Array = NDArray[np.float64]

INTERVALS_S = np.geomspace(0.1, 12.8, 64)
SHORT_S = 0.12
"""Samples of a longer period may see a burst and a pause in one."""
REPEATS_LEAST_COUNT = 4
SPAN_MOST_S = 3.0
"""When each sample began is known by how long those before it took, which adds up: only near ones are compared."""
BETWEEN_SAMPLES_S = 0.0075
KEPT_INTERVALS = 3.0
"""For so many intervals bursts keep step, about."""
EXPLAINED_LEAST, GAIN_LEAST = 0.05, 0.07
"""What even intervals have to explain of how alike samples are, and how much more than a pace that wanders: in 15 s of
sampling those of 0.2 to 2 s do nearly always, and of those drawn at random one in five at most."""
LEVEL_LEAST = 1e-6
PHASE_COUNT = 64


class Wave:
    """A pace that goes through its levels, up and down again, as long in each.

    Attributes:
        interval_s: From one trough to the next.
    """

    def __init__(self, levels: Sequence[float], interval_s: float) -> None:
        """Takes the levels, in ascending order."""
        self.interval_s = interval_s
        both_ways = np.concatenate((levels, levels[::-1])) + LEVEL_LEAST
        self._rates = both_ways / both_ways.mean()
        self._written = np.concatenate(([0.0], np.cumsum(self._rates) / len(both_ways)))
        self._phases = np.linspace(0.0, 1.0, len(self._written))

    def guest_time_s(self, phases: Array) -> Array:
        """Returns the guest's own time, in which its pace is even, at each phase: in intervals since a trough."""
        whole = np.floor(phases)
        return np.asarray(
            self.interval_s * (whole + np.interp(phases - whole, self._phases, self._written)), dtype=float
        )

    def averaging(self, period_s: float) -> float:
        """Returns what share of the pace's variance its mean over a period has."""
        phases = (np.arange(PHASE_COUNT) + 0.5) / PHASE_COUNT
        written_s = self.guest_time_s(phases + period_s / self.interval_s) - self.guest_time_s(phases)
        return float((written_s / period_s).var() / max(float(self._rates.var()), LEVEL_LEAST))

    def likeness(self, spans_s: Array) -> Array:
        """Returns the correlation of the pace with itself so much later."""
        deviations = self._rates - 1.0
        turned = np.array([float(deviations @ np.roll(deviations, turn)) for turn in range(len(deviations) + 1)])
        phases = spans_s / self.interval_s
        likeness = np.interp(phases - np.floor(phases), self._phases, turned / max(turned[0], LEVEL_LEAST))
        return np.asarray(likeness, dtype=float)


def interval_of(
    samples: Sequence[DirtySample], repeats: Sequence[Sequence[DirtySample]], levels: Sequence[float]
) -> float | None:
    """Returns from burst to burst, in seconds; None where the pace wanders rather than comes again.

    Args:
        samples: In the order in which they were taken.
        repeats: Those of one period each.
        levels: What the pace is, over its mean, in ascending order and each as often.
    """
    spans_s, products = _pairs(samples, repeats)
    if not spans_s.size:
        return None
    wave = Wave(levels, 1.0)
    turns = spans_s / INTERVALS_S[:, None]
    coming_again = wave.likeness(turns) * np.exp(-turns / KEPT_INTERVALS)
    wandering = np.exp(-turns)
    unexplained, unexplained_wandering = (
        ((products - one) ** 2).mean(axis=1) / max(float((products**2).mean()), 1e-9)
        for one in (coming_again, wandering)
    )
    gain = min(1.0 - EXPLAINED_LEAST, unexplained_wandering.min() - GAIN_LEAST) - unexplained.min()
    return float(INTERVALS_S[unexplained.argmin()]) if gain > 0 else None


def _pairs(samples: Sequence[DirtySample], repeats: Sequence[Sequence[DirtySample]]) -> tuple[Array, Array]:
    """How long after one another two samples were taken, and the product of their standard scores; of near pairs."""
    lengths_s = np.array([sample.periods_s[0] for sample in samples])
    pages = np.array([sample.dirtied_pages for sample in samples])
    middles_s = np.cumsum(lengths_s + BETWEEN_SAMPLES_S) - lengths_s / 2
    scores = np.full(len(samples), np.nan)
    for group in repeats:
        least_s, most_s = group[0].periods_s[0], group[-1].periods_s[0]
        if most_s <= SHORT_S and len(group) >= REPEATS_LEAST_COUNT:
            which = (lengths_s >= least_s) & (lengths_s <= most_s)
            scores[which] = (pages[which] - pages[which].mean()) / max(float(pages[which].std()), 1e-9)
    (known,) = np.nonzero(~np.isnan(scores))
    before, after = (known[places] for places in np.triu_indices(len(known), 1))
    spans_s = middles_s[after] - middles_s[before]
    near = spans_s < SPAN_MOST_S
    return spans_s[near], (scores[before] * scores[after])[near]
