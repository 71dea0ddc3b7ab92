"""``python -m bench forecast``: what was forecast, held against what came, over a grid of guests, links and limits."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from math import sqrt
from pathlib import Path

import click
import msgspec

import livemig
from bench.forecast_cases import Case, draw_case
from bench.options import count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Total, present
from bench.runner import run_benchmark
from livemig.cli.options import DURATION
from livemig.core.event import Event, Prepared
from livemig.core.prediction import Forecast, Interval
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.serial_lines import Status

SETTLED_S = 0.6
MISSED_RATE = 0.05
Z_95 = 1.96


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One migration of the grid: what was forecast, and what came.

    Attributes:
        number: The case's number in its grid.
        kind: What kind of guest.
        near_critical: Whether it is at the edge of what converges.
        missed_rate: Whether the guest wrote over 5 % more or less than it was asked to, while it moved or before.
        completed: Whether it moved within its deadline.
        outcome: The outcome, in the contract's word.
        total_s: From ``migrate`` to the guest running at the destination, or to the end.
        downtime_s: How long it stood still; None when it did not move.
        sent_bytes: What went over the wire.
        forecasts: What was said.
    """

    number: int
    kind: str
    near_critical: bool
    missed_rate: bool
    completed: bool
    outcome: str
    total_s: float | None
    downtime_s: float | None
    sent_bytes: int
    forecasts: tuple[Forecast, ...]


@click.command(short_help="How good are the forecasts?")
@count_option(300, "migrations of the grid")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the grid; odd ones were used in development.")
@click.option("--first", type=click.IntRange(min=0), default=0, help="The first number of the grid.")
@click.option("--sample", type=DURATION, default="15s", show_default=True, help="As for `livemig run`.")
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
    sample: float,
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
        {"count": count, "seed": seed, "first": first, "sample_s": sample},
        measure=partial(
            _measure, seed=seed, numbers=range(first, first + count), sample_s=sample, keep=keep, qemu=qemu
        ),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(
    samples: list[Run], *, seed: int, numbers: range, sample_s: float, keep: Path | None, qemu: str
) -> None:
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livemig-bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["XDG_STATE_HOME"] = str(folder.resolve() / "state")
        progress = stack.enter_context(Progress("migrations", len(numbers)))
        for number in numbers:
            path = folder / f"{number:04}.json"
            if not path.exists():
                run = await _run(draw_case(seed, number), sample_s, qemu, path.with_suffix(".trace"))
                path.write_bytes(msgspec.json.encode(run))
            samples.append(msgspec.json.decode(path.read_bytes(), type=Run))
            progress.step()


async def _run(case: Case, sample_s: float, qemu: str, trace_path: Path) -> Run:
    """Boots a guest of its own, moves it, and ends both QEMUs."""
    identity = uuid.UUID(int=case.number + (1 << 100))
    settings = MachineSettings(
        workload=case.workload, memory_bytes=case.memory_bytes, binary=qemu, extra_arguments=("-uuid", str(identity))
    )
    waiting = msgspec.structs.replace(settings, incoming="defer", paused=True)
    heartbeat = Heartbeat()
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder:
        source = Machine(settings, folder=Path(folder), name="source", heartbeat=heartbeat)
        destination = Machine(waiting, folder=Path(folder), name="destination", heartbeat=heartbeat)
        async with source, destination:
            await source.serial.wait_ready(timeout_s=60)
            await asyncio.sleep(SETTLED_S)
            rates = _Rates(source, case)
            async with livemig.migrate(
                case.plan(sample_s),
                source=str(source.qmp_path),
                destination=str(destination.qmp_path),
                trace_path=trace_path,
            ) as migration:
                async for event in migration:
                    rates.hear(event)
            if migration.report.outcome is livemig.Outcome.COMPLETED:
                await source.wait_ended(timeout_s=5)
    return _of(case, migration.report, missed_rate=rates.missed)


class _Rates:
    """Whether the guest writes as fast as it was asked to, from the account that it gives once a second."""

    def __init__(self, machine: Machine, case: Case) -> None:
        workload = case.workload
        duty = workload.burst_duty_percent / 100 if workload.burst_period_s else 1.0
        self._asked_bytes_s = workload.dirty_rate_bytes_s * duty
        self._long_s = max(2 * workload.burst_period_s, 1.0)
        self._serial = machine.serial
        self._marks = [machine.serial.status]
        self.missed = False

    def hear(self, event: Event) -> None:
        """Takes the account before and at the end of each part."""
        if isinstance(event, Prepared) or event.time_s > 0:
            status = self._serial.status
            if status is not None and (isinstance(event, Prepared) or status != self._marks[-1]):
                self._judge(self._marks[-1], status)
                if isinstance(event, Prepared):
                    self._marks.append(status)

    def _judge(self, before: Status | None, after: Status) -> None:
        if before is None or self._asked_bytes_s == 0 or after.time_s - before.time_s < self._long_s:
            return
        rate_bytes_s = (after.write_count - before.write_count) * 4096 / (after.time_s - before.time_s)
        self.missed = abs(rate_bytes_s / self._asked_bytes_s - 1) > MISSED_RATE


