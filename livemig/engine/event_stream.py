"""Carries events from the engine to whoever listens. A slow listener never stalls the engine.

Progress is coalesced: the listener gets the latest that it has not seen. All other events are kept, up to a bound far
above what a migration brings forth; past it the oldest is dropped, and that is said once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from livemig.core.event import Event, Progressed, Warned

EVENTS_KEPT_COUNT = 10_000


class EventStream:
    """A queue with one reader. Made and used within one event loop."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._available = asyncio.Event()
        self._closed = False
        self._dropped = False

    def put(self, event: Event) -> None:
        """Adds an event; replaces a progress that was not read yet. Never waits."""
        if isinstance(event, Progressed) and self._events and isinstance(self._events[-1], Progressed):
            self._events[-1] = event
        else:
            self._events.append(event)
        if len(self._events) > EVENTS_KEPT_COUNT and not self._dropped:
            self._dropped = True
            self._events.append(Warned(time_s=event.time_s, text="the reader of events is too slow: some were dropped"))
        while len(self._events) > EVENTS_KEPT_COUNT:
            self._events.popleft()
        self._available.set()

    def close(self) -> None:
        """Ends the stream after what is in it."""
        self._closed = True
        self._available.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            self._available.clear()
            await self._available.wait()
