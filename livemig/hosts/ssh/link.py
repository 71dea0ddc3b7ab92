"""The connection to one host: a shell, and sockets there, made again when it was lost. Knows nothing of QEMU."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Mapping
from typing import Any

import asyncssh

from livemig.core.errors import ConnectError, HostError
from livemig.hosts.ssh.login import log_in, log_out
from livemig.hosts.ssh.relay import Relay
from livemig.hosts.ssh.shell import COMMAND_BOUND_S, Answer, Shell, parts_of, parts_script

OPEN_BOUND_S = 10.0
UNTOLD = "open failed"
"""All that OpenSSH's sshd says when it could not even begin to connect."""


class Link:
    """A host's SSH connection.

    Attributes:
        name: The host's address, for sentences.
    """

    def __init__(self, name: str, host: str, user: str | None, port: int | None) -> None:
        """Connects nowhere yet."""
        self.name = name
        self._host, self._user, self._port = host, user, port
        self._connection: asyncssh.SSHClientConnection | None = None
        self._shell: Shell | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    @property
    def is_up(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    async def connection(self) -> asyncssh.SSHClientConnection:
        """Returns the connection, made anew if it was lost.

        Raises:
            ConnectError: When it can't be made.
        """
        async with self._lock:
            if self._closed:
                raise ConnectError(f"{self.name}: livemig has closed its connection", address=self.name)
            if self._connection is None or self._connection.is_closed():
                self._shell = None
                self._connection = await log_in(self.name, self._host, self._user, self._port)
            return self._connection

    async def run(self, script: str, *, bound_s: float = COMMAND_BOUND_S) -> Answer:
        """Runs a POSIX shell's script there.

        Raises:
            HostError: When no answer came within the bound; whether it was carried out is unknown.
        """
        try:
            async with asyncio.timeout(bound_s + OPEN_BOUND_S):
                shell = await self._usable_shell()
                return await shell.run(script, bound_s=bound_s)
        except TimeoutError:
            raise HostError(f"{self.name}: no answer within {bound_s:g} s", host=self.name) from None
        except ConnectError as error:
            raise HostError(str(error), host=self.name) from error

    async def run_parts(self, commands: Mapping[str, str], *, bound_s: float = COMMAND_BOUND_S) -> dict[str, Answer]:
        """Runs many commands in one round trip, each with an answer of its own.

        Raises:
            HostError: As `run`.
        """
        script, mark = parts_script(commands)
        answer = await self.run(script, bound_s=bound_s)
        return parts_of(commands, mark, answer.output + b"\n")

    async def _usable_shell(self) -> Shell:
        connection = await self.connection()
        async with self._lock:
            if self._shell is None or not self._shell.usable:
                self._shell = await Shell.open(self.name, connection)
            return self._shell

    async def open_unix(self, path: str) -> tuple[socket.socket, Relay]:
        """Connects to a UNIX socket there; gives a socket that leads to it, and what carries its bytes.

        Raises:
            ConnectError: When the host is out of reach, or its sshd forwards nothing.
            OSError: ECONNREFUSED when nobody listens there, as far as sshd tells.
        """
        connection = await self.connection()
        relay = await self._opened(connection.create_unix_connection(Relay, path), "UNIX sockets")
        return await _joined(relay)

    async def open_tcp(self, host: str, port: int) -> Relay:
        """Connects to an address as the host sees it; the caller attaches an end to it.

        Raises:
            ConnectError: As `open_unix`.
            OSError: When sshd says that it can't be reached.
        """
        connection = await self.connection()
        try:
            return await self._opened(connection.create_connection(Relay, host, port), "TCP connections")
        except ConnectionRefusedError as error:
            if error.strerror == UNTOLD:  # sshd names every later failure, and a refusal is always one of these
                raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH)) from error
            raise

    async def _opened(self, opening: Awaitable[tuple[Any, Any]], what: str) -> Relay:
        try:
            async with asyncio.timeout(OPEN_BOUND_S):
                _, relay = await opening
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None
        except asyncssh.ChannelOpenError as error:
            if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
                options = "AllowStreamLocalForwarding, AllowTcpForwarding, DisableForwarding"
                reason = f"its sshd does not forward {what}: allow it there ({options})"
                raise ConnectError(f"{self.name}: {reason}", address=self.name) from error
            if error.code == asyncssh.OPEN_CONNECT_FAILED:
                raise _connect_failure(error.reason) from error
            raise ConnectError(f"{self.name}: {error.reason}", address=self.name) from error
        except (OSError, asyncssh.Error) as error:
            raise ConnectError(f"{self.name}: the connection to it is lost ({error})", address=self.name) from error
        assert isinstance(relay, Relay)  # noqa: S101  # that is what was asked for
        return relay

    async def close(self) -> None:
        """Closes the connection. Repeatable."""
        self._closed = True
        if self._shell is not None:
            self._shell.close()
        if self._connection is not None:
            await log_out(self._connection)


async def _joined(relay: Relay) -> tuple[socket.socket, Relay]:
    mine, other = socket.socketpair()
    try:
        mine.settimeout(0)
        other.settimeout(0)
        await relay.attach(other)
    except BaseException:
        mine.close()
        other.close()
        relay.close()
        raise
    return mine, relay


def _connect_failure(reason: str) -> OSError:
    words = reason.lower()
    for number in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        if os.strerror(number).lower() in words:
            return OSError(number, os.strerror(number))
    return OSError(errno.ECONNREFUSED, UNTOLD if words == UNTOLD else os.strerror(errno.ECONNREFUSED))
