"""``livemig plan``: prints what speaks against a migration and what would be done; returns the exit code."""

from __future__ import annotations

import asyncio
import sys

import msgspec

from livemig.cli.exit_code import exit_code
from livemig.cli.json_lines import refused_line
from livemig.cli.run import naming_option
from livemig.cli.screens import complain
from livemig.core.errors import AddressError, ConnectError, LivemigError
from livemig.core.outcome import Outcome
from livemig.core.plan import Plan
from livemig.core.plan_report import PlannedSide, PlanReport
from livemig.core.units import format_size
from livemig.engine.launch_plan import LaunchOptions
from livemig.engine.planning import plan_migration


def show_plan(*, source: str, destination: str | None, plan: Plan, launch: LaunchOptions, as_json: bool) -> int:
    """Looks, prints, and returns 0 when the guest can be moved, 2 when it can't."""
    try:
        report = asyncio.run(plan_migration(plan, source=source, destination=destination, launch=launch))
    except LivemigError as error:
        if isinstance(error, AddressError | ConnectError):
            error = naming_option(error, source, destination or "")
        return _refuse(error, as_json=as_json)
    if as_json:
        print(msgspec.json.encode(report).decode(), flush=True)
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
    lines = [f"plan {report.id}: {verdict}"]
    lines += [f"refused: {text}" for text in report.refusals]
    lines += [f"warning: {text}" for text in report.warnings]
    lines.append(f"source       {_side(report.source)}")
    if report.destination is not None:
        lines.append(f"destination  {_side(report.destination)}")
    if report.destination_command is not None:
        lines.append("destination  none waits: one would be launched by the source's command line, but for")
        lines += [f"  {change}" for change in report.changes]
    return lines


def _side(side: PlannedSide) -> str:
    name = f"{side.guest_name}, " if side.guest_name else ""
    vcpus = "1 vCPU" if side.vcpu_count == 1 else f"{side.vcpu_count} vCPUs"
    return f"{name}{side.run_state}, {format_size(side.memory_bytes)}, {vcpus}, QEMU {side.version} at {side.address}"
