"""The live view on a terminal: where the migration stands, at a glance, and the last decision in words.

Draws only when an event comes, and never while the guest stands still: a picture takes milliseconds that are not ours.
"""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from livemig.cli.lines import closing_lines
from livemig.cli.screens import complain
from livemig.core import event as events
from livemig.core.outcome import Outcome
from livemig.core.phases import Phase
from livemig.core.report import Report
from livemig.core.units import format_duration, format_rate, format_size

REDRAW_S = 0.2
_SHOWN_ALWAYS = (
    events.Prepared,
    events.RoundCompleted,
    events.Decided,
    events.Warned,
    events.DestinationRunning,
    events.Settling,
    events.SourceRetired,
)
_GAUGE_FROM_COLUMNS = 56
_HISTORY_COUNT = 20
_LEVELS = "▁▂▃▄▅▆▇█"
_PROBATION = "probation, the guest is at the destination"
_PHASES = {
    Phase.SETUP: "connecting",
    Phase.PRECOPY: "copying memory, the guest runs",
    Phase.SWITCHOVER: "switchover, the guest stands still",
    Phase.CANCELLING: "cancelling, the guest stays",
    Phase.FAILING: "failing, the guest stays",
    Phase.COMPLETED: "memory is over",
    Phase.CANCELLED: "cancelled, the guest stays",
    Phase.FAILED: "failed",
}


