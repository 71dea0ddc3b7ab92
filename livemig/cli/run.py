"""``livemig run``: drives the library's `migrate`, shows its events, returns the exit code."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import click

from livemig.cli.screens import screen_for
from livemig.cli.show import EngineFault, Show
from livemig.cli.supervise import FAULT
from livemig.core.errors import AddressError, ConnectError, LivemigError
from livemig.core.plan import Plan
from livemig.engine.connect import launch_plan
from livemig.engine.host_pool import HostPool
from livemig.engine.launch_plan import LaunchOptions
from livemig.engine.migration import Migration
from livemig.engine.side import Side
from livemig.qemu.address import Address


def run_migration(
    *,
    run_id: str,
    lifeline: int,
    source: str,
    destination: str,
    plan: Plan,
    launch: LaunchOptions,
    trace_path: Path | None,
    as_json: bool,
) -> int:
    """Migrates and returns the exit code.

    Args:
        run_id: The run's id.
        lifeline: A pipe that ends when the command line that started this process does: then it cancels.
        source: The source's address.
        destination: The destination's address.
        plan: What is asked.
        launch: What to change in a launched destination.
        trace_path: Where the trace goes, or None.
        as_json: Whether to print JSON lines.
    """

    async def migrated() -> int:
        show = Show(screen_for(as_json=as_json), lifeline=lifeline)
        return await _run(show, run_id, source, destination, plan=plan, launch=launch, trace_path=trace_path)

    return asyncio.run(migrated())


def print_command(*, source: str, destination: str, launch: LaunchOptions) -> int:
    """Prints the command line that a destination would be launched by; returns 0.

    Raises:
        click.ClickException: When it can't be made.
    """
    try:
        print(asyncio.run(_command(Address.parse(source), Address.parse(destination), launch)))
    except LivemigError as error:
        raise click.UsageError(str(error)) from error
    return 0


async def _command(source: Address, destination: Address, launch: LaunchOptions) -> str:
    async with HostPool() as hosts:
        here, there = await hosts.both(source, destination)
        side = await Side.connect("source", source, here)
        try:
            return (await launch_plan(side, destination, there, launch)).command
        finally:
            await side.close()


async def _run(
    show: Show,
    run_id: str,
    source: str,
    destination: str,
    *,
    plan: Plan,
    launch: LaunchOptions,
    trace_path: Path | None,
) -> int:
    async with show:
        try:
            migration = Migration(
                plan, source=source, destination=destination, launch=launch, run_id=run_id, trace_path=trace_path
            )
            code = show.end(await show.run(migration, plan))
        except EngineFault:
            code = FAULT
        except (AddressError, ConnectError) as error:
            code = show.refuse(run_id, naming_option(error, source, destination))
        except Exception as error:  # noqa: BLE001  # the last line and the exit code are owed whatever happens
            code = show.refuse(run_id, error)
    return show.leave(code)


def naming_option(error: AddressError | ConnectError, source: str, destination: str) -> LivemigError:
    """Says which of the two addresses is meant."""
    for option, given in (("--src-qmp", source), ("--dst-qmp", destination)):
        spellings = {given}
        with contextlib.suppress(LivemigError):
            address = Address.parse(given)
            spellings |= {str(address), str(address.login)}
        if error.address in spellings:
            return LivemigError(f"{option} {error}")
    return error
