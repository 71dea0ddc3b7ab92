"""A UNIX socket of this machine, each connection to which is joined to another that livemig makes. Adds nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

_CHUNK_BYTES = 1 << 18


class LocalTunnel:
    """Listens until it is closed, and then closes all connections."""

    def __init__(self, path: str, connect: Callable[[], Awaitable[socket.socket]]) -> None:
        """For `open` only."""
        self._path, self._connect = path, connect
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def open(
        cls, path: str, owner: tuple[int, int] | None, connect: Callable[[], Awaitable[socket.socket]]
    ) -> LocalTunnel:
        """Listens at a path.

        Args:
            path: Where; its folder keeps others out.
            owner: Who is to be able to connect, or None for livemig's own user.
            connect: Makes the other end of a connection.

        Raises:
            OSError: When it can't.
        """
        tunnel = cls(path, connect)
        try:
            tunnel._listener.bind(path)
            Path(path).chmod(0o600)
            if owner is not None and owner[0] != os.geteuid():
                os.chown(path, *owner)
            tunnel._listener.listen(16)
            tunnel._listener.settimeout(0)
        except BaseException:
            tunnel._listener.close()
            raise
        tunnel._spawn(tunnel._accept())
        return tunnel

    async def close(self) -> None:
        """Listens no more, and closes all connections. Repeatable."""
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(self._listener)
            self._spawn(self._join(near))

    async def _join(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), await self._connect() as far:
            ways = [asyncio.ensure_future(_carry(near, far)), asyncio.ensure_future(_carry(far, near))]
            try:
                await asyncio.gather(*ways)
            finally:
                for way in ways:
                    way.cancel()


async def _carry(source: socket.socket, target: socket.socket) -> None:
    """Carries bytes one way up to the end of the stream, no faster than they are taken."""
    loop = asyncio.get_running_loop()
    while chunk := await loop.sock_recv(source, _CHUNK_BYTES):
        await loop.sock_sendall(target, chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
