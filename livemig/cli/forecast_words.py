"""A forecast in words, and at the end a table of what was said against what came. Pure; computes no forecast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from livemig.core.outcome import Outcome
from livemig.core.prediction import FIRST_ROUND, Forecast, Interval
from livemig.core.report import Report
from livemig.core.units import format_duration, format_size

SURE = 0.995
"""From here on a probability is told as a certainty."""
BOUNDS = {"time": "at least ", "downtime": "at most ", "sent": "at least "}
"""What a forecast of the first crossing is to a rule that holds out for less downtime."""
FIRST_CROSSING = "the forecast is of the first crossing of the limit; --prefer downtime holds out for less downtime"


def forecast_line(forecast: Forecast) -> str:
    """Returns the forecast in one line: the verdict first, then the figures with their 90 % intervals."""
    told = [f"{name} {text}" for name, text in figures(forecast)]
    return "; ".join([f"forecast at {forecast.at}: {verdict(forecast)}", *told])


def verdict(forecast: Forecast) -> str:
    """Says whether it converges."""
    if forecast.converges >= SURE:
        return "converges"
    if forecast.converges <= 1 - SURE:
        return "does not converge"
    return f"converges with {forecast.converges:.0%}"


def figures(forecast: Forecast) -> list[tuple[str, str]]:
    """Returns the figures by name, each with its 90 % interval; none where it can't converge.

    A forecast of the first crossing bounds what ``--prefer downtime`` does, and says so.
    """
    found = [
        ("time", forecast.total_s, format_duration),
        ("downtime", forecast.downtime_s, format_duration),
        ("sent", forecast.sent_bytes, format_size),
    ]
    bounds = BOUNDS if forecast.first_crossing else {}
    return [
        (name, bounds.get(name, "") + between(interval, shown))
        for name, interval, shown in found
        if interval is not None
    ]


def between(interval: Interval, shown: Callable[[float], str]) -> str:
    """Writes a 90 % interval: the median, and the ends in brackets."""
    least, middle, most = interval
    return f"{shown(middle)} ({shown(least)} to {shown(most)})"


def against_actual(report: Report) -> list[str]:
    """Returns the table of predicted against actual as lines; empty when there is nothing to compare."""
    if not report.forecasts:
        return []
    completed = report.outcome is Outcome.COMPLETED
    downtime_s = None if report.downtime is None else report.downtime.total_s
    rows: list[tuple[str, ...]] = [("", "converges", "time", "downtime", "sent")]
    rows += [_row(forecast) for forecast in _worth_showing(report.forecasts)]
    actual = (
        "actual",
        "yes" if completed else "no",
        _cell(report.total_s if completed else None, format_duration),
        _cell(downtime_s, format_duration),
        _cell(report.sent_bytes if completed else None, format_size),
    )
    table = aligned([*rows, actual])
    if any(forecast.first_crossing for forecast in report.forecasts):
        table.append(FIRST_CROSSING)
    return table


def _worth_showing(forecasts: Sequence[Forecast]) -> list[Forecast]:
    """The first, that after round 1, and the last: what came between is in the trace and in the JSON lines."""
    chosen = {0, len(forecasts) - 1}
    chosen |= {number for number, forecast in enumerate(forecasts) if forecast.at == FIRST_ROUND}
    return [forecasts[number] for number in sorted(chosen)]


def _row(forecast: Forecast) -> tuple[str, ...]:
    intervals = ((forecast.total_s, format_duration), (forecast.downtime_s, format_duration))
    cells = [_cell(interval, shown) for interval, shown in intervals]
    return (f"at {forecast.at}", f"{forecast.converges:.0%}", *cells, _cell(forecast.sent_bytes, format_size))


def _cell(value: float | Interval | None, shown: Callable[[float], str]) -> str:
    if value is None:
        return "-"
    return between(value, shown) if isinstance(value, tuple) else shown(value)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows of cells as lines whose columns line up."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
