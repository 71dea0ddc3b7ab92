"""``livemig run``: drives the library's `migrate`, shows its events, returns the exit code."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from livemig.cli.screens import Screen, screen_for
from livemig.cli.show import Show
from livemig.core.errors import AddressError, ConnectError, LivemigError
from livemig.core.plan import Plan
from livemig.engine.migration import Migration, new_id
from livemig.qemu.address import Address


def run_migration(*, source: str, destination: str, plan: Plan, trace_path: Path | None, as_json: bool) -> int:
    """Migrates and returns the exit code."""
    return asyncio.run(_run(source, destination, plan, trace_path, screen_for(as_json=as_json)))


async def _run(source: str, destination: str, plan: Plan, trace_path: Path | None, screen: Screen) -> int:
    run_id = new_id()
    show = Show(screen)
    async with show:
        try:
            migration = Migration(plan, source=source, destination=destination, run_id=run_id, trace_path=trace_path)
            code = show.end(await show.run(migration, plan))
        except (AddressError, ConnectError) as error:
            code = show.refuse(run_id, _naming_option(error, source, destination))
        except Exception as error:  # noqa: BLE001  # the last line and the exit code are owed whatever happens
            code = show.refuse(run_id, error)
    return show.leave(code)


def _naming_option(error: AddressError | ConnectError, source: str, destination: str) -> LivemigError:
    """Says which of the two addresses is meant."""
    for option, given in (("--src-qmp", source), ("--dst-qmp", destination)):
        spellings = {given}
        with contextlib.suppress(LivemigError):
            spellings.add(str(Address.parse(given)))
        if error.address in spellings:
            return LivemigError(f"{option} {error}")
    return error
