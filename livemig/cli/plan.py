"""``livemig plan``: prints what speaks against a migration and what would be done; returns the exit code."""

from __future__ import annotations

import asyncio
import sys

from livemig.cli import forecast_words as words
from livemig.cli.exit_code import exit_code
from livemig.cli.json_lines import refused_line
from livemig.cli.run import naming_option
from livemig.cli.screens import complain
from livemig.core.errors import AddressError, ConnectError, LivemigError
from livemig.core.json_text import encoded
from livemig.core.outcome import Outcome
from livemig.core.plan import Plan
from livemig.core.plan_report import PlannedSide, PlanReport, WhatIf
from livemig.core.units import format_duration, format_rate, format_size
from livemig.engine.launch_plan import LaunchOptions
from livemig.engine.planning import plan_migration


def show_plan(*, source: str, destination: str | None, plan: Plan, launch: LaunchOptions, as_json: bool) -> int:
    """Looks, prints, and returns 0 when the guest can be moved, 2 when it can't."""
    try:
        report = asyncio.run(
            plan_migration(plan, source=source, destination=destination, launch=launch, tell=None if as_json else _tell)
        )
    except LivemigError as error:
        if isinstance(error, AddressError | ConnectError):
            error = naming_option(error, source, destination or "")
        return _refuse(error, as_json=as_json)
    if as_json:
        print(encoded(report).decode(), flush=True)
    else:
        print("\n".join(plan_lines(report)), flush=True)
    return 0 if report.movable else exit_code(Outcome.REFUSED, interrupted=False)


def _refuse(error: LivemigError, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(refused_line(str(error)) + "\n")
    complain(str(error))
    return exit_code(Outcome.REFUSED, interrupted=False)


def plan_lines(report: PlanReport) -> list[str]:
    """Returns the report as lines: the verdict first."""
    count = len(report.refusals)
    reasons = "1 reason" if count == 1 else f"{count} reasons"
    verdict = "the guest can be moved" if report.movable else f"the guest can't be moved, for {reasons}"
    lines = [f"plan {report.id}: {verdict}{_expectation(report)}"]
    lines += _figures(report)
    lines += [f"refused: {text}" for text in report.refusals]
    lines += [f"warning: {text}" for text in report.warnings]
    lines.append(f"source       {_side(report.source)}")
    if report.destination is not None:
        lines.append(f"destination  {_side(report.destination)}")
    if report.destination_command is not None:
        lines.append("destination  none waits: one would be launched by the source's command line, but for")
        lines += [f"  {change}" for change in report.changes]
    return [*lines, *_what_if(report)]


def _tell(passed_s: float, wanted_s: float) -> None:
    if sys.stderr.isatty():
        print(f"\rsampling the guest: {passed_s:.0f} of {wanted_s:.0f} s ", end="", file=sys.stderr, flush=True)


def _expectation(report: PlanReport) -> str:
    """Whether it converges, and if not, what would do."""
    forecast = report.forecast
    if forecast is None:
        return ""
    told = f", and {words.verdict(forecast)}"
    if forecast.converges >= words.SURE or report.least_bandwidth_bytes_s is None:
        return told if report.least_bandwidth_bytes_s is not None else f"{told} at any bandwidth under this limit"
    limit = format_duration(report.plan.downtime_limit_s)
    return f"{told}: a limit of {limit} takes {format_rate(report.least_bandwidth_bytes_s)}"


def _figures(report: PlanReport) -> list[str]:
    forecast = report.forecast
    if forecast is None:
        return []
    lines = [f"{name:<12} {text}" for name, text in words.figures(forecast)]
    lines.append(f"{'rests on':<12} {forecast.basis}")
    if forecast.first_crossing:
        lines.append(f"{'beware':<12} {words.FIRST_CROSSING}")
    if report.least_bandwidth_bytes_s is not None:
        lines.append(f"{'least':<12} {format_rate(report.least_bandwidth_bytes_s)} converges within the limit")
    return lines


def _what_if(report: PlanReport) -> list[str]:
    """The table: a row for each limit, a column for each bandwidth."""
    limits = list(dict.fromkeys(one.downtime_limit_s for one in report.what_if))
    if not limits:
        return []
    rows = [
        ("limit", *(format_rate(one.bandwidth_bytes_s) for one in report.what_if if one.downtime_limit_s == limits[0]))
    ]
    for limit_s in limits:
        cells = (_cell(one) for one in report.what_if if one.downtime_limit_s == limit_s)
        rows.append((format_duration(limit_s), *cells))
    return ["time by downtime limit and bandwidth:", *(f"  {line}" for line in words.aligned(rows))]


def _cell(one: WhatIf) -> str:
    if one.total_s is None or one.converges < 0.05:
        return "never"
    time = format_duration(one.total_s[1])
    return time if one.converges >= 0.95 else f"{time} ({one.converges:.0%})"


def _side(side: PlannedSide) -> str:
    name = f"{side.guest_name}, " if side.guest_name else ""
    vcpus = "1 vCPU" if side.vcpu_count == 1 else f"{side.vcpu_count} vCPUs"
    return f"{name}{side.run_state}, {format_size(side.memory_bytes)}, {vcpus}, QEMU {side.version} at {side.address}"
