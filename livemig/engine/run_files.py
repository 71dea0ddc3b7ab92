"""The files of a run that is driven: a lock that says so, and the socket that its engine is asked through.

The lock ends with the process that holds it, however that ends, so that "nobody drives it" is proven. It holds space,
too, which the journal is given when the disk is full.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from livemig.core.errors import ControlError, JournalError
from livemig.engine.journal import journal_folder

BEGINNING_S = 60.0
"""So long after it took its files a run has written itself down."""
RESERVED_BYTES = 256 * 1024
"""Far more than a run writes to the journal."""
_ID = re.compile(r"[0-9a-z][0-9a-z-]{0,31}")


def runs_folder() -> Path:
    """Returns the folder of the runs' files."""
    return journal_folder() / "runs"


def socket_path(run_id: str) -> Path:
    """Returns where the engine of a run listens."""
    return runs_folder() / f"{run_id}.sock"


def is_id(text: str) -> bool:
    """Whether a text may be a run's id, and so the name of a file."""
    return _ID.fullmatch(text) is not None


class RunFiles:
    """The files of one run, held by this process. `close` lets go of the run."""

    def __init__(self, run_id: str, descriptor: int) -> None:
        """For `hold`."""
        self.run_id = run_id
        self._descriptor = descriptor

    @classmethod
    def hold(cls, run_id: str, *, reserve: bool) -> RunFiles:
        """Takes the run, so that nobody else drives it.

        Args:
            run_id: The run's id.
            reserve: Whether to take space for the journal.

        Raises:
            ControlError: When somebody drives it.
            JournalError: When the files can't be made, or there is no space.
        """
        path = runs_folder() / f"{run_id}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            files = cls(run_id, _locked(path))
            if reserve:
                files._reserve()
        except BlockingIOError as error:
            raise ControlError(f"run {run_id} is being driven", run_id=run_id) from error
        except OSError as error:
            raise JournalError(
                f"nothing can be kept in {path.parent}: {error.strerror or error}; set XDG_STATE_HOME to a folder with "
                "room on a local disk",
                path=str(path),
            ) from error
        return files

    def _reserve(self) -> None:
        try:
            os.posix_fallocate(self._descriptor, 0, RESERVED_BYTES)
        except OSError:
            self.close()
            raise

    def free_space(self) -> bool:
        """Gives back the space that was reserved; returns whether there was any."""
        held = os.fstat(self._descriptor).st_blocks > 0
        if held:
            os.ftruncate(self._descriptor, 0)
        return held

    def close(self) -> None:
        """Lets go of the run, and removes its files. Can be repeated."""
        if self._descriptor < 0:
            return
        for path in (socket_path(self.run_id), runs_folder() / f"{self.run_id}.lock"):
            path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = -1


def is_driven(run_id: str) -> bool:
    """Whether a process drives the run: an engine, or one that recovers it."""
    try:
        descriptor = os.open(runs_folder() / f"{run_id}.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_dead(settled: Callable[[str], bool | None]) -> None:
    """Removes the files of runs that are over, which one that was killed at its very end has left. Raises nothing.

    Args:
        settled: Whether a run has ended well known; None when nothing is known of it, as of one that begins just now.
    """
    with contextlib.suppress(OSError):
        for path in tuple(runs_folder().glob("*.lock")):
            over = settled(path.stem) if is_id(path.stem) else False
            if over or (over is None and time.time() - path.stat().st_mtime > BEGINNING_S):
                with contextlib.suppress(OSError):
                    RunFiles(path.stem, _locked(path)).close()


def _locked(path: Path) -> int:
    """Opens and locks the file; again when it was removed by who held it last, in between.

    Raises:
        BlockingIOError: When it is locked.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)
