"""The comparison on real QEMUs: silent on the same command line, and right where QEMU is not."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from livemig.lab.machine import Machine
from tests.compare.scene import MiB, Scene, connected

pytestmark = pytest.mark.qemu

RNG = ("-device", "virtio-rng-pci,id=rng0")
NIC = ("-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,id=net0,mac=52:54:00:00:00:01")
NULL_DISK = ("-blockdev", "driver=null-co,node-name=d0,size=1048576,read-zeroes=on")
ROOT_PORTS = (
    *("-device", "pcie-root-port,id=rp0,chassis=1", "-device", "pcie-root-port,id=rp1,chassis=2"),
    *("-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,id=net0,bus=rp0"),
    *("-device", "pci-bridge,id=br0,chassis_nr=3", "-device", "e1000,bus=br0,addr=5"),
)
DIMMS = (
    *("-m", "64M,slots=4,maxmem=1G", "-object", "memory-backend-ram,id=md0,size=128M"),
    *("-device", "pc-dimm,id=dimm0,memdev=md0"),
)
NUMA = (
    *("-smp", "2", "-object", "memory-backend-ram,id=m0,size=32M", "-object", "memory-backend-ram,id=m1,size=32M"),
    *("-numa", "node,nodeid=0,cpus=0,memdev=m0", "-numa", "node,nodeid=1,cpus=1,memdev=m1"),
)
BACKEND = ("-object", "memory-backend-memfd,id=m0,size=64M", "-machine", "memory-backend=m0")
USB = (
    *("-device", "qemu-xhci,id=xhci", "-device", "usb-hub,id=hub", "-device", "usb-tablet,bus=xhci.0,port=1.2"),
    *("-drive", "if=none,id=stick,driver=null-co,size=1048576", "-device", "usb-storage,drive=stick,bus=xhci.0"),
)
SCSI = (
    *("-object", "iothread,id=io0", "-device", "virtio-scsi-pci,id=scsi0,iothread=io0"),
    *("-drive", "if=none,id=hd0,driver=null-co,size=1048576", "-device", "scsi-hd,drive=hd0,bus=scsi0.0,serial=77"),
    *("-device", "scsi-cd,bus=scsi0.0,id=cd0", "-drive", "if=none,id=cd1,media=cdrom"),
    *("-device", "scsi-cd,drive=cd1,bus=scsi0.0"),
)
SERIAL = (
    *("-serial", "null", "-device", "virtio-serial-pci,id=vs", "-chardev", "null,id=c0"),
    *("-device", "virtserialport,chardev=c0,name=org.example.0,bus=vs.0", "-chardev", "null,id=c1"),
    *("-device", "isa-debugcon,chardev=c1"),
)
OLD = (
    *("-device", "isa-fdc,id=fdc", "-device", "floppy,bus=fdc.0", "-device", "piix3-usb-uhci"),
    *("-drive", "if=ide,driver=null-co,size=1048576", "-drive", "if=ide,media=cdrom", "-device", "VGA"),
    *("-device", "pvpanic", "-device", "vmgenid,guid=12345678-1234-1234-1234-123456789abc", "-device", "vmcoreinfo"),
)
MANY_CPUS = ("-smp", "2,maxcpus=4", "-cpu", "qemu64,+ssse3", *RNG, "-device", "virtio-balloon-pci")
PLUGGED_MEMORY = (
    *("-m", "64M,maxmem=1G", "-object", "memory-backend-ram,id=vm0,size=128M"),
    *("-device", "virtio-mem-pci,id=vmem0,memdev=vm0,requested-size=64M"),
)

SAME = {
    "plain": ("pc", ()),
    "nic-and-rng": ("pc", (*NIC, *RNG)),
    "root-ports": ("q35", ROOT_PORTS),
    "scsi": ("q35", SCSI),
    "usb": ("q35", USB),
    "dimm": ("pc", DIMMS),
    "virtio-mem": ("q35", PLUGGED_MEMORY),
    "numa": ("pc", NUMA),
    "memory-backend": ("q35", BACKEND),
    "serial": ("pc", SERIAL),
    "floppy-ide-vga": ("pc", OLD),
    "cpus": ("q35", MANY_CPUS),
    "virtio-blk": ("q35", (*NULL_DISK, "-device", "virtio-blk-pci,serial=n1,drive=d0")),
}


@pytest.mark.parametrize("name", SAME)
async def test_the_same_command_line_has_no_finding_there_and_back(scene: Scene, name: str) -> None:
    """Nor has it after the guest moved, when what was loaded could be taken for what was given."""
    machine_type, arguments = SAME[name]
    await scene.start_source(*arguments, machine_type=machine_type)
    await scene.start_destination(*arguments, machine_type=machine_type)
    assert await scene.findings() == ()

    report = await scene.migrate_by_livemig()
    assert report.outcome == "completed", report.reason
    scene.swap()
    await scene.start_destination(*arguments, machine_type=machine_type)
    assert await scene.findings() == ()


@pytest.mark.kvm
async def test_under_kvm_the_same_command_line_has_no_finding(scene: Scene) -> None:
    """Where the clocks are the kernel's and the CPU has paravirtual features."""
    await scene.start_source(*MANY_CPUS, accelerator="kvm")
    await scene.start_destination(*MANY_CPUS, accelerator="kvm")

    assert await scene.findings() == ()


