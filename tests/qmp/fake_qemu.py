"""A fake QEMU: a QMP server on a UNIX socket, with faults on demand. Its migration is in `fake_migration`.

It is held to the real one by test_monitor_contract.py. A fake migrates to another in the same process: ``migrate`` to
``unix:PATH`` finds the fake that was told ``migrate-incoming`` with that address.
"""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from . import fake_data
from .fake_migration import FakeGuest, FakeMigration

JSON = dict[str, Any]


class Refused(Exception):
    """The answer to a command is an error."""

    def __init__(self, description: str, error_class: str = "GenericError") -> None:
        super().__init__(description)
        self.error_class = error_class


@dataclass
class Faults:
    """What goes wrong. Everything can be changed while the fake runs."""

    greeting: bytes | None = None
    """Sent instead of QEMU's; empty is silence."""
    close_at_connect: bool = False
    out_of_band: bool = True
    silent_after: int | None = None
    """From this count of in-band commands on none is answered; out-of-band ones are."""
    silent_commands: set[str] = field(default_factory=set)
    lost_negotiations: int = 0
    """So many clients' first command is dropped, as QEMU does while it still closes the client before."""
    close_after: int | None = None
    """After this count of in-band commands the connection closes instead of the answer."""
    bytes_after: dict[int, bytes] = field(default_factory=dict)
    """Raw bytes sent before the answer to the n-th in-band command."""
    errors: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Command to error class and description."""
    replies: dict[str, Any] = field(default_factory=dict)
    """Command to a value returned instead of the true one."""
    reply_delay_s: dict[str, float] = field(default_factory=dict)
    event_delay_s: dict[str, float] = field(default_factory=dict)
    """Event name to how late it is sent, with its true timestamp: later ones overtake it."""
    duplicate_events: set[str] = field(default_factory=set)
    duplicate_replies: bool = False
    stop_reading: bool = False
    """Reads nothing any more, as a stopped process."""


class FakeQemu:
    """A fake QEMU process; use it as an async context manager.

    Attributes:
        path: Of its QMP socket.
        faults: What goes wrong.
        commands: Every command received, in order.
        run_state: Its run state.
        migration: Its migration, outgoing or incoming.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        incoming: bool = False,
        paused: bool = False,
        guest: FakeGuest | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.path = str(path)
        self.faults = faults or Faults()
        self.commands: list[tuple[str, JSON]] = []
        self.run_state = "inmigrate" if incoming else ("prelaunch" if paused else "running")
        self.autostart = not paused
        self.capabilities = dict.fromkeys(fake_data.CAPABILITIES, False)
        self.parameters = dict(fake_data.PARAMETERS)
        self.objects: dict[str, JSON] = {}
        self.migration = FakeMigration(self, guest or FakeGuest())
        self.gone = asyncio.Event()
        self._clients: list[_Client] = []
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def die(self) -> None:
        """Ends at once, as by SIGKILL. The socket's file is left behind."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self.gone.set()
        self.migration.end()
        for client in self._clients:
            client.close()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def spawn(self, coroutine: Any) -> None:
        """Runs a coroutine as long as this QEMU lives."""
        task: asyncio.Task[None] = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def emit(self, name: str, data: JSON | None = None) -> None:
        """Sends an event to the client that has negotiated."""
        now_s = time.time()
        seconds = int(now_s)
        event: JSON = {"event": name, "timestamp": {"seconds": seconds, "microseconds": int((now_s - seconds) * 1e6)}}
        if data is not None:
            event["data"] = data
        delay_s = self.faults.event_delay_s.get(name)
        if delay_s is not None:
            self.spawn(self._emit_late(event, delay_s))
            return
        for _ in range(2 if name in self.faults.duplicate_events else 1):
            self._send_event(event)

    async def _emit_late(self, event: JSON, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self._send_event(event)

    def _send_event(self, event: JSON) -> None:
        for client in self._clients:
            if client.negotiated:
                client.send(event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with self._turn:  # one client; the next one waits in silence
                client = _Client(self, reader, writer)
                self._clients.append(client)
                try:
                    await client.serve()
                finally:
                    self._clients.remove(client)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def answer(self, command: str, arguments: JSON) -> Any:
        """Carries out a command.

        Raises:
            Refused: When QEMU would refuse.
        """
        if command in self.faults.errors:
            error_class, description = self.faults.errors[command]
            raise Refused(description, error_class)
        if command in self.faults.replies:
            return self.faults.replies[command]
        handler = getattr(self, "_do_" + command.replace("-", "_"), None)
        if handler is None:
            raise Refused(f"The command {command} has not been found", "CommandNotFound")
        return handler(**{name.replace("-", "_"): value for name, value in arguments.items()})

    def set_run_state(self, state: str) -> None:
        """Changes the run state, with the event that goes with it."""
        was_running, self.run_state = self.run_state == "running", state
        if was_running != (state == "running"):
            self.emit("STOP" if was_running else "RESUME")

    def _do_query_status(self) -> JSON:
        return {"status": self.run_state, "running": self.run_state == "running"}

    def _do_query_migrate(self) -> JSON:
        return self.migration.reply()

    def _do_query_version(self) -> JSON:
        return fake_data.VERSION

    def _do_query_name(self) -> JSON:
        return {}

    def _do_query_commands(self) -> list[JSON]:
        names = (name.removeprefix("_do_") for name in dir(self) if name.startswith("_do_"))
        spelled = (name if name == "migrate_cancel" else name.replace("_", "-") for name in names)
        return [{"name": name} for name in (*spelled, "qmp_capabilities")]

    def _do_query_memory_size_summary(self) -> JSON:
        return {"base-memory": self.migration.guest.total_bytes, "plugged-memory": 0}

    def _do_query_cpus_fast(self) -> list[JSON]:
        return [{"cpu-index": 0, "thread-id": 0, "qom-path": "/machine/unattached/device[0]", "target": "x86_64"}]

    def _do_query_qmp_schema(self) -> list[JSON]:
        return fake_data.SCHEMA

    def _do_query_migrate_capabilities(self) -> list[JSON]:
        return [{"capability": name, "state": on} for name, on in self.capabilities.items()]

    def _do_query_migrate_parameters(self) -> JSON:
        return dict(self.parameters)

    def _do_migrate_set_capabilities(self, capabilities: list[JSON]) -> JSON:
        if self.migration.running:
            raise Refused("There's a migration process in progress")
        for item in capabilities:
            if item["capability"] not in self.capabilities:
                raise Refused(f"Parameter 'capability' does not accept value '{item['capability']}'")
        self.capabilities.update({item["capability"]: item["state"] for item in capabilities})
        return {}

    def _do_migrate_set_parameters(self, **parameters: Any) -> JSON:
        named = {name.replace("_", "-"): value for name, value in parameters.items()}
        for name in named:
            if name not in fake_data.SETTABLE_PARAMETERS:
                raise Refused(f"Parameter '{name}' is unexpected")
        if not 0 <= named.get("downtime-limit", 1) <= 2_000_000:
            raise Refused("Parameter 'downtime_limit' expects an integer in the range of 0 to (2000 * 1000) ms")
        self.parameters.update(named)
        return {}

    def _do_migrate(self, uri: str, resume: bool = False) -> JSON:
        self.migration.start_outgoing(uri)
        return {}

    def _do_migrate_incoming(self, uri: str, exit_on_error: bool = True) -> JSON:
        self.migration.listen(uri, exit_on_error=exit_on_error)
        return {}

    def _do_migrate_cancel(self) -> JSON:
        self.migration.cancel()
        return {}

    def _do_migrate_continue(self, state: str) -> JSON:
        self.migration.proceed(state)
        return {}

    def _do_yank(self, instances: list[JSON]) -> JSON:
        if not instances:
            return {}
        if instances != self._do_query_yank():
            raise Refused("Instance not found", "DeviceNotFound")
        self.migration.fail("Channel error: Input/output error")
        return {}

    def _do_query_yank(self) -> list[JSON]:
        return [{"type": "migration"}] if self.migration.connected else []

    def _do_announce_self(self, **_: Any) -> JSON:
        return {}

    def _do_stop(self) -> JSON:
        if self.run_state == "inmigrate":
            self.autostart = False
        elif self.run_state == "running":
            self.set_run_state("paused")
        return {}

    def _do_cont(self) -> JSON:
        if self.run_state == "inmigrate":
            self.autostart = True
        elif self.run_state == "finish-migrate":
            raise Refused("Migration is not finalized yet")
        elif self.run_state != "running":
            self.set_run_state("running")
        return {}

    def _do_object_add(self, id: str, **properties: Any) -> JSON:  # noqa: A002
        if id in self.objects:
            raise Refused(f"attempt to add duplicate property '{id}' to object (type 'container')")
        self.objects[id] = properties
        return {}

    def _do_qom_get(self, path: str, property: str) -> Any:  # noqa: A002
        found = self.objects.get(path.removeprefix("/objects/"), {})
        if property not in found:
            raise Refused(f"Property '{path}.{property}' not found")
        return found[property]

    def _do_object_del(self, id: str) -> JSON:  # noqa: A002
        if self.objects.pop(id, None) is None:
            raise Refused(f"object '{id}' not found")
        return {}

    def _do_quit(self) -> JSON:
        self.emit("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
        self.spawn(self._quit())
        return {}

    async def _quit(self) -> None:
        await asyncio.sleep(0.005)
        await self.die()


class _Client:
    """One accepted connection. qemu.qmp sends no newlines, so the stream is cut at the end of each JSON value."""

    def __init__(self, qemu: FakeQemu, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.negotiated = False
        self._qemu = qemu
        self._reader = reader
        self._writer = writer
        self._count = 0
        self._in_band: asyncio.Queue[JSON] = asyncio.Queue()

    def send(self, message: JSON) -> None:
        self._writer.write(json.dumps(message).encode() + b"\r\n")

    def close(self) -> None:
        self._writer.transport.abort()

    async def serve(self) -> None:
        faults = self._qemu.faults
        if faults.close_at_connect:
            return
        if faults.greeting is None:
            offered = ["oob"] if faults.out_of_band else []
            self.send({"QMP": {"version": fake_data.VERSION, "capabilities": offered}})
        else:
            self._writer.write(faults.greeting)
        dispatcher = asyncio.create_task(self._dispatch())
        try:
            await self._read()
        finally:
            dispatcher.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await dispatcher

    async def _read(self) -> None:
        decoder, text = json.JSONDecoder(), ""
        while data := await self._reader.read(65536):
            while self._qemu.faults.stop_reading:
                await asyncio.sleep(0.01)
            text += data.decode()
            while text := text.lstrip():
                try:
                    message, end = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    break
                text = text[end:]
                if "exec-oob" in message:
                    await self._answer(message, message["exec-oob"])
                else:
                    self._in_band.put_nowait(message)

    async def _dispatch(self) -> None:
        while True:
            message = await self._in_band.get()
            faults, command = self._qemu.faults, message.get("execute", "")
            if command != "qmp_capabilities":
                self._count += 1
            elif faults.lost_negotiations:
                faults.lost_negotiations -= 1
                continue
            self._writer.write(faults.bytes_after.get(self._count, b""))
            if faults.close_after is not None and self._count > faults.close_after:
                self._writer.close()
                return
            silent = faults.silent_after is not None and self._count > faults.silent_after
            while silent or command in faults.silent_commands:
                await asyncio.sleep(0.01)
                silent = faults.silent_after is not None and self._count > faults.silent_after
            await self._answer(message, command)

    async def _answer(self, message: JSON, command: str) -> None:
        arguments = message.get("arguments", {})
        if command == "qmp_capabilities":
            self.negotiated = True
            self.send({"return": {}})
            return
        self._qemu.commands.append((command, arguments))
        await asyncio.sleep(self._qemu.faults.reply_delay_s.get(command, 0))
        try:
            reply: JSON = {"return": self._qemu.answer(command, arguments), "id": message.get("id")}
        except Refused as error:
            reply = {"error": {"class": error.error_class, "desc": str(error)}, "id": message.get("id")}
        for _ in range(2 if self._qemu.faults.duplicate_replies else 1):
            self.send(reply)
