"""Shows events on a thread of their own, so that a terminal or a reader that stalls never stalls the engine."""

from __future__ import annotations

import asyncio
import contextlib
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from os import fstat
from typing import Self


class Output:
    """A thread that shows what it is given, in order; progress that was not shown when newer comes is left out.

    Example:
        async with Output(on_closed=migration.cancel) as output:
            output.show(partial(screen.show, event))
    """

    def __init__(self, on_closed: Callable[[str], None]) -> None:
        """Starts nothing yet.

        Args:
            on_closed: Called once, in the event loop, with the reason when nothing can be shown any more.
        """
        self._on_closed: Callable[[str], None] | None = on_closed
        self._waiting: deque[tuple[Callable[[], None], bool] | None] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="livemig output", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._left = asyncio.Event()
        self._watched: int | None = None

    async def __aenter__(self) -> Self:
        self._thread.start()
        self._watch_reader()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Returns when all was shown or can't be, however long the reader takes: nothing waits for us any more."""
        self._put(None)
        await self._left.wait()
        self._unwatch_reader()

    @property
    def stalled(self) -> bool:
        """Whether something is still held up by the reader."""
        return self._thread.is_alive()

    def show(self, show: Callable[[], None], *, superseded: bool = False) -> None:
        """Calls `show` on the thread. Never waits.

        Args:
            show: What shows it.
            superseded: Leave it out if the next one is of this kind too and comes before it was shown.
        """
        self._put((show, superseded))

    def abandon(self) -> None:
        """Stops waiting for a reader that does not read; what was not shown is lost."""
        self._left.set()

    def _put(self, item: tuple[Callable[[], None], bool] | None) -> None:
        with self._changed:
            last = self._waiting[-1] if self._waiting else None
            if last is not None and item is not None and last[1] and item[1]:
                self._waiting.pop()
            self._waiting.append(item)
            self._changed.notify()

    def _work(self) -> None:
        broken = False
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                item = self._waiting.popleft()
            if item is None:
                break
            if broken:
                continue
            try:
                item[0]()
            except Exception as error:  # noqa: BLE001  # also a fault of ours in drawing must not cost the guest
                broken = True
                self._call(partial(self._closed, _why(error)))
        self._call(self._left.set)

    def _call(self, action: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is interested any more
            self._loop.call_soon_threadsafe(action)

    def _closed(self, reason: str) -> None:
        self._unwatch_reader()
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed(reason)

    def _watch_reader(self) -> None:
        """Sees the reader of a pipe close it, also while there is nothing to write."""
        with contextlib.suppress(OSError, ValueError):
            descriptor = sys.stdout.fileno()
            if stat.S_ISFIFO(fstat(descriptor).st_mode):
                self._loop.add_reader(descriptor, self._reader_changed)
                self._watched = descriptor

    def _reader_changed(self) -> None:
        if self._watched is None:
            return
        poll = select.poll()
        poll.register(self._watched, 0)
        gone = any(happened & select.POLLERR for _, happened in poll.poll(0))
        self._unwatch_reader()
        if gone:
            self._closed("stdout was closed")

    def _unwatch_reader(self) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None


def _why(error: Exception) -> str:
    if isinstance(error, BrokenPipeError):
        return "stdout was closed"
    if isinstance(error, OSError):
        return f"stdout can't be written: {error.strerror or error}"
    return f"the output failed: {type(error).__name__}: {error}"
