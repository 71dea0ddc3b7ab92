"""``python -m bench footprint``: what livemig itself takes while a migration goes on: CPU and memory."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import click
import msgspec

from bench.livemig_run import LivemigRun, warm_up
from bench.options import MIB, accelerator_option, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, present
from bench.runner import run_benchmark
from bench.travelling_guest import TravellingGuest
from livemig.cli.options import DURATION, RATE
from livemig.core.errors import GuestError
from livemig.lab.machine import MachineSettings
from livemig.lab.workload import Workload

CPU_LIMIT_PERCENT = 1.0
MEMORY_LIMIT_BYTES = 80 * MIB
PREPARED_BOUND_S = 10.0
ENDING_BOUND_S = 30.0
RESTLESS = Workload(working_set_bytes=64 * MIB, dirty_rate_bytes_s=4000 * MIB)
"""Rewrites its working set far faster than the cap lets it be sent: rounds without end."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """One long migration.

    Attributes:
        cpu_percent: CPU time of the livemig process during the migration, as a share of one core.
        cpu_s: That CPU time.
        duration_s: How long that was: from ``prepared`` to ``ended``, cancelling and settling included.
        startup_cpu_s: CPU time before, the interpreter's start included.
        exit_cpu_s: CPU time after it: the interpreter's end.
        peak_memory_bytes: The largest resident memory.
        round_count: Passes over dirty memory.
    """

    cpu_percent: float
    cpu_s: float
    duration_s: float
    startup_cpu_s: float
    exit_cpu_s: float
    peak_memory_bytes: int
    round_count: int


@click.command(short_help="CPU and memory of a long migration.")
@count_option(1, "migrations")
@accelerator_option
@click.option("--duration", type=DURATION, default="30s", show_default=True, help="How long each migration goes on.")
@click.option("--bandwidth", type=RATE, default="100MiB/s", show_default=True, help="The cap that it can't get over.")
@shared_options
def footprint(
    *,
    count: int,
    accelerator: str,
    duration: float,
    bandwidth: float,
    qemu: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Let a migration that does not converge go on, and see what livemig takes meanwhile, without the live view.

    To reach: at most 1 % of a core, at most 80 MiB resident. The migration ends by its deadline: cancelling and
    settling are counted in; the interpreter's start and end are not, and are shown beside it.
    """
    machine = MachineSettings(workload=RESTLESS, binary=qemu, accelerator=accelerator)
    run_benchmark(
        "footprint",
        {
            "count": count,
            "accelerator": accelerator,
            "duration_s": duration,
            "bandwidth_bytes_s": bandwidth,
        },
        measure=partial(_measure, machine, count, duration, bandwidth),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(
    settings: MachineSettings, count: int, duration_s: float, bandwidth_bytes_s: float, samples: list[Footprint]
) -> None:
    options = ("--keep-trying", "--deadline", f"{duration_s}s", "--bandwidth", f"{bandwidth_bytes_s}B/s")
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder:
        warm_up(Path(folder))
        async with TravellingGuest(settings, Path(folder)) as guest:
            with Progress(f"migrations of {duration_s:g} s", count) as progress:
                for _ in range(count):
                    samples.append(await _one(guest, options, duration_s, Path(folder)))
                    progress.step()


async def _one(guest: TravellingGuest, options: tuple[str, ...], duration_s: float, folder: Path) -> Footprint:
    destination = await guest.open_destination()
    with LivemigRun(guest.machine, destination, *options, folder=folder) as run:
        await run.wait_printed("prepared", timeout_s=PREPARED_BOUND_S)
        prepared_s, startup_cpu_s = time.monotonic(), run.cpu_so_far_s()
        await run.wait_printed("ended", timeout_s=duration_s + ENDING_BOUND_S)
        duration_s, cpu_s = time.monotonic() - prepared_s, run.cpu_so_far_s() - startup_cpu_s
        closing = await run.wait(timeout_s=ENDING_BOUND_S)
    if closing.get("outcome") != "cancelled" or run.cpu_s is None:
        raise GuestError(f"the migration was to last until its deadline: {closing.get('reason')}")
    return Footprint(
        cpu_percent=100 * cpu_s / duration_s,
        cpu_s=cpu_s,
        duration_s=duration_s,
        startup_cpu_s=startup_cpu_s,
        exit_cpu_s=run.cpu_s - startup_cpu_s - cpu_s,
        peak_memory_bytes=run.peak_memory_bytes,
        round_count=int(closing["round_count"]),
    )


def _conclude(samples: list[Footprint]) -> Conclusion:
    def figure(name: str, label: str) -> Figure | None:
        return Figure.of(name, label, (getattr(sample, name) for sample in samples))

    cpu = figure("cpu_percent", "CPU during the migration, of one core")
    memory = figure("peak_memory_bytes", "peak resident memory")
    figures = present(
        cpu,
        memory,
        figure("startup_cpu_s", "CPU time of the start-up"),
        figure("cpu_s", "CPU time of the migration"),
        figure("exit_cpu_s", "CPU time of the exit"),
        figure("duration_s", "duration of the migration"),
        figure("round_count", "rounds"),
    )
    targets = (
        *Target.of(cpu, "median", CPU_LIMIT_PERCENT),
        *Target.of(memory, "maximum", MEMORY_LIMIT_BYTES),
    )
    return Conclusion(figures=figures, targets=targets, samples=tuple(samples))
