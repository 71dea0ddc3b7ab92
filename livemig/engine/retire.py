"""Retires the source once the guest runs at the destination, if all is well there. Decides nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from livemig.core.errors import HostError
from livemig.core.plan import Plan
from livemig.engine.finish import probation
from livemig.engine.launch_plan import folder_of
from livemig.engine.return_of_monitor import PAUSE_S, RETURN_BOUND_S
from livemig.engine.side import Side
from livemig.engine.watch import Watch


async def retire(
    source: Side,
    watch: Watch,
    plan: Plan,
    *,
    since_s: float,
    cut_short: Callable[[], bool],
    warn: Callable[[str], None],
    probed: Callable[[], Awaitable[str | None]] | None = None,
) -> bool:
    """Watches the destination; quits the source when all is well there and nobody wants it kept.

    Args:
        source: The source, which has completed.
        watch: The events of both sides.
        plan: What was asked.
        since_s: Since when the guest runs at the destination, monotonic.
        cut_short: Whether somebody wants the probation to end.
        warn: Told what the user should know.
        probed: Asked once the probation is over what a probe has against the guest there.

    Returns:
        Whether the source was kept.
    """
    trouble = await probation(watch, since_s, plan.probation_s, cut_short=cut_short)
    found = None if probed is None else await probed()
    trouble = trouble or found
    if trouble is not None:
        warn(f"{trouble}: the source is kept, paused; look at the guest before you quit it, and never `cont` both")
    if trouble is not None or plan.keep_source:
        return True
    try:
        folder = await _folder_once_there(source)
    except HostError as error:
        warn(f"the source is kept, paused, for its host is out of reach ({error}): quit it, and never `cont` both")
        return True
    if not await source.end():
        warn("the source was told to quit, but its end could not be seen")
    elif folder is not None:
        try:
            await source.host.remove_launch_folder(folder)
        except HostError as error:
            warn(f"the source has ended, and its folder {folder} is still there: {error}")
    return False


async def _folder_once_there(source: Side) -> Path | None:
    """The source's own folder; a connection to its host that was just lost is waited for.

    Raises:
        HostError: When the host stays out of reach.
    """
    end_s = time.monotonic() + RETURN_BOUND_S
    while True:
        try:
            return await folder_of(source)
        except HostError:
            if time.monotonic() >= end_s:
                raise
        await asyncio.sleep(PAUSE_S)
