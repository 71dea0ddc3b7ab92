"""A relay on the migration's way that can cut it, let it fall silent, or slow it down: the link, under control."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from livemig.engine import channel as channels
from livemig.engine.channel import Channel, local_channel
from livemig.engine.side import Side

CHUNK_BYTES = 65536


class _Relayed(Channel):
    """A channel whose source connects to the relay."""

    def __init__(self, channel: Channel, path: Path) -> None:
        super().__init__()
        self.description, self.listen_uri = channel.description, channel.listen_uri
        self._uri = f"unix:{path}"

    async def connect_uri(self, destination: Side) -> str:
        return self._uri


class Proxy:
    """Relays what connects to its own UNIX socket to another."""

    def __init__(self, path: Path, bytes_s: float | None) -> None:
        self.path = path
        self.target = Path()
        self._bytes_s = bytes_s
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def between(cls, monkeypatch, *, listening: bool = True, bytes_s: float | None = None) -> AsyncIterator[Self]:
        """Puts a relay between source and destination of the migrations within."""
        with tempfile.TemporaryDirectory(prefix="lm-") as folder:
            proxy = cls(Path(folder) / "relay.sock", bytes_s)
            real = local_channel

            @asynccontextmanager
            async def relayed(host, source, destination, run_id) -> AsyncIterator[Channel]:
                async with real(host, source, destination, run_id) as channel:
                    proxy.target = Path(channel.listen_uri.removeprefix("unix:"))
                    yield _Relayed(channel, proxy.path)

            monkeypatch.setattr(channels, "local_channel", relayed)
            server = await asyncio.start_unix_server(proxy._relay, proxy.path) if listening else None
            try:
                yield proxy
            finally:
                monkeypatch.undo()
                if server is not None:
                    server.close()
                proxy.cut()
                for task in proxy._tasks:
                    task.cancel()
                await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Closes both ends at once."""
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Passes nothing on any more: both ends hear silence."""
        self._flows.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target_reader, target_writer = await asyncio.open_unix_connection(self.target)
        self._writers += [writer, target_writer]
        for task in (
            asyncio.create_task(self._pass_on(reader, target_writer)),
            asyncio.create_task(self._pass_on(target_reader, writer)),
        ):
            self._tasks.add(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
                if self._bytes_s is not None:
                    await asyncio.sleep(len(data) / self._bytes_s)
        writer.close()
