"""A socket by which another process asks a running engine how far it is, changes its limits, or has it give up.

One JSON object a line each way, in a folder that only its user may enter. What an engine does not answer within a bound
is an error: nobody acts in its place while it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from livemig.core import event as events
from livemig.core.errors import ControlError, JournalError, LivemigError
from livemig.core.plan import Plan, PlanChange
from livemig.engine.run_files import is_driven, is_id, socket_path

ANSWER_BOUND_S = 2.0
LINE_BYTES_MOST = 65536
_OF_PROGRESS = (
    "progress",
    "round_number",
    "remaining_bytes",
    "sent_bytes",
    "throughput_bytes_s",
    "expected_downtime_s",
    "left_s",
)


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked of an engine."""

    do: Literal["status", "tune", "cancel"]
    change: PlanChange = PlanChange()
    reason: str = ""


class LiveStatus(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="live-status"):
    """How far a run is.

    Attributes:
        id: The run's id.
        engine_pid: The process that drives it.
        started_at: When it began, ISO 8601.
        source: The source's address.
        destination: The destination's address.
        doing: What it does now, in a word or some.
        plan: What is asked of it now.
        time_s: Seconds since ``migrate``; None before it.
        progress: From 0 to 1; None before the first counters, as the rest.
        round_number: The pass under way, from 1.
        remaining_bytes: What is left to send.
        sent_bytes: What went over the wire so far.
        throughput_bytes_s: QEMU's last ~100 ms slot.
        expected_downtime_s: What a switchover now would cost.
        left_s: The time left as a range in seconds.
    """

    id: str
    engine_pid: int
    started_at: str
    source: str
    destination: str
    doing: str
    plan: Plan
    time_s: float | None = None
    progress: float | None = None
    round_number: int | None = None
    remaining_bytes: int | None = None
    sent_bytes: int | None = None
    throughput_bytes_s: float | None = None
    expected_downtime_s: float | None = None
    left_s: tuple[float, float] | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the engine answers: how far it is, after what was asked was done; or why it was not."""

    status: LiveStatus | None = None
    error: str | None = None


class StatusKeeper:
    """Keeps of the events what somebody may ask for."""

    def __init__(self, run_id: str, source: str, destination: str) -> None:
        """Nothing has happened yet."""
        self._status = LiveStatus(
            id=run_id,
            engine_pid=os.getpid(),
            started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            source=source,
            destination=destination,
            doing="preparing",
            plan=Plan(),
        )

    def take(self, event: events.Event) -> None:
        """Takes note of an event."""
        match event:
            case events.Sampled():
                changes: dict[str, Any] = {"doing": "sampling the guest"}
            case events.Progressed():
                changes = {name: getattr(event, name) for name in _OF_PROGRESS}
                changes["doing"] = f"copying ({event.phase})"
            case events.SourceStopped():
                changes = {"doing": "switching over: the guest stands still"}
            case events.DestinationRunning():
                changes = {"doing": "the guest runs at the destination: watching it there"}
            case events.Settling():
                changes = {"doing": f"settling ({event.step}): {event.reason}"}
            case _:
                return
        self._status = msgspec.structs.replace(self._status, **changes)

    def now(self, plan: Plan, time_s: float | None) -> LiveStatus:
        """Returns how far it is."""
        return msgspec.structs.replace(self._status, plan=plan, time_s=time_s)


Answer = Callable[[Request], LiveStatus]
"""Does what is asked; raises `LivemigError` when it refuses."""


@contextlib.asynccontextmanager
async def listening(run_id: str, answer: Answer) -> AsyncIterator[None]:
    """Listens for as long as it is entered.

    Raises:
        JournalError: When the socket can't be made. Nothing was touched.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(ANSWER_BOUND_S):
                writer.write(msgspec.json.encode(_answered(await reader.readline(), answer)) + b"\n")
                await writer.drain()
        writer.close()

    path = socket_path(run_id)
    try:
        listener = _listener(path)
    except OSError as error:
        raise JournalError(f"no control socket {path}: {error.strerror or error}", path=str(path)) from error
    server = await asyncio.start_unix_server(serve, sock=listener, limit=LINE_BYTES_MOST)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def ask(run_id: str, request: Request) -> LiveStatus:
    """Asks the engine of a run.

    Raises:
        ControlError: When there is none, when it does not answer, or when it refuses.
    """
    if not is_id(run_id):
        raise ControlError(f"{run_id!r} is no run's id: see `livemig status`", run_id=run_id)
    try:
        async with asyncio.timeout(ANSWER_BOUND_S):
            reader, writer = await asyncio.open_unix_connection(sock=_connected(socket_path(run_id)))
            try:
                writer.write(msgspec.json.encode(request) + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
        reply = msgspec.json.decode(line, type=Reply)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise _gone(run_id) from error
    except PermissionError as error:
        raise ControlError(f"run {run_id} is another user's: ask as that user, or as root", run_id=run_id) from error
    except (OSError, TimeoutError, ValueError, msgspec.DecodeError) as error:
        raise _gone(run_id) from error
    if reply.error is not None or reply.status is None:
        raise ControlError(f"run {run_id} refuses: {reply.error or 'no reason given'}", run_id=run_id)
    return reply.status


def _gone(run_id: str) -> ControlError:
    if is_driven(run_id):
        return ControlError(
            f"the engine of run {run_id} lives and does not answer: wait for it, or end its process and then "
            f"`livemig recover {run_id}`",
            run_id=run_id,
        )
    return ControlError(
        f"no engine drives run {run_id} any more: `livemig status {run_id}` says how it ended, and "
        f"`livemig recover {run_id}` finishes what was cut off",
        run_id=run_id,
        gone=True,
    )


def _answered(line: bytes, answer: Answer) -> Reply:
    try:
        return Reply(status=answer(msgspec.json.decode(line, type=Request)))
    except LivemigError as error:
        return Reply(error=str(error))
    except (msgspec.DecodeError, ValueError) as error:
        return Reply(error=f"what was asked can't be read: {error}")


def _listener(path: Path) -> socket.socket:
    """Binds by the folder's descriptor, so that a long path does not matter."""
    path.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(folder)
    return listener


def _connected(path: Path) -> socket.socket:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_BOUND_S)
        connection.connect(f"/proc/self/fd/{folder}/{path.name}")
        connection.settimeout(0)
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection
