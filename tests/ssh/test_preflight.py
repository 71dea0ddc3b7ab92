"""What a destination's host lacks is named before anything is started there, all of it together."""

from __future__ import annotations

import asyncio
import shutil
import socket
from pathlib import Path

import msgspec
import pytest

import livemig
from livemig.core import event as events
from livemig.core.errors import ConnectError, RefusedError
from livemig.core.plan import Security
from livemig.hosts.processor import CPUINFO, processor_in
from livemig.hosts.ssh.host import RemoteHost
from livemig.qemu.monitor import Monitor
from tests.engine.pair import IDLE, MiB, run_state
from tests.ssh.between import QUICK, Between

pytestmark = pytest.mark.qemu
FLAGS = "cx16", "lahf_lm"
"""Of the kernel's words for what every processor and every KVM has; QEMU spells the second otherwise."""
SMALL = 32 * MiB


async def refusals(between: Between, plan: livemig.Plan = QUICK) -> tuple[str, ...]:
    """What a run is refused for; a plan, which starts nothing, says the same."""
    planned = await livemig.plan_migration(
        plan, source=between.address(between.lab.a), destination=between.address(between.lab.b)
    )
    with pytest.raises(RefusedError) as refused:
        await between.migrate(plan)
    assert sorted(refused.value.reasons) == sorted(planned.refusals)
    await between.assert_stayed()
    return planned.refusals


async def take_flags(between: Between, *flags: str) -> None:
    """Gives the destination's host a processor without some flags."""
    text = Path(CPUINFO).read_text()
    found = processor_in(text)
    assert found is not None
    assert found.flags.issuperset(flags), "this machine's processor has not got what the test takes away"
    for flag in flags:
        text = text.replace(f" {flag} ", " ")
    await between.put_over(between.lab.b, CPUINFO, text)


@pytest.mark.kvm
@pytest.mark.parametrize("model", ["host,arch-capabilities=off", "Nehalem"])
async def test_a_processor_that_lacks_what_the_guest_has(between: Between, model: str) -> None:
    """Under KVM, whether the guest's is the host's own or a named model. What KVM shows in any case is not counted."""
    await between.start(IDLE, "-cpu", model, accelerator="kvm", memory_bytes=SMALL)
    await take_flags(between, *FLAGS, "x2apic")
    (reason,) = await refusals(between)
    assert "has no cx16, lahf_lm, which the guest's has" in reason


async def test_a_processor_does_not_matter_to_an_emulated_guest(between: Between) -> None:
    await between.start(IDLE, "-cpu", "max", memory_bytes=SMALL)
    await take_flags(between, *FLAGS)
    report, _ = await between.migrate()
    assert report.outcome == "completed", report.reason
    await between.assert_arrived()


@pytest.mark.kvm
async def test_a_flag_that_the_guest_has_not_does_not_matter(between: Between) -> None:
    await between.start(IDLE, "-cpu", "Nehalem,cx16=off,lahf-lm=off", accelerator="kvm", memory_bytes=SMALL)
    await take_flags(between, *FLAGS)
    report, _ = await between.migrate()
    assert report.outcome == "completed", report.reason
    await between.assert_arrived()


OTHER_QEMU = """#!/bin/sh
case "$*" in
  "-machine help") {qemu} -machine help | grep -v '^pc-i440fx-' ;;
  *) exec {qemu} "$@" ;;
esac
"""
"""A QEMU that knows no machine of the source's kind."""


async def test_a_qemu_without_the_sources_machine(between: Between) -> None:
    await between.start(IDLE, memory_bytes=SMALL)
    program = str(Path(str(shutil.which("qemu-system-x86_64"))).resolve())
    copy = between.lab.folder / "qemu"
    shutil.copy(program, copy)
    await between.put_over(between.lab.b, program, OTHER_QEMU.replace("{qemu}", str(copy)), mode=0o755)
    (reason,) = await refusals(between)
    assert "is QEMU " in reason
    assert "which has no machine pc-i440fx-" in reason


