"""Each mismatch is refused by its name, and QEMU by itself would do worse: the check is no superstition.

`QEMU accepts` means that the source says ``completed`` and the destination has a guest of another make. `QEMU fails`
means that it fails after memory was sent, for a reason that stands on the destination's stderr alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.compare.scene import MiB, Scene

pytestmark = pytest.mark.qemu

ACCEPTS = "QEMU accepts"


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """Two command lines that do not match.

    Attributes:
        source: Arguments of the source.
        destination: Arguments of the destination.
        changes: Other settings of the destination.
        subjects: What the refusals are about, all of them.
        remedy: Part of the first one's remedy.
        qemu: What QEMU does by itself: `ACCEPTS`, or part of what it writes on the destination's stderr.
    """

    source: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    changes: dict[str, Any] = {}
    subjects: tuple[str, ...]
    remedy: str
    qemu: str


RNG = ("-device", "virtio-rng-pci,id=rng0")
NET = ("-netdev", "user,id=n0", "-device")
DIMM_ROOM = ("-m", "64M,slots=2,maxmem=1G")
UUID = "11111111-2222-3333-4444-555555555555"


def disk(size_bytes: int, device: str = "virtio-blk-pci,drive=d0,id=disk0", options: str = "") -> tuple[str, ...]:
    """Arguments of a disk that holds nothing."""
    node = f"driver=null-co,node-name=d0,size={size_bytes},read-zeroes=on{options}"
    return ("-blockdev", node, "-device", device)


MISMATCHES = {
    "memory": Mismatch(
        changes={"memory_bytes": 128 * MiB},
        subjects=("memory",),
        remedy="`-m 64M`",
        qemu="Size mismatch: pc.ram",
    ),
    "machine-version": Mismatch(
        changes={"machine_type": "pc-i440fx-9.0"},
        subjects=("machine type",),
        remedy="`-machine pc-i440fx-10.0`",
        qemu="Machine type received is",
    ),
    "memory-backend-id": Mismatch(
        destination=("-object", "memory-backend-ram,id=m0,size=64M", "-machine", "memory-backend=m0"),
        subjects=("RAM block of the main memory",),
        remedy="id=pc.ram",
        qemu="Unknown ramblock",
    ),
    "video-memory": Mismatch(
        source=("-device", "VGA,vgamem_mb=16"),
        destination=("-device", "VGA,vgamem_mb=32"),
        subjects=("vgamem_mb of device VGA at 0000:00:02.0",),
        remedy="vgamem_mb=16",
        qemu="Size mismatch",
    ),
    "video-card-at-the-source-only": Mismatch(
        source=("-device", "VGA,id=video0"),
        subjects=("device video0 at 0000:00:02.0",),
        remedy="`-device VGA,id=video0,bus=pci.0,addr=02.0`",
        qemu='Unknown ramblock "0000:00:02.0/vga.vram"',
    ),
    "card-with-a-rom-at-the-source-only": Mismatch(
        source=(*NET, "e1000,netdev=n0,id=net0"),
        destination=NET[:2],
        subjects=("device net0 at 0000:00:02.0",),
        remedy="-device e1000,id=net0,bus=pci.0,addr=02.0",
        qemu='Unknown ramblock "0000:00:02.0/e1000.rom"',
    ),
    "option-rom": Mismatch(
        source=(*NET, "virtio-net-pci,netdev=n0,id=net0"),
        destination=(*NET, "virtio-net-pci,netdev=n0,id=net0,romsize=524288"),
        subjects=("RAM block 0000:00:02.0/virtio-net-pci.rom",),
        remedy="romsize=262144",
        qemu="Size mismatch",
    ),
    "room-for-memory": Mismatch(
        source=("-m", "64M,slots=2,maxmem=1G"),
        subjects=("room for plugged memory",),
        remedy="`-m 64M,slots=2,maxmem=1024M`",
        qemu="footer",
    ),
    "dimm": Mismatch(
        source=(*DIMM_ROOM, "-object", "memory-backend-ram,id=md0,size=128M", "-device", "pc-dimm,id=dimm0,memdev=md0"),
        destination=DIMM_ROOM,
        subjects=("memory device dimm0 at 0x100000000",),
        remedy="`-object memory-backend-ram,id=md0,size=128M -device pc-dimm,id=dimm0,memdev=md0,slot=0",
        qemu="Unknown ramblock",
    ),
    "device-at-the-source-only": Mismatch(
        source=RNG,
        subjects=("device rng0 at 0000:00:02.0",),
        remedy="`-device virtio-rng-pci,id=rng0,bus=pci.0,addr=02.0`",
        qemu="Unknown savevm section or instance",
    ),
    "device-at-the-destination-only": Mismatch(
        destination=RNG,
        subjects=("device rng0 at 0000:00:02.0",),
        remedy="without its -device",
        qemu=ACCEPTS,
    ),
    "slot": Mismatch(
        source=("-device", "virtio-rng-pci,id=rng0,addr=7"),
        destination=RNG,
        subjects=("device rng0 at 0000:00:07.0",),
        remedy="`bus=pci.0,addr=07.0`",
        qemu="Unknown savevm section or instance",
    ),
    "type": Mismatch(
        source=RNG,
        destination=("-device", "virtio-balloon-pci,id=rng0"),
        subjects=("device rng0 at 0000:00:02.0",),
        remedy="in its place",
        qemu="Unknown savevm section or instance",
    ),
    "serial-port": Mismatch(
        source=("-serial", "null"),
        subjects=("device isa-serial at 0000:00:01.0/isa-serial@0x2f8",),
        remedy="-serial options",
        qemu="Unknown savevm section or instance",
    ),
    "usb": Mismatch(
        source=("-device", "qemu-xhci,id=x", "-device", "usb-tablet,bus=x.0"),
        destination=("-device", "qemu-xhci,id=x"),
        subjects=("device usb-tablet at 0000:00:02.0/usb 1",),
        remedy="`-device usb-tablet,bus=x.0,port=1`",
        qemu="Unknown savevm section or instance",
    ),
    "fewer-vcpus": Mismatch(
        source=("-smp", "2"),
        destination=("-smp", "1"),
        subjects=("vCPU topology",),
        remedy="`-smp cpus=2,maxcpus=2",
        qemu="Unknown savevm section or instance",
    ),
    "more-vcpus": Mismatch(
        source=("-smp", "1,maxcpus=2"),
        destination=("-smp", "2,maxcpus=2"),
        subjects=("vCPU at socket-id=0,core-id=1,thread-id=0",),
        remedy="`-smp cpus=1,maxcpus=2",
        qemu=ACCEPTS,
    ),
    "another-topology": Mismatch(
        source=("-smp", "1"),
        destination=("-smp", "2"),
        subjects=("vCPU topology",),
        remedy="`-smp cpus=1,maxcpus=1",
        qemu=ACCEPTS,
    ),
    "cpu-model": Mismatch(
        source=("-cpu", "qemu64"),
        destination=("-cpu", "qemu64,-sse3,+ssse3"),
        subjects=("CPU model",),
        remedy="the source's -cpu",
        qemu=ACCEPTS,
    ),
    "numa": Mismatch(
        source=("-smp", "2", "-numa", "node,nodeid=0,cpus=0,mem=32M", "-numa", "node,nodeid=1,cpus=1,mem=32M"),
        destination=("-smp", "2", "-numa", "node,nodeid=0,cpus=0-1,mem=32M", "-numa", "node,nodeid=1,mem=32M"),
        changes={"machine_type": "pc-i440fx-5.0"},
        subjects=("NUMA nodes of vCPUs",),
        remedy="-numa options",
        qemu=ACCEPTS,
    ),
    "uuid": Mismatch(
        source=("-uuid", UUID),
        subjects=("UUID",),
        remedy=f"`-uuid {UUID}`",
        qemu=ACCEPTS,
    ),
    "generation-id": Mismatch(
        source=("-device", "vmgenid,guid=auto"),
        destination=("-device", "vmgenid,guid=auto"),
        subjects=("VM generation id",),
        remedy="never with guid=auto",
        qemu=ACCEPTS,
    ),
    "mac": Mismatch(
        source=(*NET, "virtio-net-pci,netdev=n0,id=net0,mac=52:54:00:00:00:01"),
        destination=(*NET, "virtio-net-pci,netdev=n0,id=net0,mac=52:54:00:00:00:02"),
        subjects=("mac of device net0 at 0000:00:02.0",),
        remedy="--dst-set net0.mac=52:54:00:00:00:01",
        qemu=ACCEPTS,
    ),
    "host-mtu": Mismatch(
        source=(*NET, "virtio-net-pci,netdev=n0,id=net0,host_mtu=1400"),
        destination=(*NET, "virtio-net-pci,netdev=n0,id=net0"),
        subjects=("host_mtu of device net0 at 0000:00:02.0",),
        remedy="--dst-set net0.host_mtu=1400",
        qemu=ACCEPTS,
    ),
    "disk-serial": Mismatch(
        source=disk(8 * MiB, "virtio-blk-pci,drive=d0,id=disk0,serial=ONE"),
        destination=disk(8 * MiB, "virtio-blk-pci,drive=d0,id=disk0,serial=TWO"),
        subjects=("serial of device disk0 at 0000:00:02.0",),
        remedy="--dst-set disk0.serial=ONE",
        qemu=ACCEPTS,
    ),
    "disk-without-its-serial": Mismatch(
        source=("-device", "lsi", *disk(8 * MiB, "scsi-hd,drive=d0,id=hd0,serial=ONE")),
        destination=("-device", "lsi", *disk(8 * MiB, "scsi-hd,drive=d0,id=hd0")),
        subjects=tuple(f"{each} of device hd0 at 0000:00:02.0/scsi 0:0:0" for each in ("device_id", "serial")),
        remedy="--dst-set hd0.device_id=ONE",
        qemu=ACCEPTS,
    ),
    "smaller-disk": Mismatch(
        source=disk(8 * MiB),
        destination=disk(4 * MiB),
        subjects=("disk of device disk0 at 0000:00:02.0",),
        remedy="the same image",
        qemu=ACCEPTS,
    ),
    "missing-medium": Mismatch(
        source=disk(8 * MiB, "ide-cd,drive=d0,id=cd0"),
        destination=("-device", "ide-cd,id=cd0"),
        subjects=("disk of device cd0 at 0000:00:01.1/ide 1:0",),
        remedy="that medium",
        qemu=ACCEPTS,
    ),
    "read-only-disk": Mismatch(
        source=("-device", "lsi", *disk(8 * MiB, "scsi-hd,drive=d0,id=hd0")),
        destination=("-device", "lsi", *disk(8 * MiB, "scsi-hd,drive=d0,id=hd0", ",read-only=on")),
        subjects=("disk of device hd0 at 0000:00:02.0/scsi 0:0:0",),
        remedy="`read-only=off`",
        qemu=ACCEPTS,
    ),
    "queues": Mismatch(
        source=("-device", "virtio-scsi-pci,id=scsi0,num_queues=1"),
        destination=("-device", "virtio-scsi-pci,id=scsi0,num_queues=2"),
        subjects=("num_queues of device scsi0 at 0000:00:02.0", "vectors of device scsi0 at 0000:00:02.0"),
        remedy="num_queues=1",
        qemu="Failed to load virtio-scsi",
    ),
}


@pytest.mark.parametrize("name", MISMATCHES)
async def test_a_mismatch_is_refused_by_name_where_qemu_would_do_worse(scene: Scene, name: str) -> None:
    """All of its consequences are one finding, unless they are mended apart."""
    mismatch = MISMATCHES[name]
    machine_type = {"machine_type": "pc"}
    if name == "numa":  # memory by node without a backend is gone from newer machine types
        machine_type = {"machine_type": "pc-i440fx-5.0"}
    await scene.start_source(*mismatch.source, **machine_type)
    await scene.start_destination(*mismatch.destination, **{**machine_type, **mismatch.changes})

    findings = await scene.refusals()
    assert tuple(finding.subject for finding in findings) == mismatch.subjects
    assert mismatch.remedy in findings[0].remedy
    assert all("\n" not in finding.line for finding in findings)

    verdict = await scene.migrate_by_qemu()
    if mismatch.qemu == ACCEPTS:
        assert (verdict.status, verdict.destination) == ("completed", "paused")
    else:
        assert (verdict.status, verdict.destination) == ("failed", "gone")
        assert mismatch.qemu in verdict.stderr


@pytest.mark.kvm
@pytest.mark.parametrize(("source", "destination"), [("tcg", "kvm"), ("kvm", "tcg")])
async def test_another_accelerator_is_refused(scene: Scene, source: str, destination: str) -> None:
    """QEMU takes one direction, with other CPU features for the guest, and fails late in the other.

    The built-in devices have other types; that is one finding and not ten.
    """
    await scene.start_source(*RNG, accelerator=source)
    await scene.start_destination(*RNG, accelerator=destination)

    here, there = await scene.inventories()
    assert here.cpus.features != there.cpus.features
    (finding,) = await scene.refusals()
    assert finding.subject == "accelerator"
    verdict = await scene.migrate_by_qemu()
    if source == "tcg":
        assert verdict.status == "completed"
    else:
        assert (verdict.status, "kvmclock" in verdict.stderr) == ("failed", True)


async def test_another_file_is_a_warning(scene: Scene, image: Path) -> None:
    """QEMU can't tell whether it is the same image, and nor can the comparison."""
    other = image.with_name("other.img")
    other.write_bytes(image.read_bytes())
    for start, path in ((scene.start_source, image), (scene.start_destination, other)):
        await start("-drive", f"if=virtio,file={path},format=raw")

    (finding,) = await scene.findings()
    assert (finding.severity, finding.topic) == ("warning", "image")
    assert (finding.source, finding.destination) == (str(image), str(other))
    assert (await scene.migrate_by_qemu()).status == "completed"


