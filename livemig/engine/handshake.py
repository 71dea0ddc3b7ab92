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
from livemig.core.plan import Security
from livemig.engine.channel import Channel
from livemig.engine.side import Side

SILENCE_S = 0.5
"""How long a monitor may be silent: QEMU answers within a millisecond otherwise."""
PAUSE_S = 0.05
SLOW_HOST_S = 0.25
"""A host that takes longer itself is busy: its QEMU gets `SILENCE_S` more, and more, up to `SLOW_SILENCE_S`."""
SLOW_SILENCE_S = 5.0
KILL_BOUND_S = 3.0
FREEING_BOUND_S = 5.0
"""How long it may take to free both sides of a handshake that hangs."""


class Connecting:
    """Sees to it that no handshake freezes a side; once memory moves, removes what only the connecting needed.

    Attributes:
        silent: Whether a side fell silent; the destination was ended then.
    """

    def __init__(
        self, source: Side, destination: Side, channel: Channel, connect_uri: str, is_moving: Callable[[], bool]
    ) -> None:
        """Begins to watch.

        Args:
            source: The source, about to be told ``migrate``.
            destination: The destination, which has nothing of the guest yet.
            channel: The way between them.
            connect_uri: What the source connects to.
            is_moving: Whether the source's counters have been seen to move.
        """
        self.silent = False
        self._source, self._destination, self._channel = source, destination, channel
        self._connect_uri, self._is_moving = connect_uri, is_moving
        self._failure: str | None = None
        self._direct = channel.security in (Security.TLS, Security.NONE)
        self._task = asyncio.create_task(self._watch())

    async def end(self) -> str | None:
        """Watches no more, once both sides are free; returns what went wrong, if something did."""
        if not self.silent:
            self._task.cancel()
        await asyncio.wait([self._task], timeout=FREEING_BOUND_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self._failure

    async def give_up(self) -> None:
        """Cuts what the source is still trying: else it refuses another ``migrate`` for two minutes."""
        if self._direct:
            await cut_connection(self._source, self._connect_uri)

    async def _watch(self) -> None:
        if self._direct:
            silent = await silent_in_handshake(self._source, self._destination, self._is_moving)
            if silent is not None:
                self.silent, self._failure = True, silence_words(silent)
                await free_both(self._source, self._destination, self._connect_uri)
                return
        while not self._is_moving():  # noqa: ASYNC110  # the loop asks for the counters anyway
            await asyncio.sleep(PAUSE_S)
        await self._channel.connected()


async def silent_in_handshake(source: Side, destination: Side, is_moving: Callable[[], bool]) -> Side | None:
    """Returns the side that fell silent, or None once memory moves.

    Args:
        source: The source.
        destination: The destination; it has nothing of the guest yet.
        is_moving: Whether the source's counters have been seen to move.
    """
    sides = [asyncio.ensure_future(_silent(side, is_moving)) for side in (source, destination)]
    try:
        done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        silent = next((task.result() for task in done if task.result() is not None), None)
        if silent is None:
            silent = next((side for side in await asyncio.gather(*sides) if side is not None), None)
    finally:
        for task in sides:
            task.cancel()
        await asyncio.gather(*sides, return_exceptions=True)
    return None if is_moving() else silent


def silence_words(silent: Side) -> str:
    """Says what a silent side means."""
    return (
        f"the {silent.name}'s QEMU fell silent in the handshake: a stranger on the port, or a black hole on the way; "
        "the destination was ended to free both"
    )


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


async def free_both(source: Side, destination: Side, connect_uri: str) -> None:
    """Ends the destination, whose connections the kernel then closes; if that frees nobody, cuts them at the source."""
    if destination.process is not None:
        await destination.process.end(KILL_BOUND_S)
    if not await _answers(source):
        await cut_connection(source, connect_uri)


async def cut_connection(source: Side, connect_uri: str) -> None:
    """Cuts what the source has open to the destination, even if it is only trying: else it tries for two minutes."""
    address, _, port = connect_uri.removeprefix("tcp:").rpartition(":")
    with contextlib.suppress(HostError):
        await source.host.cut_connections(address.strip("[]"), int(port))


async def _answers(side: Side) -> bool:
    try:
        await side.monitor.query_status(timeout_s=SILENCE_S)
    except LivemigError:
        return False
    return True
