"""Finds what was plugged into and out of a running source since its start, which its command line does not say.

Asks and changes nothing; `livemig.qemu.command_line` puts it into the destination's line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from livemig.core.errors import CommandError
from livemig.qemu.command_line import device_ids
from livemig.qemu.compare import hotplug_arguments
from livemig.qemu.inventory_query import take_inventory
from livemig.qemu.monitor import Monitor


class Hotplug(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from the command line.

    Attributes:
        plugged: The arguments that would make what was plugged in.
        unplugged: The ids of the devices that were taken out.
        generation_id: The guest's generation id, empty when it has none.
    """

    plugged: tuple[str, ...] = ()
    unplugged: frozenset[str] = frozenset()
    generation_id: str = ""


async def hotplug_since_start(monitor: Monitor, arguments: Sequence[str], config_files: Mapping[str, str]) -> Hotplug:
    """Compares the devices there are with the command line.

    The whole inventory is only taken where a device is there that the line does not name: each question is one that
    the guest's QEMU has to answer while it runs.

    Raises:
        CommandLineError: When the command line can't be read.
        LivemigError: When the source does not answer.
    """
    said = device_ids(arguments, config_files)
    there = await _device_ids(monitor)
    generation_id = ""
    if any("vmgenid" in argument for argument in arguments):
        generation_id = await _generation_id(monitor)
    if there is None:
        return Hotplug(generation_id=generation_id)
    plugged = hotplug_arguments(await take_inventory(monitor)) if there - said else ()
    return Hotplug(plugged=plugged, unplugged=said - there, generation_id=generation_id)


async def _device_ids(monitor: Monitor) -> frozenset[str] | None:
    try:
        children = await monitor.execute("qom-list", {"path": "/machine/peripheral"})
    except CommandError:
        return None
    return frozenset(child["name"] for child in children if child["type"].startswith("child<"))


async def _generation_id(monitor: Monitor) -> str:
    try:
        reply = await monitor.execute("query-vm-generation-id")
    except CommandError:
        return ""
    return str(reply["guid"])
