"""What a list of measured values comes to: its spread in a few numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from statistics import median

import msgspec


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The spread of measured values, in the values' own unit.

    A percentile is the smallest value that at least so many percent of all do not exceed: one that occurred.

    Attributes:
        count: How many there are.
        minimum: The least.
        median: The middle.
        p95: What 95 % do not exceed.
        p99: What 99 % do not exceed; with fewer than 100 values, the greatest.
        maximum: The greatest.
    """

    count: int
    minimum: float
    median: float
    p95: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """Summarises values, of which there must be at least one."""
        ordered = sorted(values)
        return cls(
            count=len(ordered),
            minimum=ordered[0],
            median=median(ordered),
            p95=percentile(ordered, 95),
            p99=percentile(ordered, 99),
            maximum=ordered[-1],
        )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Returns the smallest of ascending values that at least `percent` of all do not exceed."""
    rank = ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]
