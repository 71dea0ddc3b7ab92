"""The client's side of the Linux guest's services, as a program: talks to it without pause, and reports every silence.

``python -m livemig.lab.linux.traffic ADDRESS [--echo N] [--stream N] [--udp N] [--journal]`` runs until its standard
input ends, then prints how each flow did. Lines are JSON objects, times CLOCK_MONOTONIC in seconds, the same
in every process of this machine. Run by `livemig.lab.linux.watching` inside the lab's client.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable

from livemig.lab.linux.records import ECHO_PORT, JOURNAL_PORT, RECORD_BYTES, STREAM_PORT, record, sequence_of

INTERVAL_S = 0.002
SILENCE_S = 0.010
"""Shorter ones than this are this machine's own scheduling."""
_OUTSTANDING_MOST = 2000
_TELL_INTERVAL_S = 0.05
_CONNECT_BOUND_S = 20.0
_LAST_ECHOES_BOUND_S = 10.0


class Flow:
    """One conversation with the guest.

    Attributes:
        name: Such as ``echo1``.
        socket: Non-blocking.
        sent: Records sent.
        received: Records received.
        problems: What contradicts a session that loses and repeats nothing.
    """

    def __init__(self, name: str, address: str, port: int, kind: socket.SocketKind) -> None:
        self.name = name
        self.socket = _connected(address, port, kind)
        self.sent = self.received = 0
        self.problems: list[str] = []
        self._last_s = time.monotonic()
        self._told_s = 0.0

    @property
    def outstanding(self) -> int:
        """Records that are still owed by the guest."""
        return 0

    def tick(self) -> None:
        """Sends what is due."""

    def flush(self) -> None:
        """Sends what was due and did not go yet: at the end too, or the guest would never answer it."""

    def readable(self) -> None:
        """Takes what came.

        Raises:
            OSError: When the session ended.
        """
        raise NotImplementedError

    def heard(self) -> None:
        """Notes that the guest spoke, and prints the silence before it if it was long."""
        now_s = time.monotonic()
        if now_s - self._last_s >= SILENCE_S:
            say({"flow": self.name, "from_s": self._last_s, "to_s": now_s})
        self._last_s = now_s
        if now_s - self._told_s > _TELL_INTERVAL_S:
            self._told_s = now_s
            self.tell()

    def tell(self) -> None:
        """Says, now and then, how far it is."""
        say({"flow": self.name, "heard_s": self._last_s})

    def summary(self) -> dict[str, object]:
        """How it did."""
        return {"flow": self.name, "sent": self.sent, "received": self.received, "problems": self.problems[:5]}


class Echo(Flow):
    """Numbered records over TCP; each must come back as it was sent, once, in order."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__(name, address, ECHO_PORT, socket.SOCK_STREAM)
        self._expected: deque[bytes] = deque()
        self._unsent = self._partial = b""

    @property
    def outstanding(self) -> int:
        """Records that have not come back."""
        return len(self._expected)

    def tick(self) -> None:
        """Sends the next record, unless too many are under way."""
        if len(self._expected) < _OUTSTANDING_MOST:
            self.sent += 1
            self._expected.append(record(self.sent))
            self._unsent += self._expected[-1]
        self.flush()

    def flush(self) -> None:
        """Sends what waits for the socket to take more: it is full while the guest stands still."""
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def readable(self) -> None:
        """Compares what came back with what was sent."""
        data = self._partial + _received(self.socket)
        whole = len(data) - len(data) % RECORD_BYTES
        self._partial = data[whole:]
        for start in range(0, whole, RECORD_BYTES):
            found = data[start : start + RECORD_BYTES]
            if not self._expected or found != self._expected.popleft():
                self.problems.append(f"record {sequence_of(found)} where {self.received + 1} was due")
            self.received += 1
        self.heard()


class Stream(Flow):
    """Numbered records over TCP that the guest sends by itself."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__(name, address, STREAM_PORT, socket.SOCK_STREAM)
        self._partial = b""

    def readable(self) -> None:
        """Checks that each record is the next one."""
        data = self._partial + _received(self.socket)
        whole = len(data) - len(data) % RECORD_BYTES
        self._partial = data[whole:]
        for start in range(0, whole, RECORD_BYTES):
            self.received += 1
            found = data[start : start + RECORD_BYTES]
            if found != record(self.received):
                self.problems.append(f"record {sequence_of(found)} where {self.received} was due")
        self.heard()


