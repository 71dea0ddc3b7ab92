"""The guest seen through a real migration: one heartbeat over two serial lines, and whole memory behind it."""

import asyncio

import pytest

from livemig.lab.heartbeat import Heartbeat
from livemig.lab.workload import Content, Pattern, Rewrite, Workload

from .conftest import EVERY_ACCELERATOR, MIB, StartMachine
from .debugger import Qmp, qmp_of


async def _migrate(source: Qmp, destination: Qmp, socket: str) -> None:
    for side in (source, destination):
        capabilities = [{"capability": name, "state": True} for name in ("events", "return-path")]
        await side.ask("migrate-set-capabilities", capabilities=capabilities)
    await source.ask("migrate-set-parameters", **{"downtime-limit": 200, "max-bandwidth": 64 * MIB})
    await destination.ask("migrate-incoming", uri=socket)
    await source.ask("migrate", uri=socket)
    async with asyncio.timeout(30):
        while (status := (await source.ask("query-migrate"))["status"]) != "completed":
            assert status not in ("failed", "cancelled")
            await asyncio.sleep(0.02)
    await destination.ask("cont")


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
async def test_one_guest_goes_on_with_all_its_memory(start_machine: StartMachine, accelerator: str) -> None:
    """The beats go on where they were, on the other line; nothing is lost, stale or torn; the rate is held."""
    heartbeat = Heartbeat()
    workload = Workload(
        pattern=Pattern.HOT,
        working_set_bytes=24 * MIB,
        hot_set_bytes=2 * MIB,
        fill_bytes=32 * MIB,
        dirty_rate_bytes_s=10 * MIB,
        content=Content.RANDOM if accelerator == "tcg" else Content.ENDS,
        rewrite=Rewrite.WHOLE if accelerator == "tcg" else Rewrite.ENDS,
        check_sweep_s=1,
    )
    settings = {"accelerator": accelerator, "memory_bytes": 64 * MIB, "heartbeat": heartbeat}
    source = await start_machine(workload, name="source", **settings)
    destination = await start_machine(
        workload, name="destination", incoming="defer", paused=True, ready=False, **settings
    )
    async with qmp_of(source.qmp_path) as here, qmp_of(destination.qmp_path) as there:
        await asyncio.sleep(0.3)
        heartbeat.restart()
        await _migrate(here, there, f"unix:{source.folder}/migration")
        await asyncio.sleep(1.5)
        assert (await destination.serial.wait_ready()).fill_bytes == 32 * MIB  # it asks again who it is
        verdict = await destination.serial.ask_verdict(all_bodies=accelerator == "tcg")

    assert verdict.good
    assert not source.serial.faults
    assert not destination.serial.faults
    assert heartbeat.problems == []
    assert heartbeat.line == "destination"
    assert heartbeat.missed_count <= 2  # a beat that was cut in two by the switchover
    assert heartbeat.longest_gap_s < 2
    assert destination.serial.status is not None
    assert destination.serial.status.beat_count > 0
