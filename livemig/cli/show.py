"""Shows one migration from its first event to its end, and turns signals and a closed stdout into a cancel."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from livemig.cli.exit_code import exit_code
from livemig.cli.output import Output
from livemig.cli.screens import Screen
from livemig.core.errors import LivemigError
from livemig.core.event import Event, Progressed
from livemig.core.outcome import Outcome, RunningOn
from livemig.core.plan import Plan
from livemig.core.report import Report
from livemig.engine.migration import Migration

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LAST_WORDS_BOUND_S = 2.0
"""How long a run that was interrupted waits for a reader that does not read."""

logger = logging.getLogger("livemig")


class EngineFault(Exception):
    """A fault of livemig's own has left a run in its midst; whoever supervises it recovers."""


class Show:
    """Minds signals and the output for as long as it is entered; what it is left with is the exit code's matter.

    Attributes:
        interrupted: Whether a signal asked for the cancel.
        cancel_reason: Why the output or a signal asked for a cancel, or None.
    """

    def __init__(self, screen: Screen, *, lifeline: int | None = None) -> None:
        """Shows nothing yet.

        Args:
            screen: Where to.
            lifeline: A pipe at whose end to cancel, or None.
        """
        self.interrupted = False
        self.cancel_reason: str | None = None
        self._screen = screen
        self._output = Output(self.cancel)
        self._migration: Migration | None = None
        self._lifeline = lifeline
        self._is_supervised = lifeline is not None
        self._ended = False
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        # What was told to be ignored stays so: SIGHUP under nohup, SIGINT in a script's background.
        self._signals = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    async def __aenter__(self) -> Self:
        for number in self._signals:
            self._loop.add_signal_handler(number, self._interrupt, number)
        await self._output.__aenter__()
        if self._lifeline is not None:
            self._loop.add_reader(self._lifeline, self._left_alone)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        self._let_lifeline_go()
        self._output.show(self._screen.close)
        if self.cancel_reason is not None:
            self._loop.call_later(_LAST_WORDS_BOUND_S, self._output.abandon)
        await self._output.__aexit__(kind, error, traceback)
        for number in self._signals:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)  # all is done: nothing may change the exit code any more

    async def run(self, migration: Migration, plan: Plan) -> Report:
        """Runs a migration that was not entered yet, and shows its events but not its end.

        Raises:
            LivemigError: When it never began; nothing was touched.
            EngineFault: After a fault of livemig's own, where a parent process recovers.
        """
        self._migration = migration
        self._output.show(partial(self._screen.begin, migration.id))
        if self.cancel_reason is not None:
            raise LivemigError(self.cancel_reason)
        begun = False
        try:
            async with migration:
                begun = True
                async for event in migration:
                    self.event(event)
            report = migration.report
        except Exception as error:
            if not begun:
                raise
            report = self._failed(migration, plan, error)
        return report

    def event(self, event: Event) -> None:
        """Shows an event."""
        self._output.show(partial(self._screen.show, event), superseded=isinstance(event, Progressed))

    def say(self, line: str) -> None:
        """Shows a line that is no event; nothing where only JSON may be."""
        self._output.show(partial(self._screen.say, line))

    def end(self, report: Report, show: Callable[[], None] | None = None) -> int:
        """Shows how a migration ended, by `show` instead of the screen where that is given; returns the exit code."""
        self._output.show(show or partial(self._screen.end, report))
        return exit_code(report.outcome, interrupted=self.interrupted)

    def refuse(self, run_id: str, error: Exception) -> int:
        """Shows why a migration never began; returns the exit code."""
        outcome, reason = Outcome.REFUSED, str(error)
        if self.cancel_reason is not None:
            outcome, reason = Outcome.CANCELLED, f"{self.cancel_reason} before anything began: nothing was touched"
        elif not isinstance(error, LivemigError):
            logger.error("a fault in livemig", exc_info=error)
            reason = f"a fault in livemig: {type(error).__name__}: {error}"
        reason = "; ".join((reason, *getattr(error, "__notes__", ())))
        self._output.show(partial(self._screen.refuse, run_id, reason, outcome))
        return exit_code(outcome, interrupted=self.interrupted)

    def cancel(self, reason: str) -> None:
        """Asks that the guest stay at the source; whatever has not begun does not."""
        if self.cancel_reason is not None:
            return
        self.cancel_reason = reason
        if self._migration is not None:
            self._migration.cancel(reason)
        elif self._task is not None and not self._ended:
            self._task.cancel()

    def leave(self, code: int) -> int:
        """Returns the code to exit with; ends at once when the last words wait for a reader that does not read."""
        if self._output.stalled:
            os._exit(code)  # flushing stdout would wait for it
        return code

    def _interrupt(self, number: int) -> None:
        """Takes a signal: a cancel, once; later ones change nothing, since the cancel is bounded anyhow."""
        if self._ended:
            self._output.abandon()
            return
        self.interrupted = True
        self.cancel(f"{signal.Signals(number).name} received")

    def _left_alone(self) -> None:
        self._let_lifeline_go()
        self.cancel("the command line was killed")

    def _let_lifeline_go(self) -> None:
        if self._lifeline is not None:
            self._loop.remove_reader(self._lifeline)
            self._lifeline = None

    def _failed(self, migration: Migration, plan: Plan, error: Exception) -> Report:
        """Makes the best of a fault in livemig itself: the report if there is one, else that nothing is known."""
        logger.error("a fault in livemig", exc_info=error)
        try:
            return migration.report
        except LivemigError:
            if self._is_supervised:
                raise EngineFault from error
            report = Report(
                id=migration.id,
                plan=plan,
                outcome=Outcome.UNKNOWN,
                running_on=RunningOn.UNKNOWN,
                guest_state="unknown",
                reason=f"a fault in livemig: {type(error).__name__}: {error}; "
                f"`livemig recover {migration.id}` finishes "
                "or undoes what was begun; never `cont` both",
            )
            self.event(report.ended(0.0))
            return report
