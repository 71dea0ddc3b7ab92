"""Relays between livemig and a QEMU's monitor, and between the two QEMUs, that see all and do harm when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

Message = dict[str, Any]
CHUNK_BYTES = 65536


class QmpRelay:
    """Listens beside a QEMU's monitor and passes on what is said, line by line.

    Attributes:
        path: Where it listens.
        log: What passed: ``>`` a command's name, ``<`` an event's, with its status where it has one.
        on_point: Called with each point that is reached, before the message is passed on.
        lose_events: How many events to lose from here.
        double_events: How many events to pass on twice.
        refuse: How many commands to answer with an error, in QEMU's place.
        delay_s: How long each message is held.
        clock_shift_s: What is added to the timestamps of events.
        rewrite: What is done to a command's arguments before it is passed on.
    """

    def __init__(self, path: Path, target: Path, on_point: Callable[[str], None]) -> None:
        self.path, self._target = path, target
        self.log: list[str] = []
        self.on_point = on_point
        self.lose_events = self.double_events = self.refuse = 0
        self.delay_s = 0.0
        self.clock_shift_s = 0.0
        self.rewrite: Callable[[Message], None] | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[str, str] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=2**22)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Closes all connections; new ones are taken."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def hole(self) -> None:
        """Passes nothing on any more."""
        self._flows.clear()

    def heal(self) -> None:
        """Passes everything on again, as it is."""
        self.lose_events = self.double_events = self.refuse = 0
        self.delay_s = 0.0
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        there_writer = None
        try:
            there_reader, there_writer = await asyncio.open_unix_connection(self._target, limit=2**22)
            self._writers.add(there_writer)
            ways = [
                asyncio.ensure_future(self._pass(reader, there_writer, self._take_command, writer)),
                asyncio.ensure_future(self._pass(there_reader, writer, self._take_answer, writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in (writer, there_writer):
                if each is not None:
                    self._writers.discard(each)
                    each.close()
            self._tasks.discard(task)

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        take: Callable[[Message], list[Message]],
        back: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError, ValueError):
            async for said in _messages(reader):
                messages = take(said)
                await self._flows.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                for message in messages:
                    to = back if "error" in message else writer
                    to.write(json.dumps(message).encode() + b"\r\n")
                await writer.drain()

    def _take_command(self, message: Message) -> list[Message]:
        name = str(message.get("execute") or message.get("exec-oob"))
        self._asked[str(message.get("id"))] = name
        self.log.append(f">{name}")
        if self.rewrite is not None:
            self.rewrite(message)
        self.on_point(f">{name}")
        if self.refuse and name not in ("qmp_capabilities", "query-status"):
            self.refuse -= 1
            error = {"class": "GenericError", "desc": "not today, says the trial"}
            return [{"id": message.get("id"), "error": error}]
        return [message]

    def _take_answer(self, message: Message) -> list[Message]:
        if "event" in message:
            name = str(message["event"])
            status = message.get("data", {}).get("status", "")
            point = f"<{name}:{status}" if name == "MIGRATION" else f"<{name}"
            self.log.append(point)
            if self.clock_shift_s:
                message["timestamp"]["seconds"] += int(self.clock_shift_s)
            self.on_point(point)
            if self.lose_events:
                self.lose_events -= 1
                return []
            if self.double_events:
                self.double_events -= 1
                return [message, message]
        elif "id" in message:
            name = self._asked.pop(str(message["id"]), "")
            self.log.append(f"={name}")
            self.on_point(f"={name}")
        return [message]


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[Message]:
    """What is said, each as soon as it is whole: qemu.qmp ends its messages without a newline."""
    text, decoder = "", json.JSONDecoder()
    while data := await reader.read(CHUNK_BYTES):
        text += data.decode()
        while text := text.lstrip():
            try:
                message, end = decoder.raw_decode(text)
            except ValueError:
                break  # the rest is still to come
            text = text[end:]
            yield message


class LinkRelay:
    """Between the two QEMUs: passes memory on, until it is told not to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.target = ""
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def redirect(self, message: Message) -> None:
        """Has the source connect here instead of to the destination."""
        if message.get("execute") == "migrate":
            self.target = str(message["arguments"]["uri"]).removeprefix("unix:")
            message["arguments"]["uri"] = f"unix:{self.path}"

    def cut(self) -> None:
        """Closes all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def hole(self) -> None:
        """Passes nothing on any more: both ends hear silence."""
        self._flows.clear()

    def heal(self) -> None:
        """Passes everything on again."""
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            there_reader, there_writer = await asyncio.open_unix_connection(self.target)
            self._writers.add(there_writer)
            ways = [
                asyncio.ensure_future(self._pass(reader, there_writer)),
                asyncio.ensure_future(self._pass(there_reader, writer)),
            ]
            try:
                await asyncio.wait(ways)
            finally:
                for way in ways:
                    way.cancel()
                there_writer.close()
                self._writers.discard(there_writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
