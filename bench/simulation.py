"""``python -m bench simulation``: what is simulated, held against what real QEMUs do."""

from __future__ import annotations

import asyncio
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import click
import msgspec

import livemig
from bench.options import MIB, accelerator_option, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, Total, present
from bench.runner import run_benchmark
from bench.simulation_link import measure_link, warm_memory
from bench.travelling_guest import TravellingGuest
from livemig.core.errors import GuestError
from livemig.core.event import Prepared
from livemig.core.units import format_rate, format_size
from livemig.lab.machine import MachineSettings
from livemig.lab.workload import Pattern, Workload
from livemig.simulation.setting import Setting
from livemig.simulation.simulate import SimulatedRun, simulate
from livemig.simulation.versions import RULES
from livemig.simulation.workloads import Accelerator, BuiltinPhase, SimulatedGuest, builtin_guest

TOTAL_ERROR_LIMIT_PERCENT = 2.0
SENT_ERROR_LIMIT_PERCENT = 2.0
DOWNTIME_ERROR_LIMIT_S = 0.003
DEADLINE_S = 30.0
SETTLED_S = 0.5
"""How long the guest works before it moves."""

NOTES = (
    "the link and both hosts are measured first, by moves of their own; nothing is fitted to the moves compared",
    "memory is touched just before each destination starts, so that a virtual machine's own host costs nothing",
    "an error is the median of the simulated less the median of the real, of one setting",
)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A guest of the built-in kind, and what the user asks.

    Attributes:
        name: In words.
        memory_bytes: Its memory.
        workload: What it does.
        bandwidth_bytes_s: The cap.
        downtime_limit_s: The limit.
    """

    name: str
    memory_bytes: int
    workload: Workload
    bandwidth_bytes_s: float
    downtime_limit_s: float

    @property
    def plan(self) -> livemig.Plan:
        """What livemig is asked."""
        return livemig.Plan(
            bandwidth_bytes_s=self.bandwidth_bytes_s,
            downtime_limit_s=self.downtime_limit_s,
            deadline_s=DEADLINE_S,
            probation_s=0.05,
        )


def _case(
    memory: int, pattern: str, working_set: int, dirty_rate: int, *, cap: int, limit_s: float, **more: float
) -> Case:
    """Makes a case; sizes in MiB, rates in MiB a second. Three quarters of the memory have content."""
    hot = int(more.get("hot_set", 0))
    workload = Workload(
        pattern=Pattern(pattern),
        working_set_bytes=working_set * MIB,
        dirty_rate_bytes_s=dirty_rate * MIB,
        fill_bytes=memory * 3 // 4 * MIB,
        hot_set_bytes=hot * MIB,
        hot_writes_percent=int(more.get("hot_writes_percent", 90)),
        burst_period_s=more.get("burst_period_s", 0.0),
        burst_duty_percent=int(more.get("burst_duty_percent", 50)),
    )
    kind = "bursts" if workload.burst_period_s else pattern
    rate, bandwidth = format_rate(dirty_rate * MIB), format_rate(cap * MIB)
    name = f"{format_size(memory * MIB)}, {kind} of {format_size(working_set * MIB)} at {rate}"
    name += f", cap {bandwidth}, limit {limit_s * 1000:.0f} ms"
    return Case(
        name=name,
        memory_bytes=memory * MIB,
        workload=workload,
        bandwidth_bytes_s=float(cap * MIB),
        downtime_limit_s=limit_s,
    )


CASES = (
    _case(128, "sweep", 32, 40, cap=100, limit_s=0.1),
    _case(128, "sweep", 32, 80, cap=100, limit_s=0.1),
    _case(256, "sweep", 64, 20, cap=50, limit_s=0.1),
    _case(256, "sweep", 24, 120, cap=200, limit_s=0.1),
    _case(256, "sweep", 24, 120, cap=200, limit_s=0.05),
    _case(256, "sweep", 96, 100, cap=400, limit_s=0.03),
    _case(128, "random", 32, 40, cap=100, limit_s=0.2),
    _case(128, "random", 64, 80, cap=100, limit_s=0.3),
    _case(256, "random", 32, 20, cap=50, limit_s=0.1),
    _case(256, "random", 96, 100, cap=200, limit_s=0.2),
    _case(256, "random", 48, 200, cap=300, limit_s=0.2),
    _case(64, "random", 16, 60, cap=80, limit_s=0.1),
    _case(256, "hot", 128, 80, cap=100, limit_s=0.1, hot_set=8),
    _case(256, "hot", 128, 200, cap=150, limit_s=0.05, hot_set=4, hot_writes_percent=95),
    _case(128, "hot", 64, 100, cap=200, limit_s=0.1, hot_set=16, hot_writes_percent=80),
    _case(256, "hot", 96, 40, cap=80, limit_s=0.03, hot_set=8),
    _case(256, "random", 64, 200, cap=150, limit_s=0.1, burst_period_s=1.0, burst_duty_percent=30),
    _case(256, "sweep", 48, 150, cap=120, limit_s=0.06, burst_period_s=0.5, burst_duty_percent=40),
    _case(128, "random", 32, 100, cap=60, limit_s=0.05, burst_period_s=2.0, burst_duty_percent=50),
    _case(256, "random", 8, 20, cap=400, limit_s=0.5),
)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a migration ended, real or simulated.

    Attributes:
        completed: Whether the guest arrived.
        total_s: From ``migrate`` to its end.
        downtime_s: From STOP to RESUME; None when the guest did not arrive.
        sent_bytes: What went over the wire.
        round_count: Passes over dirty memory.
        worked_s: How long the guest had worked when ``migrate`` was sent: where in its bursts it was.
    """

    completed: bool
    total_s: float
    downtime_s: float | None
    sent_bytes: int
    round_count: int
    worked_s: float

    @classmethod
    def of_report(cls, report: livemig.Report, *, worked_s: float) -> Ended:
        """Takes a real one."""
        return cls(
            completed=report.outcome is livemig.Outcome.COMPLETED,
            total_s=report.total_s or 0.0,
            downtime_s=None if report.downtime is None else report.downtime.total_s,
            sent_bytes=report.sent_bytes,
            round_count=report.round_count,
            worked_s=worked_s,
        )

    @classmethod
    def of_run(cls, run: SimulatedRun, *, worked_s: float) -> Ended:
        """Takes a simulated one."""
        return cls(
            completed=run.outcome is livemig.Outcome.COMPLETED,
            total_s=run.total_s,
            downtime_s=run.downtime_s,
            sent_bytes=run.sent_bytes,
            round_count=run.round_count,
            worked_s=worked_s,
        )


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One case, moved for real and simulated.

    Attributes:
        case: The case, in words.
        real: Each real move.
        simulated: Each simulated one.
        total_error_percent: By how much the simulated total time is off, either way.
        downtime_error_s: The same of the downtime, in seconds; None where the medians disagree on whether it arrives.
        sent_error_percent: The same of the bytes sent.
        round_error_count: The same of the rounds.
        outcome_agrees: Whether most of the real moves and most of the simulated ones end alike.
    """

    case: str
    real: tuple[Ended, ...]
    simulated: tuple[Ended, ...]
    total_error_percent: float
    downtime_error_s: float | None
    sent_error_percent: float
    round_error_count: float
    outcome_agrees: bool

    @classmethod
    def of(cls, case: Case, real: tuple[Ended, ...], simulated: tuple[Ended, ...]) -> Compared:
        """Compares by medians."""
        real_downtime_s, simulated_downtime_s = _downtime_s(real), _downtime_s(simulated)
        downtime_error_s = None
        if real_downtime_s is not None and simulated_downtime_s is not None:
            downtime_error_s = abs(simulated_downtime_s - real_downtime_s)
        return cls(
            case=case.name,
            real=real,
            simulated=simulated,
            total_error_percent=_off_percent(real, simulated, "total_s"),
            downtime_error_s=downtime_error_s,
            sent_error_percent=_off_percent(real, simulated, "sent_bytes"),
            round_error_count=abs(_median(simulated, "round_count") - _median(real, "round_count")),
            outcome_agrees=_mostly_completed(real) == _mostly_completed(simulated),
        )

    @property
    def line(self) -> str:
        """The case in one line."""
        total, sent, rounds = (_pair(self, name) for name in ("total_s", "sent_bytes", "round_count"))
        real_s, simulated_s = _downtime_s(self.real), _downtime_s(self.simulated)
        downtime = "/".join("none" if one is None else f"{one * 1000:.1f}" for one in (real_s, simulated_s))
        return (
            f"{self.case}: real/simulated {total[0]:.2f}/{total[1]:.2f} s, downtime {downtime} ms, "
            f"{sent[0] / MIB:.0f}/{sent[1] / MIB:.0f} MiB, rounds {rounds[0]:g}/{rounds[1]:g}"
        )


def _pair(compared: Compared, name: str) -> tuple[float, float]:
    return _median(compared.real, name), _median(compared.simulated, name)


def _median(ended: tuple[Ended, ...], name: str) -> float:
    return float(median(getattr(one, name) for one in ended))


def _downtime_s(ended: tuple[Ended, ...]) -> float | None:
    known_s = [one.downtime_s for one in ended if one.downtime_s is not None]
    return median(known_s) if known_s else None


def _off_percent(real: tuple[Ended, ...], simulated: tuple[Ended, ...], name: str) -> float:
    return abs(_median(simulated, name) / _median(real, name) - 1) * 100


def _mostly_completed(ended: tuple[Ended, ...]) -> bool:
    return sum(one.completed for one in ended) * 2 > len(ended)


@click.command(short_help="The simulation against real QEMUs.")
@count_option(3, "real moves of each of the 20 settings")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=9, show_default=True, help="How many simulated moves for each."
)
@click.option(
    "--settings",
    "case_count",
    type=click.IntRange(1, len(CASES)),
    default=len(CASES),
    show_default=True,
    help="How many of the settings.",
)
@accelerator_option
@shared_options
def simulation(
    *,
    count: int,
    seeds: int,
    case_count: int,
    accelerator: str,
    qemu: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Move guests of 20 kinds for real, simulate the same, and see how far off the simulation is.

    To reach: at the median over the settings at most 2 % off in total time and bytes, and 3 ms in downtime.
    """
    machine = MachineSettings(binary=qemu, accelerator=accelerator)
    run_benchmark(
        "simulation",
        {"count": count, "seeds": seeds, "settings_count": case_count, "accelerator": accelerator},
        measure=partial(_measure, machine, CASES[:case_count], count, seeds),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(
    machine: MachineSettings, cases: tuple[Case, ...], count: int, seeds: int, samples: list[Compared]
) -> None:
    """Moves each case once in each turn, so that what else the machine does falls on all alike."""
    real: list[list[Ended]] = [[] for _ in cases]
    version = await _version(machine)
    with Progress("moves", count * len(cases)) as progress:
        link, costs = await measure_link(machine)
        for _ in range(count):
            for ended, case in zip(real, cases, strict=True):
                ended.append(await _moved(machine, case))
                progress.step()
    for ended, case in zip(real, cases, strict=True):
        runs = []
        for one in ended:
            guest = _simulated(case, Accelerator(machine.accelerator.partition(",")[0]), one.worked_s)
            setting = Setting(guest=guest, link=link, costs=costs, qemu=version)
            runs += [
                Ended.of_run(simulate(setting, case.plan, seed=seed), worked_s=one.worked_s) for seed in range(seeds)
            ]
        samples.append(Compared.of(case, tuple(ended), tuple(runs)))


async def _version(machine: MachineSettings) -> str:
    """Which of the simulated versions is nearest to the QEMU that is measured.

    Raises:
        GuestError: When it does not say its version.
    """
    process = await asyncio.create_subprocess_exec(
        machine.binary, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    said, _ = await process.communicate()
    words = said.decode(errors="replace").split()
    if "version" not in words:
        raise GuestError(f"{machine.binary} does not say its version")
    number = tuple(int(part) for part in words[words.index("version") + 1].split(".")[:2])
    known = sorted(RULES, key=lambda name: tuple(int(part) for part in name.split(".")))
    older = [name for name in known if tuple(int(part) for part in name.split(".")) <= number]
    return older[-1] if older else known[0]


async def _moved(machine: MachineSettings, case: Case) -> Ended:
    settings = msgspec.structs.replace(machine, workload=case.workload, memory_bytes=case.memory_bytes)
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder:
        async with TravellingGuest(settings, Path(folder)) as guest:
            ready_s = begun_s = time.monotonic()
            await asyncio.sleep(SETTLED_S)
            warm_memory(2 * case.memory_bytes)
            destination = await guest.open_destination()
            source = str(guest.machine.qmp_path)
            async with livemig.migrate(case.plan, source=source, destination=str(destination.qmp_path)) as migration:
                async for event in migration:
                    if isinstance(event, Prepared):
                        begun_s = time.monotonic() - event.time_s
            return Ended.of_report(migration.report, worked_s=begun_s - ready_s)


def _simulated(case: Case, accelerator: Accelerator, worked_s: float) -> SimulatedGuest:
    workload = case.workload
    phase = BuiltinPhase(
        pattern=workload.pattern.value,
        working_set_bytes=workload.working_set_bytes,
        dirty_rate_bytes_s=workload.dirty_rate_bytes_s,
        hot_set_bytes=workload.hot_set_bytes,
        hot_writes_percent=workload.hot_writes_percent,
        burst_period_s=workload.burst_period_s,
        burst_duty_percent=workload.burst_duty_percent,
    )
    return builtin_guest(
        phase,
        memory_bytes=case.memory_bytes,
        fill_bytes=workload.fill_bytes,
        accelerator=accelerator,
        burst_offset_s=worked_s,
    )


def _conclude(samples: list[Compared]) -> Conclusion:
    def figure(name: str, label: str) -> Figure | None:
        return Figure.of(name, label, (getattr(sample, name) for sample in samples))

    total = figure("total_error_percent", "total time off by")
    downtime = figure("downtime_error_s", "downtime off by")
    sent = figure("sent_error_percent", "bytes sent off by")
    disagreeing_count = sum(not sample.outcome_agrees for sample in samples)
    return Conclusion(
        figures=present(total, downtime, sent, figure("round_error_count", "rounds off by")),
        totals=(Total("disagreeing_count", "settings that end otherwise than simulated", disagreeing_count),),
        targets=(
            *Target.of(total, "median", TOTAL_ERROR_LIMIT_PERCENT),
            *Target.of(downtime, "median", DOWNTIME_ERROR_LIMIT_S),
            *Target.of(sent, "median", SENT_ERROR_LIMIT_PERCENT),
        ),
        notes=(*NOTES, *(sample.line for sample in samples)),
        sound=disagreeing_count == 0,
        samples=tuple(samples),
    )
