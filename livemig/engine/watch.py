"""Follows the events of both sides in one place and remembers what was seen. Decides nothing, sends nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from livemig.core.inputs import Input
from livemig.core.status import MigrationStatus
from livemig.engine.side import Side, SideName
from livemig.qemu.event_stream import EventStream, MonitorEvent

LAST_WORDS_BOUND_S = 0.5
"""How long what a process said before its end may take to be read."""


class SideEvent:
    """An event of one side, or, with None, the end of its monitor."""

    __slots__ = ("event", "side")

    def __init__(self, side: SideName, event: MonitorEvent | None) -> None:
        self.side: SideName = side
        self.event = event


class Watch:
    """The events of source and destination, merged in the order they arrived.

    Attributes:
        latest: The latest event of each name, by side.
        statuses: The latest migration status of each side, by event or by query.
        lost: The sides whose monitor ended.
        ended_orderly: Those of them that closed it after everything they had to say: what was not seen did not happen.
    """

    def __init__(self, source: Side, destination: Side) -> None:
        self.latest: dict[tuple[SideName, str], MonitorEvent] = {}
        self.statuses: dict[SideName, MigrationStatus] = {}
        self.lost: set[SideName] = set()
        self.ended_orderly: set[SideName] = set()
        self._sides = (source, destination)
        self._inbox: asyncio.Queue[SideEvent | Input] = asyncio.Queue()
        self._pumps: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for side in self._sides:
            self.follow(side)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def follow(self, side: Side) -> None:
        """Follows the events of a side's monitor as it is now; again after it was connected anew."""
        self.lost.discard(side.name)
        stream = side.monitor.subscribe()
        self._pumps.append(asyncio.get_running_loop().create_task(self._pump(side.name, stream)))

    def side(self, name: SideName) -> Side:
        """Returns a side by its name."""
        return self._sides[0] if name == "source" else self._sides[1]

    @property
    def both_completed(self) -> bool:
        """Whether both sides have said ``completed`` themselves."""
        completed = MigrationStatus.COMPLETED
        return self.statuses.get("source") is completed and self.statuses.get("destination") is completed

    @property
    def guest_ended_itself(self) -> bool:
        """Whether the guest shut itself down (or reset itself under ``-no-reboot``) on either side."""
        shutdowns = (self.latest.get(("source", "SHUTDOWN")), self.latest.get(("destination", "SHUTDOWN")))
        return any(event is not None and event.data.get("guest") is True for event in shutdowns)

    def put(self, item: Input) -> None:
        """Adds something that is no event of QEMU's: an observation, a wish of the user's."""
        self._inbox.put_nowait(item)

    async def next(self, timeout_s: float) -> SideEvent | Input | None:
        """Returns the next item, its event remembered, or None when none came within the bound."""
        try:
            async with asyncio.timeout(timeout_s):
                item = await self._inbox.get()
        except TimeoutError:
            return None
        if isinstance(item, SideEvent):
            self._remember(item)
        return item

    async def take_last_words(self, side: SideName) -> None:
        """Remembers what a side said before its monitor ended; it has ended, or does within a moment."""
        await self.wait_until(lambda: side in self.lost, LAST_WORDS_BOUND_S)

    def take_all(self) -> None:
        """Remembers all events that have come so far. Drops other items."""
        while not self._inbox.empty():
            item = self._inbox.get_nowait()
            if isinstance(item, SideEvent):
                self._remember(item)

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Follows events until the condition holds; returns whether it does within the bound. Drops other items."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + timeout_s
        while not condition():
            left_s = end_s - loop.time()
            if left_s <= 0 or await self.next(left_s) is None:
                return condition()
        return True

    def _remember(self, item: SideEvent) -> None:
        event = item.event
        if event is None:
            self.lost.add(item.side)
            return
        self.latest[item.side, event.name] = event
        if event.name == "MIGRATION":
            self.statuses[item.side] = MigrationStatus(event.data.get("status", ""))

    async def _pump(self, side: SideName, stream: EventStream) -> None:
        with stream:
            async for event in stream:
                self._inbox.put_nowait(SideEvent(side, event))
        if stream.end is not None and stream.end.orderly:
            self.ended_orderly.add(side)
        self._inbox.put_nowait(SideEvent(side, None))