class LiveView:
    """Shows one migration on a terminal, from its first event to its report."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._title = ""
        self._phase = "connecting"
        self._seen: events.Progressed | None = None
        self._memory_bytes = 0
        self._left_bytes: deque[int] = deque(maxlen=_HISTORY_COUNT)
        self._decision = ""
        self._standing_still = False
        self._drawn_s = 0.0

    def begin(self, run_id: str) -> None:
        """Prints the id and opens the view."""
        self.say(f"run {run_id}")
        self._live.start()

    def show(self, event: events.Event) -> None:
        """Takes an event, and draws when it is time to."""
        self._take(event)
        now_s = time.monotonic()
        if self._standing_still or (now_s - self._drawn_s < REDRAW_S and not isinstance(event, _SHOWN_ALWAYS)):
            return
        self._drawn_s = now_s
        self._live.update(self._picture(event.time_s), refresh=True)

    def say(self, line: str) -> None:
        """Prints a line above the view."""
        self._console.print(line, markup=False)

    def end(self, report: Report) -> None:
        """Closes the view and prints how it ended."""
        self._live.stop()
        style = "bold green" if report.outcome is Outcome.COMPLETED else "bold red"
        for number, line in enumerate(closing_lines(report)):
            warning = "yellow" if line.startswith("warning: ") else ""
            self._console.print(line, style=style if number == 0 else warning, markup=False)

    def refuse(self, run_id: str, reason: str, outcome: Outcome) -> None:
        """Closes the view and prints why nothing was done."""
        del run_id, outcome
        self._live.stop()
        complain(reason)

    def close(self) -> None:
        """Closes the view and shows the cursor again."""
        self._live.stop()

    def _take(self, event: events.Event) -> None:
        match event:
            case events.Prepared():
                name = event.guest_name or "guest"
                self._title = f"{name}, {format_size(event.memory_bytes)}, over {event.channel}"
                self._memory_bytes = event.memory_bytes
            case events.DestinationLaunched(changes=changes):
                self.say("launched the destination with the source's command line, but for")
                for change in changes:
                    self._console.print(f"  {change}", style="dim", markup=False)
            case events.Progressed():
                self._standing_still, self._seen, self._phase = False, event, _phase_words(event.phase)
            case events.RoundCompleted():
                self._standing_still = False
                self._left_bytes.append(event.round.remaining_bytes)
            case events.Decided(reason=reason, phase=phase):
                self._decision, self._phase = reason or self._decision, _phase_words(phase)
            case events.SourceStopped():
                self._standing_still, self._phase = True, _phase_words(Phase.SWITCHOVER)
            case events.DestinationRunning(run_state=run_state, downtime_s=downtime_s):
                self._standing_still, self._phase = False, _PROBATION
                stood = "" if downtime_s is None else f" after standing still for {format_duration(downtime_s)}"
                self._decision = f"the guest is {run_state}{stood}: watch it before the source is quit"
            case events.Settling(reason=reason):
                if self._phase == _PROBATION:
                    return
                self._standing_still, self._phase, self._decision = False, "settling", reason
            case events.Warned(text=text):
                self._console.print(f"warning: {text}", style="yellow", markup=False)
            case _:
                self._standing_still = False

    def _picture(self, time_s: float) -> RenderableType:
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_row(Text(self._phase, style="bold"), f"{format_duration(max(time_s, 0.0))} elapsed")
        parts: list[RenderableType] = [Text(self._title, style="dim", no_wrap=True, overflow="ellipsis"), head]
        if self._phase == _PROBATION:
            parts.append(_Bar(1.0, "green", label=f"{1:5.0%}"))
        elif self._seen is not None:
            parts += [_Bar(self._seen.progress, "cyan", label=f"{self._seen.progress:5.0%}"), self._figures(self._seen)]
        if self._decision:
            parts.append(Text(self._decision, style="italic"))
        return Group(*parts)

    def _figures(self, seen: events.Progressed) -> RenderableType:
        sending, dirtied = seen.throughput_bytes_s, seen.newly_dirtied_bytes_s
        most_bytes_s = max(sending or 0.0, dirtied or 0.0)
        wide = self._console.width >= _GAUGE_FROM_COLUMNS
        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=not wide, overflow="ellipsis")
        if wide:
            table.add_column(ratio=1)

        def row(name: str, value: str | Text, gauge: RenderableType = "") -> None:
            table.add_row(name, value, gauge) if wide else table.add_row(name, value)

        row("sending", _rate(sending), _Bar(_share(sending, most_bytes_s), "cyan"))
        losing = sending is not None and dirtied is not None and dirtied >= sending
        row("dirtied", _rate(dirtied), _Bar(_share(dirtied, most_bytes_s), "yellow" if losing else "green"))
        row("left", format_size(seen.remaining_bytes), Text(self._history(), style="dim"))
        row("sent", f"{format_size(seen.sent_bytes)}, round {seen.round_number}")
        if seen.left_s is not None:
            row("time left", _range(*seen.left_s))
        row("downtime", *_downtime(seen))
        return table

    def _history(self) -> str:
        """What was left after each round, as levels of the guest's memory."""
        most = max(self._left_bytes, default=0)
        if not most:
            return ""
        levels = "".join(_LEVELS[min(7, 8 * left // most)] for left in self._left_bytes)
        return f"{levels} after each round"


class _Bar:
    """A share of the width as a line, in eighths of a column.

    Example:
        _Bar(0.5, "cyan", label=" 50%")
    """

    def __init__(self, share: float, style: str, *, label: str = "") -> None:
        self._share = min(1.0, max(0.0, share))
        self._style = style
        self._label = label

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = max(1, min(options.max_width, 100) - len(self._label))
        halves = round(self._share * columns * 2)
        full, half = divmod(halves, 2)
        line = "━" * full + ("╸" if half else "")
        yield Segment(line, Style.parse(self._style))
        yield Segment("─" * (columns - len(line)) if self._label else "", Style.parse("bright_black"))
        yield Segment(f"{self._label}\n")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, options.max_width)


def _phase_words(phase: Phase | str) -> str:
    return _PHASES.get(Phase(phase), str(phase))


def _range(least_s: float, most_s: float) -> str:
    """The time left as the forecast has it: a range, for that is what is known."""
    least, most = format_duration(least_s), format_duration(most_s)
    return most if least == most else f"{least} to {most}"


def _share(part: float | None, whole: float) -> float:
    return (part or 0.0) / whole if whole else 0.0


def _downtime(seen: events.Progressed) -> tuple[Text, RenderableType]:
    expected_s, limit_s = seen.expected_downtime_s, seen.downtime_limit_s
    if expected_s is None:
        return Text(f"limit {format_duration(limit_s)}"), ""
    style = "green" if expected_s <= limit_s else "yellow"
    text = Text(f"{format_duration(expected_s)} of {format_duration(limit_s)} allowed", style=style)
    return text, _Bar(limit_s / max(expected_s, limit_s), style)


def _rate(rate_bytes_s: float | None) -> str:
    return "not known yet" if rate_bytes_s is None else format_rate(rate_bytes_s)
