"""Logging in as the user's own `ssh` would, and every way in which that fails: one clear line, nothing touched."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from livemig.core.errors import ConnectError
from livemig.hosts.ssh.host import RemoteHost
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.two_hosts.namespaces import find
from tests.engine.pair import IDLE, livemig_output
from tests.ssh.between import Between


async def connect(name: str, user: str | None = None, port: int | None = None) -> RemoteHost:
    """Logs in as the engine does."""
    return await RemoteHost.connect(f"ssh://{name}", name, user, port)


async def assert_answers(name: str) -> None:
    """Its shell does what it is told."""
    host = await connect(name)
    try:
        assert (await host.link.run("echo $((6 * 7))")).text == "42"
        assert host.user_id == 0
    finally:
        await host.close()


def ssh_config(lab: TwoHosts) -> Path:
    """The configuration that livemig finds by HOME."""
    return lab.home_folder / ".ssh" / "config"


async def test_the_users_own_configuration_is_honoured(lab: TwoHosts) -> None:
    await assert_answers("A")


async def test_an_unknown_host_is_named(lab: TwoHosts) -> None:
    with pytest.raises(ConnectError, match="name can't be resolved"):
        await connect("no-such-host.invalid")


async def test_a_wrong_host_key_is_refused(lab: TwoHosts) -> None:
    """Whoever answers under that address is not the host that is known: nothing is said to them."""
    path = lab.known_hosts_path
    known = path.read_text().splitlines()
    one, other = (line.split()[2] for line in known[:2])
    path.write_text("\n".join(known).replace(one, "@").replace(other, one).replace("@", other) + "\n")
    with pytest.raises(ConnectError, match="host key is not known, or not the known one"):
        await connect("A")


@pytest.mark.parametrize("file", ["none", "/dev/null"])
async def test_host_keys_are_checked_whatever_the_configuration_says(lab: TwoHosts, file: str) -> None:
    lab.known_hosts_path.write_text("")
    config = ssh_config(lab)
    text = "\n".join(line for line in config.read_text().splitlines() if "KnownHosts" not in line)
    config.write_text(f"Host *\n  UserKnownHostsFile {file}\n  StrictHostKeyChecking no\n{text}\n")
    with pytest.raises(ConnectError, match="host key is not known"):
        await connect("A")


async def test_a_refused_key_is_named(lab: TwoHosts) -> None:
    (lab.folder / "authorized_keys").write_text("")
    with pytest.raises(ConnectError, match="refuses this user and these keys"):
        await connect("A")


async def test_an_encrypted_key_needs_an_agent(lab: TwoHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for a passphrase; the agent that holds the key is enough."""
    key, socket_path = lab.user_key_path, lab.folder / "agent.sock"
    agent = subprocess.Popen(
        [find("ssh-agent"), "-D", "-a", str(socket_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not socket_path.exists():
            await asyncio.sleep(0.02)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket_path)}
        subprocess.run([find("ssh-add"), "-q", str(key)], env=environment, check=True, capture_output=True)
        subprocess.run(
            [find("ssh-keygen"), "-q", "-p", "-N", "secret", "-f", str(key)], check=True, capture_output=True
        )
        with pytest.raises(ConnectError, match="refuses this user and these keys"):
            await connect("A")
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket_path))
        await assert_answers("A")
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait()


async def test_a_jump_host_is_jumped_over(lab: TwoHosts) -> None:
    """By ProxyJump; its key is checked too."""
    config = ssh_config(lab)
    config.write_text(f"Host B\n  ProxyJump A\n{config.read_text()}")
    host = await connect("B")
    try:
        assert host.reached_from == lab.a.management_address  # not this machine's
        assert (await host.link.run("echo here")).text == "here"
    finally:
        await host.close()


NOISE = """#!/bin/sh
echo 'Welcome! Authorized use only.'; echo 'and mind the step' >&2; echo
eval "$SSH_ORIGINAL_COMMAND"
"""
ODD_SHELL = """#!/usr/bin/python3
import os, shlex
words = shlex.split(os.environ["SSH_ORIGINAL_COMMAND"])
print("odd shell of", os.environ["USER"], flush=True)
assert words[0] == "exec" and len(words) == 2, words
os.execvp(words[1], words[1:])
"""
"""Knows no more of the POSIX shell than csh and fish share with it."""


@pytest.mark.parametrize("program", [NOISE, ODD_SHELL])
async def test_what_a_login_shell_says_and_is_does_not_matter(lab: TwoHosts, program: str) -> None:
    shell = lab.folder / "login-shell"
    shell.write_text(program)
    shell.chmod(0o755)
    config = lab.folder / "A.sshd_config"
    config.write_text(f"{config.read_text()}\nForceCommand {shell}\n")
    lab.kill_sshd(lab.a)
    await lab.start_sshd(lab.a)
    await assert_answers("A")


