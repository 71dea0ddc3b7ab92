"""Quantiles of a few numbers. Pure.

As numpy's own, linear between two values; but those load its masked arrays at their first call, which takes 20 ms and
memory that a migration has better use for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def quantiles(values: Array | Sequence[float], shares: Sequence[float]) -> tuple[float, ...]:
    """Returns the quantiles of at least one value, one for each share from 0 to 1."""
    ordered = np.sort(values)
    places = np.asarray(shares) * (len(ordered) - 1)
    return tuple(float(value) for value in np.interp(places, np.arange(len(ordered)), ordered))


def middle(values: Array | Sequence[float]) -> float:
    """Returns the median of at least one value."""
    return quantiles(values, (0.5,))[0]
