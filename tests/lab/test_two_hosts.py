"""The lab as a command: up, status, shell, down, twice, after a crash, beside what is others'. Needs root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from livemig.core.errors import LabError
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.two_hosts.lab import Started
from livemig.lab.two_hosts.record import Owner
from tests.cli.command_line import livemig, start
from tests.lab.fixtures import lab_name
from tests.lab.traces import LABS, traces


@pytest.fixture
def name() -> Iterator[str]:
    """A lab's name; the lab is gone after the test whatever became of it."""
    name = lab_name()
    yield name
    subprocess.run(["python", "-m", "livemig", "lab", "down", "--name", name], capture_output=True, check=False)
    assert traces(name) == []


async def test_up_twice_down_twice(name: str) -> None:
    """The second of each changes nothing, and says so."""
    first = await livemig("lab", "up", "--name", name, "--rate", "1Gbit/s")
    assert first.code == 0, first.stderr
    assert "data link 1 Gbit/s" in first.stdout
    before = (LABS / name / "lab.json").read_bytes()
    again = await livemig("lab", "up", "--name", name, "--rate", "1Gbit/s")
    assert (again.code, "was up already" in again.stdout) == (0, True)
    other = await livemig("lab", "up", "--name", name, "--rate", "2Gbit/s")
    assert other.code == 2
    assert "another rate (1 Gbit/s)" in other.complaint
    assert (LABS / name / "lab.json").read_bytes() == before
    status = await livemig("lab", "status", "--name", name)
    assert status.stdout.count("SSH at 198.18.") == 2

    down = await livemig("lab", "down", "--name", name)
    assert (down.code, down.stdout) == (0, f"the lab {name} is gone\n")
    assert traces(name) == []
    again = await livemig("lab", "down", "--name", name)
    assert (again.code, again.stdout) == (0, f"there was no lab {name}\n")


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.08, 0.12])
async def test_up_after_kill_in_the_midst_of_up(name: str, delay_s: float) -> None:
    """Whatever was made by then goes, and the lab is made anew."""
    process = await start("lab", "up", "--name", name)
    async with asyncio.timeout(60):
        while not (LABS / name / "lab.json").exists():
            await asyncio.sleep(0.001)
    await asyncio.sleep(delay_s)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.communicate()
    assert traces(name) != []

    up = await livemig("lab", "up", "--name", name)
    assert up.code == 0, up.stderr
    assert up.stdout.count("SSH at") == 2
    assert (await livemig("lab", "shell", "A", "--name", name, "--", "hostname")).stdout == "host-a\n"
    assert (await livemig("lab", "down", "--name", name)).code == 0
    assert traces(name) == []


async def test_up_mends_a_lab_whose_sshd_or_host_died(two_hosts: TwoHosts, name: str) -> None:
    """A lab is sound only with both hosts and their sshd."""
    lab = TwoHosts(name)
    assert await lab.start() is Started.MADE
    lab.kill_sshd(lab.a)
    assert [host.sshd for host in lab.status()] == [False, True]
    assert await lab.start() is Started.MADE_ANEW
    holder = lab.b.holder_pid
    assert holder is not None
    os.kill(holder, signal.SIGKILL)
    while lab.b.holder_pid is not None:
        await asyncio.sleep(0.01)
    assert [host.up for host in lab.status()] == [True, False]
    with pytest.raises(LabError, match="host B of the lab is not up"):
        await lab.b.run("true")
    assert await lab.start() is Started.MADE_ANEW
    assert await lab.b.run("hostname") == "host-b\n"
    assert await lab.stop()
    assert await two_hosts.a.run("hostname") == "host-a\n"  # another lab beside it was not touched


async def test_lab_of_a_killed_owner_is_swept(name: str) -> None:
    """What a killed test run left goes when the next lab is made; a living owner's stays."""
    owner = await asyncio.create_subprocess_exec("sleep", "60")
    lab = TwoHosts(name)
    await lab.start(owner=Owner.of(owner.pid))
    async with TwoHosts(lab_name()):
        assert await lab.a.run("hostname") == "host-a\n"
    with pytest.raises(LabError, match="is up already"):
        await TwoHosts(name).start()
    owner.kill()
    await owner.wait()
    async with TwoHosts(lab_name()):
        assert traces(name) == []


