"""Compares what virtio devices offer, backends included: a tap offers what a user network can't. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from livemig.core.finding import Finding, Severity, Topic
from livemig.qemu.inventory import Inventory, Virtio

_BACKEND = "/virtio-backend"
_NOT_A_FEATURE = frozenset({"VHOST_USER_F_PROTOCOL_FEATURES"})
"""The same bit is, towards the guest, the mark of a bad driver."""


def compare_virtio(source: Inventory, destination: Inventory, differing_places: frozenset[str]) -> Iterator[Finding]:
    """Features that the guest uses and the destination lacks; QEMU refuses them only after all memory was sent.

    Between versions nothing is compared: QEMU names only the features that it knows.

    Args:
        source: The source.
        destination: The destination.
        differing_places: Places of devices that are refused already.
    """
    if source.version[:2] != destination.version[:2]:
        return
    places = {device.id: device.place for device in source.devices or () if device.id}
    there = {virtio.path: virtio for virtio in destination.virtio}
    for mine in source.virtio:
        other = there.get(mine.path)
        identity = mine.path.removesuffix(_BACKEND).rpartition("/")[2]
        if other is None or other.name != mine.name or places.get(identity, "") in differing_places:
            continue
        yield from _compare_features(identity, mine, other)


def _compare_features(identity: str, mine: Virtio, other: Virtio) -> Iterator[Finding]:
    used = sorted(mine.guest_features - other.host_features - _NOT_A_FEATURE)
    unused = sorted((mine.host_features ^ other.host_features) - set(used) - _NOT_A_FEATURE)
    subject = f"virtio features of {identity}"
    remedy = "give the destination's device the source's properties and kind of backend (-netdev, vhost)"
    if used:
        yield Finding(
            severity=Severity.REFUSAL,
            topic=Topic.DEVICE,
            subject=subject,
            source=", ".join(used),
            destination="",
            sentence=f"the guest's driver of {identity} ({mine.name}) uses {', '.join(used)}, which the destination "
            "does not offer",
            remedy=remedy,
        )
    elif unused:
        yield Finding(
            severity=Severity.WARNING,
            topic=Topic.DEVICE,
            subject=subject,
            source=", ".join(name for name in unused if name in mine.host_features),
            destination=", ".join(name for name in unused if name in other.host_features),
            sentence=f"{identity} ({mine.name}) offers other features at the destination, none of which the guest's "
            f"driver uses now: {', '.join(unused)}",
            remedy=remedy,
        )
