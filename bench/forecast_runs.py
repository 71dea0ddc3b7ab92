"""Carries out the cases of ``python -m bench forecast``: guests are sampled several at once, and moved one by one.

Sampling takes a guest 15 s of next to no work, a move some seconds of all the machine has. So the guests of a group are
sampled at the same time; then all of them stand still but the one that moves, and each is let go on for its own move.
A guest's clock stands still with it: it neither notices nor catches up. No QEMU ends before its group does: memory that
is given back a second or two before a move costs that move some tenths of a second, where the machine is itself a
virtual one that hands free memory to its host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

import livemig
from bench.forecast_cases import Case
from livemig.core.event import Prepared
from livemig.core.prediction import Forecast
from livemig.engine.sampling import Sampling, sample_guest
from livemig.hosts.page_map import touched_shares
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.serial_lines import Status
from livemig.qemu.monitor import Monitor

SETTLED_S = 0.6
GOING_S = 0.4
"""From a guest's being let go on to its move."""
MISSED_RATE = 0.05


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One migration of the grid: what was forecast, and what came.

    Attributes:
        number: The run's number.
        case_number: The case's number in its grid; the same unless cases are moved again and again.
        kind: What kind of guest.
        near_critical: Whether it is at the edge of what converges.
        missed_rate: Whether the guest wrote over 5 % more or less than it was asked to, while it moved or before.
        completed: Whether it moved within its deadline.
        outcome: The outcome, in the contract's word.
        total_s: From ``migrate`` to the guest running at the destination, or to the end.
        downtime_s: How long it stood still; None when it did not move.
        sent_bytes: What went over the wire.
        forecasts: What was said.
        load: The machine's load over the last minute, as its move began.
    """

    number: int
    case_number: int
    kind: str
    near_critical: bool
    missed_rate: bool
    completed: bool
    outcome: str
    total_s: float | None
    downtime_s: float | None
    sent_bytes: int
    forecasts: tuple[Forecast, ...]
    load: float = 0.0


async def run_group(cases: Sequence[tuple[int, Case]], sample_s: float, qemu: str, keep: Path) -> None:
    """Boots a guest for each case, samples all at once, and moves one after the other; keeps each run and its trace.

    Args:
        cases: The runs' numbers, and what each is a run of.
        sample_s: How long guests are sampled.
        qemu: The QEMU's binary.
        keep: Where runs are kept.
    """
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder:
        async with contextlib.AsyncExitStack() as stack:
            guests = [_Guest(number, case, qemu, Path(folder)) for number, case in cases]
            for guest in guests:
                await stack.enter_async_context(guest.source)
            await asyncio.gather(*(guest.source.serial.wait_ready(timeout_s=60) for guest in guests))
            await asyncio.sleep(SETTLED_S)
            await asyncio.gather(*(guest.sample(sample_s) for guest in guests))
            await asyncio.gather(*(tell(guest.source, "stop") for guest in guests))
            for guest in guests:
                path = run_path(keep, guest.number)
                await stack.enter_async_context(guest.destination)
                run = await guest.move(path.with_suffix(".trace"))
                path.write_bytes(msgspec.json.encode(run))


def run_path(keep: Path, number: int) -> Path:
    """Where a run is kept."""
    return keep / f"{number:04}.json"


async def tell(machine: Machine, command: str) -> None:
    """Gives a QEMU a command: ``stop`` or ``cont``."""
    async with await _monitor(machine) as monitor:
        await monitor.execute(command)


class _Guest:
    """The guest of one case, the QEMU that it is in, and the one that it moves to."""

    def __init__(self, number: int, case: Case, qemu: str, folder: Path) -> None:
        self.number, self.case = number, case
        identity = uuid.UUID(int=number + (1 << 100))
        settings = MachineSettings(
            workload=case.workload,
            memory_bytes=case.memory_bytes,
            binary=qemu,
            extra_arguments=("-uuid", str(identity)),
        )
        waiting = msgspec.structs.replace(settings, incoming="defer", paused=True)
        heartbeat = Heartbeat()
        self.source = Machine(settings, folder=folder, name=f"source{number}", heartbeat=heartbeat)
        self.destination = Machine(waiting, folder=folder, name=f"destination{number}", heartbeat=heartbeat)
        self._sampling = Sampling()
        self._missed_rate = False

    async def sample(self, sample_s: float) -> None:
        """Samples it, as `livemig run --sample` does, and sees whether it writes as it should."""
        before, memory_bytes = self.source.serial.status, self.case.memory_bytes
        shares = touched_shares(self.source.pid, memory_bytes)
        async with await _monitor(self.source) as monitor:
            self._sampling = await sample_guest(
                monitor,
                total_s=sample_s,
                memory_bytes=memory_bytes,
                touched_bytes=round(memory_bytes * sum(shares) / len(shares)) if shares else None,
            )
        self._missed_rate |= _missed(self.case, before, self.source.serial.status)

    async def move(self, trace_path: Path) -> Run:
        """Lets it go on, moves it, and stops it again wherever it is."""
        before: Status | None = None
        after: Status | None = None
        await tell(self.source, "cont")
        await asyncio.sleep(GOING_S)
        load = os.getloadavg()[0]
        async with livemig.migrate(
            self.case.plan(),
            source=str(self.source.qmp_path),
            destination=str(self.destination.qmp_path),
            trace_path=trace_path,
            sampling=self._sampling,
        ) as migration:
            async for event in migration:
                if isinstance(event, Prepared):
                    before = self.source.serial.status
                after = self.source.serial.status
        moved = migration.report.outcome is livemig.Outcome.COMPLETED
        await tell(self.destination if moved else self.source, "stop")
        self._missed_rate |= _missed(self.case, before, after)
        run = _of(self.case, migration.report, missed_rate=self._missed_rate, load=load)
        return msgspec.structs.replace(run, number=self.number)


async def _monitor(machine: Machine) -> Monitor:
    return await Monitor.connect(str(machine.spare_qmp_path), name="bench")


def _missed(case: Case, before: Status | None, after: Status | None) -> bool:
    """Whether the guest wrote less or more than asked, by its own accounts of a second or more, or two bursts."""
    workload = case.workload
    duty = workload.burst_duty_percent / 100 if workload.burst_period_s else 1.0
    asked_bytes_s = workload.dirty_rate_bytes_s * duty
    long_s = max(2 * workload.burst_period_s, 1.0)
    if before is None or after is None or asked_bytes_s == 0 or after.time_s - before.time_s < long_s:
        return False
    rate_bytes_s = (after.write_count - before.write_count) * 4096 / (after.time_s - before.time_s)
    return abs(rate_bytes_s / asked_bytes_s - 1) > MISSED_RATE


def _of(case: Case, report: livemig.Report, *, missed_rate: bool, load: float) -> Run:
    return Run(
        number=case.number,
        case_number=case.number,
        kind=case.kind,
        near_critical=case.near_critical,
        missed_rate=missed_rate,
        completed=report.outcome is livemig.Outcome.COMPLETED,
        outcome=str(report.outcome),
        total_s=report.total_s,
        downtime_s=None if report.downtime is None else report.downtime.total_s,
        sent_bytes=report.sent_bytes,
        forecasts=report.forecasts,
        load=load,
    )


def groups(numbers: Iterable[int], size: int) -> list[list[int]]:
    """Cuts numbers into groups, the last one what is left."""
    every = list(numbers)
    return [every[begin : begin + size] for begin in range(0, len(every), size)]