async def test_hosts_are_two(two_hosts: TwoHosts) -> None:
    """One path with different files, one with the same; SSH to each, IPv4 and IPv6; keys that nobody else knows."""
    private, shared = two_hosts.a.private_folder, two_hosts.a.shared_folder
    login = ("ssh", "-F", str(two_hosts.ssh_config_path), "-o", "BatchMode=yes")
    for host in (two_hosts.a, two_hosts.b):
        await host.run("sh", "-c", f"echo {host.name} >{private}/own; echo {host.name} >>{shared}/common")
    for host in (two_hosts.a, two_hosts.b):
        for address in (host.name, host.management_address, host.management_address_6):
            seen = subprocess.run([*login, address, f"cat {private}/own"], capture_output=True, text=True, check=False)
            assert seen.stdout == f"{host.name}\n", seen.stderr
        assert (host.private_folder_outside / "own").read_text() == f"{host.name}\n"
    assert (shared / "common").read_text() == "A\nB\n"
    across = await two_hosts.a.run(*login, two_hosts.b.data_address, "hostname")
    assert across == "host-b\n"
    assert list(private.iterdir()) == []  # outside, that path is only where the hosts mount theirs
    stranger = ["ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
    stranger += ["-o", "UserKnownHostsFile=/dev/null", f"root@{two_hosts.a.management_address}", "true"]
    refused = subprocess.run(stranger, capture_output=True, text=True, check=False)
    assert "Permission denied (publickey)" in refused.stderr


async def test_cut_and_mend(two_hosts: TwoHosts) -> None:
    """The data network can be cut while SSH goes on, and the other way round."""
    ping = ("ping", "-c", "1", "-W", "1", two_hosts.b.data_address)
    await two_hosts.a.run(*ping)
    await two_hosts.cut(two_hosts.b, "data")
    with pytest.raises(LabError):
        await two_hosts.a.run(*ping)
    assert await two_hosts.b.run("hostname") == "host-b\n"
    await two_hosts.mend(two_hosts.b, "data")
    await two_hosts.a.run(*ping)


async def test_rate_holds(name: str) -> None:
    """A shaped link carries no more than its rate, and not much less."""
    async with TwoHosts(name, rate_bytes_s=12.5e6) as lab:
        receive = (
            "import socket,time;s=socket.create_server(('198.19.0.2',9000));c,_=s.accept();n=len(c.recv(1<<20));"
            "t=time.monotonic()\nwhile d:=c.recv(1<<20):n+=len(d)\nprint(n/(time.monotonic()-t))"
        )
        receiving = asyncio.create_task(lab.b.run("python3", "-c", receive))
        send = "import socket;c=socket.create_connection(('198.19.0.2',9000));c.sendall(bytes(25_000_000))"
        while not receiving.done():
            with contextlib.suppress(LabError):
                await lab.a.run("python3", "-c", send)
                break
        assert 0.6 * 12.5e6 < float(await receiving) < 1.1 * 12.5e6


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        (("unshare", "--user"), ["needs root", "sudo"]),
        (
            ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net; exec "$@"', "sh"),
            ["/dev/net/tun", "modprobe"],
        ),
    ],
    ids=["no root", "no tun"],
)
async def test_machine_that_lacks_something_is_told_so(name: str, prefix: tuple[str, ...], names: list[str]) -> None:
    """One clear line, and nothing is made."""
    ran = await livemig("lab", "up", "--name", name, prefix=prefix)
    assert ran.code == 2
    for text in names:
        assert text in ran.complaint
    assert traces(name) == []


async def test_names_taken_by_others_are_left_alone(name: str) -> None:
    """A namespace and an interface of that name that no lab made: refused, untouched, nothing else made."""
    theirs = f"livemig-{name}-B"
    subprocess.run(["ip", "netns", "add", theirs], check=True)
    subprocess.run(["ip", "-n", theirs, "link", "add", "precious", "type", "dummy"], check=False)
    try:
        ran = await livemig("lab", "up", "--name", name)
        assert ran.code == 2
        assert f"the network namespace {theirs}" in ran.complaint
        down = await livemig("lab", "down", "--name", name)
        assert down.stdout == f"there was no lab {name}\n"
        assert traces(name) == [f"/run/netns/{theirs}"]
    finally:
        subprocess.run(["ip", "netns", "delete", theirs], check=True)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("up", "--rate", "5"), ["--rate", "no unit", "1Gbit/s"]),
        (("up", "--rate", "1bit/s"), ["1 bit/s", "out of range", "1 Mbit/s"]),
        (("up", "--name", "Foo/.."), ["'Foo/..'", "a-z"]),
        (("status", "--name", "nosuch"), ["no lab nosuch is up", "livemig lab up"]),
        (("shell", "C"), ["'C'", "'A'", "'client'"]),
        (("shell", "A", "--name", "nosuch"), ["no lab nosuch is up"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_usage(arguments: tuple[str, ...], names: list[str]) -> None:
    """One line, exit code 2, nothing made."""
    ran = await livemig("lab", *arguments)
    assert ran.code == 2
    for text in names:
        assert text in ran.complaint
    assert not (Path("/run/netns") / "livemig-lab-C").exists()
