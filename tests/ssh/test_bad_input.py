"""What a user may get wrong about another host: one clear line, exit code 2, nothing left on either host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from livemig.lab.two_hosts import Host
from livemig.lab.two_hosts.namespaces import run as run_command
from tests.engine.pair import IDLE, MiB
from tests.ssh.between import Between

pytestmark = pytest.mark.qemu

ADDRESSES = {
    "an unknown host": ("ssh://no-such-host.invalid/run/vm.qmp", "name can't be resolved"),
    "a wrong port": ("ssh://{host}:2222{path}", "no SSH connection: "),
    "a user whom nobody knows": ("ssh://no-such-user@{host}{path}", "refuses this user and these keys"),
    "no path": ("ssh://{host}", "names no socket"),
    "an empty path": ("ssh://{host}/", "names no socket"),
    "a relative path": ("ssh://{host}/./vm.qmp", "is absolute, as in ssh://HOST/run/vm.qmp"),
    "a path in a home": ("ssh://{host}/~/vm.qmp", "is absolute, as in ssh://HOST/run/vm.qmp"),
    "a port that is none": ("ssh://{host}:70000{path}", "a port is from 1 to 65535"),
    "no host": ("ssh://{path}", "has no proper host"),
    "an option as host": ("ssh://-oProxyCommand=x{path}", "has no proper host"),
    "a path too long for a socket": ("ssh://{host}/run/" + "x" * 120, "a UNIX socket's path at most 107"),
    "a folder that is not there": ("ssh://{host}/no/such/folder/vm.qmp", "no"),
}


async def assert_refused(between: Between, words: str, *options: str, source: str = "", destination: str = "") -> None:
    """It ends with exit code 2; stderr has one line with these words, and the last line of stdout has them too."""
    code, lines, errors = await between.run(*options, source=source, destination=destination)
    assert code == 2, (lines, errors)
    assert errors.startswith("livemig: ")
    assert errors.count("\n") == 1, errors
    assert words in errors
    assert (lines[-1]["event"], lines[-1]["outcome"]) == ("ended", "refused")
    assert words in lines[-1]["reason"]
    await between.assert_stayed()


@pytest.mark.parametrize("side", ["source", "destination"])
async def test_addresses(between: Between, side: str) -> None:
    """One after the other, each as wrong as it is."""
    host = between.lab.a if side == "source" else between.lab.b
    await between.start(IDLE, memory_bytes=32 * MiB)
    for form, words in ADDRESSES.values():
        address = form.format(host=host.management_address, path=f"{host.private_folder}/vm.qmp")
        await assert_refused(between, words, **{side: address})


async def forget_key(between: Between, host: Host) -> None:
    """Nobody may log in any more."""
    config = between.lab.folder / f"{host.name}.sshd_config"
    config.write_text(config.read_text().replace("authorized_keys", "no_keys"))
    between.lab.kill_sshd(host)
    await between.lab.start_sshd(host)


async def change_host_key(between: Between, host: Host) -> None:
    """Another machine, or an attacker, has that address now."""
    path = between.lab.folder / f"{host.name}.host_key"
    for each in (path, path.with_suffix(".host_key.pub")):
        each.unlink()
    await run_command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path))
    between.lab.kill_sshd(host)
    await between.lab.start_sshd(host)


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (forget_key, "refuses this user and these keys"),
        (change_host_key, "host key is not known, or not the known one"),
    ],
)
async def test_a_login(
    between: Between, side: str, change: Callable[[Between, Host], Awaitable[None]], words: str
) -> None:
    await between.start(IDLE, memory_bytes=32 * MiB)
    await change(between, between.lab.a if side == "source" else between.lab.b)
    await assert_refused(between, words)


@pytest.mark.parametrize(
    ("security", "room"),
    [("auto", "nr_inodes=1"), ("auto", "nr_inodes=2"), ("ssh", "nr_inodes=1")],
    ids=["no folder", "a folder without a key", "no folder for the tunnel"],
)
@pytest.mark.parametrize("side", ["source", "destination"])
async def test_no_space(between: Between, side: str, security: str, room: str) -> None:
    """The destination that was launched is gone again, and so is what of the folders there was room for."""
    host = between.lab.a if side == "source" else between.lab.b
    await between.start(IDLE, memory_bytes=32 * MiB)
    await run_command(*host.argv("mount", "-t", "tmpfs", "-o", room, "none", "/tmp"))
    await assert_refused(between, "No space left on device", "--security", security)
    assert await run_command(*host.argv("ls", "-A", "/tmp")) == ""
