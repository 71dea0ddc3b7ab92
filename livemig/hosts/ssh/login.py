"""Logs in at a host by SSH, as the user's own ``ssh`` would: configuration, keys, agent, known hosts, ProxyJump.

Unlike ``ssh`` it asks nothing: no password, no new host key. Host keys are checked whatever the configuration says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import asyncssh

from livemig.core.errors import ConnectError

LOGIN_BOUND_S = 20.0
KEEPALIVE_S = 3
KEEPALIVES_LOST_MOST = 3
"""A link that is silently gone is noticed within 12 s."""
_SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_SYSTEM_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))


async def log_in(
    name: str, host: str, user: str | None, port: int | None, *, bound_s: float = LOGIN_BOUND_S
) -> asyncssh.SSHClientConnection:
    """Connects and authenticates.

    Args:
        name: What errors call the host: its address.
        host: The host as the user wrote it, perhaps a name of their configuration.
        user: The user there, or None for the configuration's.
        port: The port, or None for the configuration's.
        bound_s: Bound on the whole, in seconds.

    Raises:
        ConnectError: When it can't be done, with the reason and a remedy.
    """
    try:
        async with asyncio.timeout(bound_s):
            return await _connect(host, user, port)
    except TimeoutError:
        reason = f"no SSH connection within {bound_s:g} s: is the host reachable?"
        raise ConnectError(f"{name}: {reason}", address=name) from None
    except (OSError, asyncssh.Error, asyncssh.ConfigParseError, asyncssh.KeyImportError, ValueError) as error:
        raise ConnectError(f"{name}: {_why(error)}", address=name) from error


async def _connect(host: str, user: str | None, port: int | None) -> asyncssh.SSHClientConnection:
    """Jumps from host to host as ProxyJump says, each by its own configuration and with its key checked."""
    options = _options(host, user, port)
    jumps = options.tunnel if isinstance(options.tunnel, str) and options.tunnel != "none" else ""
    opened: list[asyncssh.SSHClientConnection] = []
    try:
        for jump in filter(None, jumps.split(",")):
            opened.append(await _hop(*_parse_jump(jump), opened[-1] if opened else None))
        connection = await _hop(host, user, port, opened[-1] if opened else None, proxied=not opened)
    except BaseException:
        for each in opened:
            each.abort()
        raise
    if opened:
        connection.set_tunnel(opened[-1])
    return connection


async def _hop(
    host: str,
    user: str | None,
    port: int | None,
    tunnel: asyncssh.SSHClientConnection | None,
    *,
    proxied: bool = False,
) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        host,
        tunnel=tunnel,
        **({} if proxied else {"proxy_command": None}),
        options=_options(host, user, port, known_hosts=_known_hosts(host, user, port)),
    )


def _options(
    host: str, user: str | None, port: int | None, *, known_hosts: list[str] | bytes | None = None
) -> asyncssh.SSHClientConnectionOptions:
    own = Path("~/.ssh/config").expanduser()
    given: dict[str, object] = {"host": host, "ignore_encrypted": True, "password_auth": False, "kbdint_auth": False}
    if user is not None:
        given["username"] = user
    if port is not None:
        given["port"] = port
    if known_hosts is not None:
        given["known_hosts"] = known_hosts
    return asyncssh.SSHClientConnectionOptions(
        config=[str(path) for path in (own, _SYSTEM_CONFIG) if os.access(path, os.R_OK)],
        keepalive_interval=KEEPALIVE_S,
        keepalive_count_max=KEEPALIVES_LOST_MOST,
        login_timeout=LOGIN_BOUND_S,
        **given,
    )


def _known_hosts(host: str, user: str | None, port: int | None) -> list[str] | bytes:
    """The files of known host keys; a configuration that wants none checked gets the usual ones."""
    configured = _options(host, user, port).known_hosts
    named = [Path(str(path)) for path in configured] if isinstance(configured, list) else []
    usual = [Path("~/.ssh/known_hosts").expanduser(), Path("~/.ssh/known_hosts2").expanduser()]
    files = [*(named or usual), *_SYSTEM_KNOWN_HOSTS]
    readable = [str(path) for path in files if path.is_file() and os.access(path, os.R_OK)]
    return list(dict.fromkeys(readable)) or b""


def _parse_jump(text: str) -> tuple[str, str | None, int | None]:
    text = text.strip().removeprefix("ssh://")
    user, at, place = text.rpartition("@")
    host, port = place, None
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        port = int(rest[1:]) if rest.startswith(":") else None
    elif place.count(":") == 1:
        host, _, number = place.partition(":")
        port = int(number)
    return host, user if at else None, port


def _why(error: Exception) -> str:
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return (
                "its host key is not known, or not the known one: compare it, then add it to ~/.ssh/known_hosts "
                "(ssh-keyscan), or remove the outdated line (ssh-keygen -R)"
            )
        case asyncssh.PermissionDenied():
            return (
                "it refuses this user and these keys: try `ssh` to it first (a key in an agent, or without passphrase)"
            )
        case asyncssh.ConfigParseError():
            return f"the SSH configuration can't be read: {error}"
        case asyncssh.KeyImportError():
            return f"an SSH key can't be read: {error}"
        case socket.gaierror():
            return f"the host's name can't be resolved ({error.strerror})"
        case OSError():
            return f"no SSH connection: {error.strerror or error}"
        case _:
            return f"no SSH connection: {str(error) or type(error).__name__}"


async def log_out(connection: asyncssh.SSHClientConnection, *, bound_s: float = 2.0) -> None:
    """Closes a connection, within a bound."""
    connection.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(bound_s):
            await connection.wait_closed()
            return
    connection.abort()
