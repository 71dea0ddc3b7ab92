"""A QEMU under our hand: it starts or says why not, and it is gone afterwards, whatever happens."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from livemig.core.errors import GuestError, PlanError
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Workload

from .conftest import MIB, StartMachine
from .debugger import qmp_of

SMALL = MachineSettings(memory_bytes=16 * MIB, workload=Workload(working_set_bytes=MIB))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def _gone(pid: int) -> bool:
    async with asyncio.timeout(5):
        while _alive(pid):
            await asyncio.sleep(0.02)
    return True


async def test_a_missing_binary_is_named(folder: Path) -> None:
    """Before anything is started."""
    machine = Machine(MachineSettings(binary="qemu-system-nothing"), folder=folder)

    with pytest.raises(GuestError, match="qemu-system-nothing is not installed"):
        await machine.start()
    assert machine.exit_code is None


@pytest.mark.qemu
async def test_a_qemu_that_ends_at_once_is_quoted(folder: Path) -> None:
    """QEMU's own words tell what is wrong."""
    machine = Machine(MachineSettings(machine_type="nonsense"), folder=folder)

    with pytest.raises(GuestError, match="unsupported machine type"):
        await machine.start()
    assert machine.exit_code == 1


@pytest.mark.qemu
async def test_a_start_that_takes_too_long_leaves_nothing(folder: Path) -> None:
    """The bound holds, and QEMU is ended."""
    machine = Machine(SMALL, folder=folder)

    with pytest.raises(GuestError, match="not ready after"):
        await machine.start(timeout_s=0.001)
    assert not _alive(machine.pid)


def test_a_path_too_long_for_a_socket_is_refused(folder: Path) -> None:
    """The kernel's limit, with the path and its length."""
    with pytest.raises(PlanError, match="107 at most"):
        Machine(SMALL, folder=folder / ("x" * 100))


@pytest.mark.qemu
async def test_the_pid_is_the_one_of_qemu(start_machine: StartMachine) -> None:
    """And the exit code too: `setpriv` becomes QEMU."""
    machine = await start_machine(SMALL.workload, memory_bytes=16 * MIB)

    assert "qemu-system" in Path(f"/proc/{machine.pid}/cmdline").read_text()
    assert await machine.stop() == 0
    assert await machine.stop() == 0
    assert not _alive(machine.pid)


@pytest.mark.qemu
async def test_a_comma_in_the_folder_is_no_option(folder: Path) -> None:
    """QEMU's option parser would cut the path there."""
    place = folder / "a,b"
    place.mkdir()
    async with Machine(SMALL, folder=place) as machine:
        await machine.serial.wait_ready()


@pytest.mark.qemu
async def test_a_qemu_that_does_not_listen_to_sigterm_is_killed(start_machine: StartMachine) -> None:
    """Here because it is stopped."""
    machine = await start_machine(SMALL.workload, memory_bytes=16 * MIB)
    os.kill(machine.pid, signal.SIGSTOP)

    assert await machine.stop() == -signal.SIGKILL


@pytest.mark.qemu
async def test_two_monitors_answer(start_machine: StartMachine) -> None:
    """One client each; the second is for recovery."""
    machine = await start_machine(SMALL.workload, memory_bytes=16 * MIB, paused=True, ready=False)

    async with qmp_of(machine.qmp_path) as first, qmp_of(machine.spare_qmp_path) as second:
        assert (await first.ask("query-status"))["status"] == "prelaunch"
        await second.ask("cont")
        await machine.serial.wait_ready()


_STARTER = """
import asyncio, sys
from pathlib import Path
from livemig.lab.machine import Machine, MachineSettings
async def main():
    machine = Machine(MachineSettings(memory_bytes=64 * 2**20), folder=Path(sys.argv[1]))
    await machine.start()
    print(machine.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.qemu
async def test_qemu_dies_with_whoever_started_it(folder: Path) -> None:
    """Even if that was killed and could clean nothing up."""
    with subprocess.Popen([sys.executable, "-c", _STARTER, str(folder)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(await asyncio.to_thread(starter.stdout.readline))
        assert _alive(pid)
        starter.kill()
        starter.wait(timeout=10)

    assert await _gone(pid)


@pytest.mark.qemu
async def test_a_cancelled_start_leaves_nothing(folder: Path) -> None:
    """The task is cancelled while it waits for the sockets."""
    machine = Machine(SMALL, folder=folder)
    starting = asyncio.ensure_future(machine.start())
    while machine.argv and not machine.stderr_path.exists():
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    assert not _alive(machine.pid)
