"""Reads ``info qtree``: every device on every bus with all of its properties, in one round trip. Pure.

It is text for people, but QMP offers no such tree, and from 7.2 to 10.0 the text is the same: two spaces a level,
``bus:``, ``dev:``, ``name = value``. What the guest programs (bus numbers, BARs) is left aside.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import msgspec

from livemig.qemu.inventory import Device

_BUS = re.compile(r"bus: (.+)")
_BUS_TYPE = re.compile(r"type (.+)")
_DEVICE = re.compile(r'dev: (.+?), id "(.*)"')
_PROPERTY = re.compile(r"([\w.-]+(?: [\w.-]+)*) = (.*)")
_PCI = re.compile(r"class .+, addr ([0-9a-f]+):[0-9a-f]+\.\d, pci id ([0-9a-f]{4}:[0-9a-f]{4} \(sub [0-9a-f:]+\))")
_USB = re.compile(r"addr [\d.]+, port ([\d.]+),")
_NUMBER = re.compile(r"(-?\d+) \(.*\)")
_ADDRESS_PROPERTIES = {
    "PCI": ("addr",),
    "PCIE": ("addr",),
    "CXL": ("addr",),
    "pxb-bus": ("addr",),
    "pxb-pcie-bus": ("addr",),
    "SCSI": ("channel", "scsi-id", "lun"),
    "IDE": ("unit",),
    "virtio-serial-bus": ("nr",),
    "floppy-bus": ("unit",),
    "i2c-bus": ("address",),
    "usb-bus": ("port",),
}
_ISA_PROPERTIES = ("iobase", "ioport", "base")


class _Node(msgspec.Struct):
    """A device as its lines come."""

    type: str
    id: str
    bus: str
    bus_type: str
    parent: _Node | None
    properties: dict[str, str]
    children: list[_Node]
    bus_number: str = "00"
    pci_id: str = ""
    usb_port: str = ""


def read_tree(text: str) -> tuple[Device, ...]:
    """Returns the devices; a virtio device's two halves as one. None is built in until somebody says so."""
    return tuple(_devices(_read_nodes(text), None, Counter()))


def plain(value: str) -> str:
    """Returns a property's value as ``-device`` takes it: without quotes, and of ``4 (0x4)`` the number alone."""
    if (number := _NUMBER.fullmatch(value)) is not None:
        return number[1]
    if value.startswith('"') and value.endswith('"') and len(value) > 1:
        return value[1:-1]
    return value


def _read_nodes(text: str) -> list[_Node]:
    roots: list[_Node] = []
    devices: list[tuple[int, _Node]] = []
    buses: list[tuple[int, str, str]] = []
    for line in text.splitlines():
        depth, content = len(line) - len(line.lstrip(" ")), line.strip()
        devices = [one for one in devices if one[0] < depth]
        buses = [one for one in buses if one[0] < depth]
        if (match := _BUS.fullmatch(content)) is not None:
            buses.append((depth, match[1], ""))
        elif (match := _DEVICE.fullmatch(content)) is not None:
            parent = devices[-1][1] if devices else None
            _, bus, bus_type = buses[-1] if buses else (0, "", "")
            node = _Node(match[1], match[2], bus, bus_type, parent, {}, [])
            (roots if parent is None else parent.children).append(node)
            devices.append((depth, node))
        elif buses and buses[-1][0] >= (devices[-1][0] if devices else -1):
            if (match := _BUS_TYPE.fullmatch(content)) is not None:
                buses[-1] = (*buses[-1][:2], match[1])
        elif devices:
            _read_detail(devices[-1][1], content)
    return roots


def _read_detail(node: _Node, content: str) -> None:
    if (match := _PCI.match(content)) is not None:
        node.bus_number, node.pci_id = match[1], match[2]
    elif (match := _USB.match(content)) is not None:
        node.usb_port = match[1]
    elif (match := _PROPERTY.fullmatch(content)) is not None:
        node.properties[match[1]] = plain(match[2])


def _devices(nodes: list[_Node], parent: Device | None, taken: Counter[str]) -> Iterator[Device]:
    for node in nodes:
        properties, children = _whole(node)
        address = _address(node, properties)
        place = _place(node, address, properties, parent)
        taken[place] += 1
        device = Device(
            place=place if taken[place] == 1 else f"{place} #{taken[place]}",
            parent="" if parent is None else parent.place,
            type=node.type,
            id=node.id,
            bus=node.bus,
            bus_type=node.bus_type,
            address=address,
            pci_id=node.pci_id,
            properties=properties,
        )
        yield device
        yield from _devices(children, device, taken)


def _whole(node: _Node) -> tuple[dict[str, str], list[_Node]]:
    """Joins a virtio transport and the device behind it, which are one ``-device``."""
    properties, children = dict(node.properties), []
    for child in node.children:
        if child.bus_type.startswith("virtio-") and child.bus_type != "virtio-serial-bus":
            properties |= child.properties
            children += child.children
        else:
            children.append(child)
    return properties, children


def _address(node: _Node, properties: dict[str, str]) -> dict[str, str]:
    if node.bus_type == "usb-bus":
        return {"port": node.usb_port} if node.usb_port else {}
    names = _ADDRESS_PROPERTIES.get(node.bus_type, ())
    return {name: properties[name] for name in names if name in properties}


def _place(node: _Node, address: dict[str, str], properties: dict[str, str], parent: Device | None) -> str:
    if "addr" in address and parent is not None:
        # as QEMU names it in the stream: by the slots on the way, since bus numbers are the guest's
        on_root = not parent.pci_id
        return f"0000:{node.bus_number}:{address['addr']}" if on_root else f"{parent.place}:{address['addr']}"
    before = "" if parent is None or not (parent.pci_id or parent.parent) else f"{parent.place}/"
    if address:
        values = ":".join(address.values())
        if node.bus_type == "IDE":
            return f"{before}ide {node.bus.rpartition('.')[2]}:{values}"
        return f"{before}{node.bus_type.removesuffix('-bus').lower()} {values}"
    for name in _ISA_PROPERTIES:
        if name in properties and properties[name].lstrip("-").isdigit():
            return f"{before}{node.type}@{int(properties[name]):#x}"
    return f"{before}{node.type}"
