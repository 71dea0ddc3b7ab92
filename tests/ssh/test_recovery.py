"""livemig is killed while a guest moves between two hosts: recovery reaches both over SSH and leaves one guest."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

import livemig
from tests.cli.command_line import read_until
from tests.engine.pair import IDLE, LOADED, MiB, spawn_livemig
from tests.ssh.between import Between

pytestmark = pytest.mark.qemu


async def killed_at(between: Between, point: str, *options: str) -> str:
    """Starts a run and kills all of it at its first event of a name; returns its id."""
    addresses = ("--src-qmp", between.address(between.lab.a), "--dst-qmp", between.address(between.lab.b))
    limits = ("--downtime-limit", "1s", "--probation", "100ms", "--keep-trying")
    process = await spawn_livemig("run", "--json", *addresses, *limits, *options, limit=2**22)
    first = (await read_until(process, point))[0]
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
