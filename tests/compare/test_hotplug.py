"""What was plugged into a running QEMU is in no command line: the comparison writes the arguments that make it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from livemig.core.finding import Finding
from livemig.qemu.compare import hotplug_arguments
from tests.compare.scene import MiB, Scene

pytestmark = pytest.mark.qemu

Plug = Callable[[Scene, Path], Awaitable[None]]


async def _execute(scene: Scene, command: str, **arguments: Any) -> None:
    await scene.execute(scene.source, command, {name.replace("_", "-"): value for name, value in arguments.items()})


async def plug_nic(scene: Scene, image: Path) -> None:
    """A network card with properties of its own."""
    await _execute(scene, "netdev_add", type="user", id="n9")
    await scene.execute(
        scene.source,
        "device_add",
        {
            "driver": "virtio-net-pci",
            "netdev": "n9",
            "id": "net9",
            "mac": "52:54:00:aa:bb:cc",
            "host_mtu": 1400,
            "mrg_rxbuf": False,
            "bus": "port0",
        },
    )


async def plug_disk(scene: Scene, image: Path) -> None:
    """A disk of two named nodes."""
    await _execute(scene, "blockdev-add", driver="file", node_name="file9", filename=str(image))
    await _execute(scene, "blockdev-add", driver="raw", node_name="disk9", file="file9")
    await _execute(scene, "device_add", driver="virtio-blk-pci", drive="disk9", id="vd9", serial="S9", bus="port0")


async def plug_disk_of_one_node(scene: Scene, image: Path) -> None:
    """A disk whose file node QEMU names itself."""
    file = {"driver": "file", "filename": str(image)}
    await _execute(scene, "blockdev-add", driver="raw", node_name="disk8", file=file, read_only=True)
    await _execute(scene, "device_add", driver="scsi-hd", drive="disk8", id="sd8", bus="scsi0.0", lun=3)


async def plug_drive(scene: Scene, image: Path) -> None:
    """A disk by the monitor for people."""
    command = f'drive_add dummy "if=none,id=drive7,file={image},format=raw"'
    await _execute(scene, "human-monitor-command", command_line=command)
    await _execute(scene, "device_add", driver="virtio-blk-pci", drive="drive7", id="vd7", bus="port0")


async def plug_usb(scene: Scene, image: Path) -> None:
    """A device on a bus that counts ports."""
    await _execute(scene, "device_add", driver="usb-tablet", id="tablet6", bus="xhci.0")


async def plug_dimm(scene: Scene, image: Path) -> None:
    """Memory."""
    await _execute(scene, "object-add", qom_type="memory-backend-ram", id="md5", size=128 * MiB)
    await _execute(scene, "device_add", driver="pc-dimm", memdev="md5", id="dimm5")


async def plug_vcpu(scene: Scene, image: Path) -> None:
    """A vCPU; the number of boot vCPUs stays, and with it what derives from it."""
    place = {"socket-id": 0, "core-id": 1, "thread-id": 0}
    await scene.execute(scene.source, "device_add", {"driver": "qemu64-x86_64-cpu", "id": "cpu1", **place})


async def plug_controller_and_disk(scene: Scene, image: Path) -> None:
    """A device, and another one into it."""
    await _execute(scene, "device_add", driver="virtio-scsi-pci", id="scsi9", bus="port0")
    await _execute(scene, "blockdev-add", driver="null-co", node_name="null9", size=MiB, read_zeroes=True)
    await _execute(scene, "device_add", driver="scsi-cd", id="cd9", bus="scsi9.0")


ARGUMENTS = (
    *("-m", "64M,slots=2,maxmem=1G", "-smp", "1,maxcpus=2,cores=2"),
    *("-device", "pcie-root-port,id=port0,chassis=1", "-device", "virtio-scsi-pci,id=scsi0"),
    *("-device", "qemu-xhci,id=xhci"),
)
PLUGS: dict[str, tuple[Plug, str]] = {
    "nic": (plug_nic, "device net9 at 0000:00:01.0:00.0"),
    "disk": (plug_disk, "device vd9 at 0000:00:01.0:00.0"),
    "disk-of-one-node": (plug_disk_of_one_node, "device sd8 at 0000:00:02.0/scsi 0:0:3"),
    "drive": (plug_drive, "device vd7 at 0000:00:01.0:00.0"),
    "usb": (plug_usb, "device tablet6 at 0000:00:03.0/usb 1"),
    "dimm": (plug_dimm, "memory device dimm5 at 0x100000000"),
    "vcpu": (plug_vcpu, "vCPU at socket-id=0,core-id=1,thread-id=0"),
    "controller-and-disk": (plug_controller_and_disk, "device scsi9 at 0000:00:01.0:00.0"),
}


async def refused_and_mended(scene: Scene) -> Finding:
    """The destination as the command line says is refused; with the finding's arguments nothing is left to say."""
    await scene.start_destination(*ARGUMENTS, machine_type="q35")
    (finding,) = await scene.findings()
    assert finding.severity == "refusal"
    assert finding.arguments == hotplug_arguments(await scene.source_inventory())
    assert all(part in finding.remedy for part in finding.arguments)

    await scene.destination.stop()
    await scene.start_destination(*ARGUMENTS, *finding.arguments, machine_type="q35")
    assert await scene.findings() == ()
    return finding


@pytest.mark.parametrize("name", PLUGS)
async def test_the_arguments_of_the_finding_make_what_was_plugged(scene: Scene, image: Path, name: str) -> None:
    """And the guest moves to it, and from there on: what was plugged is in that command line."""
    plug, subject = PLUGS[name]
    await scene.start_source(*ARGUMENTS, machine_type="q35")
    await plug(scene, image)

    finding = await refused_and_mended(scene)
    assert finding.subject == subject
    report = await scene.migrate_by_livemig()
    assert report.outcome == "completed", report.reason

    scene.swap()
    assert hotplug_arguments(await scene.source_inventory()) == ()
    await scene.start_destination(*ARGUMENTS, *finding.arguments, machine_type="q35")
    assert await scene.findings() == ()


async def test_plugged_into_both_it_is_no_finding(scene: Scene, image: Path) -> None:
    """QEMU lets a waiting QEMU be plugged as well."""
    await scene.start_source(*ARGUMENTS, machine_type="q35")
    await scene.start_destination(*ARGUMENTS, machine_type="q35")
    for machine in (scene.source, scene.destination):
        await scene.execute(machine, "netdev_add", {"type": "user", "id": "n9"})
        device = {"driver": "virtio-net-pci", "netdev": "n9", "id": "net9", "mac": "52:54:00:aa:bb:cc", "bus": "port0"}
        await scene.execute(machine, "device_add", device)

    assert await scene.findings() == ()


async def test_what_was_unplugged_is_at_the_destination_only(scene: Scene) -> None:
    """The command line still has it."""
    await scene.start_source(*ARGUMENTS, "-device", "usb-tablet,id=tablet0,bus=xhci.0", machine_type="q35")
    await scene.start_destination(*ARGUMENTS, "-device", "usb-tablet,id=tablet0,bus=xhci.0", machine_type="q35")
    await scene.execute(scene.source, "device_del", {"id": "tablet0"})

    (finding,) = await scene.refusals()
    assert finding.subject == "device tablet0 at 0000:00:03.0/usb 1"
    assert "at the destination only" in finding.sentence
