"""Shows a result: a table for people, one JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from bench.result import Figure, Result, Target
from livemig.core.units import format_rate, format_size

_WIDTH_LEAST_CHARACTERS = 100


def deliver(result: Result, *, as_json: bool, output: Path | None) -> None:
    """Prints a result and, when asked to, writes it to a file as JSON.

    Raises:
        click.ClickException: When the file can't be written; the result was printed before.
    """
    encoded = msgspec.json.encode(result)
    if as_json:
        click.echo(encoded.decode())
    else:
        _print_tables(result)
    if output is None:
        return
    try:
        output.write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")
    except OSError as error:
        raise click.ClickException(f"{output} can't be written: {error.strerror}; the result is above") from error


def in_unit(name: str, value: float) -> str:
    """Writes a value with the unit that its name ends with."""
    if name.endswith("_bytes_s"):
        return format_rate(value)
    if name.endswith("_s"):
        digits = 2 if abs(value) >= 1e-4 else 3
        return f"{value * 1e3:.{digits}f} ms" if abs(value) < 10 else f"{value:.2f} s"
    if name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_percent"):
        return f"{value:.2f} %"
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


def _print_tables(result: Result) -> None:
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, _WIDTH_LEAST_CHARACTERS)
    conclusion = result.conclusion
    asked = ", ".join(f"{_words(name)} {_setting(name, value)}" for name, value in result.settings.items())
    console.print(f"{result.benchmark}: {asked}", soft_wrap=True)
    for line in _environment_lines(result):
        console.print(line, style="dim", soft_wrap=True)
    if conclusion.figures:
        console.print(_figure_table(conclusion.figures))
    for total in conclusion.totals:
        console.print(f"{total.label}: {in_unit(total.name, total.value)}", soft_wrap=True)
    for target in conclusion.targets:
        console.print(_target_line(target, conclusion.figures), style="green" if target.reached else "bold red")
    for note in conclusion.notes:
        console.print(f"note: {note}", soft_wrap=True)
    if result.ended_early is not None:
        console.print(f"ended early: {result.ended_early}", style="bold red", soft_wrap=True)


def _environment_lines(result: Result) -> list[str]:
    seen = result.environment
    return [
        f"livemig {seen.livemig_version} ({seen.livemig_commit}), {seen.python_version}, {seen.qemu_version}",
        f"{seen.kernel}, {seen.cpu}, {seen.core_count} cores, KVM {seen.kvm}, load {seen.load_average:.2f}",
        seen.measured_at,
    ]


def _figure_table(figures: Sequence[Figure]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for heading in ("n", "min", "median", "p95", "p99", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for figure in figures:
        seen = figure.summary
        values = (seen.minimum, seen.median, seen.p95, seen.p99, seen.maximum)
        table.add_row(figure.label, str(seen.count), *(in_unit(figure.name, value) for value in values))
    return table


def _target_line(target: Target, figures: Sequence[Figure]) -> str:
    label = next((figure.label for figure in figures if figure.name == target.figure), target.figure)
    verdict = "reached" if target.reached else "MISSED"
    actual, limit = in_unit(target.figure, target.actual), in_unit(target.figure, target.limit)
    return f"target {verdict}: {target.statistic} of {label}: {actual}, at most {limit}"


def _setting(name: str, value: str | float | None) -> str:
    return in_unit(name, value) if isinstance(value, int | float) else str(value)


def _words(name: str) -> str:
    """A name without its unit."""
    for unit in ("_bytes_s", "_s", "_bytes", "_percent", "_count"):
        if name.endswith(unit):
            return name.removesuffix(unit).replace("_", " ")
    return name.replace("_", " ")
