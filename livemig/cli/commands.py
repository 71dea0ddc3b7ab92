"""The verbs and their options. Each verb's work is imported only when it was chosen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from livemig.cli.options import DURATION, RATE, SIZE
from livemig.core.errors import PlanError

if TYPE_CHECKING:
    from livemig.core.plan import Plan

EXAMPLES = """\b
Examples:
  # a busy guest moves between two QEMUs on this machine, shown step by step
  livemig demo
\b
  # move your own guest; the waiting QEMU was started with -S -incoming defer
  livemig run --src-qmp /run/vm/a.qmp --dst-qmp /run/vm/b.qmp
\b
  # stand still at most 100 ms, send at most 1 Gbit/s, give up after 5 minutes
  livemig run --src-qmp a.qmp --dst-qmp b.qmp \\
      --downtime-limit 100ms --bandwidth 1Gbit/s --deadline 5min
"""

RUN_EPILOG = """\b
ADDR is where a QEMU's QMP monitor is: PATH, unix:PATH or tcp:HOST:PORT.
Sizes and times take units: ms, s, min; MiB/s, MB/s, Mbit/s, Gbit/s.
\b
Exit codes:
  0  completed: the guest runs at the destination
  1  failed: QEMU, link or destination failed; the guest is at the source as before
  2  refused: nothing was touched
  3  cancelled: deadline or request; the guest is at the source as before (130: by Ctrl-C)
  4  unknown: a person is needed; the last lines say what is known
  5  the guest shut itself down while it moved
"""


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXAMPLES,
)
@click.version_option(package_name="livemig", prog_name="livemig")
def cli() -> None:
    """Moves a running QEMU virtual machine to another QEMU by talking QMP to both."""


def _limits(command: Any, *, bandwidth: str | None = None) -> Any:
    """The options that make a plan, shared by the verbs that migrate."""
    options = [
        click.option(
            "--downtime-limit",
            type=DURATION,
            default="300ms",
            show_default=True,
            help="How long the guest may stand still. livemig never raises it.",
        ),
        click.option(
            "--bandwidth",
            type=RATE,
            default=bandwidth,
            show_default=bandwidth or "no cap",
            help="Cap on what is sent while the guest runs. QEMU's last step, while the guest stands still, is not "
            "held to it.",
        ),
        click.option(
            "--deadline", type=DURATION, show_default="none", help="Time within which the guest must have moved."
        ),
        click.option(
            "--at-deadline",
            type=click.Choice(["cancel", "pause"]),
            default="cancel",
            show_default=True,
            help="What then: give up, or stop the guest and send the rest however long it takes.",
        ),
        click.option(
            "--probation",
            type=DURATION,
            default="2s",
            show_default=True,
            help="How long the guest is watched at the destination before the source is quit.",
        ),
        click.option(
            "--trace",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write every input, decision and event to FILE, for `livemig replay`.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout, nothing else."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@cli.command(epilog=RUN_EPILOG, short_help="Move a running guest.")
@click.option("--src-qmp", metavar="ADDR", required=True, help="QMP monitor of the QEMU whose guest is to move.")
@click.option(
    "--dst-qmp",
    metavar="ADDR",
    required=True,
    help="QMP monitor of the QEMU that waits for it (-S -incoming defer).",
)
@_limits
@click.option("--keep-source", is_flag=True, help="Leave the source paused instead of quitting it.")
def run(src_qmp: str, dst_qmp: str, *, as_json: bool, trace: Path | None, **asked: Any) -> int:
    """Move a running guest from one QEMU to another that waits for it."""
    from livemig.cli.run import run_migration

    return run_migration(source=src_qmp, destination=dst_qmp, plan=_plan(**asked), trace_path=trace, as_json=as_json)


@cli.command(short_help="Decide a recorded run again.")
@click.argument("trace", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout, nothing else.")
def replay(trace: Path, *, as_json: bool) -> int:
    """Run the policy on what a TRACE recorded and compare its decisions.

    Exit code 0 when they are reproduced, 1 when any differs.
    """
    from livemig.cli.replay import replay_trace

    return replay_trace(trace, as_json=as_json)


@cli.command(short_help="See a busy guest move, on this machine.")
@click.option("--memory", type=SIZE, default="256MiB", show_default=True, help="The guest's memory.")
@click.option("--working-set", type=SIZE, default="64MiB", show_default=True, help="Memory that the guest rewrites.")
@click.option("--dirty-rate", type=RATE, default="80MiB/s", show_default=True, help="How fast it rewrites it.")
@click.option(
    "--accelerator",
    type=click.Choice(["tcg", "kvm"]),
    default="tcg",
    show_default=True,
    help="How QEMU runs the guest.",
)
@partial(_limits, bandwidth="200MiB/s")
def demo(*, as_json: bool, trace: Path | None, **asked: Any) -> int:
    """Start a busy guest and a waiting QEMU, move the guest, and check every page of its memory.

    The guest is built in: a bare-metal program that rewrites its memory, beats on its serial port, and checks itself
    without end. Shown at the end: its longest silence, beside what QEMU calls the downtime.
    """
    from livemig.cli.demo import run_demo

    workload = {name: asked.pop(name) for name in ("memory", "working_set", "dirty_rate", "accelerator")}
    plan = _plan(keep_source=False, **asked)
    return run_demo(plan=plan, trace_path=trace, as_json=as_json, **workload)


def _plan(
    *,
    downtime_limit: float,
    bandwidth: float | None,
    deadline: float | None,
    at_deadline: str,
    probation: float,
    keep_source: bool,
) -> Plan:
    from livemig.core.plan import AtDeadline, Plan

    try:
        return Plan(
            downtime_limit_s=downtime_limit,
            bandwidth_bytes_s=bandwidth,
            deadline_s=deadline,
            at_deadline=AtDeadline(at_deadline),
            probation_s=probation,
            keep_source=keep_source,
        )
    except PlanError as error:
        raise click.UsageError(str(error)) from error
