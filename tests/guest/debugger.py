"""Reads and changes a guest's memory by hand: a small QMP client, and gdb's remote protocol over QEMU's stub.

Raw on purpose: what tests the guest must not lean on livemig's own monitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

PACKET_BYTES = 1024
"""QEMU's stub answers E22 to larger pieces."""


class Qmp:
    """One QMP connection; events are kept aside."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.events: list[dict[str, Any]] = []

    async def ask(self, command: str, **arguments: Any) -> Any:
        self._writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            message = await self._message()
            if "return" in message:
                return message["return"]
            assert "error" not in message, f"{command}: {message}"

    async def wait_event(self, name: str, *, timeout_s: float = 10.0) -> dict[str, Any]:
        async with asyncio.timeout(timeout_s):
            while True:
                for event in self.events:
                    if event["event"] == name:
                        self.events.remove(event)
                        return event
                await self._message()

    async def human(self, line: str) -> str:
        reply = await self.ask("human-monitor-command", **{"command-line": line})
        assert isinstance(reply, str)
        return reply

    async def _message(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self._reader.readline(), 20)
        assert line, "QEMU closed its monitor"
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message


@contextlib.asynccontextmanager
async def qmp_of(path: Path) -> AsyncIterator[Qmp]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        client = Qmp(reader, writer)
        await client._message()
        await client.ask("qmp_capabilities")
        yield client
    finally:
        writer.close()
        await writer.wait_closed()


class Debugger:
    """gdb's remote protocol, as far as memory goes. The guest stands still while one is attached."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, address: int, size_bytes: int) -> bytes:
        data = b""
        while len(data) < size_bytes:
            part_bytes = min(size_bytes - len(data), PACKET_BYTES)
            data += bytes.fromhex((await self._ask(f"m{address + len(data):x},{part_bytes:x}")).decode())
        return data

    async def write(self, address: int, data: bytes) -> None:
        for offset in range(0, len(data), PACKET_BYTES):
            part = data[offset : offset + PACKET_BYTES]
            assert await self._ask(f"M{address + offset:x},{len(part):x}:{part.hex()}") == b"OK"

    async def _ask(self, packet: str) -> bytes:
        body = packet.encode()
        self._writer.write(b"$" + body + b"#" + f"{sum(body) % 256:02x}".encode())
        async with asyncio.timeout(10):
            assert await self._reader.readexactly(1) == b"+"
            reply = (await self._reader.readuntil(b"#"))[1:-1]
            await self._reader.readexactly(2)
        self._writer.write(b"+")
        assert not reply.startswith(b"E"), reply
        return reply

    async def detach(self) -> None:
        """Lets the guest go on."""
        assert await self._ask("D") == b"OK"


@contextlib.asynccontextmanager
async def debugger_of(qmp: Qmp, folder: Path) -> AsyncIterator[Debugger]:
    """Attaches for the length of the block; the guest stands still in it and goes on behind it."""
    path = folder / "gdb"
    path.unlink(missing_ok=True)
    await qmp.human(f"gdbserver unix:{path},server=on,wait=off")
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        debugger = Debugger(reader, writer)
        yield debugger
        await debugger.detach()
    finally:
        writer.close()
        await writer.wait_closed()
        await qmp.human("gdbserver none")
