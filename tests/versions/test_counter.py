"""QEMU counts the syncs of each ``migrate`` from 1, an earlier attempt's left out: livemig's rounds stand on that."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from livemig.core.status import MigrationStatus
from livemig.lab.machine import Machine, MachineSettings
from livemig.qemu.monitor import Monitor
from tests.engine.pair import HOT, MiB
from tests.versions.binaries import VERSIONS

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(120)]

BINARIES = ["qemu-system-x86_64", *(version.binary for version in VERSIONS)]
NOWHERE = "exec:cat >/dev/null"
ENDED = (MigrationStatus.CANCELLED, MigrationStatus.FAILED, MigrationStatus.COMPLETED)


@pytest.mark.parametrize("binary", BINARIES, ids=["system", *map(str, VERSIONS)])
async def test_every_attempt_counts_from_1(binary: str, tmp_path: Path) -> None:
    """Three attempts on one guest, each cancelled once some syncs were counted."""
    settings = MachineSettings(workload=HOT, binary=binary)
    async with Machine(settings, folder=tmp_path) as machine:
        await machine.serial.wait_ready()
        async with await Monitor.connect(str(machine.qmp_path), name="test") as monitor:
            events = [{"capability": "events", "state": True}]
            await monitor.execute("migrate-set-capabilities", {"capabilities": events})
            limits = {"max-bandwidth": 200 * MiB, "downtime-limit": 1}
            await monitor.execute("migrate-set-parameters", limits)
            for _ in range(3):
                polled, announced = await attempt(monitor)
                assert polled[0] == 1
                assert announced[0] in (1, 2)  # 11.1 leaves the first event out
                assert announced == list(range(announced[0], announced[-1] + 1))
                assert announced[-1] >= polled[-1]


async def attempt(monitor: Monitor) -> tuple[list[int], list[int]]:
    """Migrates nowhere until the fourth sync, then cancels; returns the counts polled, and those of the events."""
    polled: list[int] = []
    announced: list[int] = []

    async def listen() -> None:
        with monitor.subscribe() as stream:
            async for event in stream:
                announced.extend([int(event.data["pass"])] if event.name == "MIGRATION_PASS" else [])

    listening = asyncio.create_task(listen())
    try:
        await asyncio.sleep(0)
        await monitor.execute("migrate", {"uri": NOWHERE})
        while not polled or polled[-1] < 4:
            count = (await monitor.query_migrate()).dirty_sync_count
            if count:
                polled.append(count)
        await monitor.execute("migrate_cancel")
        while (await monitor.query_migrate()).status not in ENDED:
            await asyncio.sleep(0.01)
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
    return polled, announced
