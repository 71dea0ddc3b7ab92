"""The options that make a plan: limits, patience, deadline, sampling; and the plan that they make."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from livemig.cli.handover_options import handover_fields
from livemig.cli.help import Option
from livemig.cli.options import DURATION, RATE
from livemig.core.errors import PlanError

if TYPE_CHECKING:
    from livemig.core.plan import Plan

LIMITS = "Limits"
AFTERWARDS = "Afterwards"

_option = partial(click.option, cls=Option)


def limit_options(command: Any, *, bandwidth: str | None = None) -> Any:
    """The options that make a plan, shared by the verbs that migrate."""
    options = [
        _option(
            "--downtime-limit",
            heading=LIMITS,
            type=DURATION,
            default="300ms",
            show_default=True,
            help="How long the guest may stand still. livemig never raises it.",
        ),
        _option(
            "--bandwidth",
            heading=LIMITS,
            type=RATE,
            default=bandwidth,
            show_default=bandwidth is not None,
            help="Cap on what is sent while the guest runs. QEMU's last step, while the guest stands still, is not "
            "held to it; where it decides, one slot of 0.1 s before is not, either."
            f"{'' if bandwidth else ' Without it there is no cap.'}",
        ),
        _option(
            "--deadline",
            heading=LIMITS,
            type=DURATION,
            help="Time within which the guest must have moved. Without it livemig tries until it sees no hope.",
        ),
        _option(
            "--at-deadline",
            heading=LIMITS,
            type=click.Choice(["cancel", "pause"]),
            default="cancel",
            show_default=True,
            help="What then, or as soon as it is clear that nothing else is left: give up, or stop the guest and send "
            "the rest however long it takes.",
        ),
        _option(
            "--keep-trying",
            heading=LIMITS,
            is_flag=True,
            help="Go on when it looks hopeless, until the deadline; without one for ever.",
        ),
        _option(
            "--prefer",
            heading=LIMITS,
            type=click.Choice(["time", "downtime"]),
            default="time",
            show_default=True,
            help="Within the limit: move as soon as it holds, or use the time there is to stand still less.",
        ),
        _option(
            "--patience",
            heading=LIMITS,
            type=click.FloatRange(0, 1e6, min_open=True),
            metavar="RATIO",
            help="With --prefer downtime: wait at most so many times as long as the downtime that is at stake, such as "
            "10 s for one of 1 s. Without it in all the time there is.",
        ),
        _option(
            "--probation",
            heading=AFTERWARDS,
            type=DURATION,
            default="2s",
            show_default=True,
            help="How long the guest is watched at the destination before the source is quit.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def sample_option(default: str) -> Callable[[Any], Any]:
    """How long the guest is sampled; longer where nothing waits for it."""
    return _option(
        "--sample",
        heading=LIMITS,
        type=DURATION,
        default=default,
        show_default=True,
        help="How long to watch, before anything is sent, how the running guest dirties its memory: the forecast rests "
        "on it. 0s does not, and forecasts from earlier migrations alone.",
    )


def plan_of(
    *,
    downtime_limit: float,
    bandwidth: float | None,
    deadline: float | None,
    at_deadline: str,
    keep_trying: bool,
    prefer: str,
    patience: float | None,
    probation: float,
    keep_source: bool,
    sample: float = 0.0,
    security: str = "auto",
    migrate_address: str | None = None,
    **handover: Any,
) -> Plan:
    """Makes the plan of the options.

    Raises:
        click.UsageError: When they make no sense, or not together.
    """
    from livemig.core.plan import AtDeadline, Plan, Prefer, Security

    if patience is not None and prefer != "downtime":
        raise click.UsageError("--patience needs --prefer downtime", ctx=click.get_current_context())
    try:
        return Plan(
            downtime_limit_s=downtime_limit,
            bandwidth_bytes_s=bandwidth,
            deadline_s=deadline,
            at_deadline=AtDeadline(at_deadline),
            keep_trying=keep_trying,
            prefer=Prefer(prefer),
            patience_ratio=patience,
            probation_s=probation,
            keep_source=keep_source,
            sample_s=sample,
            security=Security(security),
            migrate_address=migrate_address,
            **(handover_fields(**handover) if handover else {}),
        )
    except PlanError as error:
        raise click.UsageError(str(error), ctx=click.get_current_context()) from error
