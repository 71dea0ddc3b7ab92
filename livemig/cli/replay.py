"""``livemig replay``: reads a trace from a file and prints how its decisions come out now."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from livemig.cli.forecast_words import forecast_line
from livemig.core.errors import LivemigError
from livemig.core.policy import Decision
from livemig.core.trace import decode_trace
from livemig.core.units import format_duration, format_size
from livemig.simulation.otherwise import Otherwise, otherwise
from livemig.simulation.replay import Replay, replay

DIFFERENT = 1


def replay_trace(path: Path, *, policy: str | None, as_json: bool) -> int:
    """Replays a trace; returns 0 when decisions and forecasts are reproduced, or another policy was asked, else 1.

    Raises:
        click.ClickException: When the trace can't be read.
    """
    try:
        with path.open("rb") as lines:
            if policy is not None:
                other = otherwise(decode_trace(lines), policy)
                sys.stdout.write(_other_json(other) if as_json else _other_text(other))
                return 0
            found = replay(decode_trace(lines))
    except OSError as error:
        raise click.UsageError(
            f"{path} can't be read: {error.strerror}", ctx=click.get_current_context(silent=True)
        ) from error
    except LivemigError as error:
        raise click.UsageError(f"{path}: {error}", ctx=click.get_current_context(silent=True)) from error
    if as_json:
        sys.stdout.write(_json(found))
    else:
        sys.stdout.write(_text(found))
    return 0 if found.reproduced else DIFFERENT


def _other_json(other: Otherwise) -> str:
    decisions = ({"event": "decision", "input": number, "decision": made} for number, made in other.decisions)
    ended = {"event": "ended", "id": other.header.id, "decision_count": len(other.decisions)}
    ended |= {
        name: getattr(other, name)
        for name in ("policy", "input_count", "fires_s", "left_bytes", "expected_downtime_s", "recorded_s")
    }
    return "".join(f"{msgspec.json.encode(line).decode()}\n" for line in (*decisions, ended))


def _other_text(other: Otherwise) -> str:
    lines = [f"run {other.header.id} of {other.header.started_at}, as policy {other.policy} would have decided"]
    lines += [f"input {number}: {_words(decision)}" for number, decision in other.decisions]
    recorded = "the recorded run did not switch over"
    if other.recorded_s is not None:
        recorded = f"the recorded run did at {other.recorded_s:.2f} s"
    if other.fires_s is None:
        lines.append(f"{other.policy} would not have switched over by then; {recorded}")
    else:
        lines.append(
            f"{other.policy} would have switched over at {other.fires_s:.2f} s with "
            f"{format_size(other.left_bytes or 0)} left, a downtime of about "
            f"{format_duration(other.expected_downtime_s or 0.0)}; {recorded}"
        )
    return "\n".join(lines) + "\n"


def _json(found: Replay) -> str:
    decisions = ({"event": "decision", "input": number, "decision": made} for number, made in found.decisions)
    differences = [{"event": "difference", **msgspec.structs.asdict(one)} for one in found.differences]
    differences += [
        {"event": "forecast_difference", **msgspec.structs.asdict(one)} for one in found.forecast_differences
    ]
    ended = {
        "event": "ended",
        "id": found.header.id,
        "input_count": found.input_count,
        "decision_count": len(found.decisions),
        "difference_count": len(found.differences),
        "forecast_difference_count": len(found.forecast_differences),
    }
    return "".join(f"{msgspec.json.encode(line).decode()}\n" for line in (*decisions, *differences, ended))


def _text(found: Replay) -> str:
    lines = [f"run {found.header.id} of {found.header.started_at}, by livemig {found.header.livemig_version}"]
    lines += [f"input {number}: {_words(decision)}" for number, decision in found.decisions]
    for one in found.differences:
        lines.append(f"DIFFERS at input {one.input_number}: recorded {_words(one.recorded)}")
        lines.append(f"        now: {_words(one.replayed)}")
    for other in found.forecast_differences:
        lines.append(f"DIFFERS: recorded {forecast_line(other.recorded)}")
        lines.append(f"         now: {'none' if other.replayed is None else forecast_line(other.replayed)}")
    verdict = "all reproduced"
    if not found.reproduced:
        verdict = f"{len(found.differences)} decisions and {len(found.forecast_differences)} forecasts differ"
    lines.append(f"{found.input_count} inputs, {len(found.decisions)} decisions: {verdict}")
    return "\n".join(lines) + "\n"


def _words(decision: Decision | None) -> str:
    if decision is None:
        return "nothing"
    actions = ", ".join(str(action) for action in decision.actions)
    return f"[{decision.phase}] {actions + ': ' if actions else ''}{decision.reason}"
