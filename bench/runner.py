"""Runs a benchmark from its options to its exit code: measure, conclude, show. Minds Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from bench.environment import Environment
from bench.presentation import deliver
from bench.result import Conclusion, Result
from livemig.core.errors import LivemigError

MISSED = 1
COULD_NOT = 2
INTERRUPTED = 130


class CouldNotMeasure(click.ClickException):
    """Nothing was measured; the message says why."""

    exit_code = COULD_NOT


SampleT = TypeVar("SampleT")


def run_benchmark(
    name: str,
    settings: dict[str, str | float | None],
    *,
    measure: Callable[[list[SampleT]], Coroutine[Any, Any, None]],
    conclude: Callable[[list[SampleT]], Conclusion],
    qemu: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Runs a benchmark, shows its result and exits with its code.

    Args:
        name: The benchmark's name.
        settings: What it was asked, for the result.
        measure: Appends its samples one by one, so that what was measured survives Ctrl-C or a failure.
        conclude: Makes figures of the samples, of which there is at least one.
        qemu: The QEMU to measure with.
        as_json: Print JSON instead of a table.
        output: A file to write the JSON to, or None.

    Raises:
        CouldNotMeasure: When nothing was.
        click.exceptions.Exit: Else, with the benchmark's exit code.
    """
    environment = Environment.read(qemu)
    samples: list[SampleT] = []
    code, ended_early = 0, None
    try:
        asyncio.run(measure(samples))
    except KeyboardInterrupt:
        code, ended_early = INTERRUPTED, "interrupted"
    except LivemigError as error:
        code, ended_early = COULD_NOT, " ".join(str(error).split())
    if not samples:
        _nothing_measured(code, ended_early)
    result = Result(
        benchmark=name,
        settings=settings,
        environment=environment,
        conclusion=conclude(samples),
        ended_early=ended_early,
    )
    deliver(result, as_json=as_json, output=output)
    raise click.exceptions.Exit(code or (0 if result.good else MISSED))


def _nothing_measured(code: int, reason: str | None) -> None:
    if code == INTERRUPTED:
        click.echo("interrupted before anything was measured", err=True)
        raise click.exceptions.Exit(INTERRUPTED)
    raise CouldNotMeasure(reason or "nothing was measured")
