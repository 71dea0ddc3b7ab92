"""Compares two QEMUs before a byte moves: what the stream would reject late, or take and harm the guest by. Pure.

`compare` is the way in; each part of a machine has its own module. The same command line on both sides gives no
finding, whatever the guest has done since: nothing that a guest can change is looked at.
"""

from __future__ import annotations

from livemig.core.finding import Finding, ordered
from livemig.qemu.compare_arguments import device_arguments, memory_arguments, vcpu_argument
from livemig.qemu.compare_cpus import compare_cpus
from livemig.qemu.compare_devices import compare_devices
from livemig.qemu.compare_disks import ImagePair, compare_disks, image_pairs
from livemig.qemu.compare_machine import NEEDED_CAPABILITIES, compare_capabilities, compare_identity, compare_machine
from livemig.qemu.compare_memory import compare_memory, compare_ram_blocks
from livemig.qemu.compare_networks import compare_networks
from livemig.qemu.inventory import Inventory

__all__ = ["NEEDED_CAPABILITIES", "ImagePair", "compare", "hotplug_arguments", "image_pairs"]


def compare(
    source: Inventory,
    destination: Inventory,
    *,
    shared_disks: bool = True,
    needed_capabilities: frozenset[str] = NEEDED_CAPABILITIES,
) -> tuple[Finding, ...]:
    """Returns all that differs and matters, refusals first.

    Where the machine types differ, the devices are not compared: they differ with them.

    Args:
        source: The QEMU whose guest is to move.
        destination: The one that waits.
        shared_disks: Whether both see the same images. Where they are copied, their files and formats may differ.
        needed_capabilities: What both have to know of `migrate-set-capabilities`.
    """
    findings = [
        *compare_machine(source, destination),
        *compare_identity(source, destination),
        *compare_capabilities(source, destination, needed_capabilities),
        *compare_memory(source, destination),
        *compare_cpus(source, destination),
    ]
    if source.machine_type == destination.machine_type:
        differing = compare_devices(source, destination)
        findings += differing.findings
        findings += compare_ram_blocks(source, destination, differing.places)
        findings += compare_networks(source, destination, differing.places)
        findings += compare_disks(source, destination, shared=shared_disks)
    return ordered(findings)


def hotplug_arguments(inventory: Inventory) -> tuple[str, ...]:
    """Returns what a command line has to say besides, so that it makes what was plugged into this QEMU since its start.

    In an order that QEMU accepts: backends before devices, devices before what is plugged into them.
    """
    arguments: list[str] = []
    for memory_device in inventory.memory.devices:
        if memory_device.hotplugged:
            arguments += memory_arguments(memory_device, inventory)
    arguments += [part for cpu in inventory.cpus.places if cpu.hotplugged for part in ("-device", vcpu_argument(cpu))]
    for device in sorted(inventory.devices or (), key=lambda one: one.place):
        if device.hotplugged and not device.built_in:
            arguments += device_arguments(device, inventory)
    return tuple(arguments)
