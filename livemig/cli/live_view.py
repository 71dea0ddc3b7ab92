"""The live view on a terminal: where the migration stands, at a glance, and the last decision in words.

Draws only when an event comes, and never while the guest stands still: a picture takes milliseconds that are not ours.
"""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from livemig.cli.lines import closing_lines
from livemig.core import event as events
from livemig.core.report import Report
from livemig.core.units import format_duration, format_rate, format_size

REDRAW_S = 0.2
_SHOWN_ALWAYS = (
    events.Prepared,
    events.RoundCompleted,
    events.Decided,
    events.Warned,
    events.DestinationRunning,
)


class LiveView:
    """Shows one migration on a terminal, from its first event to its report."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._title = ""
        self._phase = "connecting"
        self._progress: events.Progressed | None = None
        self._decision = ""
        self._standing_still = False
        self._drawn_s = 0.0

    def begin(self, run_id: str) -> None:
        """Prints the id and opens the view."""
        self._console.print(f"run {run_id}")
        self._live.start()

    def show(self, event: events.Event) -> None:
        """Takes an event, and draws when it is time to."""
        self._take(event)
        now_s = time.monotonic()
        if self._standing_still or (now_s - self._drawn_s < REDRAW_S and not isinstance(event, _SHOWN_ALWAYS)):
            return
        self._drawn_s = now_s
        self._live.update(self._picture(event.time_s), refresh=True)

    def end(self, report: Report) -> None:
        """Closes the view and prints how it ended."""
        self._live.stop()
        style = "bold green" if report.outcome == "completed" else "bold red"
        for number, line in enumerate(closing_lines(report)):
            self._console.print(line, style=style if number == 0 else "", markup=False)

    def refuse(self, run_id: str, reason: str) -> None:
        """Closes the view and prints why nothing was done."""
        del run_id
        self._live.stop()
        Console(stderr=True, highlight=False).print(f"livemig: {reason}", markup=False, style="red")

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Prepared():
                name = event.guest_name or "guest"
                self._title = f"{name}, {format_size(event.memory_bytes)}, over {event.channel}"
            case events.Progressed():
                self._progress, self._phase = event, str(event.phase)
            case events.Decided(reason=reason, phase=phase):
                self._decision, self._phase = reason or self._decision, str(phase)
            case events.SourceStopped():
                self._standing_still, self._phase = True, "switchover"
            case events.DestinationRunning():
                self._standing_still, self._phase = False, "probation: watching the destination"
            case events.Settling(reason=reason):
                self._standing_still, self._phase, self._decision = False, "settling", reason
            case events.Warned(text=text):
                self._live.console.print(f"warning: {text}", style="yellow", markup=False)
            case _:
                self._standing_still = False

    def _picture(self, time_s: float) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        table.add_row("phase", f"{self._phase}   {format_duration(max(time_s, 0.0))} elapsed")
        seen = self._progress
        if seen is not None:
            for name, value in _figures(seen):
                table.add_row(name, value)
        table.add_row("decision", Text(self._decision))
        return Group(Text(self._title, style="bold"), table)


def _figures(seen: events.Progressed) -> list[tuple[str, RenderableType]]:
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=1.0, completed=seen.progress, width=40), f"{seen.progress:4.0%}")
    return [
        ("progress", bar),
        (
            "round",
            f"{seen.round_number}, {format_size(seen.remaining_bytes)} left, {format_size(seen.sent_bytes)} sent",
        ),
        (
            "sending",
            f"{_rate(seen.throughput_bytes_s)} against {_rate(seen.newly_dirtied_bytes_s)} newly dirtied",
        ),
        ("downtime now", _downtime(seen)),
    ]


def _downtime(seen: events.Progressed) -> Text:
    if seen.expected_downtime_s is None:
        return Text("not known yet")
    fits = seen.expected_downtime_s <= seen.downtime_limit_s
    text = f"{format_duration(seen.expected_downtime_s)} of {format_duration(seen.downtime_limit_s)} allowed"
    return Text(text, style="green" if fits else "yellow")


def _rate(rate_bytes_s: float | None) -> str:
    return "not known yet" if rate_bytes_s is None else format_rate(rate_bytes_s)