@pytest.mark.kvm
async def test_a_paravirtual_feature_that_differs_is_refused(scene: Scene) -> None:
    """The guest would wait for an end of interrupt that nobody reads."""
    await scene.start_source("-cpu", "qemu64,kvm-pv-eoi=on", accelerator="kvm")
    await scene.start_destination("-cpu", "qemu64,kvm-pv-eoi=off", accelerator="kvm")

    (finding,) = await scene.refusals()
    assert finding.subject == "CPU model"
    assert "CPUID[0x40000001].EAX bit 6 lost" in finding.sentence


async def test_disks_by_two_ways_and_an_image(scene: Scene, image: Path) -> None:
    """By -drive and by -blockdev; an image on both sides at once."""
    second = image.with_name("second.img")
    second.write_bytes(bytes(MiB))
    arguments = (
        *("-drive", f"if=none,id=one,file={image},format=raw", "-device", "virtio-blk-pci,drive=one,id=disk1"),
        *("-blockdev", f"driver=file,node-name=f2,filename={second},read-only=on"),
        *("-blockdev", "driver=raw,node-name=two,file=f2,read-only=on", "-device", "ide-cd,drive=two"),
        *("-drive", "if=none,id=three,driver=null-co", "-device", "virtio-blk-pci,drive=three"),
    )
    await scene.start_source(*arguments)
    await scene.start_destination(*arguments)

    assert await scene.findings() == ()


async def test_what_the_firmware_programs_is_not_compared(scene: Scene) -> None:
    """SeaBIOS gives bus numbers, BARs and q35's MCFG, and drives virtio; the waiting QEMU has had none of it."""
    arguments = (*ROOT_PORTS, *NULL_DISK, "-device", "virtio-blk-pci,drive=d0,bus=rp1", "-bios", "bios-256k.bin")
    await scene.start_source(*arguments, machine_type="q35")
    await scene.start_destination(*arguments, machine_type="q35")
    async with asyncio.timeout(60):
        while not (await _buses(scene.source) and await _drives_virtio(scene.source)):
            await asyncio.sleep(0.2)
    assert not await _buses(scene.destination)

    assert await scene.findings() == ()
    assert (await scene.migrate_by_qemu()).status == "completed"


async def _buses(machine: Machine) -> set[int]:
    """Numbers that the guest has given to PCI buses."""
    async with await connected(machine) as monitor:
        bridges = [
            device["pci_bridge"]
            for device in (await monitor.execute("query-pci"))[0]["devices"]
            if "pci_bridge" in device
        ]
    return {bridge["bus"]["secondary"] for bridge in bridges} - {0}


async def _drives_virtio(machine: Machine) -> bool:
    """Whether a driver has made its queues."""
    async with await connected(machine) as monitor:
        statistics = await monitor.execute("query-blockstats")
    return any(one["stats"]["rd_operations"] for one in statistics)


async def test_an_ejected_medium_is_a_finding_an_open_tray_is_none(scene: Scene) -> None:
    """A tray is guest state and travels; what is in it does not."""
    arguments = (*NULL_DISK, "-device", "ide-cd,drive=d0,id=cd0")
    await scene.start_source(*arguments)
    await scene.start_destination(*arguments)
    await scene.execute(scene.source, "blockdev-open-tray", {"id": "cd0", "force": True})
    assert await scene.findings() == ()

    await scene.execute(scene.source, "blockdev-remove-medium", {"id": "cd0"})
    (finding,) = await scene.refusals()
    assert "has no medium at the source, one at the destination" in finding.sentence


async def test_taking_both_inventories_is_quick(scene: Scene) -> None:
    """0.15 s for both is the aim; the bound here allows for a busy test machine."""
    arguments = (*ROOT_PORTS, *SCSI, *USB, *RNG)
    await scene.start_source(*arguments, machine_type="q35")
    await scene.start_destination(*arguments, machine_type="q35")
    durations_s = []
    for _ in range(5):
        started_s = time.monotonic()
        await scene.inventories()
        durations_s.append(time.monotonic() - started_s)

    assert statistics.median(durations_s) < 0.5, durations_s
