"""One event, one line of plain text: for logs, pipes and terminals without a live view. Pure."""

from __future__ import annotations

from livemig.cli.forecast_words import against_actual, forecast_line
from livemig.core import event as events
from livemig.core.report import Report
from livemig.core.units import format_duration, format_rate, format_size


def line_of(event: events.Event) -> str | None:
    """Returns what a log is told of an event, or None for those that only a live view shows."""
    text = _text(event)
    return None if text is None else f"{event.time_s:8.2f} s  {text}"


def _text(event: events.Event) -> str | None:
    match event:
        case events.Prepared():
            name = event.guest_name or "guest"
            return (
                f"{name}, {format_size(event.memory_bytes)}, QEMU {event.source_version} to "
                f"{event.destination_version} over {event.channel}; downtime limit "
                f"{format_duration(event.downtime_limit_s)}"
            )
        case events.DestinationLaunched(changes=changes):
            differs = f", with {'; '.join(changes)}" if changes else ""
            return f"launched the destination with the source's command line{differs}"
        case events.RoundCompleted():
            return _round_text(event)
        case events.Decided(actions=actions, reason=reason):
            return f"{', '.join(str(action) for action in actions)}: {reason}" if actions else None
        case events.Forecasted(forecast=forecast):
            return forecast_line(forecast)
        case events.Warned(text=text):
            return f"warning: {text}"
        case events.SourceStopped():
            return "switchover: the guest stands still"
        case events.DestinationRunning(downtime_s=downtime_s, run_state=run_state):
            after = "" if downtime_s is None else f", after standing still for {format_duration(downtime_s)}"
            return f"the guest is {run_state} at the destination{after}"
        case events.Settling(step=step, reason=reason):
            return f"{step}: {reason}"
        case events.SourceRetired(kept=kept):
            return "the source is kept, paused" if kept else "the source has quit"
        case _:
            return None


def _round_text(event: events.RoundCompleted) -> str:
    finished = event.round
    expected = event.expected_downtime_s
    downtime = "" if expected is None else f", downtime now {format_duration(expected)}"
    return (
        f"round {finished.number}: sent {format_size(finished.sent_bytes)} at "
        f"{format_rate(finished.throughput_bytes_s)}, dirtied {format_size(finished.newly_dirtied_bytes)}, "
        f"left {format_size(finished.remaining_bytes)}{downtime} (limit {format_duration(event.downtime_limit_s)})"
    )


def closing_lines(report: Report) -> list[str]:
    """Returns the story's end in a few lines: the outcome, where the guest is, and the figures."""
    lines = [f"{report.outcome}: {report.reason}"]
    if report.total_s is not None:
        figures = [f"{format_duration(report.total_s)} in all", f"{format_size(report.sent_bytes)} sent"]
        figures.append(f"{report.round_count} round{'s' * (report.round_count != 1)}")
        lines.append(", ".join(figures))
    if report.downtime is not None:
        parts = report.downtime
        lines.append(
            f"downtime {format_duration(parts.total_s)} (limit {format_duration(report.plan.downtime_limit_s)}; "
            f"QEMU's own figure {format_duration(report.qemu_downtime_s or 0)}; "
            f"clocks known to {format_duration(parts.clock_uncertainty_s)})"
        )
    if report.blackout is not None:
        seen = report.blackout
        lines.append(
            f"blackout {format_duration(seen.longest_s)} at {seen.target} (seen at most "
            f"{format_duration(seen.known_to_s)} too long)"
        )
    lines += against_actual(report)
    lines += [f"warning: {text}" for text in report.warnings]
    return lines