async def test_a_port_that_is_taken_there(between: Between) -> None:
    """On the source's host it is free."""
    await between.start(IDLE, memory_bytes=SMALL)
    program = "import socket; s = socket.create_server(('127.0.0.1', 17234)); print(flush=True); s.accept()"
    listening = await asyncio.create_subprocess_exec(
        *between.lab.b.argv("python3", "-c", program), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert listening.stdout is not None
        await listening.stdout.readline()
        code, lines, _ = await between.run("--dst-args", "-gdb tcp:127.0.0.1:17234")
    finally:
        listening.kill()
        await listening.wait()
    assert code == 2
    assert "port 17234 is taken" in lines[-1]["reason"]
    await between.assert_stayed()


@pytest.mark.kvm
async def test_all_that_is_wrong_is_said_together(between: Between) -> None:
    """The guest's own state, the host's processor, /dev/kvm, the address, what is in the way."""
    await between.start(IDLE, "-cpu", "Nehalem", accelerator="kvm", memory_bytes=SMALL)
    async with await Monitor.connect(str(between.source.spare_qmp_path)) as monitor:
        with monitor.subscribe("STOP") as stopped:
            await monitor.execute("migrate", {"uri": "exec:cat >/dev/null"})
            await stopped.wait_for("STOP", timeout_s=30)
    await take_flags(between, *FLAGS)
    await between.put_over(between.lab.b, "/dev/kvm", "")
    (between.lab.b.private_folder_outside / "vm.serial").touch()
    plan = msgspec.structs.replace(QUICK, migrate_address="198.51.100.7")
    with pytest.raises(RefusedError) as refused:
        await between.migrate(plan)
    (between.lab.b.private_folder_outside / "vm.serial").unlink()
    assert between.destination.left_behind == between.leftovers() == []
    reasons = "\n".join(refused.value.reasons)
    assert len(refused.value.reasons) == 5, reasons
    for words in (
        "has handed its guest over already",
        "has no cx16",
        "no /dev/kvm",
        "198.51.100.7",
        "vm.serial is there",
    ):
        assert words in reasons


@pytest.mark.parametrize(
    ("security", "address"),
    [
        (Security.AUTO, "198.51.100.7"),
        (Security.TLS, "127.0.0.1"),
        (Security.NONE, "0.0.0.0"),  # noqa: S104  # refused, not bound
        (Security.AUTO, "fd00::7"),
    ],
)
async def test_an_address_that_is_not_the_destinations(between: Between, security: Security, address: str) -> None:
    """Whoever names one means it: it is not gone round."""
    await between.start(IDLE, memory_bytes=SMALL)
    (reason,) = await refusals(between, msgspec.structs.replace(QUICK, security=security, migrate_address=address))
    assert reason.startswith(f"--migrate-address {address}: ")


async def test_an_address_that_the_source_does_not_reach(between: Between) -> None:
    """Left to livemig, memory goes through SSH, as a plan says beforehand; otherwise it is refused."""
    await between.start(IDLE, memory_bytes=SMALL)
    lab = between.lab
    await lab.a.run("ip", "route", "add", "unreachable", lab.b.data_address)
    plan = msgspec.structs.replace(QUICK, migrate_address=lab.b.data_address, security=Security.TLS)
    (reason,) = await refusals(between, plan)
    assert f"does not reach {lab.b.data_address}" in reason
    plan = msgspec.structs.replace(plan, security=Security.AUTO)
    planned = await livemig.plan_migration(plan, source=between.address(lab.a), destination=between.address(lab.b))
    assert planned.movable
    words = f"does not reach {lab.b.data_address} (no route): memory goes through livemig's SSH"
    assert any(words in text for text in planned.warnings), planned.warnings
    report, seen = await between.migrate(plan)
    assert report.outcome == "completed", report.reason
    (prepared,) = [event for event in seen if isinstance(event, events.Prepared)]
    assert prepared.channel == "tunnel through livemig's SSH"
    assert any("memory goes through livemig's SSH" in text for text in report.warnings)
    await between.assert_arrived()
    assert await run_state(between.source) == "gone"


async def test_an_address_that_can_not_be_tried(between: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    """An sshd that forwards sockets alone, as OpenSSH's can't be told to: that is said, and the guest moves."""

    async def not_allowed(self: RemoteHost, address: str, port: int) -> None:
        raise ConnectError(f"{self.name}: not to {address}:{port}", address=self.name)

    monkeypatch.setattr(RemoteHost, "touch", not_allowed)
    await between.start(IDLE, memory_bytes=SMALL)
    report, _ = await between.migrate()
    assert report.outcome == "completed", report.reason
    address = between.lab.b.management_address
    words = f"whether the source's host reaches {address} is untested: ssh://A: not to {address}:22"
    assert words in report.warnings
    await between.assert_arrived()


async def test_a_socket_in_a_shared_folder_may_be_the_sources(between: Between) -> None:
    """From another host it looks dead though somebody listens: it is neither removed nor taken."""
    await between.start()
    left = between.lab.a.shared_folder / "left.qmp"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(left))
    for host in (between.lab.a, between.lab.b):
        await between.give_own_kernel(host)
    with pytest.raises(RefusedError, match=r"left\.qmp is a socket there already.*both hosts may share its folder"):
        await between.migrate(destination=f"ssh://B{left}")
    assert left.is_socket()
    assert not list(left.parent.glob(".livemig-*"))
    await between.assert_stayed()
    left.unlink()


async def test_a_dead_socket_of_the_hosts_own_is_taken(between: Between) -> None:
    """Where no marker of one host is seen at the other, nobody else can listen there."""
    await between.start()
    left = between.lab.b.private_folder_outside / "vm.qmp"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(left))
    for host in (between.lab.a, between.lab.b):
        await between.give_own_kernel(host)
    report, _ = await between.migrate()
    assert report.outcome == "completed", report.reason
    await between.assert_arrived()
