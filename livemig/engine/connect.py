"""Brings both sides to one monitor each; where no QEMU waits at the destination, one is launched from the source.

Compares nothing: `livemig.engine.preflight` does. Whatever fails here, nothing is left open or running.
"""

from __future__ import annotations

import asyncio
import os

from livemig.core.errors import ConnectError, RefusedError
from livemig.core.units import format_size
from livemig.engine.launch import Launched, launch
from livemig.engine.launch_plan import LaunchOptions, LaunchPlan, plan_launch
from livemig.engine.side import Side
from livemig.hosts.process import available_memory_bytes
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


async def connect_both(source: Address, destination: Address, options: LaunchOptions) -> Connected:
    """Connects both sides at once; launches the destination when nobody listens at its address.

    Raises:
        ConnectError: When one can't be reached.
        RefusedError: When both addresses are one monitor, or the destination can't be launched.
        LaunchError: When it was launched and ended, or does not answer. Nothing is left of it.
        PlanError: When an option for the launch makes no sense.
    """
    refuse_one_address(source, destination)
    connecting = [
        asyncio.create_task(Side.connect("source", source)),
        asyncio.create_task(destination_if_any(destination)),
    ]
    try:
        await asyncio.wait(connecting, return_when=asyncio.FIRST_EXCEPTION)
        for task in filter(asyncio.Task.done, connecting):
            task.result()  # what one fails with is told at once, however long the other takes
        source_side, destination_side = connecting[0].result(), connecting[1].result()
        assert source_side is not None  # noqa: S101  # only the destination may be missing
        if destination_side is not None:
            refuse_idle_options(destination, options)
            return Connected(source_side, destination_side, None)
        return await _connect_launched(source_side, destination, options)
    except BaseException:
        await _give_up(connecting)
        raise


async def launch_plan(source: Side, destination: Address, options: LaunchOptions) -> LaunchPlan:
    """Says how the destination would be launched; changes nothing.

    Raises:
        RefusedError: When it can't be, all reasons together.
        PlanError: When an option for the launch makes no sense.
    """
    if destination.path is None:
        raise RefusedError(
            (f"nobody listens at {destination}, and livemig launches a QEMU only where its monitor is a UNIX socket",)
        )
    plan = await plan_launch(source, destination.path, options)
    needed_bytes, available_bytes = source.facts.memory_bytes, available_memory_bytes()
    if needed_bytes > available_bytes:
        sizes = f"{format_size(needed_bytes)} of memory, and {format_size(available_bytes)} can be had here"
        remedy = "free some, or raise this cgroup's limit, before a second QEMU is launched"
        raise RefusedError((f"the guest has {sizes}: {remedy}",))
    return plan


def refuse_one_address(source: Address, destination: Address) -> None:
    """Refuses two addresses that are one.

    Raises:
        RefusedError: When they are.
    """
    if _resolved(source) == _resolved(destination):
        raise RefusedError((f"{source} is given as source and destination: give another, waiting QEMU as destination",))


async def destination_if_any(address: Address) -> Side | None:
    """Connects the destination; returns None when nobody listens at its address.

    Raises:
        ConnectError: When somebody does, but it can't be reached, is busy, or is no QMP monitor.
    """
    try:
        return await Side.connect("destination", address)
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


async def _connect_launched(source: Side, address: Address, options: LaunchOptions) -> Connected:
    launched = await launch(await launch_plan(source, address, options))
    try:
        return Connected(source, await Side.connect("destination", launched.address), launched)
    except BaseException:
        await asyncio.shield(launched.end())
        raise


async def _give_up(connecting: list[asyncio.Task[Side]] | list[asyncio.Task[Side | None]]) -> None:
    for task in connecting:
        task.cancel()
    for side in await asyncio.gather(*connecting, return_exceptions=True):
        if isinstance(side, Side):
            await side.close()


def _resolved(address: Address) -> Address:
    """The address with its links followed, so that two ways to write one socket are seen to be one."""
    return address if address.path is None else Address(path=os.path.realpath(address.path))
