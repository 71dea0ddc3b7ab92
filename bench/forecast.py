"""``python -m bench forecast``: what was forecast, held against what came, over a grid of guests, links and limits."""

from __future__ import annotations

import contextlib
import os
import tempfile
from functools import partial
from pathlib import Path

import click
import msgspec

from bench.forecast_cases import draw_case
from bench.forecast_figures import conclude
from bench.forecast_runs import Run, groups, run_group, run_path
from bench.options import count_option, shared_options
from bench.progress import Progress
from bench.runner import run_benchmark
from livemig.cli.options import DURATION


@click.command(short_help="How good are the forecasts?")
@count_option(300, "migrations of the grid")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the grid; odd ones were used in development.")
@click.option("--first", type=click.IntRange(min=0), default=0, help="The first number of the grid.")
@click.option(
    "--again",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Move each case so often, to see how far it is from itself.",
)
@click.option("--sample", type=DURATION, default="15s", show_default=True, help="As for `livemig run`.")
@click.option(
    "--at-once", type=click.IntRange(min=1), default=6, show_default=True, help="So many guests are sampled together."
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep each run there, with its trace, and what livemig learned; what is there already is not run again.",
)
@shared_options
def forecast(
    *,
    count: int,
    seed: int,
    first: int,
    again: int,
    sample: float,
    at_once: int,
    keep: Path | None,
    qemu: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Move guests of many kinds over links of many rates under many limits, and compare forecast with fact.

    At least a quarter of the guests are at the edge of what converges. A run whose guest missed its rate is marked, by
    that rule and not by hand, and left out of the figures but for their count.
    """
    run_benchmark(
        "forecast",
        {"count": count, "seed": seed, "first": first, "again": again, "sample_s": sample, "at_once": at_once},
        measure=partial(
            _measure,
            seed=seed,
            numbers=range(first * again, first * again + count),
            again=again,
            sample_s=sample,
            at_once=at_once,
            keep=keep,
            qemu=qemu,
        ),
        conclude=conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(
    samples: list[Run],
    *,
    seed: int,
    numbers: range,
    again: int,
    sample_s: float,
    at_once: int,
    keep: Path | None,
    qemu: str,
) -> None:
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livemig-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["XDG_STATE_HOME"] = str(folder.resolve() / "state")
        progress = stack.enter_context(Progress("migrations", len(numbers)))
        missing = [number for number in numbers if not run_path(folder, number).exists()]
        progress.step(len(numbers) - len(missing))
        try:
            for group in groups(missing, at_once):
                cases = [(number, draw_case(seed, number // again)) for number in group]
                await run_group(cases, sample_s, qemu, folder)
                progress.step(len(group))
        finally:
            kept = [path for number in numbers if (path := run_path(folder, number)).exists()]
            samples += [msgspec.json.decode(path.read_bytes(), type=Run) for path in kept]
