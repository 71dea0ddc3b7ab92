"""A UNIX socket that sshd makes at a host, each connection to which is joined to another that livemig makes."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socket
from collections.abc import Awaitable, Callable

import asyncssh

from livemig.core.errors import HostError, LivemigError
from livemig.hosts.ssh.link import Link
from livemig.hosts.ssh.relay import WINDOW_BYTES, Relay


class RemoteTunnel:
    """Listens until it is closed."""

    def __init__(self, link: Link, path: str, connect: Callable[[], Awaitable[socket.socket]]) -> None:
        """For `open` only."""
        self._link, self._path, self._connect = link, path, connect
        self._listener: asyncssh.SSHListener | None = None
        self._relays: list[Relay] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        link: Link,
        path: str,
        owner: tuple[int, int] | None,
        connect: Callable[[], Awaitable[socket.socket]],
    ) -> RemoteTunnel:
        """Lets the host's sshd listen at a path.

        Args:
            link: The host.
            path: Where; its folder keeps others out.
            owner: Who is to be able to connect, or None for the user that livemig logged in as.
            connect: Makes the other end of a connection.

        Raises:
            OSError: When it does not.
        """
        tunnel = cls(link, path, connect)
        connection = await link.connection()
        try:
            tunnel._listener = await connection.create_unix_server(tunnel._accept, path, window=WINDOW_BYTES)
        except (asyncssh.Error, asyncssh.ChannelListenError) as error:
            raise OSError(f"{link.name}: its sshd does not forward UNIX sockets ({error})") from error
        if owner is not None:
            answer = await link.run(f"chown {owner[0]}:{owner[1]} {shlex.quote(path)}")
            if answer.status != 0:
                await tunnel.close()
                raise OSError(f"{link.name}: {answer.text}")
        return tunnel

    def _accept(self) -> Relay:
        relay = Relay()
        self._relays.append(relay)
        task = asyncio.get_running_loop().create_task(self._join(relay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return relay

    async def _join(self, relay: Relay) -> None:
        try:
            await relay.attach(await self._connect())
        except (OSError, LivemigError):
            relay.close()

    async def close(self) -> None:
        """Listens no more, closes all connections, and removes the socket, which sshd leaves behind."""
        for relay in self._relays:
            relay.close()
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(HostError):
            await self._link.run(f"rm -f -- {shlex.quote(self._path)}")
