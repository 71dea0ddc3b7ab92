"""``livemig run``: drives the library's `migrate`, shows its events, minds signals, returns the exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from livemig.cli.exit_code import INTERRUPTED, exit_code
from livemig.cli.json_lines import json_line, refused_line
from livemig.cli.lines import closing_lines, line_of
from livemig.core.errors import LivemigError
from livemig.core.event import Event
from livemig.core.plan import Plan
from livemig.core.report import Report
from livemig.engine.migration import Migration, new_id

REFUSED = 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Screen(Protocol):
    """Where events are shown."""

    def begin(self, run_id: str) -> None:
        """Shows the run's id."""

    def show(self, event: Event) -> None:
        """Shows an event."""

    def end(self, report: Report) -> None:
        """Shows how it ended."""

    def refuse(self, run_id: str, reason: str) -> None:
        """Shows that nothing was done, and why."""


class JsonScreen:
    """One JSON object a line on stdout, nothing else."""

    def begin(self, run_id: str) -> None:
        """The id stands in the first event."""

    def show(self, event: Event) -> None:
        """Prints the event."""
        _print(json_line(event))

    def end(self, report: Report) -> None:
        """The last event, shown already, is the closing object."""

    def refuse(self, run_id: str, reason: str) -> None:
        """Prints the closing object, and the reason on stderr."""
        _print(refused_line(reason, run_id))
        print(f"livemig: {reason}", file=sys.stderr)


class LineScreen:
    """One line for each round and decision."""

    def begin(self, run_id: str) -> None:
        """Prints the id."""
        _print(f"run {run_id}")

    def show(self, event: Event) -> None:
        """Prints the event's line, if it has one."""
        line = line_of(event)
        if line is not None:
            _print(line)

    def end(self, report: Report) -> None:
        """Prints the closing lines."""
        for line in closing_lines(report):
            _print(line)

    def refuse(self, run_id: str, reason: str) -> None:
        """Prints the reason on stderr."""
        del run_id
        print(f"livemig: {reason}", file=sys.stderr)


def _print(line: str) -> None:
    print(line, flush=True)


def screen_for(*, as_json: bool) -> Screen:
    """Chooses the screen: JSON when asked for, a live view on a terminal, else lines."""
    if as_json:
        return JsonScreen()
    if sys.stdout.isatty():
        from livemig.cli.live_view import LiveView

        return LiveView()
    return LineScreen()


@contextmanager
def minding_signals(show: Show) -> Iterator[None]:
    """Hands Ctrl-C, SIGTERM and SIGHUP to `show` for as long as it lasts."""
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, show.interrupt, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class Show:
    """Shows one migration from its first event to its end, and passes signals and a closed stdout on as a cancel.

    Attributes:
        interrupted: Whether a signal asked for the cancel.
    """

    def __init__(self, screen: Screen) -> None:
        self.interrupted = False
        self._screen = screen
        self._silent = False
        self._migration: Migration | None = None
        self._task = asyncio.current_task()

    async def run(self, migration: Migration) -> Report:
        """Runs a migration that was not entered yet.

        Raises:
            LivemigError: When it was refused; nothing was touched.
        """
        self._migration = migration
        self._guarded(lambda: self._screen.begin(migration.id))
        async with migration:
            async for event in migration:
                self._guarded(partial(self._screen.show, event))
        report = migration.report
        self._guarded(lambda: self._screen.end(report))
        return report

    def interrupt(self, number: int) -> None:
        """Takes a signal: a cancel, once; later ones change nothing, since the cancel is bounded anyhow."""
        if self.interrupted:
            return
        self.interrupted = True
        if self._migration is not None:
            self._migration.cancel(f"{signal.Signals(number).name} received")
        elif self._task is not None:
            self._task.cancel()

    def _guarded(self, show: Callable[[], None]) -> None:
        if self._silent:
            return
        try:
            show()
        except BrokenPipeError:
            self._silent = True
            if self._migration is not None:
                self._migration.cancel("stdout was closed")


def run_migration(*, source: str, destination: str, plan: Plan, trace_path: Path | None, as_json: bool) -> int:
    """Migrates and returns the exit code."""
    return asyncio.run(_run(source, destination, plan, trace_path, screen_for(as_json=as_json)))


async def _run(source: str, destination: str, plan: Plan, trace_path: Path | None, screen: Screen) -> int:
    show = Show(screen)
    run_id = new_id()
    try:
        migration = Migration(plan, source=source, destination=destination, run_id=run_id, trace_path=trace_path)
        with minding_signals(show):
            report = await show.run(migration)
    except LivemigError as error:
        screen.refuse(run_id, str(error))
        return INTERRUPTED if show.interrupted else REFUSED
    return exit_code(report.outcome, interrupted=show.interrupted)
