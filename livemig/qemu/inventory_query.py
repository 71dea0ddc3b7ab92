"""Takes a QEMU's inventory: some thirty short QMP queries, a few at a time. Changes nothing.

Each is asked on all QEMUs alike; what one of them does not know stays empty. What has to be known for a comparison to
mean anything (machine, memory, RAM blocks, vCPUs) must be answered. A guest hangs on the QEMU that is asked, and
``x-query-virtio-status`` shows that a question can end it (an assertion in 11.1.3): only what is asked here was tried
on 7.2, 10.0 and 11.1 with many devices, and QEMU's own tests ask ``info qtree`` of every machine.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import msgspec

from livemig.core.errors import CommandError, ReplyError
from livemig.qemu import inventory_replies as replies
from livemig.qemu.introspection import query_capabilities
from livemig.qemu.inventory import BlockNode, Cpu, Cpus, Device, Inventory, Memory
from livemig.qemu.inventory_text import read_networks, read_ram_blocks
from livemig.qemu.inventory_tree import plain, read_tree
from livemig.qemu.monitor import Monitor

_Decoded = TypeVar("_Decoded")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_PARALLEL_LIMIT = 3
"""Queries at a time: a slot of the monitor stays free for others."""
_PERIPHERAL = "/machine/peripheral"
_ANONYMOUS = "/machine/peripheral-anon"
_MODEL_PROPERTIES = ("vendor", "family", "model", "stepping", "level", "phys-bits")
_HYPERV_BASICS = ("hv-relaxed", "hv-spinlocks", "hv-time", "hv-vapic", "hv-vpindex")
"""Not among the feature words, and only under KVM. Who gives a guest any of them gives one of these."""
_HYPERV_OTHERS = (
    *("hv-avic", "hv-crash", "hv-emsr-bitmap", "hv-evmcs", "hv-frequencies", "hv-ipi", "hv-reenlightenment"),
    *("hv-reset", "hv-runtime", "hv-stimer", "hv-stimer-direct", "hv-synic", "hv-syndbg", "hv-tlbflush"),
    *("hv-tlbflush-direct", "hv-tlbflush-ext", "hv-vendor-id", "hv-xmm-input"),
)
_NO_SPINLOCKS = str(2**32 - 1)
_SCALAR: Any = bool | int | str
"""Any, for to mypy a union is no type that a value could have as an argument."""


class _Asker:
    """One QEMU's monitor, with typed replies."""

    def __init__(self, monitor: Monitor, *, hotplugged: bool) -> None:
        self.monitor = monitor
        self.hotplugged = hotplugged
        self._slots = asyncio.Semaphore(_PARALLEL_LIMIT)

    async def ask(self, kind: type[_Decoded], command: str, **arguments: Any) -> _Decoded:
        """Asks what every QEMU must answer."""
        async with self._slots:
            reply = await self.monitor.execute(command, arguments or None)
        try:
            return msgspec.convert(reply, kind)
        except msgspec.ValidationError as error:
            raise ReplyError(f"{command}'s reply makes no sense: {error}", command=command) from error

    async def ask_maybe(
        self, kind: type[_Decoded], otherwise: _Item, command: str, **arguments: Any
    ) -> _Decoded | _Item:
        """Asks what some QEMU may not know; `otherwise` then."""
        try:
            return await self.ask(kind, command, **arguments)
        except CommandError:
            return otherwise

    async def property(self, kind: type[_Decoded], otherwise: _Item, path: str, name: str) -> _Decoded | _Item:
        """Asks for an object's property; `otherwise` when it has none of that name."""
        return await self.ask_maybe(kind, otherwise, "qom-get", path=path, property=name)

    async def text(self, command_line: str) -> str | None:
        """Asks the monitor for people."""
        return await self.ask_maybe(str, None, "human-monitor-command", **{"command-line": command_line})

    async def children(self, path: str) -> dict[str, str]:
        """Asks for the types of an object's children, by name."""
        named = await self.ask_maybe(tuple[replies.Named, ...], (), "qom-list", path=path)
        return {one.name: one.child_type for one in named if one.child_type}


