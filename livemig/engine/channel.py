"""The way memory takes from source to destination: who may connect, who can read it, and that nothing of it is left.

On one host a UNIX socket in a folder that only QEMU's user may enter. Between hosts QEMU's own TLS with a key made for
this one migration; where QEMU has no TLS, or the two can't reach each other, a tunnel through livemig's SSH; in clear
text only when asked. Decides nothing about the migration itself.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from livemig.core.errors import HostError, LivemigError, RefusedError
from livemig.core.plan import Plan, Security
from livemig.engine.reach import REMEDY, find_way, has_tls
from livemig.engine.side import Side
from livemig.hosts.host import Host, HostProcess

SOCKET_PATH_BYTES_MOST = 107
OBJECT_ID = "livemig-tls"
USER_NAME = "livemig"
KEY_BYTES = 32
KEY_FILE = "keys.psk"
"""QEMU's own name for it."""


DH_FILE = "dh-params.pem"
DH_PARAMETERS = """\
-----BEGIN DH PARAMETERS-----
MIIBiAKCAYEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEfz9zeNVs7ZRkDW7w09N75nAI4YbRvydbmyQd62R0mkff3
7lmMsPrBhtkcrv4TCYUTknC0EwyTvEN5RPT9RFLi103TZPLiHnH1S/9croKrnJ32
nuhtK8UiNjoNq8Uhl5sN6todv5pC1cRITgq80Gv6U93vPBsg7j/VnXwl5B0rZsYu
N///////////AgEC
-----END DH PARAMETERS-----
"""
"""RFC 7919's ffdhe3072. Without the file a QEMU that listens draws its own at first: half a second to many, all the
while deaf; TLS 1.3 uses neither."""


class Channel:
    """The two ends of the way, made by `open_channel`.

    Attributes:
        security: What protects it; None on one host, where it crosses no network.
        description: For the screen and the report.
        listen_uri: Where the destination is to listen, for ``migrate-incoming``.
        notes: What of it could not be removed.
    """

    security: Security | None = None
    description = ""
    listen_uri = ""

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def prepare(self, source: Side, destination: Side) -> None:
        """Makes both QEMUs ready, before the destination listens; their settings are put back by `Side.settings`.

        Raises:
            LivemigError: When one refuses.
        """
        del source, destination

    async def connect_uri(self, destination: Side) -> str:
        """Returns what the source is to connect to, once the destination listens.

        Raises:
            LivemigError: When the destination does not say.
        """
        del destination
        return self.listen_uri

    async def connected(self) -> None:
        """All connections are made: what was needed for that alone is removed."""


@asynccontextmanager
async def open_channel(
    plan: Plan, source: Side, destination: Side, *, run_id: str, tunnelled: bool = False
) -> AsyncIterator[Channel]:
    """Makes what both ends need, and removes it afterwards.

    Args:
        plan: What the user asked.
        source: The source.
        destination: The destination.
        run_id: The run's id: all folders are named after it, so that recovery finds them.
        tunnelled: Whether the way through livemig's SSH is to be taken, the direct one having failed.

    Raises:
        RefusedError: When it can't be made. Nothing was touched.
    """
    async with AsyncExitStack() as stack:
        if _on_one_host(source, destination):
            opened = local_channel(source.host, source.process, destination.process, run_id)
            yield await stack.enter_async_context(opened)
            return
        wanted, address = plan.security, ""
        if tunnelled or (wanted is Security.AUTO and not (await has_tls(source) and await has_tls(destination))):
            wanted = Security.SSH
        if wanted is not Security.SSH:
            way = await find_way(plan, source.host, destination.address, destination.host)
            if way.trouble is not None and wanted is not Security.AUTO:
                raise RefusedError((f"{way.trouble}: {REMEDY}",))
            wanted, address = Security.SSH if way.trouble is not None else wanted, way.address
        if wanted is Security.SSH:
            yield await stack.enter_async_context(_tunnel(source, destination, run_id))
        elif wanted is Security.NONE:
            yield _ClearText(address)
        else:
            yield await stack.enter_async_context(_encrypted(address, source, destination, run_id))


def _on_one_host(source: Side, destination: Side) -> bool:
    if not (source.address.is_on_its_host and destination.address.is_on_its_host):
        return False
    return source.host.identity.is_same_host(destination.host.identity)


@asynccontextmanager
async def local_channel(
    host: Host, source: HostProcess | None, destination: HostProcess | None, run_id: str
) -> AsyncIterator[Channel]:
    """A UNIX socket in a folder of mode 0700 of the user that both QEMUs run as: nobody else can connect first.

    Raises:
        RefusedError: When the two run as different users, or the folder can't be made. Nothing was touched.
    """
    owners = _owners(source, destination)
    if len({user for user, _ in owners}) > 1:
        raise RefusedError(("source and destination run as different users: start both as the same user",))
    channel = Channel()
    channel.description = "UNIX socket on this host" if host.is_local else f"UNIX socket on {host.name}"
    async with _folder(host, next(iter(owners), None), channel, run_id) as folder:
        channel.listen_uri = f"unix:{_socket_path(folder)}"
        yield channel


class _ClearText(Channel):
    """TCP that anybody on the way can read and change; only when asked for."""

    security = Security.NONE

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self.listen_uri = _tcp_uri(address, 0)
        self.description = f"clear text over TCP to {address} (--security none)"

    async def connect_uri(self, destination: Side) -> str:
        return _tcp_uri(self._address, await _listening_port(destination))


