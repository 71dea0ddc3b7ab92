"""Compares the devices: which are there, where, of what type, with what properties. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec

from livemig.core.finding import Finding, Severity, Topic
from livemig.qemu.compare_arguments import device_arguments, shown
from livemig.qemu.inventory import Device, Inventory

_refusal = partial(Finding, severity=Severity.REFUSAL, topic=Topic.DEVICE)
_warning = partial(Finding, severity=Severity.WARNING, topic=Topic.DEVICE)

_ON_THE_HOST = frozenset(
    {
        *("account-failed", "account-invalid", "audiodev", "backend_defaults", "chardev", "debug", "display"),
        *("drive", "dynamic-memslots", "ebpf-rss-fds", "evdev", "failover_pair_id", "fd", "head", "host", "host-nodes"),
        *("hostaddr", "hostbus", "hostport", "ioeventfd", "iothread", "iothread-vq-mapping", "logfile", "loglevel"),
        *("netdev", "path", "pcap", "prealloc", "rerror", "reserve", "share-rw", "sysfsdev", "tpmdev", "tx", "werror"),
        *("vhost-scsi", "vhostfd", "vhostforce", "wwpn", "x-txburst", "x-txtimer"),
    }
)
"""How the host serves a device. The guest sees nothing of it."""
_GUESSED = frozenset({"bios-chs-trans", "cyls", "drive-type", "heads", "lcyls", "lheads", "lsecs", "secs"})
"""A disk's geometry, guessed from what is in the image when QEMU starts: the guest may have partitioned it since."""
_SEEN_ELSEWHERE = frozenset({"memory-hotplug-support", "rombar", "romfile", "romsize"})
"""Findings about memory and its blocks tell."""
_GUEST_MADE = frozenset({"MCFG", "busnr", "smb_io_base"})
"""The firmware or the guest programs them."""
_UNCOMPARED = _ON_THE_HOST | _GUESSED | _SEEN_ELSEWHERE | _GUEST_MADE
_OF_A_DISK = frozenset(
    {"discard_granularity", "logical_block_size", "min_io_size", "opt_io_size", "physical_block_size"}
)
"""Of a usb-storage they are nobody's: it makes a disk of its own, and gives it the drive."""
_FROM_MEMORY_SIZE = frozenset({"above-4g-mem-size", "below-4g-mem-size"})
_HARMLESS = frozenset({"acpi-index", "lost_tick_policy"})
_CERTAIN = frozenset(
    {
        *("host_mtu", "logical_block_size", "mac", "max_ports", "name", "num-queues", "num_queues"),
        *("physical_block_size", "queue-size", "rx_queue_size", "serial", "tx_queue_size", "vectors"),
        *("virtqueue_size", "wwn", "unit"),
    }
)
"""Properties that a new QEMU version does not change by itself: they were given, or follow from what was given."""
_MACHINE_OPTIONS = "the source's -machine and -global options"
_OPTION_BY_TYPE = {
    "isa-serial": "the source's number of -serial options",
    "isa-parallel": "the source's number of -parallel options",
    "ide-hd": "the source's -drive options",
    "ide-cd": "the source's -drive options",
    "hpet": "the source's -machine options (`hpet=`)",
    "vmport": "the source's -machine options (`vmport=`)",
    "vmmouse": "the source's -machine options (`vmport=`)",
    "VGA": "the source's -vga option",
}


class DeviceComparison(msgspec.Struct, frozen=True):
    """What came of comparing the devices.

    Attributes:
        findings: The differences.
        places: Where a device is refused already: what else differs there follows from that.
    """

    findings: tuple[Finding, ...]
    places: frozenset[str]


def compare_devices(source: Inventory, destination: Inventory) -> DeviceComparison:
    """Devices by their places: missing, extra, moved, of another type, id or PCI id, with other properties."""
    if source.devices is None or destination.devices is None:
        return DeviceComparison((_not_told(source, destination),), frozenset())
    here = {device.place: device for device in _comparable(source, destination)}
    there = {device.place: device for device in _comparable(destination, source)}
    findings: list[Finding] = []
    places: set[str] = set()
    altered: set[str] = set()
    for one, other in _moved(here, there):
        findings.append(_moved_finding(one, other))
        places |= _with_those_behind(one, here) | _with_those_behind(other, there)
    for place in sorted({*here, *there}):
        mine, theirs = here.get(place), there.get(place)
        if place in places:
            continue
        if mine is not None and theirs is not None and mine.type == theirs.type:
            of_pair = list(_compare_pair(mine, theirs, source, destination))
            findings += of_pair
            if any(finding.severity is Severity.REFUSAL for finding in of_pair):
                altered.add(place)
            continue
        places |= (_with_those_behind(mine, here) if mine else set()) | (
            _with_those_behind(theirs, there) if theirs else set()
        )
        findings.append(_unmatched(mine, theirs, source, destination))
    findings += _compare_loose(source, destination)
    return DeviceComparison(tuple(findings), frozenset(places | altered))


