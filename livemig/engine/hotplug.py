"""Finds what changed in a running source since its start, which its command line does not say: devices and images.

Asks and changes nothing; `livemig.qemu.command_line` puts it into the destination's line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from livemig.core.errors import CommandError
from livemig.qemu.command_line import Image, device_ids
from livemig.qemu.compare import hotplug_arguments
from livemig.qemu.inventory import Inventory
from livemig.qemu.inventory_query import take_inventory
from livemig.qemu.monitor import Monitor

_NAMED, _NAMELESS = "/machine/peripheral", "/machine/peripheral-anon"


class Hotplug(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from the command line.

    Attributes:
        plugged: The arguments that would make what was plugged in.
        unplugged: The ids of the command line's devices that were taken out, also of those that came back.
        addresses: Where the devices are that stayed, by id and property; empty unless some were taken out, for QEMU
            gives places by order.
        generation_id: The guest's generation id, empty when it has none.
        images: What is in its drives now, by QEMU's name for each.
    """

    plugged: tuple[str, ...] = ()
    unplugged: frozenset[str] = frozenset()
    addresses: Mapping[str, Mapping[str, str]] = {}
    generation_id: str = ""
    images: Mapping[str, Image] = {}


async def hotplug_since_start(monitor: Monitor, arguments: Sequence[str], config_files: Mapping[str, str]) -> Hotplug:
    """Compares the devices there are with the command line.

    The whole inventory is only taken where something changed: each question is one that the guest's QEMU has to
    answer while it runs.

    Raises:
        CommandLineError: When the command line can't be read.
        LivemigError: When the source does not answer.
    """
    said = device_ids(arguments, config_files)
    generation_id = ""
    if any("vmgenid" in text for text in (*arguments, *config_files.values())):
        generation_id = await _generation_id(monitor)
    images = await _images(monitor)
    named, nameless = await _children(monitor, _NAMED), await _children(monitor, _NAMELESS)
    if named is None or nameless is None:
        return Hotplug(generation_id=generation_id, images=images)
    plugged = {name for name in named if await _is_hotplugged(monitor, f"{_NAMED}/{name}")}
    plugged_nameless = [name for name in nameless if await _is_hotplugged(monitor, f"{_NAMELESS}/{name}")]
    unplugged = said - (named - plugged)
    if not (plugged or plugged_nameless or unplugged):
        return Hotplug(generation_id=generation_id, images=images)
    inventory = await take_inventory(monitor)
    return Hotplug(
        plugged=hotplug_arguments(inventory),
        unplugged=unplugged,
        addresses=_addresses(inventory, said - unplugged) if unplugged else {},
        generation_id=generation_id,
        images=images,
    )


async def _images(monitor: Monitor) -> dict[str, Image]:
    drives = await monitor.execute("query-block")
    return {drive["device"]: _image(drive.get("inserted")) for drive in drives if drive.get("device")}


def _image(inserted: Mapping[str, Any] | None) -> Image:
    return Image("", "") if inserted is None else Image(str(inserted["file"]), str(inserted["drv"]))


def _addresses(inventory: Inventory, names: frozenset[str]) -> dict[str, dict[str, str]]:
    devices = [device for device in inventory.devices or () if device.id in names and device.address]
    return {device.id: {"bus": device.bus, **device.address} for device in devices}


async def _children(monitor: Monitor, path: str) -> frozenset[str] | None:
    try:
        children = await monitor.execute("qom-list", {"path": path})
    except CommandError:
        return None
    return frozenset(child["name"] for child in children if child["type"].startswith("child<"))


async def _is_hotplugged(monitor: Monitor, path: str) -> bool:
    try:
        return bool(await monitor.execute("qom-get", {"path": path, "property": "hotplugged"}))
    except CommandError:
        return False  # it has just gone


async def _generation_id(monitor: Monitor) -> str:
    try:
        reply = await monitor.execute("query-vm-generation-id")
    except CommandError:
        return ""
    return str(reply["guid"])
