"""livemig beside one rival at equal downtime and in equal time, over simulated guests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from bench.contest import OURS, PATIENCES, Contest, Ended

Average = Callable[[Sequence[float]], float]


def mean(values: Sequence[float]) -> float:
    """The mean, or 0."""
    return float(np.mean(values)) if values else 0.0


def geometric_mean(values: Sequence[float]) -> float:
    """The mean that counts ratios, or 0."""
    return float(np.exp(np.mean(np.log(np.maximum(values, 1e-6))))) if values else 0.0


def less_percent(theirs: float, ours: float) -> float:
    """By how much less ours is."""
    return 100 * (1 - ours / theirs) if theirs else 0.0


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """livemig beside one rival, over the guests that both moved.

    livemig's figures are read off the line through ``prefer time`` and ``prefer downtime`` with more and more patience
    (`PATIENCES`), where it crosses the rival's; beyond the line's ends, the end itself.

    Attributes:
        beyond_s: The rival's mean time beyond the first copy.
        own_beyond_s: livemig's, where its mean downtime is the rival's.
        downtime_s: The rival's mean downtime.
        own_downtime_s: livemig's, where its mean time beyond is the rival's.
    """

    beyond_s: float
    own_beyond_s: float
    downtime_s: float
    own_downtime_s: float

    @classmethod
    def of(cls, samples: Sequence[Contest], name: str, average: Average) -> Against:
        """Compares, by one kind of mean of the downtime."""
        pairs = [(one.ended[name], ways) for one in samples if (ways := _ways(one)) and one.ended[name].completed]
        if not pairs:
            return cls(beyond_s=0.0, own_beyond_s=0.0, downtime_s=0.0, own_downtime_s=0.0)
        beyond_s, downtime_s = _means([ended for ended, _ in pairs], average)
        line = sorted(_means([ways[at] for _, ways in pairs], average) for at in range(len(PATIENCES) + 2))
        at_s, seen_s = (np.array(column) for column in zip(*line, strict=True))
        least_s = np.minimum.accumulate(seen_s)  # who would have more time may stop as soon as with less
        return cls(
            beyond_s=beyond_s,
            own_beyond_s=float(np.interp(-downtime_s, -least_s, at_s)),
            downtime_s=downtime_s,
            own_downtime_s=float(np.interp(beyond_s, at_s, least_s)),
        )

    @property
    def time_saved_percent(self) -> float:
        """By how much less time beyond livemig takes at equal downtime."""
        return less_percent(self.beyond_s, self.own_beyond_s)

    @property
    def downtime_saved_percent(self) -> float:
        """By how much less downtime livemig has in equal time."""
        return less_percent(self.downtime_s, self.own_downtime_s)

    @property
    def words(self) -> str:
        """In words."""
        return (
            f"{self.own_beyond_s:.2f} s beyond instead of {self.beyond_s:.2f} s at equal downtime "
            f"({self.time_saved_percent:.0f} % less), {self.own_downtime_s * 1000:.1f} ms instead of "
            f"{self.downtime_s * 1000:.1f} ms in equal time ({self.downtime_saved_percent:.0f} % less)"
        )


def _ways(sample: Contest) -> list[Ended]:
    """How livemig moves a guest with more and more patience; where that was too short, as with the next longer one."""
    ways = [sample.ended[OURS[0]], *sample.held, sample.ended[OURS[1]]]
    if len(ways) != len(PATIENCES) + 2 or not ways[-1].completed:
        return []
    for at in reversed(range(len(ways) - 1)):
        if not ways[at].completed:
            ways[at] = ways[at + 1]
    return ways


def _means(ended: Sequence[Ended], average: Average) -> tuple[float, float]:
    return mean([one.beyond_s or 0.0 for one in ended]), average([one.downtime_s or 0.0 for one in ended])
