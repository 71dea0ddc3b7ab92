"""The verbs and their options. Each verb's work is imported only when it was chosen."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from livemig.cli.completion import completion
from livemig.cli.config import config_option
from livemig.cli.control_commands import cancel, recover, status, tune
from livemig.cli.handover_options import handover_options
from livemig.cli.help import Option, Verb
from livemig.cli.help_texts import DEMO_EPILOG, EXAMPLES, PLAN_EPILOG, REPLAY_EPILOG, RUN_EPILOG
from livemig.cli.lab import lab
from livemig.cli.limit_options import AFTERWARDS, limit_options, plan_of, sample_option
from livemig.cli.options import ADDRESS, RATE, SIZE, PolicyName
from livemig.cli.simulate_options import SIMULATE_EPILOG, simulated_options
from livemig.cli.supervise import new_id, supervised
from livemig.core.errors import PlanError

if TYPE_CHECKING:
    from livemig.engine.launch_plan import LaunchOptions

_ADDRESSES = "Where"
_LAUNCH = "A destination that livemig launches"
_HOSTS = "Between hosts"
_OUTPUT = "Output"
_GUEST = "The guest"

_option = partial(click.option, cls=Option)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXAMPLES,
)
@click.version_option(package_name="livemig", prog_name="livemig")
def cli() -> None:
    """Moves a running QEMU virtual machine to another QEMU by talking QMP to both."""


for _verb in (status, tune, cancel, recover):
    cli.add_command(_verb)


def _launch(command: Any) -> Any:
    """The options for a destination that livemig launches."""
    options = [
        _option(
            "--map",
            "maps",
            heading=_LAUNCH,
            metavar="OLD=NEW",
            multiple=True,
            help="A path of the source's command line is NEW at the destination, with all below it. Can be repeated.",
        ),
        _option(
            "--dst-set",
            heading=_LAUNCH,
            metavar="ID.PROPERTY=VALUE",
            multiple=True,
            help="Give the device, drive or other object ID another property. Can be repeated.",
        ),
        _option("--dst-args", heading=_LAUNCH, metavar="ARGS", default="", help="Add these arguments at its end."),
        _option(
            "--dst-command",
            heading=_LAUNCH,
            metavar="COMMAND",
            help="Launch this instead of the source's command line.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _between_hosts(command: Any) -> Any:
    """The options of the way that memory takes."""
    options = [
        _option(
            "--security",
            heading=_HOSTS,
            type=click.Choice(["auto", "tls", "ssh", "none"]),
            default="auto",
            show_default=True,
            help="What protects the guest's memory between hosts: QEMU's TLS with a key made for this migration, a "
            "tunnel through livemig's SSH, or nothing. auto is tls, or ssh where that can't be.",
        ),
        _option(
            "--migrate-address",
            heading=_HOSTS,
            metavar="ADDRESS",
            help="Where the destination listens for the guest: an address of its host. Without it, the one by which "
            "its SSH is reached.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _output(command: Any) -> Any:
    """The options of what is shown and kept, shared by the verbs that migrate."""
    command = config_option(command)
    trace = _option(
        "--trace",
        heading=_OUTPUT,
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write every input, decision and event to FILE, for `livemig replay`.",
    )
    return trace(_json(command))


def _json(command: Any) -> Any:
    option = _option(
        "--json", "as_json", heading=_OUTPUT, is_flag=True, help="One JSON object a line on stdout, nothing else."
    )
    return option(command)


@cli.command(cls=Verb, epilog=RUN_EPILOG, short_help="Move a running guest.")
@_option(
    "--src-qmp", heading=_ADDRESSES, type=ADDRESS, required=True, help="The QEMU whose guest is to move: its monitor."
)
@_option(
    "--dst-qmp",
    heading=_ADDRESSES,
    type=ADDRESS,
    required=True,
    help="The QEMU that waits for it (-S -incoming defer): its monitor. If nobody listens there, livemig launches one "
    "by the source's command line, its monitor at that path.",
)
@limit_options
@sample_option("0s")
@_between_hosts
@handover_options
@_launch
@_option(
    "--print-destination-command",
    heading=_LAUNCH,
    is_flag=True,
    help="Print the command line that would be launched, and stop.",
)
@_option("--keep-source", heading=AFTERWARDS, is_flag=True, help="Leave the source paused instead of quitting it.")
@_output
def run(
    src_qmp: str,
    dst_qmp: str,
    *,
    as_json: bool,
    trace: Path | None,
    maps: tuple[str, ...],
    dst_set: tuple[str, ...],
    dst_args: str,
    dst_command: str | None,
    print_destination_command: bool,
    **asked: Any,
) -> int:
    """Move a running guest from one QEMU to another.

    The guest runs on while its memory is copied, and stands still only for the last part, as soon as that fits into
    the downtime limit. Whatever fails, it never runs in both QEMUs; the last lines say which has it.
    """
    if print_destination_command:
        from livemig.cli.run import print_command

        launch = _launch_options(maps, dst_set, dst_args, dst_command)
        return print_command(source=src_qmp, destination=dst_qmp, launch=launch)

    def work(lifeline: int) -> int:
        from livemig.cli.run import run_migration

        return run_migration(
            run_id=run_id,
            lifeline=lifeline,
            source=src_qmp,
            destination=dst_qmp,
            plan=plan_of(**asked),
            launch=_launch_options(maps, dst_set, dst_args, dst_command),
            trace_path=trace,
            as_json=as_json,
        )

    def recover_it(number: int) -> int:
        from livemig.cli.recover import recover_killed

        return recover_killed(run_id, number, as_json=as_json)

    run_id = new_id()
    return supervised(work, recover_it)


@cli.command(cls=Verb, epilog=PLAN_EPILOG, short_help="Say beforehand whether a guest can be moved.")
@_option(
    "--src-qmp", heading=_ADDRESSES, type=ADDRESS, required=True, help="The QEMU whose guest is to move: its monitor."
)
@_option(
    "--dst-qmp",
    heading=_ADDRESSES,
    type=ADDRESS,
    help="The QEMU that waits for it: its monitor; or the place where that of a launched one would be. Without it the "
    "source alone is looked at.",
)
@limit_options
@sample_option("15s")
@_between_hosts
@handover_options
@_launch
@_option("--keep-source", heading=AFTERWARDS, is_flag=True, help="Plan to leave the source paused, not to quit it.")
@config_option
@_json
def plan(
    src_qmp: str,
    dst_qmp: str | None,
    *,
    as_json: bool,
    maps: tuple[str, ...],
    dst_set: tuple[str, ...],
    dst_args: str,
    dst_command: str | None,
    **asked: Any,
) -> int:
    """Say whether a guest can be moved, how long it will take and stand still. Changes nothing on either side.

    Both QEMUs are compared where one waits; where none does, the command line is checked that one would be launched
    by. Takes the options of `livemig run`, so that a plan that is good can be run as it stands.
    """
    from livemig.cli.plan import show_plan

    return show_plan(
        source=src_qmp,
        destination=dst_qmp,
        plan=plan_of(**asked),
        launch=_launch_options(maps, dst_set, dst_args, dst_command),
        as_json=as_json,
    )


@cli.command(cls=Verb, epilog=REPLAY_EPILOG, short_help="Decide a recorded run again.")
@click.argument("trace", type=click.Path(dir_okay=False, path_type=Path))
@_option(
    "--policy",
    metavar="NAME",
    type=PolicyName(),
    help="Say instead what another rule would have done: time, downtime, qemu, proxmox, nova, …",
)
@_json
def replay(trace: Path, *, policy: str | None, as_json: bool) -> int:
    """Run policy and forecast on what a TRACE recorded and compare what they say with what was recorded.

    Needs no QEMU and touches none. What differs shows what another version of livemig would have done.
    """
    from livemig.cli.replay import replay_trace

    return replay_trace(trace, policy=policy, as_json=as_json)


@cli.command(cls=Verb, epilog=DEMO_EPILOG, short_help="See a busy guest move, on this machine.")
@_option("--memory", heading=_GUEST, type=SIZE, default="256MiB", show_default=True, help="Its memory, 16MiB to 3GiB.")
@_option(
    "--working-set",
    heading=_GUEST,
    type=SIZE,
    default="64MiB",
    show_default=True,
    help="The part of it that the guest rewrites, over and over.",
)
@_option(
    "--dirty-rate", heading=_GUEST, type=RATE, default="80MiB/s", show_default=True, help="How fast it rewrites it."
)
@_option(
    "--accelerator",
    heading=_GUEST,
    type=click.Choice(["tcg", "kvm"]),
    default="tcg",
    show_default=True,
    help="How QEMU runs it.",
)
@partial(limit_options, bandwidth="200MiB/s")
@sample_option("0s")
@_output
def demo(*, as_json: bool, trace: Path | None, **asked: Any) -> int:
    """Start a busy guest and a waiting QEMU, move the guest, and check every page of its memory.

    The guest is built in: a bare-metal program that rewrites its memory, beats on its serial port, and checks itself
    without end. Shown at the end: its longest silence, beside what QEMU calls the downtime. Nothing is left behind.
    """
    from livemig.cli.demo import run_demo

    workload = {name: asked.pop(name) for name in ("memory", "working_set", "dirty_rate", "accelerator")}
    plan = plan_of(keep_source=False, **asked)
    return run_demo(plan=plan, trace_path=trace, as_json=as_json, **workload)


def _launch_options(
    maps: tuple[str, ...], settings: tuple[str, ...], arguments: str, command: str | None
) -> LaunchOptions:
    from livemig.engine.launch_plan import LaunchOptions

    try:
        return LaunchOptions.parse(maps=maps, settings=settings, arguments=arguments, command=command)
    except PlanError as error:
        raise click.UsageError(str(error), ctx=click.get_current_context()) from error


@cli.command(cls=Verb, epilog=SIMULATE_EPILOG, short_help="Simulate a migration.")
@simulated_options
@limit_options
@_output
def simulate(*, as_json: bool, trace: Path | None, seed: int, count: int, **asked: Any) -> int:
    """See what a migration would do, simulated page by page. Needs no QEMU and touches none.

    The policy is the one that decides real migrations; QEMU's slots, syncs and its rule for the switchover are those
    of the version chosen.
    """
    from livemig.cli.simulate import asked_of, run_simulation

    limits = (
        "downtime_limit",
        "bandwidth",
        "deadline",
        "at_deadline",
        "keep_trying",
        "prefer",
        "patience",
        "probation",
    )
    plan = plan_of(keep_source=False, **{name: asked.pop(name) for name in limits})
    return run_simulation(plan=plan, asked=asked_of(**asked), seed=seed, count=count, trace_path=trace, as_json=as_json)


cli.add_command(completion)
cli.add_command(lab)
