"""``python -m bench switchover``: how much livemig adds to the time that the guest stands still."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import click
import msgspec

import livemig
from bench.event_tap import EventTap
from bench.options import WORKLOADS, accelerator_option, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, Total, present
from bench.runner import run_benchmark
from bench.travelling_guest import TravellingGuest
from livemig.cli.options import SIZE
from livemig.core.errors import GuestError
from livemig.core.observation import Observation
from livemig.core.switchover import FIXED_DOWNTIME_PRIOR_S
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine, MachineSettings
from livemig.qemu.monitor import Monitor

SHARE_MEDIAN_LIMIT_S = 0.002
SHARE_P99_LIMIT_S = 0.010
PLAN = livemig.Plan(probation_s=0.05, keep_source=True)
"""The source is kept for its last figures. What happens to it comes after the downtime, so that this changes none."""


NOTES = (
    "QEMU counts its downtime in whole milliseconds, so that a single controller's share is off by up to 1 ms",
    "the hand-over is by the microsecond timestamps of QEMU's own events",
    "the hand-over is from the later `completed` of both QEMUs to RESUME: livemig's reaction and QEMU's own `cont`",
)


class Switchover(msgspec.Struct, frozen=True, kw_only=True):
    """One switchover.

    Attributes:
        downtime_s: From the source's STOP to the destination's RESUME, by QEMU's timestamps.
        qemu_downtime_s: QEMU's own figure, in whole milliseconds.
        controller_share_s: The difference.
        handover_s: From the later ``completed`` of both QEMUs to RESUME, by QEMU's timestamps.
        transfer_s: See `livemig.Downtime`; so too `controller_s` and `resume_s`. None when the report has none.
        blackout_s: The longest time without a heartbeat, from before the migration to after it.
        sent_stopped_bytes: What QEMU sent while the guest stood still.
    """

    downtime_s: float
    qemu_downtime_s: float
    controller_share_s: float
    handover_s: float
    transfer_s: float | None
    controller_s: float | None
    resume_s: float | None
    blackout_s: float
    sent_stopped_bytes: int


@click.command(short_help="What livemig adds to the downtime.")
@count_option(200, "switchovers")
@accelerator_option
@click.option(
    "--workload",
    type=click.Choice(list(WORKLOADS)),
    default="idle",
    show_default=True,
    help="What the guest does: nothing, or rewriting 24 MiB at 40 MiB/s. Idle also shows the fixed part of the "
    "downtime.",
)
@click.option("--memory", type=SIZE, default="128MiB", show_default=True, help="The guest's memory.")
@shared_options
def switchover(
    *, count: int, accelerator: str, workload: str, memory: float, qemu: str, as_json: bool, output: Path | None
) -> None:
    """Move one guest back and forth through the library, and see where its downtime goes.

    The controller's share is livemig's downtime (the source's STOP to the destination's RESUME) less QEMU's own. To
    reach: a median of 2 ms and a p99 of 10 ms, over 200 switchovers or more.
    """
    machine = MachineSettings(
        workload=WORKLOADS[workload], memory_bytes=int(memory), binary=qemu, accelerator=accelerator
    )
    run_benchmark(
        "switchover",
        {"count": count, "accelerator": accelerator, "workload": workload, "memory_bytes": memory},
        measure=partial(_measure, machine, count),
        conclude=partial(_conclude, idle=workload == "idle"),
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(settings: MachineSettings, count: int, samples: list[Switchover]) -> None:
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder, Progress("switchovers", count) as progress:
        async with TravellingGuest(settings, Path(folder)) as guest:
            for _ in range(count):
                samples.append(await _switch_over(guest))
                progress.step()


async def _switch_over(guest: TravellingGuest) -> Switchover:
    source, destination = guest.machine, await guest.open_destination()
    with EventTap(source.spare_qmp_path) as at_source, EventTap(destination.spare_qmp_path) as at_destination:
        report = await guest.move(PLAN)
        stopped_s = at_source.time_s("STOP")
        resumed_s = at_destination.time_s("RESUME")
        completed_s = max(tap.time_s("MIGRATION", "completed") for tap in (at_source, at_destination))
    figures = await _final_figures(source)
    await guest.arrived(source_quits=False)
    if figures.downtime_s is None:
        raise GuestError("QEMU tells no downtime")
    parts, downtime_s = report.downtime, resumed_s - stopped_s
    return Switchover(
        downtime_s=downtime_s,
        qemu_downtime_s=figures.downtime_s,
        controller_share_s=downtime_s - figures.downtime_s,
        handover_s=resumed_s - completed_s,
        transfer_s=None if parts is None else parts.transfer_s,
        controller_s=None if parts is None else parts.controller_s,
        resume_s=None if parts is None else parts.resume_s,
        blackout_s=guest.heartbeat.longest_gap_s,
        sent_stopped_bytes=figures.downtime_bytes or 0,
    )


async def _final_figures(source: Machine | LaunchedMachine) -> Observation:
    async with await Monitor.connect(str(source.spare_qmp_path), name="source") as monitor:
        return await monitor.query_migrate()


def _conclude(samples: list[Switchover], *, idle: bool) -> Conclusion:
    def figure(name: str, label: str) -> Figure | None:
        return Figure.of(name, label, (getattr(sample, name) for sample in samples))

    share = figure("controller_share_s", "controller's share (downtime - QEMU's)")
    figures = present(
        share,
        figure("handover_s", "hand-over (last completed to RESUME)"),
        figure("downtime_s", "downtime (STOP to RESUME)"),
        figure("qemu_downtime_s", "QEMU's own downtime"),
        figure("transfer_s", "report: transfer"),
        figure("controller_s", "report: controller"),
        figure("resume_s", "report: resume"),
        figure("blackout_s", "blackout (longest heartbeat gap)"),
        figure("sent_stopped_bytes", "sent while stopped"),
    )
    unreported_count = sum(sample.controller_s is None for sample in samples)
    unreported = Total("unreported_downtime_count", "downtimes that livemig's report left out", unreported_count)
    totals, notes = _fixed_part(samples) if idle else ((), ())
    return Conclusion(
        figures=figures,
        totals=(unreported, *totals),
        targets=(
            *Target.of(share, "median", SHARE_MEDIAN_LIMIT_S),
            *Target.of(share, "p99", SHARE_P99_LIMIT_S),
        ),
        notes=(*NOTES, *notes),
        sound=unreported_count == 0,
        samples=tuple(samples),
    )


def _fixed_part(samples: list[Switchover]) -> tuple[tuple[Total, ...], tuple[str, ...]]:
    """An idle guest leaves next to nothing to send, so that its whole downtime is the fixed part."""
    within_count = sum(sample.downtime_s <= FIXED_DOWNTIME_PRIOR_S for sample in samples)
    totals = (
        Total("prior_s", "FIXED_DOWNTIME_PRIOR_S", FIXED_DOWNTIME_PRIOR_S),
        Total("within_prior_percent", "downtimes within it", 100 * within_count / len(samples)),
    )
    note = "the guest is idle and leaves next to nothing to send: its downtime is the fixed part of any downtime"
    return totals, (f"{note} (FIXED_DOWNTIME_PRIOR_S in livemig/core/switchover.py)",)
