"""``python -m bench startup``: what a newcomer waits for that is not QEMU's: start, preparing, ending, ``--help``."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import click
import msgspec

from bench.event_tap import EventTap
from bench.livemig_run import LivemigRun, user_environment, warm_up
from bench.options import WORKLOADS, accelerator_option, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, present
from bench.runner import run_benchmark
from bench.travelling_guest import TravellingGuest
from livemig.core.errors import GuestError
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import MachineSettings

BEYOND_QEMU_LIMIT_S = 0.35
LAUNCH_LIMIT_S = 0.8
HELP_LIMIT_S = 0.15
RUN_BOUND_S = 60.0
IMPORTS_SHOWN_COUNT = 8
_IMPORT_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One migration by the command line, and one of each short command beside it.

    Attributes:
        beyond_qemu_s: From starting the process to its end, less what QEMU took for the migration.
        before_migrate_s: Of that: until QEMU began to migrate.
        after_completed_s: Of that: since QEMU had completed, the destination's start and the source's end included.
        qemu_total_s: What QEMU took, by the timestamps of its events.
        help_s: ``livemig --help``.
        interpreter_s: ``python -c pass``.
        qemu_start_s: A QEMU of the same kind, started here, until it answers; None unless livemig launches them.
    """

    beyond_qemu_s: float
    before_migrate_s: float
    after_completed_s: float
    qemu_total_s: float
    help_s: float
    interpreter_s: float
    qemu_start_s: float | None

    @property
    def launch_s(self) -> float | None:
        """What launching, comparing and preparing took beyond QEMU's own start."""
        return None if self.qemu_start_s is None else self.before_migrate_s - self.qemu_start_s


@click.command(short_help="What livemig takes besides QEMU; --help.")
@count_option(20, "migrations, and starts of each short command")
@accelerator_option
@click.option("--imports", is_flag=True, help="Name the slowest imports of --help, even when it is quick enough.")
@click.option("--launch", is_flag=True, help="Let livemig launch each destination; QEMU's own start is timed beside.")
@shared_options
def startup(
    *, count: int, accelerator: str, qemu: str, imports: bool, launch: bool, as_json: bool, output: Path | None
) -> None:
    """Time whole commands, interpreter included, on an idle guest.

    `livemig run --json --probation 0s` less QEMU's own total time is to stay within 0.35 s, `livemig --help` within
    0.15 s, both in the median; with --launch, all before QEMU migrates less QEMU's own start within 0.8 s. `python -c
    pass`, timed alternately, shows how much of it is the interpreter's.
    """
    machine = MachineSettings(workload=WORKLOADS["idle"], binary=qemu, accelerator=accelerator)
    run_benchmark(
        "startup",
        {"count": count, "accelerator": accelerator, "destination": "launched by livemig" if launch else "waiting"},
        measure=partial(_measure, machine, count, launching=launch),
        conclude=partial(_conclude, imports=imports),
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(settings: MachineSettings, count: int, samples: list[Start], *, launching: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder, Progress("migrations", count) as progress:
        warm_up(Path(folder))
        async with TravellingGuest(settings, Path(folder), launching=launching) as guest:
            for _ in range(count):
                samples.append(await _start(guest, Path(folder), launching=launching))
                progress.step()


async def _start(guest: TravellingGuest, folder: Path, *, launching: bool) -> Start:
    qemu_start_s = await guest.time_qemu_start_s() if launching else None
    source, destination = guest.machine, await guest.open_destination()
    with EventTap(source.spare_qmp_path) as tap:
        wall_less_monotonic_s = time.time() - time.monotonic()
        with LivemigRun(source, destination, "--probation", "0s", folder=folder) as run:
            closing = await run.wait(timeout_s=RUN_BOUND_S)
            ended_s = run.ended_s
        if closing.get("outcome") != "completed" or ended_s is None:
            raise GuestError(f"the guest did not arrive: {closing.get('reason')}")
        began_s, completed_s = tap.time_s("MIGRATION", "setup"), tap.time_s("MIGRATION", "completed")
    if isinstance(destination, LaunchedMachine):
        await destination.attach()
    await guest.arrived()
    return Start(
        beyond_qemu_s=(ended_s - run.started_s) - (completed_s - began_s),
        before_migrate_s=began_s - wall_less_monotonic_s - run.started_s,
        after_completed_s=ended_s - (completed_s - wall_less_monotonic_s),
        qemu_total_s=completed_s - began_s,
        help_s=_duration_s(folder, *_help_argv()),
        interpreter_s=_duration_s(folder, sys.executable, "-c", "pass"),
        qemu_start_s=qemu_start_s,
    )


def _help_argv() -> tuple[str, ...]:
    """The console script where it is installed, as a user types it; else the module, which is the same."""
    script = Path(sys.executable).parent / "livemig"
    return (str(script), "--help") if script.exists() else (sys.executable, "-m", "livemig", "--help")


def _duration_s(folder: Path, *argv: str) -> float:
    environment = user_environment(folder)
    started_s = time.monotonic()
    subprocess.run(argv, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.monotonic() - started_s


def _conclude(samples: list[Start], *, imports: bool) -> Conclusion:
    def figure(name: str, label: str) -> Figure | None:
        return Figure.of(name, label, (getattr(sample, name) for sample in samples))

    beyond = figure("beyond_qemu_s", "livemig run, less QEMU's total time")
    launch = figure("launch_s", "  of that, less a QEMU's own start")
    help_figure = figure("help_s", "livemig --help")
    figures = present(
        beyond,
        figure("before_migrate_s", "  of that before migrate"),
        launch,
        figure("qemu_start_s", "a QEMU's own start, beside"),
        figure("after_completed_s", "  of that after completed"),
        figure("qemu_total_s", "QEMU's total time"),
        help_figure,
        figure("interpreter_s", "python -c pass"),
    )
    targets = (
        *(Target.of(beyond, "median", BEYOND_QEMU_LIMIT_S) if launch is None else ()),
        *Target.of(launch, "median", LAUNCH_LIMIT_S),
        *Target.of(help_figure, "median", HELP_LIMIT_S),
    )
    slow = imports or any(not target.reached for target in targets)
    return Conclusion(
        figures=figures,
        targets=targets,
        notes=_slowest_imports("--help") if slow else (),
        samples=tuple(samples),
    )


def _slowest_imports(*arguments: str) -> tuple[str, ...]:
    """What takes longest to import, its own imports not counted, by ``python -X importtime``."""
    argv = (sys.executable, "-X", "importtime", "-m", "livemig", *arguments)
    done = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    own_us = {match[4]: int(match[1]) for match in _IMPORT_LINE.finditer(done.stderr)}
    slowest = sorted(own_us.items(), key=lambda item: -item[1])[:IMPORTS_SHOWN_COUNT]
    return tuple(f"import {name}: {time_us / 1e3:.1f} ms of its own" for name, time_us in slowest)
