"""The options that benchmarks share, and the guests that they measure with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from livemig.lab.machine import MachineSettings
from livemig.lab.workload import Workload

MIB: Final = 2**20

WORKLOADS: Final = {
    "idle": Workload(working_set_bytes=MIB, dirty_rate_bytes_s=0),
    "loaded": Workload(working_set_bytes=24 * MIB, dirty_rate_bytes_s=40 * MIB, fill_bytes=64 * MIB),
}
"""What the guest does while it moves: nothing, or rewriting 24 MiB at 40 MiB/s with 64 MiB filled."""

Command = Callable[..., Any]


def count_option(default: int, what: str) -> Callable[[Command], Command]:
    """``--count``: how many of what."""
    return click.option(
        "--count", type=click.IntRange(min=1), default=default, show_default=True, help=f"How many {what}."
    )


def accelerator_option(command: Command) -> Command:
    """``--accelerator``: how QEMU runs the guest."""
    return click.option(
        "--accelerator",
        type=click.Choice(["tcg", "kvm"]),
        default="tcg",
        show_default=True,
        help="How QEMU runs the guest.",
    )(command)


def shared_options(command: Command) -> Command:
    """The options of every benchmark: the QEMU to use, and where the result goes."""
    options = (
        click.option(
            "--qemu",
            metavar="BINARY",
            default=MachineSettings().binary,
            show_default=True,
            help="The QEMU to measure with, a name or a path.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else."),
        click.option(
            "--output",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write the JSON object to FILE as well, indented.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
