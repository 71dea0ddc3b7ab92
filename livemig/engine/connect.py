"""Brings both sides to one monitor each; where no QEMU waits at the destination, one is launched from the source.

Compares nothing: `livemig.engine.preflight` does. Whatever fails here, nothing is left open or running.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from livemig.core.errors import ConnectError, LaunchError, RefusedError
from livemig.core.plan import Plan
from livemig.core.units import format_size
from livemig.engine.claim import Claim
from livemig.engine.host_pool import HostPool
from livemig.engine.launch import Launched, launch
from livemig.engine.launch_plan import LaunchOptions, LaunchPlan, folder_beside, plan_launch
from livemig.engine.other_host import Objections, objections
from livemig.engine.preflight import source_reasons
from livemig.engine.reach import refuse_clear_text
from livemig.engine.side import Side
from livemig.hosts.host import Host
from livemig.qemu.address import Address


class Connected:
    """Both sides, with their monitors open.

    Attributes:
        source: The source.
        destination: The destination.
        launched: The destination's QEMU, when it was launched for this; else None.
    """

    def __init__(self, source: Side, destination: Side, launched: Launched | None) -> None:
        self.source = source
        self.destination = destination
        self.launched = launched


async def connect_both(
    source: Address, destination: Address, options: LaunchOptions, hosts: HostPool, claim: Claim
) -> Connected:
    """Connects both sides at once and claims them; launches the destination when nobody listens at its address.

    Raises:
        JournalError: When the run can't be written down. Nothing was touched.
        ConnectError: When one can't be reached.
        RefusedError: When both addresses are one monitor, or the destination can't be launched.
        LaunchError: When it was launched and ended, or does not answer. Nothing is left of it.
        PlanError: When an option for the launch makes no sense.
    """
    refuse_clear_text(claim.plan, source, destination)
    here, there = await hosts.both(source, destination)
    await refuse_one_address(source, here, destination, there)
    connecting = [
        asyncio.create_task(Side.connect("source", source, here)),
        asyncio.create_task(destination_if_any(destination, there)),
    ]
    try:
        await asyncio.wait(connecting, return_when=asyncio.FIRST_EXCEPTION)
        for task in filter(asyncio.Task.done, connecting):
            task.result()  # what one fails with is told at once, however long the other takes
        source_side, destination_side = connecting[0].result(), connecting[1].result()
        assert source_side is not None  # noqa: S101  # only the destination may be missing
        if destination_side is not None:
            refuse_idle_options(destination, options)
        await claim.take(source_side, destination_side, destination)
        if destination_side is not None:
            return Connected(source_side, destination_side, None)
        return await _connect_launched(source_side, destination, there, options, claim)
    except BaseException:
        await asyncio.shield(_give_up(connecting, claim))
        raise


async def launch_plan(
    source: Side, destination: Address, host: Host, options: LaunchOptions, plan: Plan | None = None
) -> LaunchPlan:
    """Says how the destination would be launched; changes nothing.

    Args:
        source: The source.
        destination: Where the destination's monitor is to be.
        host: The machine that it is on.
        options: What the user says.
        plan: What is asked of the migration, to look whether the way for memory is there; None does not look.

    Raises:
        RefusedError: When it can't be, all reasons together.
        PlanError: When an option for the launch makes no sense.
    """
    if destination.path is None:
        raise RefusedError(
            (f"nobody listens at {destination}, and livemig launches a QEMU only where its monitor is a UNIX socket",)
        )
    between = Objections() if plan is None else await objections(plan, source, destination, host)
    reasons = (*await _why_no_memory(source, host), *between.reasons)
    try:
        planned = await plan_launch(source, host, destination, options)
    except RefusedError as error:
        raise RefusedError((*error.reasons, *reasons)) from error
    if reasons:
        raise RefusedError(reasons)
    return msgspec.structs.replace(planned, warnings=(*planned.warnings, *between.warnings))


async def _why_no_memory(source: Side, host: Host) -> tuple[str, ...]:
    needed_bytes, available_bytes = source.facts.memory_bytes, await host.available_memory_bytes()
    if needed_bytes <= available_bytes:
        return ()
    where = "here" if host.is_local else f"at {host.name}"
    sizes = f"{format_size(needed_bytes)} of memory, and {format_size(available_bytes)} can be had {where}"
    remedy = "free some, or raise this cgroup's limit, before a second QEMU is launched"
    return (f"the guest has {sizes}: {remedy}",)


async def refuse_one_address(source: Address, source_host: Host, destination: Address, destination_host: Host) -> None:
    """Refuses two addresses that are one.

    Raises:
        RefusedError: When they are.
    """
    if source.path is not None and destination.path is not None:
        if not source_host.identity.shares_files(destination_host.identity):
            return
        same = await source_host.real_path(source.path) == await destination_host.real_path(destination.path)
    else:
        same = source == destination
    if same:
        raise RefusedError((f"{source} is given as source and destination: give another, waiting QEMU as destination",))


async def destination_if_any(address: Address, host: Host) -> Side | None:
    """Connects the destination; returns None when nobody listens at its address.

    Raises:
        ConnectError: When somebody does, but it can't be reached, is busy, or is no QMP monitor.
        RefusedError: When another livemig is about to launch one there: a look at its monitor would keep that one out.
    """
    if address.path is not None:
        claim = await host.launch_claim(Path(folder_beside(address.path)))
        if claim is not None and claim.is_held:
            raise RefusedError((f"another livemig is about to launch a QEMU at {address}: choose another --dst-qmp",))
    try:
        return await Side.connect("destination", address, host)
    except ConnectError as error:
        if error.nobody_listens:
            return None
        raise


def refuse_idle_options(destination: Address, options: LaunchOptions) -> None:
    """Refuses options for a launch where a QEMU waits.

    Raises:
        RefusedError: When there are any.
    """
    if options != LaunchOptions():
        only = "--map, --dst-set, --dst-args and --dst-command are for one that livemig launches"
        raise RefusedError((f"a QEMU waits at {destination} already, and {only}: leave them out, or end that QEMU",))


async def _connect_launched(
    source: Side, address: Address, host: Host, options: LaunchOptions, claim: Claim
) -> Connected:
    reasons = await source_reasons(source, claim.plan)
    try:
        planned = await launch_plan(source, address, host, options, claim.plan)
    except RefusedError as error:
        raise RefusedError((*reasons, *error.reasons)) from error
    if reasons:
        raise RefusedError(reasons)
    await claim.launching(planned)
    launched = await launch(planned, run_id=claim.run_id, on_started=claim.launched, left=claim.left)
    try:
        side = await Side.connect("destination", launched.address, host)
        if side.process is not None and side.process.pid != launched.process.pid:
            await side.close()
            reason = "another QEMU answers there than the one that was just launched"
            raise LaunchError(f"{address}: {reason}", command=launched.plan.command, exit_code=None, stderr="")
        await claim.lock_launched(side)
        await launched.release_folder()
        return Connected(source, side, launched)
    except BaseException:
        claim.left += await asyncio.shield(launched.end_or_say())
        raise


async def _give_up(connecting: list[asyncio.Task[Side]] | list[asyncio.Task[Side | None]], claim: Claim) -> None:
    await claim.release()
    for task in connecting:
        task.cancel()
    for side in await asyncio.gather(*connecting, return_exceptions=True):
        if isinstance(side, Side):
            await side.close()
