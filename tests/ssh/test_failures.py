"""Ports are blocked, hosts lack things: one guest runs afterwards, and nothing of the other is left."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from livemig.core import event as events
from livemig.core.errors import RefusedError
from livemig.core.plan import Security
from livemig.core.units import format_size
from livemig.hosts.ssh.host import RemoteHost
from livemig.lab.two_hosts.namespaces import run as run_command
from tests.engine.pair import IDLE, MiB
from tests.ssh.between import QUICK, Between

pytestmark = pytest.mark.qemu


async def test_a_blocked_port_is_gone_round_through_ssh(between: Between) -> None:
    """Its host is reached, the port is not: a firewall that drops."""
    await between.start(IDLE)
    await _firewall(between, "--append")
    try:
        report, seen = await between.migrate()
    finally:
        await _firewall(between, "--delete")
    assert report.outcome == "completed", report.reason
    assert [event.channel for event in seen if isinstance(event, events.Prepared)][-1] == "tunnel through livemig's SSH"
    await between.assert_arrived()


async def test_a_blocked_port_fails_where_only_tls_will_do(between: Between) -> None:
    await between.start(IDLE)
    await _firewall(between, "--append")
    try:
        report, _ = await between.migrate(msgspec.structs.replace(QUICK, security=Security.TLS))
    finally:
        await _firewall(between, "--delete")
    assert report.outcome == "failed", report.reason
    await between.assert_stayed()


async def _firewall(between: Between, action: str) -> None:
    rule = ("INPUT", "--protocol", "tcp", "!", "--dport", "22", "--syn", "--jump", "DROP")
    await run_command(*between.lab.b.argv("iptables", action, *rule))


async def test_another_key_fails_cleanly(between: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not hold the key of this migration is turned away; the source's guest runs on."""
    real = RemoteHost.write_secret

    async def other_key(self: RemoteHost, path: str, text: str, owner: tuple[int, int] | None) -> None:
        wrong = "livemig:" + "0" * 64 if "//B" in self.name and path.endswith(".psk") else text
        await real(self, path, wrong, owner)

    monkeypatch.setattr(RemoteHost, "write_secret", other_key)
    await between.start(IDLE)
    report, _ = await between.migrate(msgspec.structs.replace(QUICK, security=Security.TLS))
    assert report.outcome == "failed", report.reason
    await between.assert_stayed()


async def test_a_host_without_qemu_is_named(between: Between) -> None:
    """By the program's path, which is there on the source's host alone."""
    name = "qemu-of-a"
    found = shutil.which("qemu-system-x86_64")
    assert found
    private = between.lab.a.private_folder_outside / name
    private.symlink_to(found)
    await between.start(IDLE)
    code, lines, _ = await between.run("--dst-command", f"{between.lab.a.private_folder}/{name} -nodefaults")
    assert code == 2
    assert f"no program {between.lab.a.private_folder}/{name}" in lines[-1]["reason"]
    await between.assert_stayed()


async def test_too_little_memory_is_named_with_all_else_that_is_wrong(between: Between) -> None:
    """All reasons together, before anything is started."""
    memory_bytes = _total_memory_bytes() - 256 * MiB
    await between.start(IDLE, memory_bytes=memory_bytes)
    (between.lab.b.private_folder_outside / "vm.serial").touch()
    code, lines, _ = await between.run("--security", "tls", "--migrate-address", "198.51.100.7")
    assert code == 2
    reason = lines[-1]["reason"]
    for words in (f"{format_size(memory_bytes)} of memory", "vm.serial is there already", "198.51.100.7"):
        assert words in reason
    (between.lab.b.private_folder_outside / "vm.serial").unlink()
    await between.assert_stayed()


def _total_memory_bytes() -> int:
    """More than that no guest can have, and less is always in use."""
    line = Path("/proc/meminfo").read_text().partition("\n")[0]
    return int(line.split()[1]) // 2**10 * MiB


@pytest.mark.parametrize("shared", [True, False])
async def test_an_image_has_to_be_the_very_same(between: Between, shared: bool) -> None:
    """A file of the same name on the other host may be a stale copy: it is never given to the guest."""
    lab = between.lab
    folder = lab.a.shared_folder if shared else lab.a.private_folder
    places = [lab.a.shared_folder] if shared else [lab.a.private_folder_outside, lab.b.private_folder_outside]
    for place in places:
        (place / "disk.raw").write_bytes(bytes(MiB))
    drive = f"file={folder}/disk.raw,format=raw,if=none,id=disk0"
    await between.start(IDLE, "-drive", drive, "-device", "virtio-blk-pci,drive=disk0")
    code, lines, _ = await between.run("--probation", "100ms")
    if shared:
        assert code == 0, lines[-1]
        await between.assert_arrived()
    else:
        assert code == 2
        assert "these are two files" in lines[-1]["reason"]
        await between.assert_stayed()


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "stale"])
async def test_an_image_is_proven_by_a_file_beside_it(
    between: Between, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Between two kernels, where no number of a device or inode proves anything."""
    made: list[str] = []
    real = RemoteHost.write_secret

    async def seen(self: RemoteHost, path: str, text: str, owner: tuple[int, int] | None) -> None:
        made.append(f"{self.name} {path}")
        await real(self, path, text, owner)

    monkeypatch.setattr(RemoteHost, "write_secret", seen)
    lab = between.lab
    await between.give_own_kernel(lab.b)
    folder = lab.a.shared_folder if shared else lab.a.private_folder
    places = [lab.a.shared_folder] if shared else [lab.a.private_folder_outside, lab.b.private_folder_outside]
    for place in places:
        (place / "disk.raw").write_bytes(bytes(MiB))
    drive = f"file={folder}/disk.raw,format=raw,if=none,id=disk0"
    await between.start(IDLE, "-drive", drive, "-device", "virtio-blk-pci,drive=disk0")
    if shared:
        report, _ = await between.migrate()
        assert report.outcome == "completed", report.reason
        await between.assert_arrived()
    else:
        with pytest.raises(RefusedError, match="these are two files"):
            await between.migrate()
        await between.assert_stayed()
    assert sum(each.startswith(f"ssh://B {folder}/.livemig-") for each in made) == 1
    for place in places:
        assert [path.name for path in place.iterdir() if path.name.startswith(".livemig")] == []
        assert (place / "disk.raw").read_bytes() == bytes(MiB)
