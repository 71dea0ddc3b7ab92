"""QEMU's events on their way to whoever follows them: none that matters is lost, nobody stalls QEMU."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any, Self

import msgspec

from livemig.core.errors import MonitorLost, MonitorTimeout

PENDING_LIMIT = 10_000
"""How many events wait in a stream before those that decide nothing are dropped."""

ESSENTIAL_EVENTS = frozenset(
    {
        "STOP",
        "RESUME",
        "SUSPEND",
        "SHUTDOWN",
        "RESET",
        "POWERDOWN",
        "GUEST_PANICKED",
        "GUEST_CRASHLOADED",
        "WATCHDOG",
        "MIGRATION",
        "MIGRATION_PASS",
        "UNPLUG_PRIMARY",
        "JOB_STATUS_CHANGE",
        "BLOCK_JOB_COMPLETED",
        "BLOCK_JOB_CANCELLED",
        "BLOCK_JOB_READY",
        "BLOCK_JOB_ERROR",
        "BLOCK_EXPORT_DELETED",
        "MEMORY_FAILURE",
    }
)
"""Never dropped: each is seldom, and who may run the guest follows from them."""


class MonitorEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One asynchronous event of QEMU's.

    Attributes:
        name: QEMU's name, such as ``STOP``.
        data: The event's data, empty when it has none.
        timestamp_s: When it happened by QEMU's wall clock, in seconds; NaN when QEMU could not tell.
        arrival_s: When its line was read here, in seconds on the monotonic clock.
    """

    name: str
    data: dict[str, Any]
    timestamp_s: float
    arrival_s: float


class EndKind(StrEnum):
    """How a monitor's connection ended."""

    END_OF_FILE = "end of file"
    """QEMU closed it after everything it had to say: every event was read."""
    CLOSED = "closed"
    """livemig closed it."""
    BROKEN = "broken"
    """A network or protocol failure: events may be missing."""


class ConnectionEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a monitor's connection.

    Attributes:
        kind: How it ended.
        reason: One clear line.
        time_s: When that was noticed, in seconds on the monotonic clock.
    """

    kind: EndKind
    reason: str
    time_s: float

    @property
    def orderly(self) -> bool:
        """Whether QEMU closed it after everything it had to say, so that an event not seen did not happen."""
        return self.kind is EndKind.END_OF_FILE

    def as_error(self, command: str | None = None) -> MonitorLost:
        """Makes the error that whoever still waits on the monitor gets."""
        return MonitorLost(self.reason, command=command, orderly=self.orderly)


class EventStream:
    """A subscription to one monitor's events, from `Monitor.subscribe`; use it as a context manager.

    ``async for`` gives each event once, in QEMU's order, and ends with the connection: `end` then says how,
    after every event that was read has been given. Being cancelled while waiting loses no event. For one
    consumer.
    """

    def __init__(self, names: Collection[str], on_close: "Callable[[EventStream], None]") -> None:
        self._names = frozenset(names)
        self._on_close = on_close
        self._pending: deque[MonitorEvent] = deque()
        self._changed = asyncio.Event()
        self._end: ConnectionEnd | None = None
        self.dropped_count = 0
        """Events dropped because more than `PENDING_LIMIT` waited; never any of `ESSENTIAL_EVENTS`."""

    @property
    def end(self) -> ConnectionEnd | None:
        """How the connection ended, or None while it lives. Events read before may still be pending."""
        return self._end

    @property
    def pending_count(self) -> int:
        """Events that arrived and were not taken yet."""
        return len(self._pending)

    def put(self, event: MonitorEvent) -> None:
        """Takes an event from the monitor. Never waits."""
        if self._end is not None or (self._names and event.name not in self._names):
            return
        if len(self._pending) >= PENDING_LIMIT and event.name not in ESSENTIAL_EVENTS:
            self.dropped_count += 1
            return
        self._pending.append(event)
        self._changed.set()

    def finish(self, end: ConnectionEnd) -> None:
        """Takes the end of the connection from the monitor."""
        if self._end is None:
            self._end = end
            self._changed.set()

    def take(self) -> MonitorEvent | None:
        """Takes the next event that has arrived, without waiting; None when there is none."""
        return self._pending.popleft() if self._pending else None

    async def next(self, timeout_s: float | None) -> MonitorEvent | None:
        """Waits for the next event; None when the bound passed or the connection ended: see `end`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._next()
        except TimeoutError:
            return self.take()

    async def wait_for(
        self,
        *names: str,
        timeout_s: float | None,
        where: Callable[[MonitorEvent], bool] | None = None,
    ) -> MonitorEvent:
        """Waits for the first event of these names, passing over (and dropping) the others in this stream.

        Args:
            names: Names of events; none means any.
            timeout_s: The bound in seconds, None to wait as long as the connection lives.
            where: A further condition.

        Raises:
            MonitorTimeout: When none came within the bound; ``command`` holds the names.
            MonitorLost: When the connection ended before.
        """
        wanted = " or ".join(names) or "any event"
        try:
            async with asyncio.timeout(timeout_s):
                while (event := await self._next()) is not None:
                    if (not names or event.name in names) and (where is None or where(event)):
                        return event
        except TimeoutError:
            bound_s = timeout_s or 0.0
            raise MonitorTimeout(f"no {wanted} within {bound_s:g} s", command=wanted, timeout_s=bound_s) from None
        assert self._end is not None  # noqa: S101  # the only reason why _next gives None
        raise self._end.as_error()

    async def _next(self) -> MonitorEvent | None:
        while not self._pending:
            if self._end is not None:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._pending.popleft()

    def close(self) -> None:
        """Ends the subscription. Harmless when repeated."""
        self._on_close(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MonitorEvent:
        event = await self._next()
        if event is None:
            raise StopAsyncIteration
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
