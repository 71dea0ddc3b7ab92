"""Tells whether two processes of one machine mean one file by two names, each as it sees its name. Only reads.

A name alone says little: it may be meant from another folder or another root, or lead to a file that took the place of
the one that a process still has open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import msgspec


class FileKey(msgspec.Struct, frozen=True):
    """A file by device and inode, or a block device by its number; of one host.

    Attributes:
        kind: ``file`` or ``block device``.
        major: The file's device, or the block device's major number.
        minor: The file's inode, or the block device's minor number.
    """

    kind: str
    major: int
    minor: int


class ImageKeys(msgspec.Struct, frozen=True, kw_only=True):
    """By what a file is known that a process has open by a name.

    Attributes:
        named: What its name leads to now, or None.
        held: All that the process has open, or None when that can't be seen.
    """

    named: FileKey | None
    held: frozenset[FileKey] | None


def image_keys(pid: int, paths: Iterable[str]) -> dict[str, ImageKeys]:
    """Looks at what a process means by some names."""
    held = _keys_held(pid)
    return {path: ImageKeys(named=_key_seen(pid, path), held=held) for path in paths}


def is_same_file(mine: ImageKeys, other: ImageKeys) -> bool | None:
    """Whether the file that one process has open by a name is what another one of the same host sees by its name.

    Args:
        mine: Of the process that has the file open.
        other: Of the other.

    Returns:
        None when it can't be told: a name that is no path there, or a process that may not be looked into.
    """
    if other.named is None or (mine.named is None and mine.held is None):
        return None
    if mine.held is not None and mine.named not in mine.held:
        return other.named in mine.held  # the name leads elsewhere by now: what it has open counts
    return mine.named == other.named


def _key_seen(pid: int, path: str) -> FileKey | None:
    folder = Path(f"/proc/{pid}/{'root' if path.startswith('/') else 'cwd'}")
    try:
        return _key(os.stat(folder / path.lstrip("/"))) if path else None  # noqa: PTH116
    except (OSError, ValueError):
        return None


def _keys_held(pid: int) -> frozenset[FileKey] | None:
    found = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208
    except OSError:
        return None
    for name in names:
        try:
            found.add(_key(os.stat(f"/proc/{pid}/fd/{name}")))  # noqa: PTH116
        except OSError:
            continue  # it was closed just now
    return frozenset(found)


def _key(found: os.stat_result) -> FileKey:
    if stat.S_ISBLK(found.st_mode):
        return FileKey("block device", os.major(found.st_rdev), os.minor(found.st_rdev))
    return FileKey("file", found.st_dev, found.st_ino)
