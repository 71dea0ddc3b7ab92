"""Listens to the built-in guest's serial line and talks to it. What the lines mean is in `serial_lines`.

Keeps the last record of each kind and a bounded number of faults, so it can run for days.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from livemig.core.errors import GuestError
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.serial_lines import (
    Banner,
    Beat,
    Failure,
    Fault,
    LineParser,
    Notice,
    Ready,
    Record,
    Status,
    Unreadable,
    Verdict,
)

__all__ = ["SerialLine"]

RecordT = TypeVar("RecordT", bound=Record)

_FAULTS_KEPT = 1000
_RETRY_S = 0.005
_ASK_AGAIN_S = 0.3
"""A destination loses the question who it is with its own state; it is asked again, less and less often."""


class SerialLine:
    """One guest's serial line, over the UNIX socket that its QEMU listens on.

    Attributes:
        name: What `heartbeat` and errors call it.
        heartbeat: Where its beats go; shared by the lines of one guest, source and destination.
        banner: The last one heard, or None; so too `ready`, `status`, `verdict`.
        faults: The last faults.
        fault_count: Faults heard on this line.
        notices: The last notices.
        unreadable_count: Lines that are none, without the first.
        failure: What the guest can't do, or None.
        ended: Set when QEMU closed the line.
    """

    def __init__(self, path: Path, *, name: str = "guest", heartbeat: Heartbeat | None = None) -> None:
        self.path = path
        self.name = name
        self.heartbeat = heartbeat if heartbeat is not None else Heartbeat()
        self.banner: Banner | None = None
        self.ready: Ready | None = None
        self.status: Status | None = None
        self.verdict: Verdict | None = None
        self.failure: Failure | None = None
        self.faults: deque[Fault] = deque(maxlen=_FAULTS_KEPT)
        self.fault_count = 0
        self.notices: deque[Notice] = deque(maxlen=_FAULTS_KEPT)
        self.unreadable_count = 0
        self.ended = asyncio.Event()
        self._parser = LineParser()
        self._transport: asyncio.Transport | None = None
        self._ask_at_s = 0.0
        self._ask_interval_s = _ASK_AGAIN_S
        self._waiters: dict[asyncio.Future[Record], Callable[[Record], bool]] = {}

    async def connect(self, *, timeout_s: float = 10.0) -> None:
        """Connects, trying again while QEMU does not listen yet, and asks the guest who it is.

        Raises:
            GuestError: When nobody listens within the bound.
        """
        loop = asyncio.get_running_loop()
        last_error: OSError | None = None
        try:
            async with asyncio.timeout(timeout_s):
                while self._transport is None:
                    try:
                        await loop.create_unix_connection(lambda: _Receiver(self), str(self.path))
                    except OSError as error:
                        last_error = error
                        await asyncio.sleep(_RETRY_S)
        except TimeoutError as error:
            raise GuestError(f"no serial line at {self.path} within {timeout_s} s: {last_error}") from error
        self.send(b"h")
        self._ask_at_s = loop.time() + self._ask_interval_s

    async def close(self) -> None:
        """Hangs up; does nothing when already hung up."""
        if self._transport is not None:
            self._transport.close()
            await self.ended.wait()

    def send(self, data: bytes) -> None:
        """Sends command bytes to the guest; `docs/guest.md` lists them."""
        if self._transport is None or self.ended.is_set():
            raise GuestError(f"the serial line of {self.name} is not connected")
        self._transport.write(data)

    async def next(
        self, kind: type[RecordT], *, timeout_s: float, where: Callable[[RecordT], bool] = lambda _: True
    ) -> RecordT:
        """Waits for the next record of a kind.

        Args:
            kind: Its class.
            timeout_s: The bound in seconds.
            where: What it must fulfil besides.

        Raises:
            GuestError: When none comes within the bound, the line ends, or the guest says that it failed.
        """
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._waiters[future] = lambda record: isinstance(record, kind) and where(record)
        if self.ended.is_set():
            self._fail_waiters(self._end_error())
        try:
            async with asyncio.timeout(timeout_s):
                record = await future
        except TimeoutError as error:
            raise GuestError(f"no {kind.__name__} from {self.name} within {timeout_s} s") from error
        finally:
            self._waiters.pop(future, None)
        assert isinstance(record, kind)  # noqa: S101  the waiter saw to it
        return record

    async def wait_ready(self, *, timeout_s: float = 30.0) -> Ready:
        """Waits until the guest has filled its memory and begun its workload; returns at once when it has.

        Raises:
            GuestError: When it does not within the bound, or can't.
        """
        if self.failure is not None:
            raise self._failure_error()
        return self.ready if self.ready is not None else await self.next(Ready, timeout_s=timeout_s)

    async def ask_verdict(self, *, all_bodies: bool = True, timeout_s: float = 60.0) -> Verdict:
        """Has the guest check all its memory and returns what it says.

        Args:
            all_bodies: Look at each byte; False takes a sample of the bodies, for a KVM that emulates.
            timeout_s: The bound in seconds.

        Raises:
            GuestError: When there is no answer within the bound.
        """
        self.send(b"v" if all_bodies else b"q")
        return await self.next(Verdict, timeout_s=timeout_s, where=lambda verdict: verdict.all_bodies == all_bodies)

    async def change(self, *, timeout_s: float = 10.0, **parameters: str | int) -> None:
        """Changes parameters of the current phase while the guest runs, by the guest's own names.

        Args:
            timeout_s: The bound in seconds.
            **parameters: Such as ``dirty_rate_bytes_s=50_000_000``; all take effect or none.

        Raises:
            GuestError: When the guest refuses or does not answer.
        """
        text = ":".join(f"{name}={value}" for name, value in parameters.items())
        self.send(f"={text}\n".encode("ascii"))
        await self.next(Notice, timeout_s=timeout_s, where=lambda notice: notice.event == "set")

    def _failure_error(self) -> GuestError:
        return GuestError(f"the guest {self.name} says: {self.failure}")

    def _end_error(self) -> GuestError:
        return GuestError(f"the serial line of {self.name} ended")

    def _fail_waiters(self, error: GuestError) -> None:
        for future in self._waiters:
            if not future.done():
                future.set_exception(error)

    def _connected(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def _received(self, data: bytes) -> None:
        arrival_s = asyncio.get_running_loop().time()
        for record in self._parser.feed(data):
            self.heartbeat.hear(self.name, arrival_s, record)
            self._keep(record)
            for future, wanted in self._waiters.items():
                if not future.done() and wanted(record):
                    future.set_result(record)
        if self.ready is None and arrival_s >= self._ask_at_s and self.failure is None:
            self._ask_at_s = arrival_s + self._ask_interval_s
            self._ask_interval_s *= 2
            self.send(b"h")

    def _keep(self, record: Record) -> None:
        match record:
            case Beat():
                return
            case Banner():
                self.banner = record
                if record.at_boot:
                    self.ready = None
            case Ready():
                self.ready = record
            case Status():
                self.status = record
            case Verdict():
                self.verdict = record
            case Fault():
                self.fault_count += 1
                self.faults.append(record)
            case Notice():
                self.notices.append(record)
            case Failure():
                self.failure = record
                self._fail_waiters(self._failure_error())
            case Unreadable():
                self.unreadable_count += not record.first

    def _lost(self) -> None:
        self.ended.set()
        self._fail_waiters(self._end_error())


class _Receiver(asyncio.Protocol):
    """Hands on what arrives, at the moment it arrives."""

    def __init__(self, line: SerialLine) -> None:
        self._line = line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  asyncio's own promise for a stream
        self._line._connected(transport)  # noqa: SLF001  one class in two parts

    def data_received(self, data: bytes) -> None:
        self._line._received(data)  # noqa: SLF001

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self._line._lost()  # noqa: SLF001
