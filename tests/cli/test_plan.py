"""``livemig plan`` as a user runs it: what it finds, how it ends, and that it changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from livemig.core.status import MigrationStatus
from livemig.qemu.monitor import Monitor
from tests.cli.command_line import Ran, livemig
from tests.engine.pair import IDLE, MiB, Pair, migration_settings

pytestmark = pytest.mark.qemu


def of(ran: Ran) -> dict[str, Any]:
    """The one object that ``--json`` prints."""
    (found,) = ran.objects
    assert found["event"] == "plan"
    return found


async def test_a_waiting_destination_is_compared_and_nothing_changed(pair: Pair) -> None:
    """Exit 0; both sides have the settings they had, and the guest's memory is right."""
    await pair.start()
    source, destination = str(pair.source.qmp_path), str(pair.destination.qmp_path)
    before = [await migration_settings(machine) for machine in (pair.source, pair.destination)]
    ran = await livemig("plan", "--sample", "1s", "--src-qmp", source, "--dst-qmp", destination, "--json")
    after = [await migration_settings(machine) for machine in (pair.source, pair.destination)]
    found = of(ran)
    assert (ran.code, found["movable"], found["refusals"]) == (0, True, [])
    assert found["source"]["memory_bytes"] == 128 * MiB
    assert found["destination"]["run_state"] == "inmigrate"
    assert after == before
    assert found["forecast"]["converges"] > 0.9
    assert "samples" in found["forecast"]["basis"]
    assert 0 < found["sampled_s"] < 3
    assert found["least_bandwidth_bytes_s"] > 0
    assert (await pair.source.serial.ask_verdict()).good


async def test_the_verdict_comes_first(pair: Pair) -> None:
    """In words: whether it can be moved, then by what."""
    await pair.start(IDLE)
    source, destination = str(pair.source.qmp_path), str(pair.destination.qmp_path)
    ran = await livemig("plan", "--sample", "0s", "--src-qmp", source, "--dst-qmp", destination)
    lines = ran.stdout.splitlines()
    assert ran.code == 0
    assert ": the guest can be moved, and converges" in lines[0]
    assert any(line.startswith("downtime ") for line in lines)
    assert any("never" in line or " ms" in line for line in lines[-3:])
    assert any(line.startswith("source ") and "1 vCPU" in line for line in lines)


async def test_all_that_differs_is_told_at_once(pair: Pair) -> None:
    """Exit 2, and each difference in a line with what to do."""
    await pair.start(
        IDLE, destination_arguments=("-device", "virtio-rng-pci", "-uuid", "1" * 8 + "-1111" * 3 + "-" + "1" * 12)
    )
    source, destination = str(pair.source.qmp_path), str(pair.destination.qmp_path)
    ran = await livemig("plan", "--sample", "0s", "--src-qmp", source, "--dst-qmp", destination, "--json")
    found = of(ran)
    assert (ran.code, found["movable"]) == (2, False)
    assert {finding["topic"] for finding in found["findings"]} >= {"identity", "device"}
    assert any("-uuid" in text for text in found["refusals"])
    said = await livemig("plan", "--sample", "0s", "--src-qmp", source, "--dst-qmp", destination)
    assert said.stdout.splitlines()[0].endswith(f"for {len(found['refusals'])} reasons")
    assert all(f"refused: {text}" in said.stdout for text in found["refusals"])


async def test_a_destination_to_be_launched_is_planned_and_not_launched(pair: Pair, tmp_path: Path) -> None:
    """The line is told, and that the comparison is still to come; nothing is started and no file made."""
    await pair.start(IDLE)
    there = tmp_path / "new.qmp"
    ran = await livemig(
        "plan", "--sample", "0s", "--src-qmp", str(pair.source.qmp_path), "--dst-qmp", str(there), "--json"
    )
    found = of(ran)
    assert (ran.code, found["destination"]) == (0, None)
    assert str(there) in found["destination_command"]
    assert any("compared only once" in text for text in found["warnings"])
    assert list(tmp_path.iterdir()) == []


async def test_the_source_alone(pair: Pair) -> None:
    """Without a destination it is said what is known of the source."""
    await pair.start(IDLE)
    ran = await livemig("plan", "--sample", "0s", "--src-qmp", str(pair.source.qmp_path))
    assert ran.code == 0
    assert "destination" not in ran.stdout


async def test_a_source_that_waits_itself_is_refused(pair: Pair) -> None:
    """The wrong way round."""
    await pair.start(IDLE)
    source, destination = str(pair.source.qmp_path), str(pair.destination.qmp_path)
    ran = await livemig("plan", "--sample", "0s", "--src-qmp", destination, "--dst-qmp", source, "--json")
    assert ran.code == 2
    assert any("waits for an incoming migration itself" in text for text in of(ran)["refusals"])


async def test_beside_a_running_migration_it_is_refused(pair: Pair, tmp_path: Path) -> None:
    """Exit 2 and the reason; the guest is not sampled, and the migration goes on, to its end."""
    await pair.start()
    channel = f"unix:{tmp_path / 'channel'}"
    async with (
        await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as source,
        await Monitor.connect(str(pair.destination.spare_qmp_path), name="test") as destination,
    ):
        await destination.execute("migrate-incoming", {"uri": channel})
        await source.execute("migrate-set-parameters", {"max-bandwidth": 10 * MiB})
        await source.execute("migrate", {"uri": channel})
        ran = await livemig("plan", "--sample", "1s", "--src-qmp", str(pair.source.qmp_path), "--json")
        assert ran.code == 2
        assert any("already migrates" in text for text in of(ran)["refusals"])
        assert (await source.execute("query-dirty-rate"))["status"] == "unstarted"
        assert (await source.query_migrate()).status is MigrationStatus.ACTIVE
        await source.execute("migrate-set-parameters", {"max-bandwidth": 10**9, "downtime-limit": 2000})
        async with asyncio.timeout(30):
            while (await source.query_migrate()).status is not MigrationStatus.COMPLETED:
                await asyncio.sleep(0.05)


async def test_nobody_at_the_source(tmp_path: Path) -> None:
    """One line that names the option, exit 2, and the closing object."""
    ran = await livemig("plan", "--sample", "0s", "--src-qmp", str(tmp_path / "none.qmp"), "--json")
    assert ran.code == 2
    assert "--src-qmp" in ran.complaint
    assert ran.ended["outcome"] == "refused"


async def test_a_guest_too_small_to_sample_well_is_forecast_and_told_so(pair: Pair) -> None:
    """A line says why the forecast is wider; nothing is refused for it."""
    await pair.start(IDLE, memory_bytes=16 * MiB)
    ran = await livemig("plan", "--sample", "1s", "--src-qmp", str(pair.source.qmp_path), "--json")
    found = of(ran)
    assert (ran.code, found["movable"]) == (0, True)
    assert any("so small that few of its pages were sampled" in text for text in found["warnings"])
    assert found["forecast"]["converges"] > 0