async def test_another_id_is_a_warning(scene: Scene) -> None:
    """The guest goes on as before; what unplugs by id does not."""
    await scene.start_source(*RNG)
    await scene.start_destination("-device", "virtio-rng-pci,id=other")

    (finding,) = await scene.findings()
    assert (finding.severity, finding.source, finding.destination) == ("warning", "rng0", "other")


async def test_several_differences_are_told_together_refusals_first(scene: Scene) -> None:
    """One launch mends them all."""
    await scene.start_source("-uuid", UUID, *RNG, "-smp", "2")
    await scene.start_destination("-device", "virtio-rng-pci,id=other", "-serial", "null")

    findings = await scene.findings()
    assert [finding.severity for finding in findings] == ["refusal"] * 3 + ["warning"]
    assert [finding.topic for finding in findings] == ["cpu", "identity", "device", "device"]


async def test_settings_left_on_one_side_alone_do_no_harm(scene: Scene) -> None:
    """QEMU by itself hangs for ever with multifd on the destination alone, and dies of another compression."""
    await scene.start_source()
    await scene.start_destination()
    multifd = {"capabilities": [{"capability": "multifd", "state": True}]}
    await scene.execute(scene.destination, "migrate-set-capabilities", multifd)
    await scene.execute(scene.destination, "migrate-set-parameters", {"multifd-compression": "zstd"})
    await scene.execute(scene.source, "migrate-set-parameters", {"multifd-channels": 7})

    assert await scene.findings() == ()
    report = await scene.migrate_by_livemig()
    assert report.outcome == "completed", report.reason
    capabilities = await scene.execute(scene.destination, "query-migrate-capabilities")
    assert {"capability": "multifd", "state": True} in capabilities