def _comparable(inventory: Inventory, other: Inventory) -> Iterator[Device]:
    """Under another accelerator the built-in devices differ by nature; a finding of its own says so."""
    for device in inventory.devices or ():
        if inventory.accelerator == other.accelerator or not device.built_in:
            yield device


def _not_told(source: Inventory, destination: Inventory) -> Finding:
    silent = [name for name, one in (("source", source), ("destination", destination)) if one.devices is None]
    return _warning(
        subject="devices",
        source="" if source.devices is None else "known",
        destination="" if destination.devices is None else "known",
        sentence=f"the devices can't be compared: the {' and the '.join(silent)} does not answer `info qtree`",
        remedy="see yourself that both were started with the same devices in the same places",
    )


def _moved(here: dict[str, Device], there: dict[str, Device]) -> list[tuple[Device, Device]]:
    """Finds devices with an id that are at another place on the other side."""
    elsewhere = {device.id: device for device in there.values() if device.id}
    found: list[tuple[Device, Device]] = []
    for device in here.values():
        other = elsewhere.get(device.id) if device.id else None
        if other is None or other.type != device.type or _is_same(there.get(device.place), device):
            continue
        if not (device.parent and other.parent and _is_moved(device.parent, other.parent, found)):
            found.append((device, other))
    return found


def _is_same(one: Device | None, other: Device) -> bool:
    return one is not None and (one.id, one.type) == (other.id, other.type)


def _is_moved(parent: str, other_parent: str, found: list[tuple[Device, Device]]) -> bool:
    """Whether these are the two places of one device that is known to have moved, taking what is behind it along."""
    return any(parent == one.place and other_parent == other.place for one, other in found)


def _with_those_behind(device: Device, devices: dict[str, Device]) -> set[str]:
    places = {device.place}
    for other in devices.values():  # a parent comes before what is on its buses
        if other.parent in places:
            places.add(other.place)
    return places


def _moved_finding(mine: Device, other: Device) -> Finding:
    address = ",".join(f"{name}={value}" for name, value in mine.address.items())
    where = f"bus={mine.bus}" + (f",{address}" if address else "")
    return _refusal(
        subject=f"device {mine.name} at {mine.place}",
        source=mine.place,
        destination=other.place,
        sentence=f"device {mine.name} ({mine.type}) is at {mine.place} at the source, at {other.place} at the "
        "destination",
        remedy=f"start the destination with `{where}` on its -device",
    )


def _unmatched(mine: Device | None, theirs: Device | None, source: Inventory, destination: Inventory) -> Finding:
    present = [device for device in (mine, theirs) if device is not None]
    shown_one = present[0]
    arguments: tuple[str, ...] = ()
    if mine is None:
        sentence = f"{shown_one.title} is at the destination only, where the guest would not know of it"
        remedy = _remedy_of_extra(shown_one)
    else:
        arguments = () if mine.built_in else _arguments(mine, source)
        sentence, remedy = f"{mine.title} is missing at the destination", _remedy_of_missing(mine, arguments)
        if theirs is not None:
            sentence = f"at {mine.place} is a {mine.type} at the source, a {theirs.type} at the destination"
            remedy, arguments = f"{remedy}, in its place", ()
    return Finding(
        severity=_severity(source, destination, may_be_new=all(device.built_in for device in present)),
        topic=Topic.DEVICE,
        subject=f"device {shown_one.name} at {shown_one.place}",
        source="" if mine is None else mine.type,
        destination="" if theirs is None else theirs.type,
        sentence=sentence,
        remedy=remedy,
        arguments=arguments,
    )


def _remedy_of_missing(device: Device, arguments: tuple[str, ...]) -> str:
    if not arguments:
        return f"start the destination with {_OPTION_BY_TYPE.get(device.type, _MACHINE_OPTIONS)}"
    rest = "" if device.hotplugged else " and its other properties as in the source's command line"
    return f"start the destination with `{shown(arguments)}`{rest}"