class _Encrypted(_ClearText):
    """QEMU's TLS with a pre-shared key made for this migration."""

    security = Security.TLS

    def __init__(self, address: str, folders: dict[Side, str]) -> None:
        super().__init__(address)
        self.description = f"TLS over TCP to {address}, with a key made for this migration"
        self._folders = folders

    async def prepare(self, source: Side, destination: Side) -> None:
        for side, endpoint in ((destination, "server"), (source, "client")):
            properties = {"dir": self._folders[side], "endpoint": endpoint}
            if side is source:
                properties["username"] = USER_NAME
            await side.settings.add_object("tls-creds-psk", OBJECT_ID, properties)
            if side is source:  # it has read the key; the destination reads it at each handshake
                await self._remove_key(side)
            await side.settings.set_parameters({"tls-creds": OBJECT_ID})
        self._destination = destination

    async def connected(self) -> None:
        await self._remove_key(self._destination)

    async def _remove_key(self, side: Side) -> None:
        try:
            await side.host.remove_file(os.path.join(self._folders[side], KEY_FILE))  # noqa: PTH118
        except HostError as error:
            self.notes.append(f"the key of this migration may still be in {self._folders[side]}: {error}")


@asynccontextmanager
async def _encrypted(address: str, source: Side, destination: Side, run_id: str) -> AsyncIterator[Channel]:
    key = f"{USER_NAME}:{secrets.token_hex(KEY_BYTES)}\n"
    folders: dict[Side, str] = {}
    channel = _Encrypted(address, folders)
    async with AsyncExitStack() as stack:
        for side in (source, destination):
            owner = _owner(side.process)
            folder = await stack.enter_async_context(_folder(side.host, owner, channel, run_id))
            try:
                await side.host.write_secret(os.path.join(folder, KEY_FILE), key, owner)  # noqa: PTH118
                if side is destination:
                    await side.host.write_secret(os.path.join(folder, DH_FILE), DH_PARAMETERS, owner)  # noqa: PTH118
            except OSError as error:
                raise RefusedError(
                    (f"the key of this migration can't be written for the {side.name}: {error}",)
                ) from error
            folders[side] = folder
        yield channel


@asynccontextmanager
async def _tunnel(source: Side, destination: Side, run_id: str) -> AsyncIterator[Channel]:
    """From a UNIX socket at the source's host through livemig to one at the destination's."""
    channel = Channel()
    channel.security = Security.SSH
    channel.description = "tunnel through livemig's SSH"
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(_folder(destination.host, _owner(destination.process), channel, run_id))
        here = await stack.enter_async_context(_folder(source.host, _owner(source.process), channel, run_id))
        listening, entrance = _socket_path(there), _socket_path(here)
        try:
            serving = await source.host.serve(
                entrance, _owner(source.process), partial(connect_to, destination.host, listening)
            )
        except OSError as error:
            raise RefusedError((f"the tunnel's entrance at the source's host can't be made: {error}",)) from error
        stack.push_async_callback(serving.close)
        channel.listen_uri = f"unix:{listening}"
        yield _Tunnelled(channel, f"unix:{entrance}")


class _Tunnelled(Channel):
    security = Security.SSH

    def __init__(self, opened: Channel, entrance_uri: str) -> None:
        self.notes = opened.notes
        self.description, self.listen_uri, self._entrance_uri = opened.description, opened.listen_uri, entrance_uri

    async def connect_uri(self, destination: Side) -> str:
        del destination
        return self._entrance_uri


async def connect_to(host: Host, path: str) -> socket.socket:
    """Opens a connection to a UNIX socket of a host.

    Raises:
        OSError: When nobody listens there, or it can't be reached.
    """
    way = host.way_to(path)
    if way is not None:
        return await way.open()
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.settimeout(0)
        opened.connect(path)
    except BaseException:
        opened.close()
        raise
    return opened


@asynccontextmanager
async def _folder(host: Host, owner: tuple[int, int] | None, channel: Channel, run_id: str) -> AsyncIterator[str]:
    try:
        folder = await host.make_private_folder(owner, run_id)
    except PermissionError as error:
        user = "another user" if owner is None else f"user {owner[0]}"
        raise RefusedError(
            (f"QEMU runs as {user}, who can't be given a folder: run livemig as that user or root",)
        ) from error
    except OSError as error:
        where = "" if host.is_local else f" at {host.name}"
        reason = error.strerror or str(error)
        raise RefusedError((f"no folder for the migration{where}: {reason}; set TMPDIR to another",)) from error
    try:
        yield folder
    finally:
        try:
            await host.remove_private_folder(folder)
        except HostError as error:
            channel.notes.append(f"the folder {folder} could not be removed: {error}")


def _owners(*processes: HostProcess | None) -> set[tuple[int, int]]:
    return {owner for owner in map(_owner, processes) if owner is not None}


def _owner(process: HostProcess | None) -> tuple[int, int] | None:
    try:
        return None if process is None else process.owner
    except OSError as error:
        raise RefusedError(("one of the two QEMUs has just ended: start it again",)) from error


def _socket_path(folder: str) -> str:
    path = os.path.join(folder, "migration.sock")  # noqa: PTH118
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MOST:
        raise RefusedError((f"the socket path {path} is too long: set TMPDIR to a shorter folder",))
    return path


async def _listening_port(destination: Side) -> int:
    observation = await destination.monitor.query_migrate()
    for address in observation.socket_addresses:
        if address.port is not None:
            return address.port
    raise LivemigError("the destination does not say at which port it listens")


def _tcp_uri(address: str, port: int) -> str:
    try:
        host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        host = address
    return f"tcp:{host}:{port}"
