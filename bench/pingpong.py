"""``python -m bench pingpong``: a loaded guest moves again and again; is all of it there, each time?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import msgspec

import livemig
from bench.options import MIB, accelerator_option, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Total, present
from bench.runner import run_benchmark
from bench.travelling_guest import TravellingGuest
from livemig.cli.options import DURATION, RATE, SIZE
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import MachineSettings
from livemig.lab.workload import Workload

VERDICT_BOUND_S = 300.0
LOADS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tcg": {"fill": 192 * MIB, "working_set": 48 * MIB, "dirty_rate": 80.0 * MIB, "bodies": True},
    "kvm": {"fill": 64 * MIB, "working_set": 24 * MIB, "dirty_rate": 40.0 * MIB, "bodies": False},
}
"""What the guest does and how it is checked, unless asked otherwise. KVM without hardware virtualisation takes 4 us
for each page that is touched and 1 us for each instruction: a look at each byte of 64 MiB would take it 12 s."""


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One move and what the guest said of its memory after it.

    Attributes:
        checked_page_count: Pages that the guest looked at.
        lost_page_count: Faults that were found since the last verdict: a lost or stale page, a wrong word.
        reset_count: Resets heard since the last move.
        problems: What contradicts one guest that goes on, heard since the last move.
        missed_beat_count: Beats that were not heard since the last move; a switchover may cut one in two.
        total_s: From ``migrate`` to RESUME at the destination.
        downtime_s: From the source's STOP to the destination's RESUME.
        blackout_s: The longest time without a heartbeat.
        verdict_s: How long the guest looked.
        sent_bytes: What went over the wire.
        round_count: Passes over dirty memory.
        warnings: What livemig had to say.
        left_behind_count: Files of the QEMU that it left which livemig had made and did not remove.
    """

    checked_page_count: int
    lost_page_count: int
    reset_count: int
    problems: tuple[str, ...]
    missed_beat_count: int
    total_s: float | None
    downtime_s: float | None
    blackout_s: float
    verdict_s: float
    sent_bytes: int
    round_count: int
    warnings: tuple[str, ...]
    left_behind_count: int


