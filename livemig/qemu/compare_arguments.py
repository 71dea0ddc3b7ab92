"""Writes the arguments that would make a device of an inventory on another command line. Pure.

Said are its id, its bus and address, its backends, and what differs from the type's defaults where those are known
(hot-plugged devices). A backend that can't be read back (a character device, a drive in a cluster) is left to the
user, with an ellipsis in its place.
"""

from __future__ import annotations

from livemig.qemu.inventory import BlockNode, Cpu, Device, Drive, Inventory, MemoryDevice, Network

MIB = 2**20
_UNREADABLE = "…"
_ESSENTIAL = ("netdev", "drive", "chardev", "mac", "serial", "host_mtu", "name", "wwn")
"""Said even where the defaults are not known."""
_UNSAID = frozenset({"addr", "acpi-index", "busnr", "rombar", "romfile", "romsize", "failover_pair_id", "port"})
_GEOMETRY = frozenset({"cyls", "heads", "secs", "lcyls", "lheads", "lsecs"})
"""Guessed from the image; the same image gives the same."""
_FILE_DRIVERS = frozenset({"file", "host_device"})
_TAP_OPTIONS = ("ifname", "br", "helper", "script", "downscript", "vhost")


def device_arguments(device: Device, inventory: Inventory) -> list[str]:
    """Returns ``-netdev``, ``-blockdev`` or ``-drive``, and ``-device`` for a device."""
    arguments = []
    netdev, drive, chardev = (device.properties.get(name, "") for name in ("netdev", "drive", "chardev"))
    if netdev:
        network = inventory.networks.get(netdev, Network(id=netdev, type=_UNREADABLE))
        arguments += ["-netdev", _network_argument(network)]
    if drive:
        arguments += drive_arguments(drive, inventory)
    if chardev:
        arguments += ["-chardev", f"{_UNREADABLE},id={_escaped(chardev)}"]
    return [*arguments, "-device", device_argument(device, inventory.defaults.get(device.type))]


def device_argument(device: Device, defaults: dict[str, str] | None = None) -> str:
    """Returns what follows ``-device``."""
    parts = [device.type]
    if device.id:
        parts.append(f"id={_escaped(device.id)}")
    if device.address:
        parts.append(f"bus={_escaped(device.bus)}")
        parts += [f"{name}={value}" for name, value in device.address.items()]
    for name, value in sorted(device.properties.items()):
        if name in device.address or name in _UNSAID or value in ("", "<null>"):
            continue
        if name in _ESSENTIAL if defaults is None else _said(name, value, defaults):
            parts.append(f"{name}={_escaped(value)}")
    return ",".join(parts)


def drive_arguments(name: str, inventory: Inventory) -> list[str]:
    """Returns what makes a device's block backend: ``-blockdev`` for each named node, or ``-drive``."""
    node = inventory.nodes.get(name)
    if node is not None:
        return _node_arguments(node, inventory)
    drive = next((one for one in inventory.drives if one.name == name), None)
    return ["-drive", _drive_argument(name, drive)]


def memory_arguments(device: MemoryDevice, inventory: Inventory) -> list[str]:
    """Returns ``-object`` and ``-device`` for plugged memory."""
    backend = inventory.memory.backends.get(device.backend, "memory-backend-ram")
    object_parts = [backend, f"id={_escaped(device.backend)}", f"size={size_argument(device.size_bytes)}"]
    if backend == "memory-backend-file":
        object_parts.append(f"mem-path={_UNREADABLE}")
    if device.type.startswith("virtio"):
        return ["-object", ",".join(object_parts)]  # its -device is among the devices
    kind = "nvdimm" if device.type == "nvdimm" else "pc-dimm"
    parts = [kind, f"memdev={_escaped(device.backend)}", f"slot={device.slot}", f"addr={device.address:#x}"]
    if device.id:
        parts.insert(1, f"id={_escaped(device.id)}")
    if device.node:
        parts.append(f"node={device.node}")
    return ["-object", ",".join(object_parts), "-device", ",".join(parts)]


def vcpu_argument(cpu: Cpu) -> str:
    """Returns what follows ``-device`` for a vCPU that was plugged."""
    return f"{cpu.type},{cpu.place}"


def size_argument(size_bytes: int) -> str:
    """Writes a size as QEMU reads it, exactly."""
    return f"{size_bytes // MIB}M" if size_bytes % MIB == 0 else f"{size_bytes}B"


def shown(arguments: list[str] | tuple[str, ...]) -> str:
    """Writes arguments for people, quoted where a shell needs it."""
    return " ".join(part if _is_plain(part) else "'" + part.replace("'", "'\\''") + "'" for part in arguments)


def _is_plain(part: str) -> bool:
    return bool(part) and all(letter.isalnum() or letter in "-_=,.:/+@#…" for letter in part) and part[0] != "#"


def _said(name: str, value: str, defaults: dict[str, str]) -> bool:
    if name.startswith("x-") or name in _GEOMETRY or name not in defaults:
        return False
    return name in _ESSENTIAL or value != defaults[name]


def _network_argument(network: Network) -> str:
    parts = [network.type, f"id={_escaped(network.id)}"]
    if network.type == "tap":
        parts += [f"{name}={_escaped(network.options[name])}" for name in _TAP_OPTIONS if name in network.options]
    elif network.type not in ("user", _UNREADABLE):
        parts.append(_UNREADABLE)
    return ",".join(parts)


def _node_arguments(node: BlockNode, inventory: Inventory) -> list[str]:
    """Writes a node after the named nodes it stands on; nodes that QEMU named itself are written inside it."""
    arguments, parts = [], [f"driver={node.driver}", f"node-name={_escaped(node.name)}"]
    if node.driver in _FILE_DRIVERS:
        parts.append(f"filename={_escaped(node.file)}")
    elif not node.children:
        parts.append(_UNREADABLE)
    parts += _common_parts(node)
    for role, name in node.children.items():
        child = inventory.nodes.get(name)
        if child is None or (role == "backing" and name.startswith("#")):
            continue  # a backing file that the image names itself
        if not name.startswith("#"):
            arguments += _node_arguments(child, inventory)
            parts.append(f"{role}={_escaped(name)}")
        elif child.driver in _FILE_DRIVERS:
            parts += [f"{role}.driver={child.driver}", f"{role}.filename={_escaped(child.file)}"]
            parts += [f"{role}.{part}" for part in _common_parts(child)]
        else:
            parts.append(f"{role}.driver={child.driver},{_UNREADABLE}")
    return [*arguments, "-blockdev", ",".join(parts)]


def _common_parts(node: BlockNode) -> list[str]:
    return ["read-only=on"] * node.read_only + ["cache.direct=on"] * node.direct


def _drive_argument(name: str, drive: Drive | None) -> str:
    parts = ["if=none", f"id={_escaped(name)}"]
    medium = None if drive is None else drive.medium
    if medium is None:
        return ",".join(parts)
    plain_file = not medium.file.startswith("json:")
    parts.append(f"file={_escaped(medium.file)}" if plain_file else f"file={_UNREADABLE}")
    parts.append(f"format={medium.format}")
    return ",".join(parts + ["readonly=on"] * medium.read_only)


def _escaped(value: str) -> str:
    """QEMU's option parser takes a comma for a separator unless it is doubled."""
    return value.replace(",", ",,")