def _remedy_of_extra(device: Device) -> str:
    if not device.built_in:
        return "start the destination without its -device, or plug the same into the source"
    return f"start the destination with {_OPTION_BY_TYPE.get(device.type, _MACHINE_OPTIONS)}, without it"


def _arguments(device: Device, source: Inventory) -> tuple[str, ...]:
    """Returns what makes the device and what the user plugged into it."""
    devices = {one.place: one for one in source.devices or ()}
    behind = _with_those_behind(device, devices)
    arguments: list[str] = []
    for place in sorted(behind):
        if not devices[place].built_in:
            arguments += device_arguments(devices[place], source)
    return tuple(arguments)


def _compare_pair(mine: Device, other: Device, source: Inventory, destination: Inventory) -> Iterator[Finding]:
    subject = f"device {mine.name} at {mine.place}"
    if mine.id != other.id:
        yield _warning(
            subject=subject,
            source=mine.id,
            destination=other.id,
            sentence=f"the {mine.type} at {mine.place} has the id {mine.id or 'none'} at the source, "
            f"{other.id or 'none'} at the destination: the guest sees none of it, what unplugs by id would",
            remedy=f"start the destination with `id={mine.id}` on that -device" if mine.id else "leave out that id",
        )
    if mine.pci_id and other.pci_id and mine.pci_id != other.pci_id:
        yield _refusal(
            subject=subject,
            source=mine.pci_id,
            destination=other.pci_id,
            sentence=f"{mine.title} has the PCI id {mine.pci_id} at the source, {other.pci_id} at the destination",
            remedy="start the destination with the source's properties of that device",
        )
    for name in sorted((mine.properties.keys() & other.properties.keys()) - mine.address.keys() - _UNCOMPARED):
        if mine.properties[name] == other.properties[name]:
            continue
        if name in _FROM_MEMORY_SIZE and source.memory.base_bytes != destination.memory.base_bytes:
            continue
        if name in _OF_A_DISK and not mine.properties.get("drive", "-"):
            continue
        yield _property_finding(mine, other, name, _property_severity(name, source, destination))


def _property_finding(mine: Device, other: Device, name: str, severity: Severity) -> Finding:
    value, other_value = mine.properties[name], other.properties[name]
    remedy = f"start the destination with `{name}={value}` on that -device"
    if mine.id:
        remedy += f" (`--dst-set {mine.id}.{name}={value}`)"
    elif mine.built_in:
        remedy = f"start the destination with {_OPTION_BY_TYPE.get(mine.type, _MACHINE_OPTIONS)}"
    return Finding(
        severity=severity,
        topic=Topic.DEVICE,
        subject=f"{name} of device {mine.name} at {mine.place}",
        source=value,
        destination=other_value,
        sentence=f"{mine.title} has {name} {value or 'empty'} at the source, {other_value or 'empty'} at the "
        "destination",
        remedy=remedy,
    )


def _property_severity(name: str, source: Inventory, destination: Inventory) -> Severity:
    if name in _HARMLESS:
        return Severity.WARNING
    return _severity(source, destination, may_be_new=name not in _CERTAIN)


def _severity(source: Inventory, destination: Inventory, *, may_be_new: bool) -> Severity:
    """What may be the other version's own doing, QEMU will have made compatible: a warning then."""
    versions_differ = source.version[:2] != destination.version[:2]
    return Severity.WARNING if may_be_new and versions_differ else Severity.REFUSAL


def _compare_loose(source: Inventory, destination: Inventory) -> Iterator[Finding]:
    """Devices on no bus, such as vmgenid."""
    here, there = source.loose_devices, destination.loose_devices
    for name in sorted({*here, *there}):
        mine, theirs = here.get(name, ""), there.get(name, "")
        if mine != theirs:
            where = (
                "is missing at the destination"
                if not theirs
                else "is at the destination only"
                if not mine
                else f"is a {mine} at the source, a {theirs} at the destination"
            )
            kind = mine or theirs
            yield _refusal(
                subject=f"device {name}",
                source=mine,
                destination=theirs,
                sentence=f"device {name} ({kind}) {where}",
                remedy=f"start the destination {'with' if mine else 'without'} `-device {kind}` as in the source's "
                "command line",
            )
