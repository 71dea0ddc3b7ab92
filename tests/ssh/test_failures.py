"""SSH drops, links are cut, hosts lack things: one guest runs afterwards, and nothing of the other is left."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import livemig
from livemig.core import event as events
from livemig.core.plan import Security
from livemig.core.units import format_size
from livemig.lab.two_hosts.namespaces import run as run_command
from livemig.lab.workload import Workload
from tests.engine.pair import IDLE, MiB
from tests.ssh.between import QUICK, Between

pytestmark = pytest.mark.qemu
GENTLE = Workload(working_set_bytes=4 * MiB, dirty_rate_bytes_s=MiB, fill_bytes=48 * MiB)
"""Converges even where TLS has a tenth of a processor."""
SLOW = msgspec.structs.replace(QUICK, bandwidth_bytes_s=40e6)
"""A copy of some seconds."""


def once(
    kind: type[events.Event] | tuple[type[events.Event], ...], act: Callable[[], Any]
) -> Callable[[livemig.Migration, events.Event], None]:
    """Acts on the first event of a kind."""
    done: list[bool] = []

    def on_event(_: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, kind) and not done:
            done.append(True)
            act()

    return on_event


@pytest.mark.parametrize("kind", [events.Prepared, events.Progressed, events.RoundCompleted, events.SourceStopped])
@pytest.mark.parametrize("side", ["source", "destination"])
async def test_ssh_drops_and_comes_back(between: Between, kind: type[events.Event], side: str) -> None:
    """In every phase; the sshd is killed with its sessions, and started again a moment later. QEMU goes on.

    A guest that ends no round before its switchover loses it there.
    """
    await between.start(GENTLE)
    host = between.lab.a if side == "source" else between.lab.b
    tasks: list[asyncio.Task[None]] = []

    async def come_back() -> None:
        await asyncio.sleep(0.3)
        await between.lab.start_sshd(host)

    def drop() -> None:
        between.lab.kill_sshd(host)
        tasks.append(asyncio.get_running_loop().create_task(come_back()))

    report, _ = await between.migrate(SLOW, on_event=once((kind, events.SourceStopped), drop))
    await asyncio.gather(*tasks)
    assert report.outcome == "completed", report.reason
    assert not report.source_kept, report.warnings
    assert tasks
    await between.assert_arrived()


async def test_a_cut_data_link_leaves_the_guest_at_the_source(between: Between) -> None:
    await between.start(GENTLE)
    plan = msgspec.structs.replace(SLOW, migrate_address=between.lab.b.data_address, bandwidth_bytes_s=5e6)
    tasks: list[asyncio.Task[None]] = []

    def cut() -> None:
        tasks.append(asyncio.get_running_loop().create_task(between.lab.cut(between.lab.b, "data")))

    report, _ = await between.migrate(plan, on_event=once(events.Progressed, cut))
    await asyncio.gather(*tasks)
    assert report.outcome == "failed", report.reason
    assert report.running_on == "source"
    await between.assert_stayed()


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
    from livemig.hosts.ssh.host import RemoteHost

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
