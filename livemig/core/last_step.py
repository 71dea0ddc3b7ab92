"""What the last step takes, by what earlier ones took: a fixed part, and so much for each byte. Fitted together. Pure.

Each alone would be learned wrong: of a short last step nearly all is fixed, of a long one nothing tells the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livemig.core.past import PastMigration
from livemig.core.quantiles import middle

Array = NDArray[np.float64]

FIXED_PRIOR_S, FIXED_PRIOR_SHARE = 0.005, 0.5
"""Of the fixed part, where nothing was measured: ``python -m bench switchover``; and how far off it may be."""
RATE_PRIOR_SHARE = 0.4
"""How far off the given throughput may be."""
NOISE_SHARE, NOISE_S = 0.1, 0.001
"""Of one last step: relative, and what is added to it."""
OUTLIER_AT = 1.5
"""A last step so many deviations off loses weight in proportion: a busy host delays some, and shortens none."""
DEVIATION_PRIOR, DEVIATION_PRIOR_COUNT = 0.2, 4
STEPS = 8


class LastStep(NamedTuple):
    """What a last step takes.

    Attributes:
        fixed_s: The part that nothing shortens.
        bytes_s: The throughput of the rest.
        deviation: How far single ones are off, of the logarithm.
    """

    fixed_s: float
    bytes_s: float
    deviation: float


def last_step_of(past: Sequence[PastMigration], bytes_s: float) -> LastStep:
    """Fits the last step of those migrations that had sent all their memory before.

    Args:
        past: Earlier migrations between these hosts.
        bytes_s: The throughput where nothing tells it.
    """
    known = [(one.rest_bytes, one.downtime_s) for one in past if one.rest_bytes is not None and one.downtime_s]
    rests, downtimes = (np.array([pair[column] for pair in known], dtype=float) for column in (0, 1))
    fixed_s, s_per_byte = FIXED_PRIOR_S, 1.0 / bytes_s
    weights = np.ones(len(known))
    for _ in range(STEPS if known else 0):
        scales = 1.0 / (NOISE_S + NOISE_SHARE * (fixed_s + s_per_byte * rests))
        roots = np.sqrt(weights) * scales
        rows = np.concatenate(
            (
                np.stack((roots * FIXED_PRIOR_S, roots * rests / bytes_s), axis=1),
                [[1.0 / FIXED_PRIOR_SHARE, 0.0], [0.0, 1.0 / RATE_PRIOR_SHARE]],
            )
        )
        values = np.concatenate((roots * downtimes, [1.0 / FIXED_PRIOR_SHARE, 1.0 / RATE_PRIOR_SHARE]))
        found = np.maximum(np.linalg.lstsq(rows, values, rcond=None)[0], 0.1)
        fixed_s, s_per_byte = float(found[0]) * FIXED_PRIOR_S, float(found[1]) / bytes_s
        errors = np.abs(downtimes - fixed_s - s_per_byte * rests) * scales
        weights = np.minimum(1.0, OUTLIER_AT / np.maximum(errors, 1e-9))
    return LastStep(fixed_s, 1.0 / s_per_byte, _deviation(downtimes, fixed_s + s_per_byte * rests))


def _deviation(downtimes: Array, expected: Array) -> float:
    """The median of the errors, and a few of the prior's among them."""
    if not len(downtimes):
        return DEVIATION_PRIOR
    errors = np.abs(np.log(np.maximum(downtimes, 1e-4) / expected))
    prior = np.full(DEVIATION_PRIOR_COUNT, DEVIATION_PRIOR / 1.4826)
    return 1.4826 * middle(np.concatenate((errors, prior)))
