"""Compares the network backends as far as a guest can tell: what its card may offload to them. Pure.

Only the kinds are compared. QEMU would tell a virtio device's features one by one, but the command that does so
(``x-query-virtio-status``) ends a QEMU 11.1 with an assertion.
"""

from __future__ import annotations

from collections.abc import Iterator

from livemig.core.finding import Finding, Severity, Topic
from livemig.qemu.inventory import Inventory

_OFFLOADING = {"tap": "tap", "bridge": "tap", "vhost-user": "vhost-user", "vhost-vdpa": "vhost-vdpa"}
"""Backends that take checksums and segmentation off the guest, and which of them offer the same."""


def compare_networks(source: Inventory, destination: Inventory, refused_places: frozenset[str]) -> Iterator[Finding]:
    """Virtio cards whose backend is of another kind.

    A driver that uses what the backend offered can't do without: QEMU then fails when all memory was sent.

    Args:
        source: The source.
        destination: The destination.
        refused_places: Places of devices that are refused already.
    """
    there = {device.place: device for device in destination.devices or ()}
    for device in source.devices or ():
        other = there.get(device.place)
        if other is None or device.place in refused_places or not device.type.startswith("virtio-net"):
            continue
        kinds = [
            _kind(side, one.properties.get("netdev", "")) for side, one in ((source, device), (destination, other))
        ]
        offers = [_OFFLOADING.get(kind, "nothing") for kind in kinds]
        if offers[0] == offers[1] or "" in kinds:
            continue
        yield Finding(
            severity=Severity.WARNING if offers[0] == "nothing" else Severity.REFUSAL,
            topic=Topic.DEVICE,
            subject=f"network backend of device {device.name} at {device.place}",
            source=kinds[0],
            destination=kinds[1],
            sentence=f"{device.title} has a {kinds[0]} behind it at the source, a {kinds[1]} at the destination, which "
            "offers the guest's driver other offloads",
            remedy=f"start the destination with a {kinds[0]} as that -netdev",
        )


def _kind(inventory: Inventory, identity: str) -> str:
    network = inventory.networks.get(identity)
    return "" if network is None else network.type
