"""Hostile clients on the port that the destination listens at: they delay the start, and nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

import pytest

from livemig.core import event as events
from livemig.engine import channel as channels
from livemig.engine.side import Side
from tests.engine.pair import IDLE
from tests.ssh.between import Between

pytestmark = pytest.mark.qemu


class Strangers:
    """Connect to the destination's port before the source does, and do one thing."""

    def __init__(self, kind: str, *, times: int = 1) -> None:
        self.kind = kind
        self.met = 0
        self._times = times
        self._sockets: list[socket.socket] = []

    async def meet(self, uri: str) -> None:
        """Connects to where the source will connect."""
        if self.met >= self._times:
            return
        self.met += 1
        host, _, port = uri.removeprefix("tcp:").rpartition(":")
        for _ in range(50 if self.kind == "flood" else 1):
            with contextlib.suppress(OSError):  # a full queue
                opened = await asyncio.to_thread(socket.create_connection, (host, int(port)), 0.3)
                self._sockets.append(opened)
                if self.kind == "garbage":
                    opened.sendall(os.urandom(4096))
                elif self.kind == "http":
                    opened.sendall(b"GET / HTTP/1.0\r\n\r\n")
        await asyncio.sleep(0.05)  # they are first

    def leave(self) -> None:
        """Closes all connections."""
        for each in self._sockets:
            each.close()


@pytest.mark.parametrize(("kind", "times"), [("silent", 1), ("silent", 2), ("garbage", 1), ("http", 2), ("flood", 1)])
async def test_a_stranger_only_delays(between: Between, monkeypatch: Any, kind: str, times: int) -> None:
    """The guest moves all the same, on another port or through SSH, and was never stopped for long."""
    strangers = Strangers(kind, times=times)
    real = channels._ClearText.connect_uri

    async def met(self: channels._ClearText, destination: Side) -> str:
        uri = await real(self, destination)
        await strangers.meet(uri)
        return uri

    monkeypatch.setattr(channels._ClearText, "connect_uri", met)
    await between.start(IDLE)
    try:
        report, seen = await between.migrate()
    finally:
        strangers.leave()
    assert report.outcome == "completed", (report.reason, seen)
    assert strangers.met == times or kind == "http"
    await between.assert_arrived()
    warned = [event.text for event in seen if isinstance(event, events.Warned)]
    if kind == "silent":
        assert sum("fell silent" in text for text in warned) == times, warned
