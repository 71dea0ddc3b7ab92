"""Compares what is in the drives: size, read-only, medium, and which file. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec

from livemig.core.finding import Finding, Severity, Topic
from livemig.qemu.inventory import Device, Drive, Inventory, Medium


class ImagePair(msgspec.Struct, frozen=True, kw_only=True):
    """What is in one drive, by its name on each side.

    Attributes:
        title: The drive, for a sentence.
        subject: What a finding about it is about.
        source: The image as the source names it.
        destination: The image as the destination names it.
        writable: Whether either may write to it.
    """

    title: str
    subject: str
    source: str
    destination: str
    writable: bool


_refusal = partial(Finding, severity=Severity.REFUSAL, topic=Topic.DISK)
_warning = partial(Finding, severity=Severity.WARNING, topic=Topic.DISK)


def compare_disks(source: Inventory, destination: Inventory, *, shared: bool) -> Iterator[Finding]:
    """The media of the drives that both sides have; drives on one side only are devices on one side only.

    Args:
        source: The source.
        destination: The destination.
        shared: Whether both see the same images.
    """
    for device, mine, other in _drives(source, destination):
        yield from _compare_media(device, mine, other, shared=shared)


def image_pairs(source: Inventory, destination: Inventory) -> Iterator[ImagePair]:
    """The drives with a medium on both sides, whatever it is called: one name may well be two files."""
    for device, mine, other in _drives(source, destination):
        if mine is not None and other is not None:
            yield ImagePair(
                title=_title(device),
                subject=_subject(device),
                source=mine.file,
                destination=other.file,
                writable=not (mine.read_only and other.read_only),
            )


def _drives(source: Inventory, destination: Inventory) -> Iterator[tuple[Device, Medium | None, Medium | None]]:
    if source.machine_type != destination.machine_type:
        return
    there = {device.place: device for device in destination.devices or ()}
    for device in source.devices or ():
        other = there.get(device.place)
        if other is not None and other.type == device.type and "drive" in device.properties:
            yield device, _medium(device, source), _medium(other, destination)


def _title(device: Device) -> str:
    return f"disk {device.properties['drive'] or device.name} of {device.title}"


def _subject(device: Device) -> str:
    return f"disk of device {device.name} at {device.place}"


def _medium(device: Device, inventory: Inventory) -> Medium | None:
    drive = _drive_of(device, inventory)
    return None if drive is None else drive.medium


def _drive_of(device: Device, inventory: Inventory) -> Drive | None:
    path = f"/machine/peripheral/{device.id}"
    value = device.properties.get("drive", "")
    for drive in inventory.drives:
        if device.id and drive.path in (path, f"{path}/virtio-backend"):
            return drive
    return next((drive for drive in inventory.drives if value and value in (drive.name, drive.node)), None)


def _compare_media(device: Device, mine: Medium | None, other: Medium | None, *, shared: bool) -> Iterator[Finding]:
    title, subject = _title(device), _subject(device)
    if mine is None or other is None:
        if mine is not None or other is not None:
            yield _one_medium(title, subject, mine, other)
        return
    if mine.size_bytes != other.size_bytes:
        smaller = other.size_bytes < mine.size_bytes
        yield (_refusal if smaller else _warning)(
            subject=subject,
            source=f"{mine.size_bytes} bytes",
            destination=f"{other.size_bytes} bytes",
            sentence=f"{title} has {mine.size_bytes} bytes at the source, {other.size_bytes} at the destination",
            remedy="give the destination the same image" + ("" if shared else ", or one of the same size to copy into"),
        )
    if mine.read_only != other.read_only:
        modes = ["read-only" if medium.read_only else "writable" for medium in (mine, other)]
        yield _refusal(
            subject=subject,
            source=modes[0],
            destination=modes[1],
            sentence=f"{title} is {modes[0]} at the source, {modes[1]} at the destination",
            remedy=f"start the destination with `read-only={'on' if mine.read_only else 'off'}` for it",
        )
    if shared:
        yield from _compare_images(title, subject, mine, other)


def _one_medium(title: str, subject: str, mine: Medium | None, other: Medium | None) -> Finding:
    if mine is not None:
        return _refusal(
            subject=subject,
            source=mine.file,
            destination="",
            sentence=f"{title} has a medium at the source ({mine.file}), none at the destination",
            remedy="start the destination with that medium in the drive",
        )
    file = "" if other is None else other.file
    return _refusal(
        subject=subject,
        source="",
        destination=file,
        sentence=f"{title} has no medium at the source, one at the destination ({file})",
        remedy="start the destination with the drive empty",
    )


def _compare_images(title: str, subject: str, mine: Medium, other: Medium) -> Iterator[Finding]:
    if mine.format != other.format:
        yield _refusal(
            subject=subject,
            source=mine.format,
            destination=other.format,
            sentence=f"{title} is read as {mine.format} at the source, as {other.format} at the destination",
            remedy=f"start the destination with the format {mine.format} for it",
        )
    if mine.file != other.file:
        yield _warning(
            subject=subject,
            topic=Topic.IMAGE,
            source=mine.file,
            destination=other.file,
            sentence=f"{title} is {mine.file} at the source, {other.file} at the destination",
            remedy="see that these are the same image: QEMU does not",
        )