@pytest.mark.parametrize("name", ["tcsh", "fish"])
async def test_a_login_shell_that_is_not_posix(between: Between, name: str) -> None:
    """As the account's own on both hosts, for a whole run."""
    shell = shutil.which(name)
    assert shell is not None, f"this test needs {name}: scripts/setup installs it"
    home = between.lab.home_folder  # where such a shell keeps its own files
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    accounts = "\n".join([f"root:x:0:0:root:{home}:{shell}", *others, ""])
    for host in (between.lab.a, between.lab.b):
        await between.put_over(host, "/etc/passwd", accounts)
    logged_in = await connect("A")
    try:
        assert (await logged_in.link.run("echo $SHELL")).text == shell
    finally:
        await logged_in.close()
    await between.start(IDLE)
    report, _ = await between.migrate()
    assert report.outcome == "completed", report.reason
    await between.assert_arrived()


@pytest.mark.parametrize("option", ["AllowStreamLocalForwarding", "AllowTcpForwarding"])
async def test_an_sshd_that_forwards_nothing_is_named(lab: TwoHosts, option: str) -> None:
    """By OpenSSH's second option too, without which it forwards no sockets either."""
    config = lab.folder / "A.sshd_config"
    config.write_text(f"{config.read_text()}\n{option} no\n")
    lab.kill_sshd(lab.a)
    await lab.start_sshd(lab.a)
    path = lab.a.private_folder / "a.qmp"
    program = f"import socket, time; s = socket.socket(1); s.bind({str(path)!r}); s.listen(); time.sleep(60)"
    listening = await asyncio.create_subprocess_exec(*lab.a.argv("python3", "-c", program))
    try:
        while not (lab.a.private_folder_outside / "a.qmp").exists():
            await asyncio.sleep(0.02)
        code, _, errors = await livemig_output("plan", "--src-qmp", f"ssh://A{path}")
    finally:
        listening.kill()
        await listening.wait()
    assert code == 2
    assert option in errors
    assert errors.count("\n") == 1


async def test_a_missing_monitor_is_told_from_a_missing_host(lab: TwoHosts) -> None:
    code, _, errors = await livemig_output("plan", "--src-qmp", "ssh://A/run/no.qmp")
    assert code == 2
    assert errors.startswith("livemig: --src-qmp ssh://A/run/no.qmp: there is no such socket")
    code, _, errors = await livemig_output("plan", "--src-qmp", "ssh://no-such-host.invalid/run/no.qmp")
    assert code == 2
    assert "name can't be resolved" in errors
    assert errors.count("\n") == 1


async def test_monitors_over_the_network_need_a_word(tmp_path: Path) -> None:
    """QMP over TCP is protected by nothing."""
    code, _, errors = await livemig_output(
        "run", "--src-qmp", "tcp:198.51.100.1:4444", "--dst-qmp", str(tmp_path / "b")
    )
    assert code == 2
    assert "tcp:198.51.100.1:4444" in errors
    assert "--security none" in errors


async def test_a_shell_that_hangs_is_replaced(lab: TwoHosts) -> None:
    """A command on a dead file system must not take the others with it."""
    from livemig.core.errors import HostError

    host = await connect("A")
    try:
        with pytest.raises(HostError, match="no answer within"):
            await host.link.run("sleep 60", bound_s=0.3)
        assert (await host.link.run("echo again")).text == "again"
    finally:
        await host.close()


async def test_no_room_for_the_key_is_said(lab: TwoHosts) -> None:
    """Nothing of it is left there."""
    host = await connect("A")
    try:
        with pytest.raises(OSError, match=r"ssh://A: .*"):
            await host.write_secret("/dev/full/key", "text", None)
        await host.link.run(f"mount -t tmpfs -o size=4k,nr_inodes=2 none {lab.a.private_folder}")
        await host.link.run(f"head -c 4096 /dev/zero >{lab.a.private_folder}/full")
        with pytest.raises(OSError, match="ssh://A"):
            await host.write_secret(f"{lab.a.private_folder}/key", "text", None)
        assert (await host.link.run(f"ls {lab.a.private_folder}")).text == "full"
    finally:
        await host.close()


async def test_a_process_is_known_by_its_start(lab: TwoHosts) -> None:
    """A pid alone is never enough to kill."""
    host = await connect("A")
    try:
        pid = int((await host.link.run("setsid sleep 60 >/dev/null 2>&1 & echo $!")).text)
        held = await host.process_known_as(pid, 12345)
        assert held is None
        stat = (await host.link.run(f"cat /proc/{pid}/stat")).text
        held = await host.process_known_as(pid, int(stat.rpartition(")")[2].split()[19]))
        assert held is not None
        other = type(held)(host.link, host.identity.boot_id, pid, held.start_ticks + 1, held.owner)
        assert await other.is_gone()  # that one has ended: another has its pid
        assert await other.end(1)
        assert not await held.is_gone()
        elsewhere = type(held)(host.link, "another-boot", pid, held.start_ticks, held.owner)
        assert not await elsewhere.is_gone()
        assert not await elsewhere.end(0.2)
        assert await held.end(5)
    finally:
        await host.close()
