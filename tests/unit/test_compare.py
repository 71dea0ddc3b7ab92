"""The comparison on constructed inventories: every kind of finding, and none where nothing differs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.finding import Severity, Topic, lines_of, ordered
from livemig.qemu.compare import compare
from livemig.qemu.inventory import (
    Cpus,
    Device,
    Drive,
    Inventory,
    Memory,
    Network,
    RamBlock,
)
from tests.unit.inventories import BEHIND, BRIDGE, DISK, HOST, HPET, MEDIUM, NIC, PLAIN, MiB, block, cpu, pci, replaced


def memory(**changes: Any) -> Inventory:
    """With other memory."""
    return replaced(PLAIN, memory=replaced(PLAIN.memory, **changes))


def cpus(**changes: Any) -> Inventory:
    """With other vCPUs."""
    return replaced(PLAIN, cpus=replaced(PLAIN.cpus, **changes))


def devices(*others: Device, without: str = "") -> Inventory:
    """With devices put in the place of those of the same place, and one left out with what is behind it."""
    kept = {one.place: one for one in PLAIN.devices or () if not (without and one.place.startswith(without))}
    return replaced(PLAIN, devices=tuple((kept | {one.place: one for one in others}).values()))


def altered(device: Device, **properties: str) -> Inventory:
    """With other properties of a device."""
    return devices(replaced(device, properties={**device.properties, **properties}))


def disk(**changes: Any) -> Inventory:
    """With another medium."""
    return replaced(PLAIN, drives=(replaced(PLAIN.drives[0], medium=replaced(MEDIUM, **changes)),))


def blocks(*others: RamBlock, without: str = "") -> Inventory:
    """With other RAM blocks."""
    kept = {one.name: one for one in PLAIN.memory.blocks if one.name != without}
    return memory(blocks=tuple((kept | {one.name: one for one in others}).values()))


LARGER = (block("pc.ram", 256 * MiB), *PLAIN.memory.blocks[1:])
REFUSED = {
    "machine": (replaced(PLAIN, machine_type="pc-i440fx-9.0", devices=()), "machine type", "`-machine pc-i440fx-10.0`"),
    "accelerator": (
        replaced(
            PLAIN,
            accelerator="tcg",
            devices=(HOST, NIC, DISK, BRIDGE, BEHIND),
            cpus=Cpus(places=PLAIN.cpus.places, topology=PLAIN.cpus.topology),
        ),
        "accelerator",
        "`-accel kvm`",
    ),
    "uuid": (replaced(PLAIN, uuid="0"), "UUID", f"`-uuid {PLAIN.uuid}`"),
    "generation": (replaced(PLAIN, generation_id="0"), "VM generation id", f"guid={PLAIN.generation_id}"),
    "capability": (
        replaced(PLAIN, capabilities=frozenset({"events"})),
        "capability return-path of the destination",
        "newer QEMU",
    ),
    "memory": (memory(base_bytes=256 * MiB, blocks=LARGER), "memory", "`-m 128M,slots=2,maxmem=1024M`"),
    "odd-memory": (memory(base_bytes=256 * MiB + 512, blocks=LARGER), "memory", "`-m 128M,slots=2,maxmem=1024M`"),
    "room": (memory(slots=0, max_bytes=0), "room for plugged memory", "slots=2"),
    "main-block": (
        blocks(block("m0", 128 * MiB), without="pc.ram"),
        "RAM block m0",
        "without the device or memory backend",
    ),
    "block-missing": (
        blocks(without="0000:00:03.0/virtio-net-pci.rom"),
        "RAM block 0000:00:03.0/virtio-net-pci.rom",
        "",
    ),
    "block-size": (
        blocks(block("0000:00:03.0/virtio-net-pci.rom", MiB)),
        "RAM block 0000:00:03.0/virtio-net-pci.rom",
        f"romsize={MiB // 4}",
    ),
    "dimm-missing": (
        memory(devices=(), blocks=PLAIN.memory.blocks[:3]),
        "memory device dimm0 at 0x100000000",
        "-object memory-backend-ram,id=md0,size=64M -device pc-dimm,id=dimm0,memdev=md0,slot=0,addr=0x100000000",
    ),
    "dimm-other": (
        memory(devices=(replaced(PLAIN.memory.devices[0], slot=1),)),
        "memory device dimm0 at 0x100000000",
        "slot=0",
    ),
    "topology": (
        cpus(places=(cpu(0),), topology={**PLAIN.cpus.topology, "maxcpus": 1, "cores": 1}),
        "vCPU topology",
        "`-smp cpus=1,maxcpus=2,sockets=1,cores=2,threads=1`",
    ),
    "vcpu-extra": (cpus(places=(cpu(0), cpu(1))), "vCPU at socket-id=0,core-id=1,thread-id=0", "without it"),
    "numa": (cpus(places=(cpu(0, node=1), cpu(1, present=False))), "NUMA nodes of vCPUs", "-numa"),
    "cpu-type": (
        cpus(places=(cpu(0, type="max-x86_64-cpu"), cpu(1, present=False)), features={"CPUID[0x1].ECX": 0b1111}),
        "CPU model",
        "-cpu",
    ),
    "cpu-features": (cpus(features={"CPUID[0x1].ECX": 0b0010, "CPUID[0x1].EDX": 0b1111}), "CPU model", "-cpu"),
    "cpu-vendor": (cpus(properties={"vendor": "GenuineIntel", "hv-relaxed": "True"}), "CPU model", "-cpu"),
    "hyperv": (cpus(properties={"vendor": "AuthenticAMD"}), "CPU model", "-cpu"),
    "device-missing": (
        devices(without=NIC.place),
        "device net0 at 0000:00:03.0",
        "-device virtio-net-pci,id=net0,bus=pci.0,addr=03.0,host_mtu=0,mac=52:54:00:00:00:01,netdev=n0",
    ),
    "bridge-missing": (
        devices(without=BRIDGE.place),
        "device br0 at 0000:00:05.0",
        "-device pci-bridge,id=br0,bus=pci.0,addr=05.0 -device virtio-rng-pci,id=rng0,bus=br0,addr=01.0",
    ),
    "device-extra": (devices(pci("06.0", "edu")), "device edu at 0000:00:06.0", "without its -device"),
    "device-type": (
        devices(pci("05.0", "edu", "br0"), without=BRIDGE.place),
        "device br0 at 0000:00:05.0",
        "in its place",
    ),
    "device-moved": (
        devices(replaced(NIC, place="0000:00:07.0", address={"addr": "07.0"}), without=NIC.place),
        "device net0 at 0000:00:03.0",
        "`bus=pci.0,addr=03.0`",
    ),
    "bridge-moved": (
        devices(
            replaced(BRIDGE, place="0000:00:08.0"),
            replaced(BEHIND, place="0000:00:08.0:01.0", parent="0000:00:08.0"),
            without=BRIDGE.place,
        ),
        "device br0 at 0000:00:05.0",
        "addr=05.0",
    ),
    "pci-id": (devices(replaced(NIC, pci_id="1af4:1041 (sub 1af4:1100)")), "device net0 at 0000:00:03.0", "properties"),
    "mac": (altered(NIC, mac="52:54:00:00:00:02"), "mac of device net0 at 0000:00:03.0", "--dst-set net0.mac=52:54"),
    "host-mtu": (altered(NIC, host_mtu="1400"), "host_mtu of device net0 at 0000:00:03.0", "--dst-set net0.host_mtu=0"),
    "built-in": (altered(HPET, timers="4"), "timers of device hpet at hpet", "-machine"),
    "built-in-missing": (devices(without="hpet"), "device hpet at hpet", "`hpet=`"),
    "loose": (replaced(PLAIN, loose_devices={}), "device vmgenid #1", "with `-device vmgenid`"),
    "backend": (
        replaced(PLAIN, networks={"n0": Network(id="n0", type="user")}),
        "network backend of device net0 at 0000:00:03.0",
        "a tap as that -netdev",
    ),
    "disk-smaller": (disk(size_bytes=4 * MiB), "disk of device disk0 at 0000:00:04.0", "same image"),
    "disk-read-only": (disk(read_only=True), "disk of device disk0 at 0000:00:04.0", "read-only=off"),
    "disk-format": (disk(format="raw"), "disk of device disk0 at 0000:00:04.0", "format qcow2"),
    "no-medium": (
        replaced(PLAIN, drives=(replaced(PLAIN.drives[0], node="", medium=None),)),
        "disk of device disk0 at 0000:00:04.0",
        "that medium",
    ),
    "no-drive": (replaced(PLAIN, drives=()), "disk of device disk0 at 0000:00:04.0", "that medium"),
}
WARNED = {
    "page-size": (blocks(block("pc.ram", 128 * MiB, page_size="2 MiB")), "RAM block pc.ram"),
    "tsc": (cpus(tsc_hz=2_001_000_000), "TSC frequency"),
    "cpu-name": (cpus(places=(cpu(0, type="kvm64-x86_64-cpu"), cpu(1, present=False))), "CPU model"),
    "id": (devices(replaced(HPET, id="other")), "device hpet at hpet"),
    "acpi-index": (altered(NIC, **{"acpi-index": "1"}), ""),
    "disk-larger": (disk(size_bytes=16 * MiB), "disk of device disk0 at 0000:00:04.0"),
    "file": (disk(file="/mnt/guest.qcow2"), "disk of device disk0 at 0000:00:04.0"),
    "no-tree": (replaced(PLAIN, devices=None), "devices"),
}
UNSEEN = {
    "version": replaced(PLAIN, version=(10, 0, 9)),
    "geometry": altered(DISK, secs="62"),
    "option-rom": altered(NIC, rombar="-1"),
    "mcfg": altered(HOST, MCFG="2952790016"),
    "node-name": replaced(
        devices(replaced(DISK, properties={**DISK.properties, "drive": "d9"})),
        drives=(replaced(PLAIN.drives[0], node="d9"),),
    ),
    "dimm-id": memory(devices=(replaced(PLAIN.memory.devices[0], id="other"),)),
    "dimm-hotplugged": memory(devices=(replaced(PLAIN.memory.devices[0], hotplugged=True),)),
    "acpi-tables-grown": blocks(block("/rom@etc/acpi/tables", 64 * 1024, 2 * MiB)),
    "htt": cpus(features={"CPUID[0x1].ECX": 0b1010, "CPUID[0x1].EDX": 0b1111 | 1 << 28}),
    "boot-vcpus": cpus(topology={**PLAIN.cpus.topology, "cpus": 2}),
    "topology-words": cpus(topology={**PLAIN.cpus.topology, "modules": 1}),
    "more-capabilities": replaced(PLAIN, capabilities=PLAIN.capabilities | {"mapped-ram"}),
    "tap-name": replaced(PLAIN, networks={"n0": Network(id="n0", type="tap", options={"ifname": "tap7"})}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_fail_late_or_harm_the_guest_is_refused_once(name: str) -> None:
    """One refusal that names the thing, in one line, with what to do."""
    other, subject, remedy = REFUSED[name]
    found = [one for one in compare(PLAIN, other) if one.severity is Severity.REFUSAL]
    if name == "main-block":
        assert {one.subject for one in found} == {"RAM block m0", "RAM block pc.ram"}
        return

    assert [one.subject for one in found] == [subject]
    assert remedy in found[0].remedy
    assert found[0].line == f"{found[0].sentence}: {found[0].remedy}"
    assert "\n" not in found[0].line
    assert not found[0].line.endswith(".")


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_the_other_way_round_as_well(name: str) -> None:
    """Extra at the destination is no better than missing."""
    if name == "capability":
        subject = "capability return-path of the source"
        assert [one.subject for one in compare(REFUSED[name][0], PLAIN)] == [subject]
        return
    found = compare(REFUSED[name][0], PLAIN)
    if name in ("disk-smaller", "backend"):
        assert [one.severity for one in found] == ["warning"]
        return

    assert any(one.severity is Severity.REFUSAL for one in found)


@pytest.mark.parametrize("name", WARNED)
def test_what_does_no_harm_is_a_warning_at_most(name: str) -> None:
    """The migration can be."""
    other, subject = WARNED[name]
    found = compare(PLAIN, other)
    if name == "acpi-index":  # a property that one side alone has is the other version's
        assert found == ()
        return

    assert [(one.severity, one.subject) for one in found] == [("warning", subject)]


@pytest.mark.parametrize("name", UNSEEN)
def test_what_the_guest_does_not_see_is_no_finding(name: str) -> None:
    """Nor what the stream carries."""
    assert compare(PLAIN, UNSEEN[name]) == ()


def test_a_property_that_a_new_version_may_have_changed_is_a_warning_between_versions() -> None:
    """What was given on the command line stays a refusal."""
    newer = replaced(altered(NIC, mq="true", mac="52:54:00:00:00:02"), version=(11, 1, 3))

    found = compare(PLAIN, newer)
    assert [(one.severity, one.subject.split()[0]) for one in found] == [("refusal", "mac"), ("warning", "mq")]


def test_features_that_a_new_version_adds_are_a_warning_and_lost_ones_a_refusal() -> None:
    """The same model of a newer QEMU may know more."""
    more = replaced(cpus(features={**PLAIN.cpus.features, "CPUID[0x7,0].EBX": 1}), version=(11, 1, 3))

    assert [one.severity for one in compare(PLAIN, more)] == ["warning"]
    assert [one.severity for one in compare(more, PLAIN)] == ["refusal"]


def test_a_source_that_loses_writes_is_warned_of() -> None:
    """7.2 under TCG; under KVM it is well."""
    kvm = replaced(PLAIN, version=(7, 2, 22))
    tcg = replaced(kvm, accelerator="tcg")

    assert [one.subject for one in compare(tcg, tcg)] == ["guest writes under TCG"]
    assert compare(kvm, kvm) == ()


def test_copied_disks_may_be_other_files_of_another_format() -> None:
    """They must still hold what is copied into them."""
    other = disk(file="/new", format="raw")

    assert compare(PLAIN, other, shared_disks=False) == ()
    assert len(compare(PLAIN, disk(size_bytes=MiB), shared_disks=False)) == 1


def test_a_capability_that_this_plan_needs_is_asked_of_both() -> None:
    """Multifd, say."""
    found = compare(PLAIN, PLAIN, needed_capabilities=frozenset({"multifd", "mapped-ram"}))

    assert [one.subject for one in found] == [
        f"capability mapped-ram of the {side}" for side in ("destination", "source")
    ]


def test_the_other_accelerator_hides_what_follows_from_it_alone() -> None:
    """Built-in devices and CPU features differ with it; the user's devices do not."""
    other = replaced(altered(NIC, mac="0"), accelerator="tcg")

    assert [one.subject for one in compare(PLAIN, other)] == ["accelerator", "mac of device net0 at 0000:00:03.0"]


