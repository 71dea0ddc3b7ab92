"""Joins a socket of livemig's own process and a connection that sshd makes at a host. Adds nothing, loses nothing."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import asyncssh

WINDOW_BYTES = 1 << 20
"""What a far end may send ahead. asyncssh opens the window to the full each time that it hands out a piece, whatever it
still holds: so that it holds little, a local end takes two windows before it asks for a pause. Measured without that:
148 MB held in a tunnel, which QEMU took for sent."""


class Relay(asyncssh.SSHUNIXSession[bytes], asyncssh.SSHTCPSession[bytes]):
    """Carries bytes between a local transport and an SSH channel, each no faster than the other takes them.

    Attributes:
        ended: Whether the far end ended the connection itself, all that it had to say having been passed on.
        closed: Set when the channel is closed.
    """

    def __init__(self) -> None:
        """Waits for both ends."""
        self.ended = False
        self.closed = asyncio.Event()
        self._channel: asyncssh.SSHTCPChannel[bytes] | asyncssh.SSHUNIXChannel[bytes] | None = None
        self._local = _LocalEnd(self)

    @property
    def is_broken(self) -> bool:
        """Whether the channel is gone without the far end having ended the connection."""
        return self.closed.is_set() and not self.ended

    async def attach(self, end: socket.socket) -> None:
        """Joins the local end; what came from the far end meanwhile is passed on."""
        loop = asyncio.get_running_loop()
        if end.family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: self._local, sock=end)
        else:
            await loop.create_connection(lambda: self._local, sock=end)

    def close(self) -> None:
        """Closes both ends."""
        if self._channel is not None:
            self._channel.close()
        self._local.close()

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes] | asyncssh.SSHUNIXChannel[bytes]) -> None:
        """The channel is open."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Passes on what the far end says."""
        del datatype
        self._local.write(data)

    def eof_received(self) -> bool:
        """The far end has said all."""
        self.ended = True
        self._local.close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone."""
        del exc
        self.closed.set()
        self._local.close()

    def pause_writing(self) -> None:
        """The channel's buffer is full."""
        self._local.pause_reading()

    def resume_writing(self) -> None:
        """The channel takes more again."""
        self._local.resume_reading()

    def send(self, data: bytes) -> None:
        """Passes on what the local end says."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)

    def end_sending(self) -> None:
        """The local end has said all, or is gone."""
        if self._channel is not None:
            self._channel.close()

    def pause(self) -> None:
        """The local end's buffer is full."""
        if self._channel is not None:
            self._channel.pause_reading()

    def resume(self) -> None:
        """The local end takes more again."""
        if self._channel is not None:
            self._channel.resume_reading()


class _LocalEnd(asyncio.Protocol):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=2 * WINDOW_BYTES, low=WINDOW_BYTES // 4)
        self._transport.write(self._early)
        self._early.clear()
        if self._closed:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._relay.send(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._relay.end_sending()

    def pause_writing(self) -> None:
        self._relay.pause()

    def resume_writing(self) -> None:
        self._relay.resume()

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early += data  # at most what SSH's window lets through
        elif not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.close()

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
