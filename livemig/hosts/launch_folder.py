"""The folder of a QEMU that livemig launches on this machine: made by one livemig alone, and removed with that QEMU.

A marker in it names the run that it was made for, and, until that run has hold of its QEMU, the livemig that makes it:
as long as that process lives nobody else may have the folder, nor look for a QEMU beside it.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import msgspec

from livemig.hosts.local import start_ticks_of
from livemig.hosts.places import MARKER, STDERR_NAME, listened_at

TAKEN = ".taken"
"""A folder in it, of the one that may look whether it is left over, and may replace it then."""
ANONYMOUS = "-"
"""Stands for a run without an id."""


class LaunchClaim(msgspec.Struct, frozen=True, kw_only=True):
    """What a marker says.

    Attributes:
        run_id: The run that the folder was made for; empty when that is not known.
        is_held: Whether the livemig that made it still lives and is about to launch.
    """

    run_id: str
    is_held: bool


def busy_text(folder: str) -> str:
    """Says that somebody else was quicker."""
    return f"another livemig has just begun to launch a QEMU in {folder}: choose another --dst-qmp"


def read_claim(folder: Path) -> LaunchClaim | None:
    """Returns what the marker of a folder says; None where there is none."""
    try:
        words = (folder / MARKER).read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    except OSError:
        return LaunchClaim(run_id="", is_held=False)  # another user's: the folder itself refuses whoever it has to
    held = len(words) == 3 and words[2] == str(start_ticks_of(int(words[1])))
    return LaunchClaim(run_id=words[0] if words else "", is_held=held)


def make_folder(folder: Path, owner: tuple[int, int], run_id: str) -> None:
    """Makes the folder, and the file for what QEMU writes, of its user alone. It is held until `release_folder`.

    Raises:
        FileExistsError: When another livemig has it.
        OSError: When it can't be made; nothing is left then.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        _make_room(folder)
        folder.mkdir(mode=0o700)
    try:
        _mark(folder, f"{run_id or ANONYMOUS} {os.getpid()} {start_ticks_of(os.getpid())}")
        written = folder / STDERR_NAME
        written.touch(mode=0o600)
        if owner[0] != os.geteuid():
            for path in (folder, written):
                os.chown(path, *owner)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def release_folder(folder: Path) -> None:
    """Lets others look at it: its QEMU is locked by the run.

    Raises:
        OSError: When that can't be written.
    """
    claim = read_claim(folder)
    if claim is not None:
        _mark(folder, claim.run_id)


def remove_folder(folder: Path, run_id: str | None = None) -> None:
    """Removes the folder of a QEMU that has ended; leaves any other alone, and one that somebody still uses.

    Args:
        folder: The folder.
        run_id: The run that may be about to launch in it: its own caller's.
    """
    claim = read_claim(folder)
    own = claim is not None and run_id is not None and claim.run_id == (run_id or ANONYMOUS)
    if own or _is_left_over(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _make_room(folder: Path) -> None:
    """Removes a folder that is left over. Of all who try only one looks and removes: it sees what it removes."""
    taken = folder / TAKEN
    try:
        taken.mkdir()
    except FileNotFoundError:
        return  # it has just gone
    except FileExistsError:
        raise FileExistsError(busy_text(str(folder))) from None
    if not _is_left_over(folder):
        taken.rmdir()
        raise FileExistsError(busy_text(str(folder)))
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}")
    folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _is_left_over(folder: Path) -> bool:
    """Whether nobody uses it: no livemig is about to, nobody listens in it. Without a marker it is just being made."""
    claim = read_claim(folder)
    if claim is None or claim.is_held:
        return False
    return not any(path.is_socket() and listened_at(path) for path in folder.glob("*"))


def _mark(folder: Path, text: str) -> None:
    """Writes the marker so that nobody ever reads half of it."""
    written = folder / f"{MARKER}.{secrets.token_hex(8)}"
    written.write_text(f"{text}\n", encoding="utf-8")
    written.rename(folder / MARKER)
