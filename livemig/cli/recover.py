"""``livemig recover``, and what the command line does when its engine is killed: recover at once."""

from __future__ import annotations

import asyncio
import signal

import click
import msgspec

from livemig.cli.exit_code import exit_code
from livemig.cli.json_lines import json_line, refused_line
from livemig.cli.lines import line_of
from livemig.cli.screens import complain
from livemig.core import event as events
from livemig.core.errors import JournalError, LivemigError
from livemig.core.evidence import Side
from livemig.core.outcome import Outcome, RunningOn
from livemig.engine.recovery import Recovered, recover
from livemig.engine.run_record import Ending

SETTLED, PERSON_NEEDED = 0, 4


class _RecoveredLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="recovered"):
    """What ``--json`` prints of one run."""

    id: str
    outcome: Outcome
    running_on: RunningOn
    guest_state: str
    reason: str
    known: tuple[str, ...]
    steps: tuple[str, ...]
    advice: tuple[str, ...]
    warnings: tuple[str, ...]
    dry_run: bool
    was_settled: bool


def show_recovery(run_id: str | None, *, dry_run: bool, fence_confirmed: str | None, as_json: bool) -> int:
    """Recovers and shows it; returns the exit code.

    Raises:
        click.UsageError: When there is nothing that may be recovered.
    """
    fence = None if fence_confirmed is None else Side(fence_confirmed)
    tell = None if as_json or dry_run else _show_step
    try:
        found = asyncio.run(recover(run_id, dry_run=dry_run, fence_confirmed=fence, tell=tell))
    except LivemigError as error:
        raise click.ClickException(str(error)) from error
    for one in found:
        if as_json:
            print(msgspec.json.encode(recovered_line(one)).decode(), flush=True)
        else:
            print("\n".join(_lines_of(one)), flush=True)
    if not found and not as_json:
        print("no run is left to recover")
    open_still = any(one.ending.outcome is Outcome.UNKNOWN or one.ending.left for one in found)
    return PERSON_NEEDED if open_still and not dry_run else SETTLED


def recover_killed(run_id: str, number: int, *, as_json: bool) -> int:
    """Recovers a run whose engine was just killed, or had a fault (0), and shows it as the run's own end.

    Returns the exit code.
    """
    interrupted = number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    killed = (
        f"livemig's engine was killed ({signal.Signals(number).name})" if number else "livemig's engine had a fault"
    )
    complain(f"{killed}: recovering run {run_id}")
    tell = _print_event if as_json else _show_step
    try:
        found = asyncio.run(recover(run_id, tell=tell))
        ending = found[0].ending
    except JournalError as error:
        reason = str(error) if error.path else "nothing had been touched yet"
        return _untouched(run_id, f"{killed}; {reason}", interrupted=interrupted, as_json=as_json)
    reason = f"{killed}; {ending.reason}"
    if as_json:
        print(json_line(_ended(run_id, ending, reason)), flush=True)
    else:
        print("\n".join((f"{ending.outcome}: {reason}", *_details(found[0]))), flush=True)
    return exit_code(ending.outcome, interrupted=interrupted)


def _untouched(run_id: str, reason: str, *, interrupted: bool, as_json: bool) -> int:
    """It was killed before it wrote anything down, and so before it touched anything."""
    outcome = Outcome.CANCELLED if interrupted else Outcome.FAILED
    if as_json:
        print(refused_line(reason, run_id, outcome), flush=True)
    complain(reason)
    return exit_code(outcome, interrupted=interrupted)


def _ended(run_id: str, ending: Ending, reason: str) -> events.Ended:
    return events.Ended(
        time_s=0.0,
        id=run_id,
        outcome=ending.outcome,
        running_on=ending.running_on,
        guest_state=ending.guest_state,
        total_s=ending.total_s,
        downtime_s=ending.downtime_s,
        qemu_downtime_s=None,
        sent_bytes=ending.sent_bytes,
        round_count=ending.round_count,
        warnings=ending.warnings,
        reason=reason,
    )


def recovered_line(found: Recovered) -> _RecoveredLine:
    """Returns what ``--json`` prints of a run."""
    ending = found.ending
    return _RecoveredLine(
        id=found.id,
        outcome=ending.outcome,
        running_on=ending.running_on,
        guest_state=ending.guest_state,
        reason=ending.reason,
        known=found.known,
        steps=found.steps,
        advice=found.advice,
        warnings=ending.warnings,
        dry_run=found.dry_run,
        was_settled=found.was_settled,
    )


def _lines_of(found: Recovered) -> list[str]:
    ending = found.ending
    if found.was_settled:
        return [f"run {found.id} ended before, nothing is left to do: {ending.outcome}: {ending.reason}"]
    lines = [f"run {found.id}", *(f"  {line}" for line in found.known)]
    if found.dry_run:
        would = found.steps or (f"nothing more can be done: {ending.reason}",)
        return [*lines, *(f"would do next: {step}" for step in would), *_details(found)]
    return [*lines, f"{ending.outcome}: {ending.reason}", *_details(found)]


def _details(found: Recovered) -> list[str]:
    ending = found.ending
    where = {
        RunningOn.SOURCE: f"the guest is at the source ({ending.guest_state})",
        RunningOn.DESTINATION: f"the guest is at the destination ({ending.guest_state})",
        RunningOn.NONE: "the guest runs nowhere",
        RunningOn.UNKNOWN: "where the guest runs is not known",
    }
    told = () if found.dry_run else (where[ending.running_on],)
    return [*told, *(f"  {line}" for line in found.advice), *(f"warning: {text}" for text in ending.warnings)]


def _show_step(event: events.Event) -> None:
    line = line_of(event)
    if line is not None:
        print(line, flush=True)


def _print_event(event: events.Event) -> None:
    print(json_line(event), flush=True)
