"""The options for what a move asks of the network and the guest, and how they become parts of a plan."""

from __future__ import annotations

import shlex
import shutil
from functools import partial
from typing import Any

import click

from livemig.cli.help import Option
from livemig.core.errors import PlanError

_HANDOVER = "The network and the guest"
_option = partial(click.option, cls=Option)


def handover_options(command: Any) -> Any:
    """Gives a verb the options."""
    options = [
        _option(
            "--probe",
            heading=_HANDOVER,
            metavar="tcp:HOST:PORT|ping:HOST",
            help="Ask the guest for this from here, without pause; its longest silence is the report's blackout. If "
            "it does not answer after the move, that is said and the source is kept.",
        ),
        _option(
            "--on-switchover",
            heading=_HANDOVER,
            metavar="CMD",
            help="Run this command here at the switchover, with LIVEMIG_RUN_ID, _WHEN, _GUEST, _SOURCE, _DESTINATION "
            "and _MACS in its environment. Ended after 10 s; if it fails, that is said and the source is kept.",
        ),
        _option(
            "--on-switchover-at",
            heading=_HANDOVER,
            type=click.Choice(["resumed", "stopped"]),
            default="resumed",
            show_default=True,
            help="When: once the guest runs at the destination, or while it stands still. Then the guest waits for it, "
            "but never beyond the downtime limit; if it stays at the source, CMD runs again to undo (_WHEN=stayed).",
        ),
        _option(
            "--set-guest-time",
            heading=_HANDOVER,
            is_flag=True,
            help="Set the guest's clock after the move, by its guest agent.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def handover_fields(
    *, probe: str | None, on_switchover: str | None, on_switchover_at: str, set_guest_time: bool
) -> dict[str, Any]:
    """Returns what of a `livemig.core.plan.Plan` the options make.

    Raises:
        PlanError: When the command can't be one.
    """
    from livemig.core.plan import SwitchoverMoment

    return {
        "probe": probe,
        "on_switchover": _words(on_switchover),
        "switchover_moment": SwitchoverMoment(on_switchover_at),
        "set_guest_time": set_guest_time,
    }


def _words(command: str | None) -> tuple[str, ...]:
    if command is None:
        return ()
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise PlanError(f"--on-switchover {command!r} can't be read: {error}") from error
    if not words:
        raise PlanError("--on-switchover is empty: give a command, or leave it out")
    if shutil.which(words[0]) is None:
        raise PlanError(f"--on-switchover: {words[0]} is no program that can be run here; a shell's own: sh -c '…'")
    return words
