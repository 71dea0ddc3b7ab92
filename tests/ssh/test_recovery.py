"""livemig is killed while a guest moves between two hosts: recovery reaches both over SSH and leaves one guest."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import livemig
from livemig.core.evidence import Side
from livemig.core.status import MigrationStatus
from livemig.lab.two_hosts.namespaces import run as run_command
from livemig.qemu.monitor import Monitor
from tests.cli.command_line import read_until
from tests.engine.pair import IDLE, LOADED, MiB, run_state, spawn_livemig
from tests.ssh.between import Between

pytestmark = pytest.mark.qemu


async def killed_at(
    between: Between, point: str, *options: str, before: Callable[[], Awaitable[None]] | None = None
) -> str:
    """Starts a run and kills all of it at its first event of a name; returns its id. Just before may come something."""
    addresses = ("--src-qmp", between.address(between.lab.a), "--dst-qmp", between.address(between.lab.b))
    limits = ("--downtime-limit", "1s", "--probation", "100ms", "--keep-trying")
    process = await spawn_livemig("run", "--json", *addresses, *limits, *options, limit=2**22)
    first = (await read_until(process, point))[0]
    if before is not None:
        await before()
    engines = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, engines)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await process.wait()
    return str(first["id"])


def keys_left(run_id: str) -> list[Path]:
    """Folders of the run; both hosts see this machine's /tmp."""
    return list(Path("/tmp").glob(f"livemig-{run_id}-*"))


@pytest.mark.parametrize("security", ["tls", "ssh"])
async def test_killed_while_it_copies(between: Between, security: str) -> None:
    """Both hosts answer: the guest stays at the source, the launched QEMU, its folder and the keys are gone."""
    await between.start(LOADED)
    run_id = await killed_at(between, "progressed", "--security", security, "--bandwidth", "5MiB/s")
    (found,) = await livemig.recover(run_id)
    assert (found.ending.outcome, found.ending.running_on) == ("failed", "source"), found
    assert found.ending.left == ()
    await between.assert_stayed()
    assert keys_left(run_id) == []
    assert await livemig.recover() == ()


async def test_killed_while_it_watches(between: Between) -> None:
    """The guest has arrived: the source is retired, and the key is gone."""
    await between.start(IDLE, memory_bytes=64 * MiB)
    run_id = await killed_at(between, "destination-running")
    (found,) = await livemig.recover(run_id)
    assert (found.ending.outcome, found.ending.running_on) == ("completed", "destination"), found
    await between.assert_arrived()
    assert keys_left(run_id) == []


@pytest.mark.parametrize("host", ["a", "b"])
async def test_connections_that_nobody_ended_hold_the_monitors(between: Between, host: str) -> None:
    """livemig's machine died without a word: sshd still leads its connections to the monitors, the only ones there."""
    lab = between.lab
    there = lab.a if host == "a" else lab.b

    async def drop() -> None:
        """What these connections send and are sent is lost from now on; new ones are let through."""
        text = (await run_command(*there.argv("ss", "-Htn", "state", "established", "sport", "=", ":22"))).split("\n")
        ports = {line.split()[3].rpartition(":")[2] for line in text if line.strip()}
        assert ports
        for port in ports:
            for chain, option in (("INPUT", "--sport"), ("OUTPUT", "--dport")):
                await run_command(*there.argv("iptables", "-A", chain, "-p", "tcp", option, port, "-j", "DROP"))

    await between.start(LOADED)
    async with contextlib.AsyncExitStack() as stack:
        run_id = await killed_at(between, "progressed", "--bandwidth", "5MiB/s", before=drop)
        spare = there.private_folder_outside / "vm.qmp.livemig" / "spare.qmp"
        path = between.source.spare_qmp_path if host == "a" else spare
        await stack.enter_async_context(await Monitor.connect(str(path), name="test"))
        (found,) = await livemig.recover(run_id)
    assert (found.ending.outcome, found.ending.running_on) == ("failed", "source"), found
    assert found.ending.left == ()
    await between.assert_stayed()
    assert keys_left(run_id) == []


