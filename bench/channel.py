"""``python -m bench channel``: what TLS, SSH and clear text carry between two hosts, against a bare QMP script.

Two hosts in network namespaces, their data link shaped to 2 Gbit/s: what the processors here can fill with clear text,
and the kernel with fresh memory for the guest. Needs root.
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import click
import msgspec

import livemig
from bench.options import MIB, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, Total, present
from bench.runner import run_benchmark
from livemig.core import event as events
from livemig.core.errors import LivemigError
from livemig.core.plan import Security
from livemig.core.status import MigrationStatus
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.two_hosts.qemu import qemu_in
from livemig.lab.workload import Workload
from livemig.qemu.monitor import Monitor

SHORTFALL_LIMIT_PERCENT = 5.0
CONTROLLER_LIMIT_S = 0.005
START_LIMIT_S = 1.5
RUN_BOUND_S = 120.0
LIMIT_S = 2.0
"""What the buffers of a tunnel hold has to fit into it too, on a busy machine as well."""
_WAYS: tuple[Way, ...] = ("bare", "none", "tls", "ssh")
LINK_BYTES_S = 250e6
FILLED_BYTES, MEMORY_BYTES = 1024 * MIB, 8192 * MIB
"""A guest of so much memory needs no guard of its first slot; smaller ones take 0.2 s more than the bare script."""
_WORKLOAD = Workload(working_set_bytes=MIB, dirty_rate_bytes_s=0, fill_bytes=FILLED_BYTES)
_NOTE = (
    "bytes sent by the time from `migrate` to `completed`, the guest idle, 1 of its 8 GiB filled; bare is a QMP script "
    "of five commands on the same link of 2 Gbit/s; both hosts share this machine's processors, so encryption costs "
    "twice; ssh goes by the controller, over the other link; a guest under 8 GiB takes 0.2 s more than the script, "
    "for the guard of QEMU's first slot"
)

Way = Literal["bare", "none", "tls", "ssh"]


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One move.

    Attributes:
        way: How memory went.
        throughput_bytes_s: Sent bytes by the time that QEMU took for it.
        controller_s: The downtime beyond QEMU's own figure, from the source's end to the destination's RESUME; None
            without livemig.
        start_s: From connecting to both hosts to a destination that listens; None without livemig.
    """

    way: Way
    throughput_bytes_s: float
    controller_s: float | None = None
    start_s: float | None = None


