"""The verbs about a run that another process drives or drove, and their options: status, tune, cancel, recover."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from livemig.cli.help import Option, Verb
from livemig.cli.options import DURATION, RATE

_option = partial(click.option, cls=Option)
_LIMITS = "Limits"
_OUTPUT = "Output"

_json = _option(
    "--json", "as_json", heading=_OUTPUT, is_flag=True, help="One JSON object a line on stdout, nothing else."
)

STATUS_EPILOG = """\b
Examples:
  # all runs that this user began on this host, those that ended too
  livemig status
\b
  # one of them, in full
  livemig status 88652e38
"""

RECOVER_EPILOG = """\b
Exit codes:
  0  done: one QEMU has the guest, or it ended itself; or there was nothing to do
  2  refused: no such run, or its engine lives; nothing was touched
  4  a person is needed; the last lines say what is known and what to look at

\b
Examples:
  # what would be done?
  livemig recover 88652e38 --dry-run
\b
  # the destination's host has burnt down, and I know it
  livemig recover 88652e38 --fence-confirmed destination

Safe to run twice and at any time: an engine that lives is asked, never raced. More: docs/recovery.md
"""


@click.command(cls=Verb, epilog=STATUS_EPILOG, short_help="Say how far runs are, and how they ended.")
@click.argument("run_id", metavar="[ID]", required=False)
@_json
def status(run_id: str | None, *, as_json: bool) -> int:
    """Say how far run ID is, or how it ended; without ID, of each run that this user began on this host."""
    from livemig.cli.control import show_status

    return show_status(run_id, as_json=as_json)


@click.command(cls=Verb, short_help="Change the limits of a running migration.")
@click.argument("run_id", metavar="ID")
@_option(
    "--downtime-limit", "downtime_limit_s", heading=_LIMITS, type=DURATION, help="How long the guest may stand still."
)
@_option(
    "--bandwidth", "bandwidth_bytes_s", heading=_LIMITS, type=RATE, help="Cap on what is sent while the guest runs."
)
@_option(
    "--deadline",
    "deadline_s",
    heading=_LIMITS,
    type=DURATION,
    help="Time within which the guest must have moved, counted from the migration's begin.",
)
@_option("--at-deadline", heading=_LIMITS, type=click.Choice(["cancel", "pause"]), help="What then.")
@_json
def tune(run_id: str, *, as_json: bool, at_deadline: str | None, **changes: Any) -> int:
    """Change the limits of run ID while it moves its guest. What is left out stays as it is."""
    from livemig.cli.control import send_tune
    from livemig.core.plan import AtDeadline

    changes["at_deadline"] = None if at_deadline is None else AtDeadline(at_deadline)
    return send_tune(run_id, as_json=as_json, **changes)


@click.command(cls=Verb, short_help="Have a running migration leave the guest where it is.")
@click.argument("run_id", metavar="ID")
@_json
def cancel(run_id: str, *, as_json: bool) -> int:
    """Ask run ID to give up, so that the guest stays at the source; once it stands still to move, it moves.

    Returns when that was asked, not when it is done: `livemig status ID` says how it ended.
    """
    from livemig.cli.control import send_cancel

    return send_cancel(run_id, as_json=as_json)


@click.command(cls=Verb, epilog=RECOVER_EPILOG, short_help="Finish or undo what a killed livemig has left.")
@click.argument("run_id", metavar="[ID]", required=False)
@_option(
    "--dry-run", heading="What to do", is_flag=True, help="Say what is known and what would be done, and do nothing."
)
@_option(
    "--fence-confirmed",
    heading="What to do",
    type=click.Choice(["source", "destination"]),
    help="You know that this side, which is out of reach, is dead: the destination, that its QEMU runs nowhere; the "
    "source, that it does not run and did not run on after it was stopped to be handed over.",
)
@_json
def recover(run_id: str | None, *, dry_run: bool, fence_confirmed: str | None, as_json: bool) -> int:
    """Finish or undo run ID, which was cut off, or all of them.

    Reads both QEMUs and the journal, and acts until one of them has the guest, and nothing of the run is left.
    """
    from livemig.cli.recover import show_recovery

    if fence_confirmed is not None and run_id is None:
        raise click.UsageError("--fence-confirmed is about one run: give its id", ctx=click.get_current_context())
    return show_recovery(run_id, dry_run=dry_run, fence_confirmed=fence_confirmed, as_json=as_json)
