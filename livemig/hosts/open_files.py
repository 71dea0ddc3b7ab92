"""Tells whether two processes of this machine mean one file by two names, each as it sees its name. Only reads.

A name alone says little: it may be meant from another folder or another root, or lead to a file that took the place of
the one that a process still has open.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_Key = tuple[str, int, int]
"""A file by device and inode; a block device by its number."""


def is_same_file(pid: int, path: str, other_pid: int, other_path: str) -> bool | None:
    """Whether the file that one process has open by a name is what the other sees by its name.

    Args:
        pid: A process that has the file open.
        path: What it calls that file.
        other_pid: Another process.
        other_path: What that calls it.

    Returns:
        None when it can't be told: a name that is no path there, or a process that may not be looked into.
    """
    mine, other, held = _key_seen(pid, path), _key_seen(other_pid, other_path), _keys_held(pid)
    if other is None or (mine is None and held is None):
        return None
    if held is not None and mine not in held:
        return other in held  # the name leads elsewhere by now: what it has open counts
    return mine == other


def _key_seen(pid: int, path: str) -> _Key | None:
    folder = Path(f"/proc/{pid}/{'root' if path.startswith('/') else 'cwd'}")
    try:
        return _key(os.stat(folder / path.lstrip("/"))) if path else None  # noqa: PTH116
    except (OSError, ValueError):
        return None


def _keys_held(pid: int) -> set[_Key] | None:
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
    return found


def _key(found: os.stat_result) -> _Key:
    if stat.S_ISBLK(found.st_mode):
        return ("block device", os.major(found.st_rdev), os.minor(found.st_rdev))
    return ("file", found.st_dev, found.st_ino)