@click.command()
@count_option(5, "moves by each way")
@shared_options
def channel(*, count: int, qemu: str, as_json: bool, output: Path | None) -> None:
    """What the way between two hosts carries: clear text, TLS, SSH, against a bare QMP script. Needs root."""
    if os.geteuid() != 0:
        raise click.UsageError("the two hosts are network namespaces, which only root can make")
    run_benchmark(
        "channel",
        {"count": count},
        measure=partial(_measure, count=count, qemu=qemu),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(samples: list[Move], *, count: int, qemu: str) -> None:
    async with TwoHosts("bench", rate_bytes_s=LINK_BYTES_S) as lab:
        with patch.dict(os.environ, {"HOME": str(lab.home_folder)}), Progress("moves", count * len(_WAYS)) as progress:
            for _ in range(count):
                for way in _WAYS:
                    samples.append(await (_bare(lab, qemu) if way == "bare" else _moved(lab, qemu, way)))
                    progress.step()


async def _bare(lab: TwoHosts, qemu: str) -> Move:
    """As short as a script can be: listen, migrate, wait."""
    there_settings = _settings(qemu_in(lab.b, qemu), incoming="defer")
    async with (
        _machine(lab, _settings(qemu_in(lab.a, qemu))) as here,
        Machine(there_settings, folder=lab.b.private_folder_outside, name="vm") as there,
        await Monitor.connect(str(here.qmp_path)) as source,
        await Monitor.connect(str(there.qmp_path)) as destination,
    ):
        await here.serial.wait_ready()
        await destination.execute("migrate-incoming", {"uri": f"tcp:{lab.b.data_address}:0"})
        port = (await destination.query_migrate()).socket_addresses[0].port
        await source.execute("migrate-set-parameters", {"max-bandwidth": 0})
        await source.execute("migrate", {"uri": f"tcp:{lab.b.data_address}:{port}"})
        async with asyncio.timeout(RUN_BOUND_S):
            while (found := await source.query_migrate()).status is not MigrationStatus.COMPLETED:
                await asyncio.sleep(0.02)
    return Move(way="bare", throughput_bytes_s=_rate(found.sent_bytes, found.total_s))


async def _moved(lab: TwoHosts, qemu: str, way: Way) -> Move:
    plan = livemig.Plan(
        security=Security(way),
        downtime_limit_s=LIMIT_S,
        probation_s=0.0,
        keep_trying=True,
        migrate_address=None if way == "ssh" else lab.b.data_address,
    )
    async with _machine(lab, _settings(qemu_in(lab.a, qemu))) as source:
        await source.serial.wait_ready()
        began_s, start_s = time.monotonic(), None
        addresses = (f"ssh://{host.name}{host.private_folder}/vm.qmp" for host in (lab.a, lab.b))
        async with livemig.migrate(plan, source=next(addresses), destination=next(addresses)) as migration:
            async for event in migration:
                if isinstance(event, events.Prepared):
                    start_s = time.monotonic() - began_s
        report = migration.report
        if report.outcome != "completed" or report.downtime is None:
            raise LivemigError(f"a move by {way} ended as {report.outcome}: {report.reason}")
        await _end_destination(lab)
    return Move(
        way=way,
        throughput_bytes_s=_rate(report.sent_bytes, report.qemu_total_s),
        controller_s=report.downtime.total_s - (report.qemu_downtime_s or 0.0),
        start_s=start_s,
    )


async def _end_destination(lab: TwoHosts) -> None:
    """The guest is of no use any more."""
    path = lab.b.private_folder_outside / "vm.qmp.livemig" / "spare.qmp"
    async with await Monitor.connect(str(path)) as monitor:
        await monitor.execute("quit")
        await asyncio.wait_for(monitor.wait_closed(), RUN_BOUND_S)


def _machine(lab: TwoHosts, settings: MachineSettings) -> Machine:
    return Machine(settings, folder=lab.a.private_folder_outside, name="vm", heartbeat=Heartbeat())


def _settings(binary: str, incoming: str | None = None) -> MachineSettings:
    return MachineSettings(
        workload=_WORKLOAD, memory_bytes=MEMORY_BYTES, binary=binary, incoming=incoming, paused=incoming is not None
    )


def _rate(sent_bytes: int | None, total_s: float | None) -> float:
    return (sent_bytes or 0) / (total_s or float("inf"))


def _conclude(samples: list[Move]) -> Conclusion:
    throughputs = {
        way: Figure.of(
            f"{way}_bytes_s", f"{way}: bytes a second", [one.throughput_bytes_s for one in samples if one.way == way]
        )
        for way in _WAYS
    }
    bare = throughputs["bare"]
    totals = [
        Total(
            f"{way}_percent",
            f"{way}, of what the bare script reaches",
            100 * figure.summary.median / bare.summary.median,
        )
        for way, figure in throughputs.items()
        if way != "bare" and figure is not None and bare is not None
    ]
    shortfall = Figure.of(
        "none_shortfall_percent",
        "none falls short of bare by",
        [100 - one.value for one in totals if one.name == "none_percent"],
    )
    controller = Figure.of("controller_s", "downtime beyond QEMU's own figure", [one.controller_s for one in samples])
    start = Figure.of("start_s", "connect both, launch, compare, listen", [one.start_s for one in samples])
    return Conclusion(
        figures=present(*throughputs.values(), shortfall, controller, start),
        totals=tuple(totals),
        targets=(
            *Target.of(shortfall, "median", SHORTFALL_LIMIT_PERCENT),
            *Target.of(controller, "median", CONTROLLER_LIMIT_S),
            *Target.of(start, "median", START_LIMIT_S),
        ),
        notes=(_NOTE,),
        samples=tuple(samples),
    )
