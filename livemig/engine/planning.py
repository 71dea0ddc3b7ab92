"""Looks at a migration without doing it: the preflight of both sides, or of the source and the launch; the forecast.

Changes nothing on either side; `calc-dirty-rate` alone runs in the source's QEMU, for as long as the plan says.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from livemig.core.errors import CommandLineError, PlanError, RefusedError
from livemig.core.plan import Plan
from livemig.core.plan_report import PlannedSide, PlanReport
from livemig.engine.connect import destination_if_any, launch_plan, refuse_idle_options, refuse_one_address
from livemig.engine.foresight import Foresight
from livemig.engine.host_pool import HostPool
from livemig.engine.launch_plan import LaunchOptions, LaunchPlan
from livemig.engine.migration import new_id
from livemig.engine.preflight import Preflight, examine, examine_source
from livemig.engine.reach import refuse_clear_text
from livemig.engine.side import Side
from livemig.hosts.host import Host
from livemig.qemu.address import Address

NOT_COMPARED = "no QEMU waits at the destination yet: the two can be compared only once it is there"


async def plan_migration(
    plan: Plan,
    *,
    source: str,
    destination: str | None = None,
    launch: LaunchOptions | None = None,
    tell: Callable[[float, float], None] | None = None,
) -> PlanReport:
    """Says whether a guest can be moved as planned, and what speaks against it; changes nothing on either side.

    Args:
        plan: What is asked.
        source: The QMP monitor of the QEMU whose guest is to move.
        destination: The QMP monitor of the QEMU that waits, or where that of a launched one would be; None looks at
            the source alone.
        launch: What to change in the command line of a launched one.
        tell: Is told, while the guest is sampled, the seconds that have passed and those that are meant.

    Raises:
        AddressError: When an address can't be read.
        ConnectError: When the source can't be reached, or what answers at the destination is no QMP monitor.
        LivemigError: When a side does not answer as a QEMU does.
    """
    source_address = Address.parse(source)
    destination_address = None if destination is None else Address.parse(destination)
    async with contextlib.AsyncExitStack() as stack:
        hosts = await stack.enter_async_context(HostPool())
        refuse_clear_text(plan, source_address, *([destination_address] if destination_address else []))
        source_host, host = await hosts.both(source_address, destination_address or source_address)
        if destination_address is not None:
            await refuse_one_address(source_address, source_host, destination_address, host)
        here = await Side.connect("source", source_address, source_host)
        stack.push_async_callback(here.close)
        there = None if destination_address is None else await destination_if_any(destination_address, host)
        if there is not None:
            stack.push_async_callback(there.close)
            refuse_idle_options(there.address, launch or LaunchOptions())
        foresight = Foresight(plan, here, there, int(new_id(), 16))
        await foresight.remember()
        fixed = foresight.fixed_part(plan)
        if there is None:
            found = await examine_source(here, plan, fixed)
            report = await _of_source(plan, here, destination_address, host, launch or LaunchOptions(), found=found)
        else:
            report = _report(plan, here, await examine(here, there, plan, fixed), destination=there)
        return await _with_forecast(report, foresight, tell) if report.movable else report


async def _with_forecast(
    report: PlanReport, foresight: Foresight, tell: Callable[[float, float], None] | None
) -> PlanReport:
    """Samples the guest and adds what is to be expected."""
    plan, memory_bytes = report.plan, report.source.memory_bytes
    await foresight.sample(tell)
    known = foresight.known

    def compute() -> PlanReport:
        from livemig.core.what_if import forecast_start, least_bandwidth_bytes_s, what_if

        return msgspec.structs.replace(
            report,
            forecast=forecast_start(plan, memory_bytes, known),
            what_if=what_if(plan, memory_bytes, known),
            least_bandwidth_bytes_s=least_bandwidth_bytes_s(plan, memory_bytes, known),
            sampled_s=foresight.sampled_s,
            warnings=(*report.warnings, *foresight.notes),
        )

    return await asyncio.to_thread(compute)


async def _of_source(
    plan: Plan, source: Side, destination: Address | None, host: Host, options: LaunchOptions, *, found: Preflight
) -> PlanReport:
    """What was found at the source, and what a launch would do, where one is wanted."""
    if destination is None:
        return _report(plan, source, found)
    try:
        launch = await launch_plan(source, destination, host, options, plan)
    except RefusedError as error:
        return _report(plan, source, found, refusals=error.reasons)
    except (CommandLineError, PlanError) as error:
        return _report(plan, source, found, refusals=(str(error),))
    return _report(plan, source, found, warnings=(*launch.warnings, NOT_COMPARED), launch=launch)


def _report(
    plan: Plan,
    source: Side,
    found: Preflight,
    *,
    destination: Side | None = None,
    launch: LaunchPlan | None = None,
    refusals: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
) -> PlanReport:
    refusals = (*found.refusals, *refusals)
    return PlanReport(
        id=new_id(),
        movable=not refusals,
        plan=plan,
        source=_planned_side(source),
        destination=None if destination is None else _planned_side(destination),
        destination_command=None if launch is None else launch.command,
        changes=() if launch is None else launch.changes,
        refusals=refusals,
        warnings=(*found.warnings, *warnings),
        findings=found.findings,
    )


def _planned_side(side: Side) -> PlannedSide:
    facts = side.facts
    return PlannedSide(
        address=str(side.address),
        version=facts.version,
        guest_name=facts.guest_name,
        run_state=str(facts.run_state),
        memory_bytes=facts.memory_bytes,
        vcpu_count=facts.vcpu_count,
    )
