"""Asks the guest over the network, from here, without pause, in a thread of its own: the loop may be busy deciding.

Sees and counts; what it means is said by `livemig.engine.handover`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from typing import Protocol

from livemig.core.errors import RefusedError
from livemig.core.probe import Answers, Blackout, ProbeTarget

FIRST_ANSWER_BOUND_S = 2.0
_LOOKUP_BOUND_S = 5.0
_POLL_S = 0.01
_CONNECT_BOUND_S = 1.0
_THREAD_BOUND_S = 2.0
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_ECHO_REQUEST_6, _ECHO_REPLY_6 = 128, 129


class _Asker(Protocol):
    def ask(self) -> None:
        """Sends a question."""

    def wait(self, timeout_s: float) -> bool:
        """Waits for answers; returns whether one came."""

    def close(self) -> None:
        """Ends."""


class Probe:
    """Asks for as long as it is started.

    Attributes:
        target: Whom.
        trouble: Why it could not ask at some time, so that a silence may be its own; empty while it could.
    """

    def __init__(self, target: ProbeTarget) -> None:
        self.target = target
        self.trouble = ""
        self._answers = Answers()
        self._asker: _Asker | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="livemig probe", daemon=True)

    async def start(self) -> None:
        """Begins to ask, and returns once the guest has answered.

        Raises:
            RefusedError: When it does not, can't be looked up, or this user may not ask.
        """
        family, address = await self._looked_up()
        try:
            self._asker = _Ping(family, address) if self.target.kind == "ping" else _Connects(family, address)
        except PermissionError as error:
            raise RefusedError(
                (f"--probe {self.target}: this user may not send echo requests: run as root, or probe tcp:HOST:PORT",)
            ) from error
        self._thread.start()
        if not await self.wait_answer(0.0, FIRST_ANSWER_BOUND_S):
            self.close()
            reason = f"nobody answers at --probe {self.target} before the move, so that no blackout could be seen"
            raise RefusedError((f"{reason}: name what the guest answers at from here, or leave it out",))

    def restart(self) -> None:
        """Counts silence from now on."""
        self._answers.restart()

    async def wait_answer(self, since_s: float, timeout_s: float) -> bool:
        """Waits until the guest has answered since a time; returns whether it has within the bound."""
        end_s = time.monotonic() + timeout_s
        while (self._answers.last_s or 0.0) <= since_s:
            if time.monotonic() > end_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True

    def blackout(self, resumed_s: float | None) -> Blackout:
        """What was seen so far.

        Args:
            resumed_s: When the guest resumed, monotonic; None when it was not stopped.
        """
        last_s = self._answers.last_s or 0.0
        return Blackout(
            target=str(self.target),
            longest_s=self._answers.longest_s(time.monotonic()),
            known_to_s=self.target.interval_s,
            answers_afterwards=resumed_s is None or last_s > resumed_s,
        )

    def close(self) -> None:
        """Asks no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_THREAD_BOUND_S)

    async def _looked_up(self) -> tuple[socket.AddressFamily, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_LOOKUP_BOUND_S):
                found = await loop.getaddrinfo(self.target.host, self.target.port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            raise RefusedError((f"--probe {self.target}: {self.target.host} can't be looked up: {error}",)) from error
        family, _, _, _, address = found[0]
        return family, (str(address[0]), int(address[1]))

    def _work(self) -> None:
        asker = self._asker
        if asker is None:
            return
        next_s = time.monotonic()
        try:
            while not self._ended.is_set():
                try:
                    if time.monotonic() >= next_s:
                        next_s = max(next_s + self.target.interval_s, time.monotonic())
                        asker.ask()
                    if asker.wait(max(0.0, next_s - time.monotonic())):
                        self._answers.note(time.monotonic())
                except OSError as error:  # no descriptor is left, say: that may pass
                    self.trouble = f"the probe itself could not ask: {error}"
                    self._ended.wait(self.target.interval_s)
        finally:
            asker.close()


class _Connects:
    """Opens connections, and resets each as soon as it is open: nothing is sent."""

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self._family, self._address = family, address
        self._open: dict[int, tuple[socket.socket, float]] = {}
        self._poll = select.poll()

    def ask(self) -> None:
        """Begins a connection, and gives up those that got no answer for too long."""
        now_s = time.monotonic()
        for connection, since_s in list(self._open.values()):
            if now_s - since_s > _CONNECT_BOUND_S:
                self._end(connection)
        connection = socket.socket(self._family, socket.SOCK_STREAM)
        connection.setblocking(False)  # noqa: FBT003  # its only name
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if connection.connect_ex(self._address) not in (0, errno.EINPROGRESS):
            connection.close()  # no way there just now
            return
        self._open[connection.fileno()] = (connection, now_s)
        self._poll.register(connection, select.POLLOUT)

    def wait(self, timeout_s: float) -> bool:
        """Waits until one of them is open; a refused one is no answer: nobody serves there."""
        answered = False
        for descriptor, _ in self._poll.poll(timeout_s * 1000):
            connection, _ = self._open[descriptor]
            answered |= connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            self._end(connection)
        return answered

    def close(self) -> None:
        """Ends all of them."""
        for connection, _ in list(self._open.values()):
            self._end(connection)

    def _end(self, connection: socket.socket) -> None:
        self._poll.unregister(connection)
        del self._open[connection.fileno()]
        connection.close()


class _Ping:
    """ICMP echo, by the kernel's own ping socket where that is allowed, else by a raw one."""

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self._v6 = family == socket.AF_INET6
        protocol = socket.IPPROTO_ICMPV6 if self._v6 else socket.IPPROTO_ICMP
        try:
            self._socket, self._raw = socket.socket(family, socket.SOCK_DGRAM, protocol), False
        except PermissionError:
            self._socket, self._raw = socket.socket(family, socket.SOCK_RAW, protocol), True
        self._socket.setblocking(False)  # noqa: FBT003  # its only name
        self._address = address
        self._cookie = os.urandom(8)  # tells our answers from those to others, whatever the identifier became
        self._number = 0
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def ask(self) -> None:
        """Sends an echo request."""
        self._number = (self._number + 1) % 2**16
        kind = _ECHO_REQUEST_6 if self._v6 else _ECHO_REQUEST
        body = struct.pack("!HH", os.getpid() % 2**16, self._number) + self._cookie
        header = struct.pack("!BBH", kind, 0, 0)
        if self._raw and not self._v6:
            header = struct.pack("!BBH", kind, 0, _checksum(header + body))
        with contextlib.suppress(OSError):  # no way there just now: that is what is to be seen
            self._socket.sendto(header + body, self._address)

    def wait(self, timeout_s: float) -> bool:
        """Waits for a reply to one of ours."""
        if not self._poll.poll(timeout_s * 1000):
            return False
        try:
            data = self._socket.recv(2048)
        except OSError:
            return False  # "unreachable", told by somebody on the way
        if self._raw and not self._v6:
            data = data[(data[0] & 15) * 4 :]
        return data[:1] == bytes([_ECHO_REPLY_6 if self._v6 else _ECHO_REPLY]) and data[8:16] == self._cookie

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


def _checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
