"""Hears announcements (RARP) at the lab's switch, without livemig's own help."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from types import TracebackType
from typing import Self

from livemig.lab.two_hosts import TwoHosts

_PROGRAM = """
import json, socket, sys, time
ALL, OUTGOING = 3, 4  # a port hands a frame to its bridge before those who asked for one protocol alone
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
print("listening", flush=True)
while True:
    data, (interface, _, kind, *_) = heard.recvfrom(2048)
    if data[12:14] == bytes([0x80, 0x35]) and kind != OUTGOING:
        print(json.dumps([time.monotonic(), interface, data[6:12].hex(":")]), flush=True)
"""


class Listening:
    """Everything announced at the switch while it is entered.

    Attributes:
        heard: When (monotonic), at which port (``a-data``, ``b-data``), and for which card.
    """

    def __init__(self, lab: TwoHosts) -> None:
        self.heard: list[tuple[float, str, str]] = []
        self._namespace = lab.layout.namespace("switch")
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    def at(self, port: str, from_s: float = 0.0, to_s: float = float("inf")) -> list[str]:
        """The cards announced at a port in a time."""
        return [mac for time_s, where, mac in self.heard if where == port and from_s <= time_s <= to_s]

    async def wait_for(self, port: str, count: int) -> None:
        """Waits until as many were heard at a port."""
        end_s = time.monotonic() + 20
        while len(self.at(port)) < count:
            assert time.monotonic() < end_s, f"heard {self.heard}"
            await asyncio.sleep(0.02)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            "nsenter",
            f"--net=/run/netns/{self._namespace}",
            sys.executable,
            "-c",
            _PROGRAM,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"listening\n"
        self._reading = asyncio.create_task(self._read(self._process.stdout))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._reading is not None
        self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self.heard.append(tuple(json.loads(line)))
