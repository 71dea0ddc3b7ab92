"""Compares what both QEMUs are as a whole: machine type, accelerator, identity, what they can do. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from livemig.core.finding import Finding, Severity, Topic
from livemig.qemu.inventory import Inventory

NEEDED_CAPABILITIES = frozenset({"events", "return-path"})
"""Without them livemig sees no round end, and a destination that failed to load looks like a success."""

_refusal = partial(Finding, severity=Severity.REFUSAL)
_warning = partial(Finding, severity=Severity.WARNING)


def compare_machine(source: Inventory, destination: Inventory) -> Iterator[Finding]:
    """Machine type and accelerator, and a source that is known to lose writes."""
    if source.machine_type != destination.machine_type:
        yield _refusal(
            topic=Topic.MACHINE,
            subject="machine type",
            source=source.machine_type,
            destination=destination.machine_type,
            sentence=f"the machine type is {source.machine_type} at the source, {destination.machine_type} at the "
            "destination",
            remedy=f"start the destination with `-machine {source.machine_type}` and the source's other -machine "
            "options; the devices are compared after that",
        )
    if source.accelerator != destination.accelerator:
        yield _refusal(
            topic=Topic.MACHINE,
            subject="accelerator",
            source=source.accelerator,
            destination=destination.accelerator,
            sentence=f"the guest runs under {source.accelerator} at the source and would under "
            f"{destination.accelerator} at the destination, which has other interrupt controllers, clocks and CPU "
            "features",
            remedy=f"start the destination with `-accel {source.accelerator}`",
        )
    if source.accelerator == "tcg" and source.version[0] < 8:
        yield _warning(
            topic=Topic.MIGRATION,
            subject="guest writes under TCG",
            source=source.version_text,
            destination="",
            sentence=f"the source is QEMU {source.version_text} under TCG: that version loses guest writes while it "
            "migrates, and nothing but its version number tells",
            remedy="move it shut down, or under KVM, or take the risk with a guest that may crash",
        )


def compare_identity(source: Inventory, destination: Inventory) -> Iterator[Finding]:
    """UUID and VM generation id: the guest takes another one for being cloned."""
    if source.uuid != destination.uuid:
        yield _refusal(
            topic=Topic.IDENTITY,
            subject="UUID",
            source=source.uuid,
            destination=destination.uuid,
            sentence=f"the guest's UUID is {source.uuid} at the source, {destination.uuid} at the destination",
            remedy=f"start the destination with `-uuid {source.uuid}`",
        )
    here, there = source.generation_id, destination.generation_id
    if here and there and here != there:
        yield _refusal(
            topic=Topic.IDENTITY,
            subject="VM generation id",
            source=here,
            destination=there,
            sentence=f"the VM generation id is {here} at the source, {there} at the destination: the guest would take "
            "itself for a clone",
            remedy=f"start the destination with `-device vmgenid,guid={here}`, never with guid=auto",
        )


def compare_capabilities(source: Inventory, destination: Inventory, needed: frozenset[str]) -> Iterator[Finding]:
    """What livemig needs of both and one does not know."""
    for name in sorted(needed):
        for side, inventory in (("source", source), ("destination", destination)):
            if name not in inventory.capabilities:
                yield _refusal(
                    topic=Topic.MIGRATION,
                    subject=f"capability {name} of the {side}",
                    source="known" if name in source.capabilities else "",
                    destination="known" if name in destination.capabilities else "",
                    sentence=f"the {side}'s QEMU {inventory.version_text} has no migration capability {name}, which "
                    "this migration needs",
                    remedy=f"use a newer QEMU as the {side}, or leave out the option that needs {name}",
                )
