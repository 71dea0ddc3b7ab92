"""Where events are shown: JSON lines, plain lines, or the live view of a terminal."""

from __future__ import annotations

import os
import sys
from typing import Protocol

from livemig.cli.json_lines import Started, json_line, refused_line
from livemig.cli.lines import closing_lines, line_of
from livemig.core.event import Event
from livemig.core.outcome import Outcome
from livemig.core.report import Report

_TERMINALS_WITHOUT_CURSOR = ("", "dumb", "unknown")


class Screen(Protocol):
    """Where one run is shown."""

    def begin(self, run_id: str) -> None:
        """Shows the run's id."""

    def show(self, event: Event) -> None:
        """Shows an event."""

    def say(self, line: str) -> None:
        """Shows a line that is no event; nothing where only JSON may be."""

    def end(self, report: Report) -> None:
        """Shows how it ended."""

    def refuse(self, run_id: str, reason: str, outcome: Outcome) -> None:
        """Shows that nothing was done, and why, in one line."""

    def close(self) -> None:
        """Leaves the terminal as it was. Can be repeated."""


class JsonScreen:
    """One JSON object a line on stdout, nothing else."""

    def begin(self, run_id: str) -> None:
        """Prints the first object, with the id."""
        _print(json_line(Started(id=run_id)))

    def show(self, event: Event) -> None:
        """Prints the event."""
        _print(json_line(event))

    def say(self, line: str) -> None:
        """Prints nothing."""

    def end(self, report: Report) -> None:
        """The last event, shown already, is the closing object."""

    def refuse(self, run_id: str, reason: str, outcome: Outcome) -> None:
        """Prints the closing object, and the reason on stderr."""
        _print(refused_line(reason, run_id, outcome))
        complain(reason)

    def close(self) -> None:
        """Nothing to close."""


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

    def say(self, line: str) -> None:
        """Prints the line."""
        _print(line)

    def end(self, report: Report) -> None:
        """Prints the closing lines."""
        for line in closing_lines(report):
            _print(line)

    def refuse(self, run_id: str, reason: str, outcome: Outcome) -> None:
        """Prints the reason on stderr."""
        del run_id, outcome
        complain(reason)

    def close(self) -> None:
        """Nothing to close."""


def screen_for(*, as_json: bool) -> Screen:
    """Chooses the screen: JSON when asked for, a live view on a terminal that can show one, else lines."""
    if as_json:
        return JsonScreen()
    if sys.stdout.isatty() and not _plain():
        from livemig.cli.live_view import LiveView

        return LiveView()
    return LineScreen()


def _plain() -> bool:
    """Whether the user, the terminal or its characters want no more than lines."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    wanted = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in _TERMINALS_WITHOUT_CURSOR
    return bool(wanted) or encoding != "utf8"


def complain(reason: str) -> None:
    """Prints one line on stderr."""
    print(f"livemig: {' '.join(reason.split())}", file=sys.stderr, flush=True)


def _print(line: str) -> None:
    print(line, flush=True)
