"""Compares the guests' memory: its size, the RAM blocks that the stream names, plugged memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from livemig.core.finding import Finding, Severity, Topic
from livemig.qemu.compare_arguments import memory_arguments, shown, size_argument
from livemig.qemu.inventory import Inventory, Memory, MemoryDevice, RamBlock

_refusal = partial(Finding, severity=Severity.REFUSAL, topic=Topic.MEMORY)
_warning = partial(Finding, severity=Severity.WARNING, topic=Topic.MEMORY)


def compare_memory(source: Inventory, destination: Inventory) -> Iterator[Finding]:
    """The size, room for more, the main block's name, and what was plugged."""
    here, there = source.memory, destination.memory
    if here.base_bytes != there.base_bytes:
        yield _differs("memory", _size(here.base_bytes), _size(there.base_bytes), _memory_option(here))
    room_here, room_there = _room(here), _room(there)
    if room_here != room_there:
        yield _differs("room for plugged memory", room_here, room_there, _memory_option(here))
    if here.main_block != there.main_block:
        yield _differs(
            "RAM block of the main memory",
            here.main_block,
            there.main_block,
            f"give the destination's main memory the id {here.main_block} (`-object memory-backend-…,id="
            f"{here.main_block}` with `-machine memory-backend={here.main_block}`)",
        )
    yield from _compare_devices(source, destination)


def compare_ram_blocks(source: Inventory, destination: Inventory, refused_places: frozenset[str]) -> Iterator[Finding]:
    """The RAM blocks, in both directions, but those that another finding explains.

    Args:
        source: The source.
        destination: The destination.
        refused_places: Places of devices that are refused already.
    """
    here = {block.name: block for block in source.memory.blocks}
    there = {block.name: block for block in destination.memory.blocks}
    explained = _explained(source.memory, destination.memory)
    for name in sorted({*here, *there}):
        place = name.partition("/")[0]
        if name in explained or place in refused_places or name.rpartition("/")[2] in explained:
            continue
        finding = _compare_block(name, here.get(name), there.get(name))
        if finding is not None:
            yield finding


def _explained(here: Memory, there: Memory) -> set[str]:
    """Names of blocks, or of their backends, that findings about memory speak of."""
    explained = set()
    if here.base_bytes != there.base_bytes or here.main_block != there.main_block:
        explained |= {here.main_block, there.main_block}
    mine, other = ({(device.address, _describe(device)): device for device in side.devices} for side in (here, there))
    return explained | {(mine.get(key) or other[key]).backend for key in mine.keys() ^ other.keys()}


def _compare_block(name: str, here: RamBlock | None, there: RamBlock | None) -> Finding | None:
    subject = f"RAM block {name}"
    device_remedy = "start the destination with the device or memory backend it belongs to"
    if there is None and here is not None:
        size = _size(here.used_bytes)
        return _refusal(
            subject=subject,
            source=size,
            destination="",
            sentence=f"{subject} ({size}) is missing at the destination",
            remedy=device_remedy,
        )
    if here is None or there is None:
        size = "" if there is None else _size(there.used_bytes)
        return _refusal(
            subject=subject,
            source="",
            destination=size,
            sentence=f"{subject} ({size}) is at the destination only",
            remedy="start the destination without the device or memory backend it belongs to",
        )
    if here.used_bytes != there.used_bytes and not (there.resizable and here.used_bytes <= there.total_bytes):
        return _differs(subject, _size(here.used_bytes), _size(there.used_bytes), _block_remedy(name, here))
    if here.page_size != there.page_size:
        return _warning(
            subject=subject,
            source=here.page_size,
            destination=there.page_size,
            sentence=f"{subject} has pages of {here.page_size} at the source, {there.page_size} at the destination: "
            "post-copy would be refused",
            remedy="back the destination's memory as the source's is",
        )
    return None


def _block_remedy(name: str, here: RamBlock) -> str:
    if name.endswith(".rom"):
        return f"give the destination the source's option ROM (`romfile=`), or `romsize={here.used_bytes}` there"
    if name == "pc.bios":
        return "start the destination with the source's firmware (`-bios`)"
    return "start the destination with the source's size"


def _compare_devices(source: Inventory, destination: Inventory) -> Iterator[Finding]:
    here = {device.address: device for device in source.memory.devices}
    there = {device.address: device for device in destination.memory.devices}
    for address in sorted({*here, *there}):
        mine, other = here.get(address), there.get(address)
        if mine is not None and other is None:
            arguments = memory_arguments(mine, source)
            yield _refusal(
                subject=_title(mine),
                source=_describe(mine),
                destination="",
                sentence=f"{_title(mine)} ({_describe(mine)}) is missing at the destination",
                remedy=f"start the destination with `{shown(arguments)}`",
                arguments=tuple(arguments),
            )
        elif other is not None and mine is None:
            yield _refusal(
                subject=_title(other),
                source="",
                destination=_describe(other),
                sentence=f"{_title(other)} ({_describe(other)}) is at the destination only",
                remedy="start the destination without it",
            )
        elif mine is not None and other is not None and _describe(mine) != _describe(other):
            remedy = f"start the destination with `{shown(memory_arguments(mine, source))}` instead"
            yield _differs(_title(mine), _describe(mine), _describe(other), remedy)


def _title(device: MemoryDevice) -> str:
    return f"memory device {device.id or device.type} at {device.address:#x}"


def _describe(device: MemoryDevice) -> str:
    """What the stream or the guest knows of it; the device's id is neither's."""
    slot = f", slot {device.slot}" if device.slot >= 0 else ""
    return f"{device.type} of {_size(device.size_bytes)}{slot}, node {device.node}, backend {device.backend}"


def _room(memory: Memory) -> str:
    if not memory.slots and memory.max_bytes <= memory.base_bytes:
        return "none"
    return f"{memory.slots} slots up to {_size(memory.max_bytes)}"


def _memory_option(memory: Memory) -> str:
    option = f"-m {size_argument(memory.base_bytes)}"
    if memory.slots or memory.max_bytes > memory.base_bytes:
        option += f",slots={memory.slots},maxmem={size_argument(memory.max_bytes)}"
    return f"start the destination with `{option}`"


def _differs(subject: str, source: str, destination: str, remedy: str) -> Finding:
    return _refusal(
        subject=subject,
        source=source,
        destination=destination,
        sentence=f"{subject} is {source} at the source, {destination} at the destination",
        remedy=remedy,
    )


def _size(size_bytes: int) -> str:
    for unit, unit_bytes in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes and size_bytes % unit_bytes == 0:
            return f"{size_bytes // unit_bytes} {unit}"
    return f"{size_bytes} B"
