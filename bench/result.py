"""What a benchmark found: figures, totals, targets, and the samples they come from. Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from bench.environment import Environment
from bench.summary import Summary

Statistic = Literal["median", "p95", "p99", "maximum"]


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured quantity.

    Attributes:
        name: Its name in JSON, which ends with its unit.
        label: Its name in words.
        summary: Its spread.
    """

    name: str
    label: str
    summary: Summary

    @classmethod
    def of(cls, name: str, label: str, values: Iterable[float | None]) -> Figure | None:
        """Summarises what was measured, or returns None when nothing was."""
        known = [value for value in values if value is not None]
        return cls(name=name, label=label, summary=Summary.of(known)) if known else None


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure is to reach.

    Attributes:
        figure: The figure's name.
        statistic: Which of its numbers counts.
        limit: What it may be at most, in the figure's unit.
        actual: What it is.
        reached: Whether it is within the limit.
    """

    figure: str
    statistic: Statistic
    limit: float
    actual: float
    reached: bool

    @classmethod
    def of(cls, figure: Figure | None, statistic: Statistic, limit: float) -> tuple[Target, ...]:
        """Compares a figure with its limit; nothing for one that was not measured."""
        if figure is None:
            return ()
        actual = float(getattr(figure.summary, statistic))
        return (cls(figure=figure.name, statistic=statistic, limit=limit, actual=actual, reached=actual <= limit),)


class Total(msgspec.Struct, frozen=True):
    """One number over the whole benchmark.

    Attributes:
        name: Its name in JSON, which ends with its unit.
        label: Its name in words.
        value: The number.
    """

    name: str
    label: str
    value: float


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark makes of its samples.

    Attributes:
        figures: What was measured, in the order it is shown.
        totals: What was counted over the whole benchmark.
        targets: What is to be reached.
        notes: What a reader must know to read the figures rightly.
        sound: Whether nothing went wrong that makes the benchmark fail, such as lost memory.
        samples: Each single measurement.
    """

    figures: tuple[Figure, ...] = ()
    totals: tuple[Total, ...] = ()
    targets: tuple[Target, ...] = ()
    notes: tuple[str, ...] = ()
    sound: bool = True
    samples: tuple[Any, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A benchmark's result as ``--json`` prints it.

    Attributes:
        benchmark: Its name.
        settings: What it was asked to do.
        environment: Where it ran.
        conclusion: What it found.
        ended_early: Why it did not do all of what it was asked, or None.
    """

    benchmark: str
    settings: dict[str, str | float | None]
    environment: Environment
    conclusion: Conclusion
    ended_early: str | None = None

    @property
    def good(self) -> bool:
        """Whether all was measured, every target reached and nothing lost."""
        return (
            self.ended_early is None
            and self.conclusion.sound
            and all(target.reached for target in self.conclusion.targets)
        )


def present(*figures: Figure | None) -> tuple[Figure, ...]:
    """Returns the figures of which anything was measured."""
    return tuple(figure for figure in figures if figure is not None)