async def take_inventory(monitor: Monitor, *, hotplugged: bool = True) -> Inventory:
    """Asks a QEMU what it is made of; works while it waits for a migration, and while its guest runs.

    Args:
        monitor: Its monitor.
        hotplugged: Whether to tell what was hot-plugged, and what is needed to say it on a command line. Of use at a
            source alone.

    Raises:
        LivemigError: As `Monitor.execute`; `ReplyError` when an answer is not what QEMU's schema says.
    """
    asker = _Asker(monitor, hotplugged=hotplugged)
    kvm = await asker.ask_maybe(replies.Kvm, replies.Kvm(enabled=False), "query-kvm")
    version, machine, memory, cpus, identity, devices, drives, networks, capabilities = await _all(
        asker.ask(replies.VersionReply, "query-version"),
        asker.property(str, "", "/machine", "type"),
        _memory(asker),
        _cpus(asker, kvm=kvm.enabled),
        _identity(asker),
        _devices(asker),
        asker.ask_maybe(tuple[replies.DriveReply, ...], (), "query-block"),
        asker.text("info network"),
        query_capabilities(monitor),
    )
    return Inventory(
        version=(version.qemu.major, version.qemu.minor, version.qemu.micro),
        machine_type=machine.removesuffix("-machine"),
        accelerator="kvm" if kvm.enabled else "tcg",
        memory=memory,
        cpus=cpus,
        networks=read_networks(networks or ""),
        capabilities=frozenset(capabilities),
        drives=tuple(drive.drive() for drive in drives),
        **identity,
        **devices,
    )


async def take_inventories(source: Monitor, destination: Monitor) -> tuple[Inventory, Inventory]:
    """Takes both, the destination's first: should a question be one that ends this QEMU, it does not end the guest.

    Raises:
        LivemigError: As `take_inventory`; nothing was asked of the source when the destination did not answer.
    """
    there = await take_inventory(destination, hotplugged=False)
    return await take_inventory(source), there


async def _all(*awaitables: Awaitable[Any]) -> list[Any]:
    """Awaits all; when one fails, ends the others before it raises."""
    tasks = [asyncio.ensure_future(one) for one in awaitables]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _each(function: Callable[[_Item], Awaitable[_Result]], items: Iterable[_Item]) -> list[_Result]:
    return await _all(*(function(item) for item in items))


async def _memory(asker: _Asker) -> Memory:
    machine, main, blocks, devices, backends = await _all(
        asker.property(replies.MachineMemory, replies.MachineMemory(), "/machine", "memory"),
        asker.property(str, "", "/machine", "memory-backend"),
        asker.ask(replies.Text, "x-query-ramblock"),
        asker.ask_maybe(tuple[replies.MemoryDeviceReply, ...], (), "query-memory-devices"),
        asker.children("/objects"),
    )
    found = read_ram_blocks(blocks.human_readable_text)
    if not found:
        raise ReplyError("x-query-ramblock names no RAM block", command="x-query-ramblock")
    return Memory(
        base_bytes=machine.size,
        slots=machine.slots,
        max_bytes=machine.max_size,
        main_block=main.rpartition("/")[2] or max(found, key=lambda block: block.used_bytes).name,
        blocks=found,
        devices=tuple(device.memory_device() for device in devices),
        backends={name: kind for name, kind in backends.items() if kind.startswith("memory-backend")},
    )


async def _cpus(asker: _Asker, *, kvm: bool) -> Cpus:
    topology, places, fast = await _all(
        asker.property(dict[str, int], {}, "/machine", "smp"),
        asker.ask_maybe(tuple[replies.CpuPlace, ...], (), "query-hotpluggable-cpus"),
        asker.ask(tuple[replies.FastCpu, ...], "query-cpus-fast"),
    )
    path = min(fast, key=lambda cpu: cpu.cpu_index).qom_path if fast else ""
    words, tsc_hz, properties = await _all(
        asker.property(tuple[replies.FeatureWord, ...], (), path, "feature-words"),
        asker.property(int, 0, path, "tsc-frequency"),
        _model(asker, path, kvm=kvm),
    )
    flags = await _each(lambda place: _is_hotplugged(asker, place.qom_path), places)
    cpus = tuple(place.cpu(hotplugged=flag) for place, flag in zip(places, flags, strict=True))
    if not cpus:  # a machine that plugs no vCPUs tells their number alone
        cpus = tuple(Cpu(place=f"vCPU {cpu.cpu_index}", type="", present=True) for cpu in fast)
    return Cpus(
        places=tuple(sorted(cpus, key=lambda cpu: cpu.place)),
        topology=topology,
        features={word.name: word.features for word in words if word.features},
        properties=properties,
        tsc_hz=tsc_hz,
    )


