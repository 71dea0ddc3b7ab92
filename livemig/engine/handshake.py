"""Watches both monitors from ``migrate`` until memory moves: QEMU's TLS handshake blocks its main loop.

A peer that accepts a connection and says nothing freezes a QEMU, its guest's I/O included, for as long as it likes;
yank does not free it, only the connection's end does. So a silent monitor is answered by ending the destination, whose
connections the kernel then closes. It has nothing of the guest yet.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from livemig.core.errors import HostError, LivemigError, MonitorTimeout
from livemig.engine.side import Side

SILENCE_S = 0.5
"""How long a monitor may be silent: QEMU answers within a millisecond otherwise."""
PAUSE_S = 0.05
SLOW_HOST_S = 0.25
"""A host that takes longer itself is busy: its QEMU gets `SILENCE_S` more, and more, up to `SLOW_SILENCE_S`."""
SLOW_SILENCE_S = 5.0
KILL_BOUND_S = 3.0


async def watch_handshake(
    source: Side, destination: Side, connect_uri: str, is_moving: Callable[[], bool]
) -> str | None:
    """Returns None once memory moves, or, when one of the two fell silent, what happened: the destination is ended.

    Args:
        source: The source.
        destination: The destination; it has nothing of the guest yet.
        connect_uri: What the source connects to.
        is_moving: Whether the source's counters have been seen to move.
    """
    sides = [asyncio.ensure_future(_silent(side, is_moving)) for side in (source, destination)]
    try:
        done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        silent = next((task.result() for task in done if task.result() is not None), None)
        if silent is None:
            found = await asyncio.gather(*sides)
            silent = next((side for side in found if side is not None), None)
    finally:
        for task in sides:
            task.cancel()
        await asyncio.gather(*sides, return_exceptions=True)
    if silent is None or is_moving():
        return None
    return await _free(source, destination, connect_uri, silent)


async def _silent(side: Side, is_moving: Callable[[], bool]) -> Side | None:
    """Asks the monitor again and again; returns the side once it is silent, None when it is of no interest any more."""
    while not is_moving():
        try:
            await side.monitor.query_status(timeout_s=SILENCE_S)
        except MonitorTimeout:
            if not is_moving() and not await _answers_late(side):
                return None if is_moving() else side
        except LivemigError:
            return None  # its monitor ended: that is seen elsewhere
        await asyncio.sleep(PAUSE_S)
    return None


async def _answers_late(side: Side) -> bool:
    """Whether the host is too busy to say: then it gets more time."""
    waited_s = SILENCE_S
    while waited_s < SLOW_SILENCE_S:
        took_s = await _host_takes_s(side)
        if took_s < SLOW_HOST_S:
            return False
        waited_s += took_s + SILENCE_S
        with contextlib.suppress(MonitorTimeout):
            await side.monitor.query_status(timeout_s=SILENCE_S)
            return True
    return False


async def _host_takes_s(side: Side) -> float:
    """How long the side's host takes for next to nothing."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with contextlib.suppress(HostError):
        await side.host.respond()
    return loop.time() - began_s


async def _free(source: Side, destination: Side, connect_uri: str, silent: Side) -> str:
    """Ends the destination, whose connections the kernel then closes; if that frees nobody, cuts them at the source."""
    what = f"the {silent.name}'s QEMU fell silent in the handshake: a stranger on the port, or a black hole on the way"
    gone = destination.process is not None and await destination.process.end(KILL_BOUND_S)
    if silent is source and not await _answers(source):
        address, _, port = connect_uri.removeprefix("tcp:").rpartition(":")
        with contextlib.suppress(HostError):
            await source.host.cut_connections(address.strip("[]"), int(port))
    if gone:
        return f"{what}; the destination was ended"
    return f"{what}; the destination could not be ended from here"


async def _answers(side: Side) -> bool:
    try:
        await side.monitor.query_status(timeout_s=SILENCE_S)
    except LivemigError:
        return False
    return True
