"""A plain inventory and the parts it is made of; holds no test."""

from __future__ import annotations

from typing import Any

import msgspec

from livemig.qemu.inventory import (
    Cpu,
    Cpus,
    Device,
    Drive,
    Inventory,
    Medium,
    Memory,
    MemoryDevice,
    Network,
    RamBlock,
)

MiB = 2**20
replaced = msgspec.structs.replace


def block(name: str, size_bytes: int = 16 * MiB, total_bytes: int = 0, page_size: str = "4 KiB") -> RamBlock:
    """A RAM block."""
    total_bytes = max(size_bytes, total_bytes)
    return RamBlock(name=name, used_bytes=size_bytes, total_bytes=total_bytes, page_size=page_size)


def cpu(core: int, *, present: bool = True, **more: Any) -> Cpu:
    """A place for a vCPU."""
    place = f"socket-id=0,core-id={core},thread-id=0"
    return Cpu(place=place, present=present, **{"type": "qemu64-x86_64-cpu", **more})


def pci(slot: str, kind: str, identity: str = "", **properties: str) -> Device:
    """A device of the user's on the root bus."""
    return Device(
        place=f"0000:00:{slot}",
        parent="i440FX-pcihost",
        type=kind,
        id=identity,
        bus="pci.0",
        bus_type="PCI",
        address={"addr": slot},
        pci_id="1af4:1000 (sub 1af4:0001)",
        properties=properties,
        built_in=False,
    )


NIC = pci("03.0", "virtio-net-pci", "net0", mac="52:54:00:00:00:01", host_mtu="0", netdev="n0", rombar="1", mq="false")
DISK = pci("04.0", "virtio-blk-pci", "disk0", drive="d0", serial="", logical_block_size="512", secs="63")
BRIDGE = pci("05.0", "pci-bridge", "br0", chassis_nr="1")
BEHIND = replaced(
    pci("01.0", "virtio-rng-pci", "rng0"), place="0000:00:05.0:01.0", parent="0000:00:05.0", bus="br0", properties={}
)
HPET = Device(place="hpet", type="hpet", bus="main-system-bus", bus_type="System", properties={"timers": "3"})
HOST = Device(
    place="i440FX-pcihost", type="i440FX-pcihost", properties={"below-4g-mem-size": "134217728", "MCFG": "-1"}
)
MEDIUM = Medium(file="/images/guest.qcow2", format="qcow2", size_bytes=8 * MiB, read_only=False)

PLAIN = Inventory(
    version=(10, 0, 2),
    machine_type="pc-i440fx-10.0",
    accelerator="kvm",
    memory=Memory(
        base_bytes=128 * MiB,
        slots=2,
        max_bytes=1024 * MiB,
        blocks=(
            block("pc.ram", 128 * MiB),
            block("0000:00:03.0/virtio-net-pci.rom", MiB // 4),
            block("/rom@etc/acpi/tables", 128 * 1024, 2 * MiB),
            block("md0", 64 * MiB),
        ),
        devices=(MemoryDevice(id="dimm0", type="dimm", backend="md0", size_bytes=64 * MiB, address=2**32, slot=0),),
        backends={"md0": "memory-backend-ram", "pc.ram": "memory-backend-ram"},
    ),
    cpus=Cpus(
        places=(cpu(0), cpu(1, present=False)),
        topology={"cpus": 1, "maxcpus": 2, "sockets": 1, "cores": 2, "threads": 1, "dies": 1},
        features={"CPUID[0x1].ECX": 0b1010, "CPUID[0x1].EDX": 0b1111},
        properties={"vendor": "AuthenticAMD", "hv-relaxed": "True"},
        tsc_hz=2_000_000_000,
    ),
    uuid="11111111-2222-3333-4444-555555555555",
    generation_id="12345678-1234-1234-1234-123456789abc",
    devices=(HOST, HPET, NIC, DISK, BRIDGE, BEHIND),
    loose_devices={"vmgenid #1": "vmgenid"},
    drives=(
        Drive(name="", node="d0", path="/machine/peripheral/disk0/virtio-backend", removable=False, medium=MEDIUM),
    ),
    networks={"n0": Network(id="n0", type="tap", options={"ifname": "tap0", "script": "no"})},
    capabilities=frozenset({"events", "return-path", "multifd"}),
)
