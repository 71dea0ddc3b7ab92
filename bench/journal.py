"""``python -m bench journal``: what the journal costs a run, and what it is worth when livemig is killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import click
import msgspec

import livemig
from bench.livemig_run import LivemigRun, user_environment, warm_up
from bench.options import WORKLOADS, accelerator_option, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, Total, present
from bench.runner import run_benchmark
from bench.travelling_guest import TravellingGuest
from livemig.core.errors import GuestError
from livemig.lab.machine import Machine, MachineSettings
from livemig.qemu.event_stream import EventStream, MonitorEvent
from livemig.qemu.monitor import Monitor

JOURNAL_LIMIT_S = 0.03
FROZEN_LIMIT_S = 2.0
RECOVER_LIMIT_S = 5.0
STOP_BOUND_S = 60.0
RESUME_BOUND_S = 60.0
TRIES_PER_KILL = 10
PLAN = livemig.Plan(probation_s=0.0)


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement.

    Attributes:
        journal_s: What an undisturbed run waited for its journal in all; None where livemig was killed.
        frozen_s: How long the guest stood still whose engine was killed as it stopped: from STOP to RESUME, wherever.
        recover_s: What `livemig recover` took, as a command, after engine and parent were killed in that moment.
        at_destination: Whether the guest went on there; None where livemig was not killed.
    """

    journal_s: float | None = None
    frozen_s: float | None = None
    recover_s: float | None = None
    at_destination: bool | None = None


@click.command(short_help="The journal's cost; recovery after a kill.")
@count_option(20, "undisturbed moves")
@click.option("--kills", type=click.IntRange(0), default=5, show_default=True, help="Kills of each kind.")
@accelerator_option
@shared_options
def journal(*, count: int, kills: int, accelerator: str, qemu: str, as_json: bool, output: Path | None) -> None:
    """Move a loaded guest; then kill livemig in the moment that the guest stops, and see how long that costs the guest.

    To reach: the journal takes 30 ms of a run in the median; a guest whose engine was killed stands still for 2 s at
    most; after engine and parent were killed `livemig recover` takes 5 s at most. The journal is the user's own, on the
    user's disk.
    """
    machine = MachineSettings(workload=WORKLOADS["loaded"], binary=qemu, accelerator=accelerator)
    run_benchmark(
        "journal",
        {"count": count, "kills": kills, "accelerator": accelerator},
        measure=partial(_measure, machine, count, kills),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(settings: MachineSettings, count: int, kills: int, samples: list[Kill]) -> None:
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as name:
        folder = Path(name)
        warm_up(folder)
        with Progress("moves and kills", count + 2 * kills) as progress:
            async with TravellingGuest(settings, folder) as guest:
                for _ in range(count):
                    await guest.open_destination()
                    report = await guest.move(PLAN)
                    await guest.arrived()
                    samples.append(Kill(journal_s=report.journal_s))
                    progress.step()
            for parent in (False, True):
                for _ in range(kills):
                    samples.append(await _killed(settings, folder, parent=parent))
                    progress.step()


async def _killed(settings: MachineSettings, folder: Path, *, parent: bool) -> Kill:
    """Kills livemig at STOP; again with a fresh guest where it was quicker, so that the guest did not stand still."""
    for _ in range(TRIES_PER_KILL):
        async with (
            Machine(settings, folder=folder, name="source") as source,
            Machine(
                msgspec.structs.replace(settings, incoming="defer", paused=True), folder=folder, name="destination"
            ) as destination,
        ):
            await source.serial.wait_ready()
            found = await _one(source, destination, folder, parent=parent)
        if found is not None:
            return found
    raise GuestError(f"livemig handed the guest over before it was killed, {TRIES_PER_KILL} times")


async def _one(source: Machine, destination: Machine, folder: Path, *, parent: bool) -> Kill | None:
    async with (
        await Monitor.connect(str(source.spare_qmp_path), name="source") as here,
        await Monitor.connect(str(destination.spare_qmp_path), name="destination") as there,
    ):
        with (
            here.subscribe("STOP", "RESUME") as source_events,
            there.subscribe("RESUME") as destination_events,
            LivemigRun(source, destination, "--probation", "0s", folder=folder) as run,
        ):
            stopped = await source_events.wait_for("STOP", timeout_s=STOP_BOUND_S)
            if parent:
                run.kill()
            else:
                run.kill_engine()
            killed_s = time.time()
            began_s = time.monotonic()
            if parent:
                await asyncio.to_thread(_recover, run.run_id, folder)
            recover_s = time.monotonic() - began_s
            resumed, at_destination = await _resumed(source_events, destination_events)
            if not parent:
                await run.wait(timeout_s=RESUME_BOUND_S)
    if resumed.timestamp_s <= killed_s:
        return None
    if parent:
        return Kill(recover_s=recover_s, at_destination=at_destination)
    return Kill(frozen_s=resumed.timestamp_s - stopped.timestamp_s, at_destination=at_destination)


def _recover(run_id: str, folder: Path) -> None:
    argv = (sys.executable, "-m", "livemig", "recover", "--json", run_id)
    done = subprocess.run(
        argv, env=user_environment(folder), check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise GuestError(f"livemig recover ended with {done.returncode}: {done.stdout} {done.stderr}")


async def _resumed(source: EventStream, destination: EventStream) -> tuple[MonitorEvent, bool]:
    """Returns the RESUME of whichever side goes on, and whether that is the destination."""
    waiting = [
        asyncio.create_task(stream.wait_for("RESUME", timeout_s=RESUME_BOUND_S)) for stream in (source, destination)
    ]
    try:
        while True:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    return task.result(), task is waiting[1]
            if len(done) == len(waiting):
                raise GuestError("the guest was never resumed")
            await asyncio.wait([task for task in waiting if not task.done()])
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _conclude(samples: list[Kill]) -> Conclusion:
    cost = Figure.of("journal_s", "the journal, of one run", (sample.journal_s for sample in samples))
    frozen = Figure.of("frozen_s", "standing still, engine killed", (sample.frozen_s for sample in samples))
    recover = Figure.of("recover_s", "livemig recover, all killed", (sample.recover_s for sample in samples))
    killed = [sample for sample in samples if sample.at_destination is not None]
    return Conclusion(
        figures=present(cost, frozen, recover),
        totals=(
            Total("kill_count", "kills", len(killed)),
            Total("at_destination_count", "of them: the guest went on there", sum(map(_went_on, killed))),
        ),
        targets=(
            *Target.of(cost, "median", JOURNAL_LIMIT_S),
            *Target.of(frozen, "maximum", FROZEN_LIMIT_S),
            *Target.of(recover, "maximum", RECOVER_LIMIT_S),
        ),
        samples=tuple(samples),
    )


def _went_on(sample: Kill) -> bool:
    return bool(sample.at_destination)
