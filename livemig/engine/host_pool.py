"""The hosts of a run: this one, and one SSH connection for each other. Connects when first asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from livemig.core.errors import ConnectError
from livemig.hosts.host import Host
from livemig.hosts.local_host import LocalHost
from livemig.qemu.address import Address, Login

if TYPE_CHECKING:
    from livemig.hosts.ssh.host import RemoteHost


class HostPool:
    """Gives the host that an address is on; enter it, and every connection is closed on leaving."""

    def __init__(self) -> None:
        """Connects nowhere."""
        self._local = LocalHost()
        self._connecting: dict[Login, asyncio.Task[RemoteHost]] = {}

    async def host_of(self, address: Address) -> Host:
        """Returns the host; the same one for every address that names it alike.

        Raises:
            ConnectError: When it can't be reached, or refuses livemig's user; or when a relative path leads nowhere.
        """
        login = address.login
        if login is None:
            _refuse_without_folder(address)
            return self._local
        if login not in self._connecting:
            self._connecting[login] = asyncio.create_task(_connect(login))
        return await self._connecting[login]

    async def both(self, one: Address, other: Address) -> tuple[Host, Host]:
        """Returns the hosts of two addresses, connected to at once.

        Raises:
            ConnectError: As `host_of`.
        """
        first, second = await asyncio.gather(self.host_of(one), self.host_of(other))
        return first, second

    async def close(self) -> None:
        """Closes all connections."""
        for task in self._connecting.values():
            task.cancel()
        found = await asyncio.gather(*self._connecting.values(), return_exceptions=True)
        self._connecting.clear()
        await asyncio.gather(*(host.close() for host in found if not isinstance(host, BaseException)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _refuse_without_folder(address: Address) -> None:
    if address.path is None or address.path.startswith("/"):
        return
    try:
        Path.cwd()
    except OSError as error:
        reason = "the folder that livemig was started in is gone: give an absolute path"
        raise ConnectError(f"{address}: {reason}", address=str(address)) from error


async def _connect(login: Login) -> RemoteHost:
    from livemig.hosts.ssh.host import RemoteHost

    return await RemoteHost.connect(str(login), login.host, login.user, login.port)
