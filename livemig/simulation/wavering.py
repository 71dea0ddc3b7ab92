"""A quantity that wavers about 1 in time: the exponential of an AR(1) path on a fixed grid. Pure and seeded."""

from __future__ import annotations

import numpy as np

GRID_S = 0.02
_BLOCK_COUNT = 1024


class Wavering:
    """A path of ratios, drawn block by block as it is asked for; the same whatever was asked before.

    The logarithm is Gaussian with the deviation asked for, and forgets itself over the time asked for. Its mean is
    such that the ratio is 1 on average.
    """

    def __init__(self, deviation_ratio: float, correlation_s: float, generator: np.random.Generator) -> None:
        self._deviation, self._generator = deviation_ratio, generator
        self._kept = float(np.exp(-GRID_S / correlation_s))
        self._last = float(generator.standard_normal()) * deviation_ratio
        self._sums = np.zeros(1)

    @property
    def steady(self) -> bool:
        """Whether it does not waver at all."""
        return self._deviation == 0

    def branch(self, time_s: float, generator: np.random.Generator) -> None:
        """Has it go on otherwise from a moment, from where it is then."""
        if self.steady:
            return
        cell = int(time_s / GRID_S) + 1
        self._extend(cell)
        ratio = float(self._sums[cell] - self._sums[cell - 1]) / GRID_S
        self._last = float(np.log(ratio)) + self._deviation**2 / 2
        self._sums, self._generator = self._sums[: cell + 1], generator

    def mean_ratio(self, from_s: float, to_s: float) -> float:
        """Returns the mean over a span of time that is longer than 0."""
        if self.steady:
            return 1.0
        return (self._sum_s(to_s) - self._sum_s(from_s)) / (to_s - from_s)

    def ratio(self, time_s: float) -> float:
        """Returns the ratio at a moment."""
        if self.steady:
            return 1.0
        cell = int(time_s / GRID_S)
        self._extend(cell + 1)
        return float(self._sums[cell + 1] - self._sums[cell]) / GRID_S

    def _sum_s(self, time_s: float) -> float:
        cell = int(time_s / GRID_S)
        self._extend(cell + 1)
        within_s = time_s - cell * GRID_S
        slope = (self._sums[cell + 1] - self._sums[cell]) / GRID_S
        return float(self._sums[cell] + within_s * slope)

    def _extend(self, cell: int) -> None:
        while len(self._sums) <= cell:
            steps = self._generator.standard_normal(_BLOCK_COUNT) * self._deviation * np.sqrt(1 - self._kept**2)
            path = np.empty(_BLOCK_COUNT)
            value = self._last
            for index, step in enumerate(steps.tolist()):
                value = self._kept * value + step
                path[index] = value
            self._last = value
            ratios = np.exp(path - self._deviation**2 / 2)
            self._sums = np.concatenate([self._sums, self._sums[-1] + np.cumsum(ratios) * GRID_S])
