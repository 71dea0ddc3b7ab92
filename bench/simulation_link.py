"""Measures what a simulation can't know: how fast this machine's QEMUs hand over pages, and what else a move takes."""

from __future__ import annotations

import asyncio
import mmap
import tempfile
from pathlib import Path
from statistics import median

import msgspec

import livemig
from bench.options import MIB
from bench.travelling_guest import TravellingGuest
from livemig.core.errors import GuestError
from livemig.core.observation import Observation
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Pattern, Workload
from livemig.qemu.monitor import Monitor
from livemig.simulation.link import LinkSetting
from livemig.simulation.ram_scan import NORMAL_SENT_BYTES, ZERO_SENT_BYTES
from livemig.simulation.setting import Costs

REPEATS = 5
RESENT_AFTER_S = 1.2
"""By then all has been sent once at this cap, and what the guest rewrites is sent again."""
CAP_BYTES_S = 150.0 * MIB
LIMIT_MOST_S = 2000.0
MEMORY_BYTES = 256 * MIB

IDLE = Workload(working_set_bytes=MIB, dirty_rate_bytes_s=0)
FILLED = Workload(working_set_bytes=MIB, dirty_rate_bytes_s=0, fill_bytes=192 * MIB)
HOT = Workload(pattern=Pattern.RANDOM, working_set_bytes=64 * MIB, dirty_rate_bytes_s=2000 * MIB, fill_bytes=80 * MIB)


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """One switchover.

    Attributes:
        downtime_s: From STOP to RESUME.
        sent_bytes: What QEMU sent meanwhile.
    """

    downtime_s: float
    sent_bytes: int


def warm_memory(size_bytes: int) -> None:
    """Touches as much memory as a destination is about to, and gives it back.

    In a virtual machine whose host takes back what lies free for some seconds (free page reporting), a page's next use
    costs 8 us here instead of 1.4: neither the link's doing nor QEMU's, and a matter of chance unless prevented.
    """
    with mmap.mmap(-1, size_bytes) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)  # as QEMU asks for its guest's
        for offset_bytes in range(0, size_bytes, 4096):
            memory[offset_bytes] = 1


async def measure_link(machine: MachineSettings) -> tuple[LinkSetting, Costs]:
    """Moves guests of four kinds, each of which sends one kind of page while it stands still.

    Next to nothing for the fixed part of a downtime, then zero pages, pages new to the destination, pages that it
    holds already. Each kind's time a page is what its downtime is longer than the fixed part, by the
    pages sent.

    Args:
        machine: The QEMU, and what it runs the guest with.

    Raises:
        GuestError: When a guest does not arrive.
        LivemigError: When a migration was refused.
    """
    converged = livemig.Plan(probation_s=0.05, keep_source=True)
    at_once = livemig.Plan(probation_s=0.05, keep_source=True, downtime_limit_s=LIMIT_MOST_S)
    never = msgspec.structs.replace(converged, downtime_limit_s=0.02, bandwidth_bytes_s=CAP_BYTES_S, keep_trying=True)
    fixed = [await _stopped(machine, IDLE, converged) for _ in range(REPEATS)]
    zero = [await _stopped(machine, IDLE, at_once) for _ in range(REPEATS)]
    fresh = [await _stopped(machine, FILLED, at_once) for _ in range(REPEATS)]
    resent = [await _stopped(machine, HOT, never, lifted=True) for _ in range(REPEATS)]
    fixed_s = median(one.downtime_s for one in fixed)
    zero_page_s = _page_s(zero, fixed_s, ZERO_SENT_BYTES)
    zero_share_s = zero_page_s * (MEMORY_BYTES - FILLED.filled_bytes) / 4096
    fresh_page_s = _page_s(fresh, fixed_s + zero_share_s, NORMAL_SENT_BYTES)
    resent_page_s = _page_s(resent, fixed_s, NORMAL_SENT_BYTES)
    link = LinkSetting(
        rate_bytes_s=NORMAL_SENT_BYTES / resent_page_s,
        fresh_page_s=max(0.0, fresh_page_s - resent_page_s),
        zero_page_s=zero_page_s,
        latency_s=0.0,
    )
    defaults = Costs()
    return link, Costs(device_s=max(0.0, fixed_s - defaults.resume_s))


def _page_s(stops: list[Stopped], fixed_s: float, page_bytes: int) -> float:
    return max(1e-8, median((one.downtime_s - fixed_s) * page_bytes / one.sent_bytes for one in stops))


async def _stopped(
    machine: MachineSettings, workload: Workload, plan: livemig.Plan, *, lifted: bool = False
) -> Stopped:
    settings = msgspec.structs.replace(machine, workload=workload, memory_bytes=MEMORY_BYTES)
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder:
        async with TravellingGuest(settings, Path(folder)) as guest:
            warm_memory(2 * MEMORY_BYTES)
            source, destination = guest.machine, await guest.open_destination()
            migration = livemig.migrate(plan, source=str(source.qmp_path), destination=str(destination.qmp_path))
            async with migration:
                lift = asyncio.ensure_future(_lift(migration)) if lifted else None
                async for _ in migration:
                    pass
                if lift is not None:
                    lift.cancel()
            report, figures = migration.report, await _figures(source)
    if report.downtime is None or not figures.downtime_bytes:
        raise GuestError(f"the link could not be measured: {report.reason}")
    return Stopped(downtime_s=report.downtime.total_s, sent_bytes=figures.downtime_bytes)


async def _lift(migration: livemig.Migration) -> None:
    await asyncio.sleep(RESENT_AFTER_S)
    migration.tune(livemig.PlanChange(downtime_limit_s=LIMIT_MOST_S))


async def _figures(source: Machine | LaunchedMachine) -> Observation:
    async with await Monitor.connect(str(source.spare_qmp_path), name="source") as monitor:
        return await monitor.query_migrate()