async def test_a_host_out_of_reach(between: Between) -> None:
    """Its sshd is dead: nothing is done there, and nothing is said that is not known; then all is finished."""
    await between.start(LOADED)
    run_id = await killed_at(between, "progressed", "--bandwidth", "5MiB/s")
    between.lab.kill_sshd(between.lab.a)
    (found,) = await livemig.recover(run_id)
    assert (found.ending.outcome, found.ending.running_on) == ("unknown", "unknown"), found
    assert any("out of reach" in line for line in found.known)
    await between.lab.start_sshd(between.lab.a)
    (found,) = await livemig.recover(run_id)
    assert found.ending.running_on == "source", found
    await between.assert_stayed()
    assert keys_left(run_id) == []


async def killed_in_the_switchover(between: Between) -> str:
    """Kills all of livemig while its hook holds the switchover; returns the run's id once the source has completed."""
    options = ("--on-switchover-at", "stopped", "--on-switchover", "sleep 5", "--downtime-limit", "9s")
    run_id = await killed_at(between, "source-stopped", *options)
    async with await Monitor.connect(str(between.source.spare_qmp_path), name="test") as monitor:
        async with asyncio.timeout(30):
            while (await monitor.query_migrate()).status is not MigrationStatus.COMPLETED:
                await asyncio.sleep(0.01)
    return run_id


async def test_a_person_vouches_for_a_dead_source(between: Between) -> None:
    """Host A is lost after its QEMU has completed, and livemig with it: the guest goes on at B with a person's word."""
    await between.start(IDLE, memory_bytes=64 * MiB)
    run_id = await killed_in_the_switchover(between)
    between.lab.kill_sshd(between.lab.a)
    await between.source.stop()
    (found,) = await livemig.recover(run_id)
    assert (found.ending.outcome, found.ending.running_on) == ("unknown", "unknown"), found
    assert any("--fence-confirmed source" in line for line in found.advice)
    (found,) = await livemig.recover(run_id, fence_confirmed=Side.SOURCE)
    assert found.ending.running_on == "destination", found
    await between.destination.attach()
    assert await run_state(between.destination) == "running"
    verdict = await between.destination.serial.ask_verdict()
    assert verdict.good, verdict
    await between.lab.start_sshd(between.lab.a)
    for one in await livemig.recover():
        assert (one.ending.running_on, one.ending.left) == ("destination", ()), one
    assert keys_left(run_id) == []


async def test_a_person_vouches_for_a_dead_destination(between: Between) -> None:
    """Host B is lost when its QEMU may have been told to run: with a person's word too the source is not continued by
    itself, since the disks may be newer than its memory, and that is said."""
    await between.start(IDLE, memory_bytes=64 * MiB)
    run_id = await killed_in_the_switchover(between)
    await between.destination.attach()
    pid = between.destination.pid
    between.lab.kill_sshd(between.lab.b)
    os.kill(pid, signal.SIGKILL)
    (found,) = await livemig.recover(run_id)
    assert (found.ending.outcome, found.ending.running_on) == ("unknown", "unknown"), found
    assert any("--fence-confirmed destination" in line for line in found.advice)
    assert await run_state(between.source) == "postmigrate"
    (found,) = await livemig.recover(run_id, fence_confirmed=Side.DESTINATION)
    assert (found.ending.outcome, found.ending.running_on) == ("unknown", "none"), found
    assert "disks may be newer" in found.ending.reason
    await between.lab.start_sshd(between.lab.b)
    (found,) = await livemig.recover(run_id)
    assert (found.ending.running_on, found.ending.left) == ("none", ()), found
    assert await run_state(between.source) == "postmigrate"
    assert between.destination.left_behind == []
    for folder in keys_left(run_id):  # kept as long as a person may still settle it
        shutil.rmtree(folder)