async def _is_hotplugged(asker: _Asker, path: str) -> bool:
    if not asker.hotplugged or not path.startswith((_PERIPHERAL, _ANONYMOUS)):
        return False
    return await asker.property(bool, otherwise=False, path=path, name="hotplugged")


async def _model(asker: _Asker, path: str, *, kvm: bool) -> dict[str, str]:
    found = await _model_properties(asker, path, _MODEL_PROPERTIES + (_HYPERV_BASICS if kvm else ()))
    if found.get("hv-spinlocks") == _NO_SPINLOCKS:
        del found["hv-spinlocks"]
    if any(name in found for name in _HYPERV_BASICS):
        found |= await _model_properties(asker, path, _HYPERV_OTHERS)
    return found


async def _model_properties(asker: _Asker, path: str, names: tuple[str, ...]) -> dict[str, str]:
    values = await _each(lambda name: asker.property(_SCALAR, "", path, name), names)
    return {name: str(value) for name, value in zip(names, values, strict=True) if value not in ("", False)}


async def _identity(asker: _Asker) -> dict[str, Any]:
    uuid, generation = await _all(
        asker.ask_maybe(replies.Uuid, replies.Uuid(uuid=""), "query-uuid"),
        asker.ask_maybe(replies.GenerationId, replies.GenerationId(guid=""), "query-vm-generation-id"),
    )
    return {"uuid": uuid.uuid, "generation_id": generation.guid}


async def _devices(asker: _Asker) -> dict[str, Any]:
    """Asks for the tree, tells what came by ``-device``, and asks for the defaults of what was hot-plugged."""
    tree, named, anonymous = await _all(
        asker.text("info qtree"), asker.children(_PERIPHERAL), asker.children(_ANONYMOUS)
    )
    if tree is None:
        return {"devices": None}
    paths = [f"{_PERIPHERAL}/{name}" for name in named] + [f"{_ANONYMOUS}/{name}" for name in anonymous]
    flags = await _each(lambda path: _is_hotplugged(asker, path), paths)
    hotplugged = {path.rpartition("/")[2] for path, flag in zip(paths, flags, strict=True) if flag}
    late_types = {kind for name, kind in anonymous.items() if name in hotplugged}
    devices = tuple(
        _device_known(device, named, frozenset(anonymous.values()), hotplugged, late_types)
        for device in read_tree(tree)
    )
    types = sorted({device.type for device in devices if device.hotplugged})
    defaults = await _each(lambda kind: _defaults(asker, kind), types)
    on_disks = any(device.hotplugged and device.properties.get("drive") for device in devices)
    return {
        "devices": devices,
        "loose_devices": _loose_devices(devices, named, anonymous),
        "defaults": dict(zip(types, defaults, strict=True)),
        "nodes": await _nodes(asker) if on_disks else {},
    }


def _device_known(
    device: Device, named: dict[str, str], types: frozenset[str], hotplugged: set[str], late_types: set[str]
) -> Device:
    by_user = device.id in named if device.id else device.type in types
    late = device.id in hotplugged if device.id else by_user and device.type in late_types
    return msgspec.structs.replace(device, built_in=not by_user, hotplugged=late)


def _loose_devices(devices: tuple[Device, ...], named: dict[str, str], anonymous: dict[str, str]) -> dict[str, str]:
    """Returns what ``info qtree`` leaves out: devices on no bus, such as vmgenid. Memory and vCPUs are told apart."""
    ids, types = {device.id for device in devices}, {device.type for device in devices}
    loose = {name: kind for name, kind in named.items() if name not in ids}
    numbers: Counter[str] = Counter()
    for kind in sorted(anonymous.values()):
        if kind not in types:
            numbers[kind] += 1
            loose[f"{kind} #{numbers[kind]}"] = kind
    plugged_apart = ("pc-dimm", "nvdimm")
    return {name: kind for name, kind in loose.items() if kind not in plugged_apart and not kind.endswith("-cpu")}


async def _defaults(asker: _Asker, kind: str) -> dict[str, str]:
    properties = await asker.ask_maybe(tuple[replies.Property, ...], (), "device-list-properties", typename=kind)
    return {one.name: _as_text(one.default_value) for one in properties}


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else plain(str(value))


async def _nodes(asker: _Asker) -> dict[str, BlockNode]:
    nodes, graph = await _all(
        asker.ask_maybe(tuple[replies.BlockNodeReply, ...], (), "query-named-block-nodes", flat=True),
        asker.ask_maybe(replies.Graph, replies.Graph(), "x-debug-query-block-graph"),
    )
    return replies.block_nodes(nodes, graph)
