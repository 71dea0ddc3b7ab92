"""The lab as docs/lab.md tells it: the demo, and the tutorial's commands one after the other. Needs root."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.cli.command_line import finish, livemig, start
from tests.lab.fixtures import lab_name
from tests.lab.traces import LABS, traces

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name; the lab is gone after the test whatever became of it."""
    name = lab_name()
    yield name
    subprocess.run([sys.executable, "-m", "livemig", "lab", "down", "--name", name], capture_output=True, check=False)
    assert traces(name) == []


async def test_demo_on_two_hosts() -> None:
    """Over SSH and TLS: the sessions survive, memory and disk are right, blackout and downtime stand side by side."""
    ran = await livemig("lab", "demo", timeout_s=200)

    assert ran.code == 0, ran.stdout + ran.stderr
    assert "TLS over TCP to 198.19.0.2" in ran.stdout
    assert "completed: the guest runs at the destination" in ran.stdout
    assert re.search(r"^blackout .* at tcp:198\.19\.0\.10:7007", ran.stdout, re.MULTILINE)
    assert re.search(r"^echo1: \d+ records sent, all came back, once and in order$", ran.stdout, re.MULTILINE)
    assert re.search(r"^stream1: \d+ records came, each once and in order$", ran.stdout, re.MULTILINE)
    assert "journal blocks that it said are on its disk, none is missing" in ran.stdout
    assert "the guest stood still for" in ran.stdout
    assert not list(LABS.glob("demo-*"))


async def test_demo_that_is_interrupted_leaves_nothing() -> None:
    """Ctrl-C at any time ends it, with all that it made."""
    process = await start("lab", "demo", start_new_session=True)
    lab = f"demo-{process.pid % 10**6}"
    async with asyncio.timeout(60):
        while not (LABS / lab / "B.sshd.pid").exists():
            await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    ran = await finish(process)
    assert ran.code == 130
    assert "Traceback" not in ran.stderr
    assert traces(lab) == []


async def test_tutorial(name: str) -> None:
    """Up, a guest on A, a client that watches, a move from the client's shell, down."""
    assert (await livemig("lab", "up", "--name", name, "--rate", "1Gbit/s")).code == 0
    guest = await livemig("lab", "guest", "A", "--name", name, timeout_s=120)
    assert guest.code == 0, guest.stderr
    assert "the guest runs on host A, at 198.19.0.10" in guest.stdout
    again = await livemig("lab", "guest", "A", "--name", name)
    assert again.code == 2
    assert "runs on host A already" in again.complaint

    watching = await start("lab", "watch", "--name", name)
    assert watching.stdout is not None
    assert (await asyncio.wait_for(watching.stdout.readline(), 60)).startswith(b"talking to 198.19.0.10")
    command = guest.stdout[guest.stdout.index("  livemig lab shell") :].replace("\\\n", " ")
    command = command.replace("livemig", f"{sys.executable} -m livemig", 1)
    command = re.sub(r"HOME=(\S+) livemig", rf"HOME=\1 {sys.executable} -m livemig", command)
    moved = await asyncio.create_subprocess_shell(command, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(moved.communicate(), 120)
    assert moved.returncode == 0, output.decode()
    assert b"blackout" in output
    watching.send_signal(signal.SIGINT)
    seen = await finish(watching)
    assert seen.code == 0, seen.stdout
    assert re.search(r"^echo1: \d+ records sent, all came back, once and in order$", seen.stdout, re.MULTILINE)

    status = await livemig("lab", "status", "--name", name)
    on_a, on_b = (line for line in status.stdout.splitlines() if line.startswith(("A ", "B ")))
    assert "runs nothing" in on_a
    assert "qemu-system" in on_b
    assert (await livemig("lab", "down", "--name", name)).code == 0
    assert traces(name) == []
