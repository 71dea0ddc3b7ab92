"""Non-negative least squares by active sets (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23).

Works on the normal equations, so that many right-hand sides share one matrix. Knows nothing of what is fitted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RIDGE = 1e-9
"""Times the mean of the diagonal, added to it: columns that the rows can't tell apart leave it singular else."""
TOLERANCE = 1e-9
"""Relative: a gradient below it is no reason to let another column in."""


def non_negative_weights(rows: Array, values: Array) -> Array:
    """Returns w >= 0 that makes ``|rows @ w - value|`` least, for each row of `values`.

    Args:
        rows: The matrix, shape (J, K), all finite.
        values: The right-hand sides, shape (M, J), all finite.

    Returns:
        The weights, shape (M, K).
    """
    norms = np.linalg.norm(rows, axis=0)
    norms[norms == 0.0] = 1.0
    rows = rows / norms  # so that the ridge and the tolerance mean the same to each column
    gram = rows.T @ rows
    gram[np.diag_indices_from(gram)] += RIDGE * max(float(np.trace(gram)) / len(gram), np.finfo(float).tiny)
    weights = np.zeros((len(values), rows.shape[1]))
    free = np.zeros(rows.shape[1], dtype=bool)
    for number, target in enumerate(values @ rows):
        weights[number], free = _solve(gram, target, free)  # the next one differs little: begin where this one ended
    return np.asarray(weights / norms, dtype=float)


def _solve(gram: Array, target: Array, start: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Solves one problem; `start` are the columns that are tried as free first."""
    weights, free = _shrink(gram, target, np.zeros(len(target)), start.copy())
    tolerance = TOLERANCE * float(np.abs(target).max(initial=0.0))
    for _ in range(3 * len(target)):
        gradient = np.where(free, -np.inf, target - gram @ weights)
        entering = int(gradient.argmax())
        if gradient[entering] <= tolerance:
            break
        free[entering] = True
        weights, free = _shrink(gram, target, weights, free)
        if not free[entering]:
            break  # rounding alone lets it in and out again
    return weights, free


def _shrink(gram: Array, target: Array, weights: Array, free: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Goes from `weights` towards the free columns' least squares; those that would turn negative are fixed at 0."""
    while free.any():
        wanted = np.zeros(len(weights))
        (chosen,) = free.nonzero()
        wanted[chosen] = np.linalg.solve(gram[chosen[:, None], chosen], target[chosen])
        negative = free & (wanted <= 0.0)
        if not negative.any():
            return wanted, free
        here, there = weights[negative], wanted[negative]
        step = float(np.min(here / np.maximum(here - there, np.finfo(float).tiny)))
        weights = np.where(free, weights + min(max(step, 0.0), 1.0) * (wanted - weights), 0.0)
        free = free & ~(negative & (weights <= 1e-12 * max(float(weights.max(initial=0.0)), 1e-300)))
        weights = np.where(free, weights, 0.0)
    return np.zeros_like(weights), free
