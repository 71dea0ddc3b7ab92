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
NEAR_RATIOS = np.geomspace(0.93, 1.07, 29)
"""To find the interval between those: its error adds up with each that passes."""
SHORT_S = 0.12
"""Samples of a longer period may see a burst and a pause in one."""
REPEATS_LEAST_COUNT = 4
SPAN_MOST_S = 3.0
"""When each sample began is known by how long those before it took, which adds up: only near ones are compared."""
BETWEEN_SAMPLES_S = 0.0075
"""From the end of one sample to the begin of the next, on QEMU 10.0: hashing, polling; 6 to 9 ms were seen."""
KEPT_INTERVALS = 3.0
"""For so many intervals bursts keep step, about."""
EXPLAINED_LEAST, GAIN_LEAST = 0.05, 0.07
"""What even intervals have to explain of how alike samples are, and how much more than a pace that wanders: in 15 s of
sampling those of 0.2 to 2 s do nearly always, and of those drawn at random one in five at most."""
LEVEL_LEAST = 1e-6
"""Added to each level, so that a guest that never writes has a mean."""
PHASE_COUNT = 64
"""In each of which an interval is looked at."""


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

    def deviations(self, phases: Array) -> Array:
        """Returns how far the pace is above its mean at each phase."""
        places = ((phases - np.floor(phases)) * len(self._rates)).astype(np.intp)
        return np.asarray(self._rates.take(places, mode="clip") - 1.0, dtype=float)

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
    middles_s, scores = _scored(samples, repeats)
    before, after = np.triu_indices(len(scores), 1)
    spans_s, products = middles_s[after] - middles_s[before], scores[before] * scores[after]
    near = spans_s < SPAN_MOST_S
    spans_s, products = spans_s[near], products[near]
    if not spans_s.size:
        return None
    unexplained = _unexplained(spans_s, products, levels, INTERVALS_S)
    wandering = ((products - np.exp(-spans_s / INTERVALS_S[:, None])) ** 2).mean(axis=1)
    unexplained_wandering = wandering / max(float((products**2).mean()), 1e-9)
    if unexplained.min() > min(1.0 - EXPLAINED_LEAST, unexplained_wandering.min() - GAIN_LEAST):
        return None
    near_s = INTERVALS_S[unexplained.argmin()] * NEAR_RATIOS
    return float(near_s[_unexplained(spans_s, products, levels, near_s).argmin()])


def since_trough_s(
    samples: Sequence[DirtySample], repeats: Sequence[Sequence[DirtySample]], wave: Wave, after_s: float
) -> float:
    """Returns how long a trough is past, so long after the last sample ended.

    Args:
        samples: In the order in which they were taken.
        repeats: Those of one period each.
        wave: How the pace goes.
        after_s: How long after.
    """
    middles_s, scores = _scored(samples, repeats)
    ago = (middles_s - _ends_s(samples)[-1]) / wave.interval_s
    phases = np.arange(PHASE_COUNT) / PHASE_COUNT
    match = wave.deviations(ago + phases[:, None]) @ (scores * np.exp(ago / KEPT_INTERVALS))
    return float(phases[match.argmax()] * wave.interval_s + after_s)


def _unexplained(spans_s: Array, products: Array, levels: Sequence[float], intervals_s: Array) -> Array:
    """What of the products a wave of each interval leaves unexplained, as a share."""
    turns = spans_s / intervals_s[:, None]
    expected = Wave(levels, 1.0).likeness(turns) * np.exp(-turns / KEPT_INTERVALS)
    return np.asarray(((products - expected) ** 2).mean(axis=1) / max(float((products**2).mean()), 1e-9), dtype=float)


def _ends_s(samples: Sequence[DirtySample]) -> Array:
    """When each ended, as far as the time that each took tells."""
    return np.cumsum([sample.periods_s[0] + BETWEEN_SAMPLES_S for sample in samples]) - BETWEEN_SAMPLES_S


def _scored(samples: Sequence[DirtySample], repeats: Sequence[Sequence[DirtySample]]) -> tuple[Array, Array]:
    """The middle of each short sample that was taken often, in seconds, and its standard score among its like."""
    lengths_s = np.array([sample.periods_s[0] for sample in samples])
    pages = np.array([sample.dirtied_pages for sample in samples])
    scores = np.full(len(samples), np.nan)
    for group in repeats:
        least_s, most_s = group[0].periods_s[0], group[-1].periods_s[0]
        if most_s <= SHORT_S and len(group) >= REPEATS_LEAST_COUNT:
            which = (lengths_s >= least_s) & (lengths_s <= most_s)
            scores[which] = (pages[which] - pages[which].mean()) / max(float(pages[which].std()), 1e-9)
    known = ~np.isnan(scores)
    return (_ends_s(samples) - lengths_s / 2)[known], scores[known]