def test_all_is_told_together_refusals_first() -> None:
    """By topic, in an order of its own."""
    other = replaced(
        altered(NIC, mac="0"), uuid="0", machine_type="pc-i440fx-10.0", memory=replaced(PLAIN.memory, slots=3)
    )
    other = replaced(other, drives=(replaced(PLAIN.drives[0], medium=replaced(MEDIUM, file="/x")),))

    found = compare(PLAIN, other)
    assert [one.topic for one in found] == [Topic.MEMORY, Topic.IDENTITY, Topic.DEVICE, Topic.IMAGE]
    assert len(lines_of(found, Severity.REFUSAL)) == 3
    assert ordered(reversed(found)) == found


texts = st.text(alphabet="abc0.:-", max_size=6)
generated_devices = st.builds(
    Device,
    place=st.sampled_from(["0000:00:01.0", "0000:00:02.0", "0000:00:02.0:00.0", "hpet", "0000:00:02.0/usb 1"]),
    parent=st.sampled_from(["", "0000:00:02.0"]),
    type=st.sampled_from(["virtio-net-pci", "virtio-blk-pci", "hpet"]),
    id=st.sampled_from(["", "a", "b"]),
    pci_id=st.sampled_from(["", "1af4:1000"]),
    properties=st.dictionaries(st.sampled_from(["mac", "drive", "netdev", "busnr", "x-new", "serial"]), texts),
    built_in=st.booleans(),
    hotplugged=st.booleans(),
)
generated = st.builds(
    Inventory,
    version=st.tuples(st.integers(7, 11), st.integers(0, 2), st.integers(0, 3)),
    machine_type=st.sampled_from(["pc", "q35"]),
    accelerator=st.just("kvm"),
    memory=st.builds(
        Memory,
        base_bytes=st.integers(1, 2**40),
        slots=st.integers(0, 3),
        max_bytes=st.integers(0, 2**40),
        blocks=st.lists(st.builds(block, texts, st.integers(1, 2**30)), max_size=3).map(tuple),
    ),
    cpus=st.builds(
        Cpus,
        places=st.lists(
            st.builds(cpu, st.integers(0, 3), present=st.booleans()), max_size=3, unique_by=lambda c: c.place
        ).map(lambda places: tuple(sorted(places, key=lambda c: c.place))),
        topology=st.dictionaries(st.sampled_from(["cpus", "maxcpus", "cores"]), st.integers(1, 4)),
        features=st.dictionaries(texts, st.integers(0, 2**32)),
        tsc_hz=st.integers(0, 2**33),
    ),
    uuid=texts,
    generation_id=texts,
    devices=st.none() | st.lists(generated_devices, max_size=5, unique_by=lambda one: one.place).map(tuple),
    drives=st.lists(
        st.builds(
            Drive, name=texts, node=texts, path=texts, removable=st.booleans(), medium=st.none() | st.just(MEDIUM)
        ),
        max_size=3,
    ).map(tuple),
    capabilities=st.just(PLAIN.capabilities),
)


@given(generated)
@settings(max_examples=200, deadline=None)
def test_nothing_differs_from_itself(inventory: Inventory) -> None:
    """Whatever it is made of. That the tree is not told is known of both, and said."""
    assert [one for one in compare(inventory, inventory) if one.subject != "devices"] == []


@given(generated, generated)
@settings(max_examples=200, deadline=None)
def test_every_finding_is_one_line_and_is_said_once(source: Inventory, destination: Inventory) -> None:
    """And comparing never fails, whatever the two are."""
    found = compare(source, destination)

    assert len({(one.subject, one.sentence) for one in found}) == len(found)
    for one in found:
        assert one.sentence, one
        assert one.remedy, one
        assert one.source != one.destination or one.subject == "devices", one
        assert "\n" not in one.line
    assert ordered(found) == found