@click.command(short_help="Fifty moves of a busy guest: is all there?")
@count_option(50, "moves")
@accelerator_option
@click.option("--memory", type=SIZE, default="256MiB", show_default=True, help="The guest's memory.")
@click.option("--fill", type=SIZE, show_default="192MiB; KVM: 64MiB", help="Memory with content, which is checked.")
@click.option("--working-set", type=SIZE, show_default="48MiB; KVM: 24MiB", help="Memory that the guest rewrites.")
@click.option("--dirty-rate", type=RATE, show_default="80MiB/s; KVM: 40MiB/s", help="How fast it rewrites it.")
@click.option("--downtime-limit", type=DURATION, default="300ms", show_default=True, help="As for `livemig run`.")
@click.option("--bandwidth", type=RATE, default="400MiB/s", show_default=True, help="As for `livemig run`.")
@click.option(
    "--bodies/--sample",
    default=None,
    show_default="bodies; KVM: sample",
    help="Check each byte of each page, or of each page both ends, which every write changes, and a sample between.",
)
@click.option("--launch", is_flag=True, help="Let livemig launch each destination from the QEMU that the guest is in.")
@shared_options
def pingpong(
    *,
    count: int,
    accelerator: str,
    launch: bool,
    memory: float,
    downtime_limit: float,
    bandwidth: float,
    qemu: str,
    as_json: bool,
    output: Path | None,
    **asked: Any,
) -> None:
    """Move a busy guest to a fresh QEMU again and again, and have it check its memory after each move.

    To reach: no lost page, no reset, no beat that contradicts one guest which goes on.
    """
    load = {name: value if asked[name] is None else asked[name] for name, value in LOADS[accelerator].items()}
    workload = Workload(
        working_set_bytes=int(load["working_set"]),
        dirty_rate_bytes_s=load["dirty_rate"],
        fill_bytes=int(max(load["fill"], load["working_set"])),
    )
    machine = MachineSettings(workload=workload, memory_bytes=int(memory), binary=qemu, accelerator=accelerator)
    plan = livemig.Plan(probation_s=0.1, downtime_limit_s=downtime_limit, bandwidth_bytes_s=bandwidth)
    run_benchmark(
        "pingpong",
        {
            "count": count,
            "accelerator": accelerator,
            "memory_bytes": memory,
            "fill_bytes": workload.filled_bytes,
            "working_set_bytes": workload.working_set_bytes,
            "dirty_rate_bytes_s": workload.dirty_rate_bytes_s,
            "bandwidth_bytes_s": bandwidth,
            "destination": "launched by livemig" if launch else "waiting",
            "check": "each byte" if load["bodies"] else "ends and sample",
        },
        measure=partial(_measure, machine, plan, count, bodies=bool(load["bodies"]), launching=launch),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(
    settings: MachineSettings, plan: livemig.Plan, count: int, samples: list[Move], *, bodies: bool, launching: bool
) -> None:
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder, Progress("moves", count) as progress:
        async with TravellingGuest(settings, Path(folder), launching=launching) as guest:
            fault_count = 0
            for _ in range(count):
                move, fault_count = await _move(guest, plan, bodies=bodies, fault_count=fault_count)
                samples.append(move)
                progress.step()


async def _move(guest: TravellingGuest, plan: livemig.Plan, *, bodies: bool, fault_count: int) -> tuple[Move, int]:
    """Moves the guest once; takes and returns the faults that it has found since its boot."""
    heartbeat = guest.heartbeat
    problem_count, reset_count = len(heartbeat.problems), heartbeat.reset_count
    missed_beat_count = heartbeat.missed_count
    await guest.open_destination()
    report = await guest.move(plan)
    left = guest.machine
    await guest.arrived()
    blackout_s = heartbeat.longest_gap_s
    verdict = await guest.machine.serial.ask_verdict(all_bodies=bodies, timeout_s=VERDICT_BOUND_S)
    move = Move(
        checked_page_count=verdict.page_count,
        lost_page_count=verdict.fault_count - fault_count,
        reset_count=heartbeat.reset_count - reset_count,
        problems=tuple(heartbeat.problems[problem_count:]),
        missed_beat_count=heartbeat.missed_count - missed_beat_count,
        total_s=report.total_s,
        downtime_s=None if report.downtime is None else report.downtime.total_s,
        blackout_s=blackout_s,
        verdict_s=verdict.duration_s,
        sent_bytes=report.sent_bytes,
        round_count=report.round_count,
        warnings=report.warnings,
        left_behind_count=len(left.left_behind) if isinstance(left, LaunchedMachine) else 0,
    )
    return move, verdict.fault_count


def _conclude(samples: list[Move]) -> Conclusion:
    def figure(name: str, label: str) -> Figure | None:
        return Figure.of(name, label, (getattr(sample, name) for sample in samples))

    lost_page_count = sum(sample.lost_page_count for sample in samples)
    reset_count = sum(sample.reset_count for sample in samples)
    problems = [problem for sample in samples for problem in sample.problems]
    warnings = [warning for sample in samples for warning in sample.warnings]
    left_behind_count = sum(sample.left_behind_count for sample in samples)
    return Conclusion(
        figures=present(
            figure("total_s", "total time (migrate to RESUME)"),
            figure("downtime_s", "downtime (STOP to RESUME)"),
            figure("blackout_s", "blackout (longest heartbeat gap)"),
            figure("verdict_s", "the guest's check of its memory"),
            figure("sent_bytes", "sent"),
            figure("round_count", "rounds"),
        ),
        totals=(
            Total("move_count", "moves", len(samples)),
            Total("checked_page_count", "pages checked", sum(sample.checked_page_count for sample in samples)),
            Total("lost_page_count", "pages lost", lost_page_count),
            Total("reset_count", "resets", reset_count),
            Total("problem_count", "contradictions to one guest that goes on", len(problems)),
            Total("missed_beat_count", "beats not heard", sum(sample.missed_beat_count for sample in samples)),
            Total("left_behind_count", "files left behind", left_behind_count),
            Total("warning_count", "warnings", len(warnings)),
        ),
        notes=(*(f"PROBLEM: {text}" for text in problems), *(f"warning: {text}" for text in sorted(set(warnings)))),
        sound=not (lost_page_count or reset_count or problems or left_behind_count),
        samples=tuple(samples),
    )
