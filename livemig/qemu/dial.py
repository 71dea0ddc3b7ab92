"""From an address to a negotiated QMP connection, bounded, with one clear line for each way to fail."""

import asyncio
import contextlib
import errno
import os
import socket
import stat
import time
from typing import Protocol

from qemu.qmp import ConnectError as ProtocolConnectError

from livemig.core.errors import ConnectError
from livemig.qemu.address import Address
from livemig.qemu.connection import Connection


class Way(Protocol):
    """What opens connections to a socket that is no path of this machine."""

    @property
    def is_broken(self) -> bool:
        """Whether the way of the last one broke, so that its end is not what QEMU said last."""

    async def open(self) -> socket.socket:
        """Connects.

        Raises:
            OSError: As `socket.connect` does.
        """


RETRY_S = 0.02
"""Pause between two attempts while nobody listens yet."""

_NOT_QMP = "what answers there does not speak QMP: name the socket given with -qmp"
_SECOND_MONITOR = "give QEMU a second one (-qmp unix:PATH,server=on,wait=off), or end the other client"


async def dial(
    address: Address,
    connection: Connection,
    *,
    timeout_s: float,
    silence_s: float,
    answer_s: float,
    starting: bool,
    way: Way | None = None,
) -> socket.socket:
    """Connects and negotiates; gives a duplicate of the connection's socket, for the caller to close.

    Args:
        address: Where the monitor is.
        connection: The connection object, fresh.
        timeout_s: Bound on the whole in seconds, within which a refused connection is tried again.
        silence_s: How long a connected monitor may stay silent before it counts as held by another client.
        answer_s: How long one that has greeted may take to answer, within the bound on the whole.
        starting: Whether QEMU was only just started, so that its socket may not be there yet.
        way: What opens the connection; None where the address says all.

    Raises:
        ConnectError: When it can't be done, with the reason and a remedy.
    """
    deadline_s = time.monotonic() + timeout_s
    opened = await _open_socket(address, way, deadline_s, starting=starting)
    duplicate = opened.dup()
    try:
        answer_s = min(answer_s, deadline_s - time.monotonic())
        await _negotiate(address, opened, connection, silence_s=silence_s, answer_s=answer_s)
    except BaseException:
        duplicate.close()
        opened.close()
        raise
    return duplicate


async def _open_socket(address: Address, way: Way | None, deadline_s: float, *, starting: bool) -> socket.socket:
    seen: OSError | None = None
    while True:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                return await (_open(address) if way is None else way.open())
        except TimeoutError:
            if seen is None:
                raise _error(address, "no connection within the bound: is the host reachable?") from None
            raise _error(address, _why_not_open(seen), nobody_listens=_is_nobody(seen)) from seen
        except OSError as error:
            seen = error
            if not _worth_retrying(error, starting=starting) or time.monotonic() + RETRY_S >= deadline_s:
                raise _error(address, _why_not_open(error), nobody_listens=_is_nobody(error)) from error
        await asyncio.sleep(RETRY_S)


def _is_nobody(error: OSError) -> bool:
    return error.errno in (errno.ENOENT, errno.ECONNREFUSED)


def _worth_retrying(error: OSError, *, starting: bool) -> bool:
    # A socket file being there does not mean that QEMU listens yet. EAGAIN: the queue of waiting clients is
    # full.
    return error.errno in (errno.ECONNREFUSED, errno.EAGAIN) or (starting and error.errno == errno.ENOENT)


async def _open(address: Address) -> socket.socket:
    if address.path is not None:
        return _open_unix(address.path)
    return await _open_tcp(address)


def _open_unix(path: str) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.settimeout(0)
        # Not loop.sock_connect: it takes EAGAIN, a full queue, for a connection under way and calls it made.
        opened.connect(path)
    except BaseException as error:
        opened.close()
        if isinstance(error, ConnectionRefusedError) and not stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK)) from error  # or it would be tried again
        raise
    return opened


async def _open_tcp(address: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    failure: OSError = OSError(errno.EHOSTUNREACH, "no address found")
    for family, kind, protocol, _, target in found:
        opened = socket.socket(family, kind, protocol)
        try:
            opened.settimeout(0)
            await loop.sock_connect(opened, target)
        except OSError as error:
            opened.close()
            failure = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise failure


def _why_not_open(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host's name can't be resolved ({error.strerror})"
    match error.errno:
        case errno.ENOENT:
            return "there is no such socket: is QEMU running, with -qmp unix:PATH,server=on,wait=off?"
        case errno.EACCES | errno.EPERM:
            return "permission denied: run livemig as the user who owns the socket, or as root"
        case errno.ENOTSOCK | errno.ENOTDIR | errno.EPROTOTYPE:
            return "that is no QMP socket: name the one given with -qmp"
        case errno.ECONNREFUSED:
            return "nobody listens there: QEMU has ended, or was started without server=on"
        case errno.EAGAIN if error.strerror != os.strerror(errno.EAGAIN):
            return error.strerror or ""  # a way that knows more
        case errno.EAGAIN:
            return f"other clients hold this monitor and wait for it: {_SECOND_MONITOR}"
        case _:
            return error.strerror or str(error)


def _seen(attempt: asyncio.Task[None]) -> None:
    """Takes note of how an attempt ended that nobody waits for any more: asyncio complains of it on stderr else."""
    if not attempt.cancelled():
        attempt.exception()


async def _negotiate(
    address: Address, opened: socket.socket, connection: Connection, *, silence_s: float, answer_s: float
) -> None:
    attempt = asyncio.create_task(connection.connect(opened), name=f"QMP greeting of {address}")
    attempt.add_done_callback(_seen)
    try:
        await asyncio.wait({attempt}, timeout=silence_s)
        if not attempt.done() and connection.greeting is not None:
            await asyncio.wait({attempt}, timeout=max(silence_s, answer_s))
        if not attempt.done():
            raise _error(address, _why_silent(connection))
        attempt.result()
    except ProtocolConnectError as error:
        raise _error(address, _why_not_qmp(error)) from error
    finally:
        if not attempt.done():
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError, ProtocolConnectError):
                await attempt


def _why_silent(connection: Connection) -> str:
    if connection.greeting is not None:
        return "QEMU greets but does not answer: its main loop hangs"
    if connection.unread:
        return _NOT_QMP
    return f"another client holds this monitor (connected, but no greeting came): {_SECOND_MONITOR}"


def _why_not_qmp(error: ProtocolConnectError) -> str:
    cause = error.exc
    if isinstance(cause, EOFError):
        return "the connection was closed before QEMU's greeting: no QMP monitor is behind it"
    if isinstance(cause, OSError):
        return f"the connection broke before QEMU's greeting: {cause.strerror or cause}"
    seen = repr(getattr(getattr(cause, "exc", None), "raw", b""))
    if "(qemu)" in seen or "monitor - type" in seen:
        return "that is a human monitor (HMP), not QMP: name the socket given with -qmp"
    return _NOT_QMP


def _error(address: Address, reason: str, *, nobody_listens: bool = False) -> ConnectError:
    return ConnectError(f"{address}: {reason}", address=str(address), nobody_listens=nobody_listens)
