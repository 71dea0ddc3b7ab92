"""What is remembered of the labs on this machine, under /run: written before anything is made, removed last of all.

So whatever ends a lab's maker, what it made can be found, and nothing else is taken for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from livemig.core.errors import LabError
from livemig.lab.two_hosts.layout import Layout

LABS_FOLDER = Path("/run/livemig-lab")
_LOCK_BOUND_S = 60.0
_LOCK_POLL_S = 0.05
_RECORD = "lab.json"
_MADE_SSHD_FOLDER = "made-run-sshd"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The process with which a lab ends.

    Attributes:
        pid: Its pid.
        started: When it started, in the kernel's ticks since boot: the pid may be another's by now.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Owner:
        """Describes a living process.

        Raises:
            OSError: When it has ended.
        """
        stat = Path(f"/proc/{pid}/stat").read_text()
        return cls(pid=pid, started=int(stat.rpartition(")")[2].split()[19]))

    @property
    def lives(self) -> bool:
        """Whether it is still there."""
        try:
            return Owner.of(self.pid) == self
        except OSError:
            return False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A lab that is there, or was being made.

    Attributes:
        layout: What it is made of.
        owner: With whom it ends; None when it stays until it is taken down.
        complete: Whether it was made to the end.
    """

    layout: Layout
    owner: Owner | None = None
    complete: bool = False

    def write(self) -> None:
        """Writes it in one piece."""
        folder = folder_of(self.layout.name)
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"{_RECORD}.new"
        new.write_bytes(msgspec.json.encode(self))
        new.replace(folder / _RECORD)


def folder_of(name: str) -> Path:
    """Where a lab has its files."""
    return LABS_FOLDER / name


def read(name: str) -> Record | None:
    """Returns what is remembered of a lab, or None.

    Raises:
        LabError: When the record can't be read.
    """
    path = folder_of(name) / _RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise LabError(f"{path} can't be read ({error}): remove {path.parent} once you know what it was") from error


def names() -> list[str]:
    """Names of all labs that are remembered."""
    return sorted(path.parent.name for path in LABS_FOLDER.glob(f"*/{_RECORD}"))


def used_indexes() -> set[int]:
    """The indexes that labs on this machine have."""
    return {record.layout.index for record in map(read, names()) if record is not None}


def note_sshd_folder() -> None:
    """Remembers that sshd's own folder was made by a lab, so that the last one takes it away."""
    (LABS_FOLDER / _MADE_SSHD_FOLDER).touch()


def forget_all(sshd_folder: Path) -> None:
    """Removes what the labs had in common, when there is none left."""
    if any(path.is_dir() for path in LABS_FOLDER.iterdir()):
        return
    made = LABS_FOLDER / _MADE_SSHD_FOLDER
    if made.exists():
        with contextlib.suppress(OSError):  # somebody else uses it by now
            sshd_folder.rmdir()
        made.unlink()
    (LABS_FOLDER / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        LABS_FOLDER.rmdir()


@asynccontextmanager
async def locked() -> AsyncIterator[None]:
    """Keeps others from making or removing labs; released by the kernel when this process ends.

    Raises:
        LabError: When another process holds it for too long, or it can't be had.
    """
    descriptor = await _lock()
    try:
        yield
    finally:
        os.close(descriptor)


async def _lock() -> int:
    end_s = asyncio.get_running_loop().time() + _LOCK_BOUND_S
    path = LABS_FOLDER / "lock"
    while asyncio.get_running_loop().time() < end_s:
        try:
            descriptor = _lock_file(path)
        except FileNotFoundError:
            continue  # the last lab has just gone, and the folder with it
        except OSError as error:
            raise LabError(f"{path} can't be made: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            await asyncio.sleep(_LOCK_POLL_S)
        os.close(descriptor)
    raise LabError(f"another livemig makes or removes a lab for more than {_LOCK_BOUND_S:.0f} s: try again")


def _lock_file(path: Path) -> int:
    path.parent.mkdir(exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the locked file is still the one at that path: the last lab takes it away."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
