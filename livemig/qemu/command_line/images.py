"""Brings the images in a command line up to what is in the drives by now: snapshots taken, media changed. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

from livemig.qemu.command_line.options import option
from livemig.qemu.command_line.request import Image
from livemig.qemu.command_line.rewriting import Entry, Rewriting

_SHORT = {"cdrom": ("ide1-cd0", "ide2-cd0"), "hda": ("ide0-hd0",), "hdb": ("ide0-hd1", "ide1-hd0")}
"""The names that QEMU gives to what its short options make, of a PC and of a q35."""
_EMPTY = {"cdrom": "index=2,media=cdrom"}
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*:")
_FORMATS = frozenset({"raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "luks", "parallels", "bochs", "dmg"})
"""Above another kind of node (a filter of a running job, a throttle) the file's name is that of something else."""


def with_images(entries: Iterable[Entry], rewriting: Rewriting) -> list[Entry]:
    """Returns the options with each drive's image as it is now.

    Of ``-drive`` with an id, and of the short options, where both the old and the new name are plain paths. What is
    not followed (``-blockdev``) is found by comparing both sides.
    """
    return [_followed(entry, rewriting) for entry in entries]


def _followed(entry: Entry, rewriting: Rewriting) -> Entry:
    image = _image_of(entry, rewriting.request.images)
    path = entry.get("file") if entry.name == "drive" else entry.value
    if image is None or not path or not _is_plain(path):
        return entry
    if not image.file:
        rewriting.changed("disk image", path, "none, since its medium was taken out")
        return _emptied(entry)
    is_same = rewriting.request.absolute(image.file) == rewriting.request.absolute(path)
    if is_same or image.format not in _FORMATS or not _is_plain(image.file):
        return entry
    rewriting.changed("disk image", path, f"{image.file}, since it was changed")
    if entry.name != "drive":
        return Entry(option(entry.name, image.file))
    entry.properties.set("file", image.file)
    if entry.get("format") is not None:
        entry.properties.set("format", image.format)
    return entry


def _image_of(entry: Entry, images: Mapping[str, Image]) -> Image | None:
    names = _SHORT.get(entry.name, ())
    if entry.name == "drive" and (identity := entry.get("id")):
        names = (identity,)
    return next((images[name] for name in names if name in images), None)


def _emptied(entry: Entry) -> Entry:
    if entry.name in _EMPTY:
        return Entry(option("drive", _EMPTY[entry.name]))
    if entry.name == "drive":
        entry.properties.remove("file")
        entry.properties.remove("format")
    return entry


def _is_plain(path: str) -> bool:
    return not _PROTOCOL.match(path.partition("/")[0]) and posixpath.basename(path) != ""