def _of(case: Case, report: livemig.Report, *, missed_rate: bool) -> Run:
    return Run(
        number=case.number,
        kind=case.kind,
        near_critical=case.near_critical,
        missed_rate=missed_rate,
        completed=report.outcome is livemig.Outcome.COMPLETED,
        outcome=str(report.outcome),
        total_s=report.total_s,
        downtime_s=None if report.downtime is None else report.downtime.total_s,
        sent_bytes=report.sent_bytes,
        forecasts=report.forecasts,
    )


def _conclude(samples: list[Run]) -> Conclusion:
    runs = [run for run in samples if not run.missed_rate]
    done = [run for run in runs if run.completed]
    figures = []
    for at in ("start", "round 1", "commit"):
        for name, label in (("total_s", "time"), ("downtime_s", "downtime"), ("sent_bytes", "bytes")):
            errors = [error for run in done if (error := _error_percent(run, at, name)) is not None]
            figures.append(Figure.of(f"{at.replace(' ', '_')}_{name}_error_percent", f"{label}, at {at}", errors))
    downtimes = [one for run in done if (one := _figure(run, "commit", "downtime_s")) is not None]
    misses_s = [abs(interval[1] - actual) for interval, actual in downtimes]
    figures.append(Figure.of("commit_downtime_error_s", "downtime, at commit, in time", misses_s))
    starts = [(run, found) for run in runs if (found := _at(run, "start")) is not None]
    wrong = [run for run, found in starts if (found.converges >= 0.5) != run.completed]
    far = [*_far(run for run, _ in starts)]
    brier = sum((found.converges - run.completed) ** 2 for run, found in starts) / max(len(starts), 1)
    return Conclusion(
        figures=present(*figures),
        totals=(
            Total("run_count", "runs", len(samples)),
            Total("missed_rate_count", "  whose guest missed its rate, left out", len(samples) - len(runs)),
            Total("near_critical_count", "  near-critical", sum(run.near_critical for run in runs)),
            Total("completed_count", "  that moved", len(done)),
            Total("wrong_count", "wrong about converging, before the start", len(wrong)),
        ),
        notes=(
            f"wrong about converging, near-critical apart: {_wilson(len([*_far(wrong)]), len(far))}",
            f"Brier score of converging, before the start: {brier:.4f}",
            *_coverages(done),
            f"kinds wrong: {', '.join(f'{run.kind} ({run.number})' for run in wrong) or 'none'}",
        ),
        samples=tuple(samples),
    )


def _far(runs: Iterable[Run]) -> Iterable[Run]:
    return (run for run in runs if not run.near_critical)


def _at(run: Run, at: str) -> Forecast | None:
    return next((one for one in run.forecasts if one.at == at), None)


def _figure(run: Run, at: str, name: str) -> tuple[Interval, float] | None:
    found = _at(run, at)
    interval = None if found is None else getattr(found, name)
    actual = getattr(run, name)
    return None if interval is None or not actual else (interval, float(actual))


def _error_percent(run: Run, at: str, name: str) -> float | None:
    found = _figure(run, at, name)
    return None if found is None else abs(found[0][1] / found[1] - 1) * 100


def _coverages(done: Sequence[Run]) -> Iterable[str]:
    for at in ("start", "round 1", "commit"):
        parts = []
        for name, label in (("total_s", "time"), ("downtime_s", "downtime"), ("sent_bytes", "bytes")):
            found = [one for run in done if (one := _figure(run, at, name)) is not None]
            held = sum(interval[0] <= actual <= interval[2] for interval, actual in found)
            parts.append(f"{label} {_wilson(held, len(found))}")
        yield f"90 % intervals at {at} hold: {'; '.join(parts)}"


def _wilson(hits: int, count: int) -> str:
    """A share with its 95 % interval (Wilson, 1927)."""
    if not count:
        return "0 of 0"
    share, square = hits / count, Z_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = Z_95 * sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return f"{hits} of {count}, {share:.1%} ({max(middle - half, 0):.1%} to {min(middle + half, 1):.1%})"