class Datagrams(Flow):
    """Numbered datagrams, echoed: UDP may lose some, but what comes must be what was sent."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__(name, address, ECHO_PORT, socket.SOCK_DGRAM)
        self._seen: set[int] = set()

    def tick(self) -> None:
        """Sends the next datagram."""
        self.sent += 1
        with contextlib.suppress(OSError):  # nobody is there just now: that is what the silence shows
            self.socket.send(record(self.sent))

    def readable(self) -> None:
        """Takes a datagram."""
        try:
            found = self.socket.recv(2048)
        except OSError:
            return
        sequence = sequence_of(found)
        if found != record(sequence) or not 0 < sequence <= self.sent:
            self.problems.append("a datagram that was never sent")
        if sequence not in self._seen:  # a bridge may flood while it learns
            self._seen.add(sequence)
            self.received += 1
        self.heard()


class Journal(Flow):
    """What the guest says is on its disk for certain."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__(name, address, JOURNAL_PORT, socket.SOCK_STREAM)
        self._partial = b""

    def readable(self) -> None:
        """Takes the latest number; it never goes back."""
        data = self._partial + _received(self.socket)
        whole = len(data) - len(data) % 8
        self._partial = data[whole:]
        for start in range(0, whole, 8):
            sequence = sequence_of(data[start : start + 8])
            if sequence <= self.received:
                self.problems.append(f"block {sequence} acknowledged after {self.received}")
            self.received = sequence
        self.heard()

    def tell(self) -> None:
        """Says which block it was."""
        say({"flow": self.name, "acknowledged": self.received})


def say(line: dict[str, object]) -> None:
    """Prints a line."""
    print(json.dumps(line), flush=True)  # noqa: T201  # its output is what it is for


def main() -> None:
    """Talks until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    for kind in ("echo", "stream", "udp"):
        parser.add_argument(f"--{kind}", type=int, default=0)
    parser.add_argument("--journal", action="store_true")
    asked = parser.parse_args()
    flows: list[Flow] = [Echo(f"echo{number}", asked.address) for number in range(1, asked.echo + 1)]
    flows += [Stream(f"stream{number}", asked.address) for number in range(1, asked.stream + 1)]
    flows += [Datagrams(f"udp{number}", asked.address) for number in range(1, asked.udp + 1)]
    flows += [Journal("journal", asked.address)] if asked.journal else []
    say({"flow": "all", "ready_s": time.monotonic()})
    _talk(flows)
    for flow in flows:
        say(flow.summary())


def _talk(flows: list[Flow]) -> None:
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    for flow in flows:
        selector.register(flow.socket, selectors.EVENT_READ, flow)
    next_s, end_s = time.monotonic(), float("inf")
    while time.monotonic() < end_s and (end_s == float("inf") or any(flow.outstanding for flow in flows)):
        for key, _ in selector.select(max(0.0, next_s - time.monotonic())):
            if key.data is None:
                if not os.read(sys.stdin.fileno(), 4096):
                    selector.unregister(sys.stdin)
                    end_s = time.monotonic() + _LAST_ECHOES_BOUND_S
            else:
                _attempt(key.data, key.data.readable, selector)
        if time.monotonic() >= next_s:
            next_s = max(next_s + INTERVAL_S, time.monotonic())
            for flow in flows:
                _attempt(flow, flow.tick if end_s == float("inf") else flow.flush, selector)


def _attempt(flow: Flow, act: Callable[[], None], selector: selectors.BaseSelector) -> None:
    try:
        act()
    except OSError as error:
        flow.problems.append(f"ended: {error}")
        with contextlib.suppress(KeyError):
            selector.unregister(flow.socket)


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise ConnectionResetError("the guest closed it")
    return data


def _connected(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Connects, waiting until the guest serves."""
    end_s = time.monotonic() + _CONNECT_BOUND_S
    while True:
        connection = socket.socket(socket.AF_INET, kind)
        connection.settimeout(1.0)
        try:
            connection.connect((address, port))
        except OSError:
            connection.close()
            if time.monotonic() > end_s:
                raise
            time.sleep(0.1)
            continue
        if kind is socket.SOCK_STREAM:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(0)
        return connection


if __name__ == "__main__":
    main()
