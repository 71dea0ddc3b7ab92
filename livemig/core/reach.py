"""How little QEMU's scan can leave to send: the floor of what is pending, from D(T) and a throughput. Knows no plan.

QEMU walks round its memory as a ring and sends b pages a second. It comes by each page once a cycle C, for which
D(C) = b C holds. After a full pass it has D(C) left; right after a sync of short rounds, the mean of D over a cycle.
Where even the slope of D at 0 is below b, there is no such cycle, and both are next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livemig.core.dirty_curve import fit_curve
from livemig.core.dirty_sample import DirtySample

Array = NDArray[np.float64]

PAGE_BYTES = 4096
_PERIODS_S: Array = np.geomspace(1e-3, 200.0, 600)


class Floor(NamedTuple):
    """What can't be undercut for long, in seconds of sending.

    Attributes:
        cycle_s: How long the scan takes once around, which is also what a full pass leaves.
        pending_s: What is pending on average, right after a sync of short rounds.
    """

    cycle_s: float
    pending_s: float


class Reach:
    """What can be reached with one guest, as far as it was seen."""

    def __init__(self, samples: Sequence[DirtySample], page_count: float) -> None:
        """Fits D(T)."""
        curve = fit_curve(samples, page_count)
        self._dirtied_bytes: Array = np.asarray(curve.dirtied_pages(_PERIODS_S)) * PAGE_BYTES

    def floor(self, throughput_bytes_s: float, *, pace: float = 1.0) -> Floor:
        """Returns the floor at a throughput, were the guest as much faster than it was seen to be."""
        dirtied_bytes = (
            np.interp(_PERIODS_S * pace, _PERIODS_S, self._dirtied_bytes) if pace != 1 else self._dirtied_bytes
        )
        return _floor(dirtied_bytes / throughput_bytes_s)


def _floor(dirtied_s: Array) -> Floor:
    above = np.flatnonzero(dirtied_s > _PERIODS_S)
    if not above.size:
        return Floor(0.0, 0.0)
    last = int(above[-1]) + 1
    periods_s = np.concatenate(([0.0], _PERIODS_S[:last]))
    pending_s = float(np.trapezoid(np.concatenate(([0.0], dirtied_s[:last])), periods_s) / periods_s[-1])
    return Floor(float(periods_s[-1]), pending_s)
