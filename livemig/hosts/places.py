"""Where a launched QEMU's files go on this machine: whether they can be made there, and making and removing them."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from livemig.hosts.process import Surroundings

MARKER = ".livemig"
"""A file by which a folder that livemig made is known."""
STDERR_NAME = "stderr"
"""A file in that folder, for what QEMU writes."""


def is_missing(path: str) -> bool:
    """Whether there is surely no such file; one that livemig may not look at is QEMU's to judge."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def why_no_socket(path: Path) -> str | None:
    """Why no socket may be made there: QEMU would delete whatever is there, even one that somebody listens at."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None if path.parent.is_dir() or path.parent.name.endswith(".livemig") else f"{path.parent} is no folder"
    except OSError as error:
        return f"{path} can't be looked at: {error.strerror}"
    if not stat.S_ISSOCK(mode):
        return f"{path} is there already and no socket: choose another path"
    return f"somebody listens at {path} already: choose another path" if listened_at(path) else None


def listened_at(path: Path) -> bool:
    """Whether somebody accepts connections at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True


def why_no_folder(folder: Path, owner: Surroundings) -> list[str]:
    """Why livemig's folder can't be made there, or QEMU's user could not make its sockets beside it."""
    parent = folder.parent
    if not parent.is_dir():
        return []  # said of the socket already
    reasons = []
    found = parent.stat()
    if owner.user != 0 and not may_write(found.st_uid, found.st_gid, found.st_mode, owner):
        reasons.append(f"user {owner.user}, who runs QEMU, can't write to {parent}: choose another --dst-qmp")
    if folder.exists():
        listened = [path for path in folder.glob("*") if path.is_socket() and listened_at(path)]
        if not (folder / MARKER).exists():
            reasons.append(f"{folder} is there already and not livemig's: choose another --dst-qmp")
        elif listened:
            reasons.append(f"a QEMU that livemig launched still uses {folder}: end it, or choose another --dst-qmp")
    return reasons


def may_write(user: int, group: int, mode: int, owner: Surroundings) -> bool:
    """Whether a process may write to a folder of this user, group and mode."""
    if user == owner.user:
        return bool(mode & stat.S_IWUSR)
    if group == owner.group or group in owner.groups:
        return bool(mode & stat.S_IWGRP)
    return bool(mode & stat.S_IWOTH)


def remove_dead_socket(path: Path) -> None:
    """Removes a socket that nobody listens at any more."""
    with contextlib.suppress(OSError):
        if path.is_socket() and not listened_at(path):
            path.unlink()
