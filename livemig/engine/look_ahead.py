"""Computes a run's forecasts beside its loop, so that none of them delays what a guest that stands still waits for.

When one is due, and what it says, is decided in `livemig.core.outlook`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from livemig.core.inputs import Input
from livemig.core.outlook import Due, Outlook
from livemig.core.prediction import Forecast
from livemig.core.rounds import Round

SWITCH_INTERVAL_S = 0.0005
"""How long the interpreter leaves a computing thread undisturbed: its own 5 ms would be as much of a downtime."""

logger = logging.getLogger(__name__)


class LookAhead:
    """Follows the inputs of one run, and tells its forecasts as they are ready, in the order in which they were due."""

    def __init__(self, outlook: Outlook, tell: Callable[[Forecast], None]) -> None:
        self._outlook, self._tell = outlook, tell
        self._computing: asyncio.Task[None] | None = None

    def begin(self, item: Input) -> None:
        """Takes the first input, before the guest moves, and forecasts at once."""
        due = self._outlook.step(item).due
        if due is not None:
            self._take(due, due.compute())

    def take(self, item: Input) -> Round | None:
        """Takes an input; returns the round that it ended."""
        seen = self._outlook.step(item)
        if seen.due is not None:
            self._start(seen.due)
        return seen.finished

    async def commit(self) -> None:
        """Forecasts as of the source's STOP, if it stopped; asked for only once the guest runs again."""
        due = self._outlook.commit()
        if due is not None:
            self._start(due)
        await self.finish()

    async def finish(self) -> None:
        """Waits for what is still being computed."""
        if self._computing is not None:
            await self._computing

    def _start(self, due: Due) -> None:
        self._computing = asyncio.get_running_loop().create_task(self._compute(due, self._computing))

    async def _compute(self, due: Due, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        try:
            with _often_interrupted():
                forecast = await asyncio.to_thread(due.compute)
        except Exception:
            logger.exception("no forecast at %s", due.at)  # a bug of ours, which must not cost the guest its move
            return
        self._take(due, forecast)

    def _take(self, due: Due, forecast: Forecast) -> None:
        self._outlook.take(due, forecast)
        self._tell(forecast)


@contextmanager
def _often_interrupted() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(min(before_s, SWITCH_INTERVAL_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)
