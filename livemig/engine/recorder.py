"""Writes the trace of a run to a file, line by line. A disk that fails costs the trace, never the guest."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from livemig.core.errors import PlanError
from livemig.core.trace import TraceRecord, encode_record

HELD_BYTES_MOST = 2**20


class TraceRecorder:
    """Appends records to a file; while the guest stands still they are held in memory, so that no disk delays it.

    Attributes:
        failure: Why nothing is written any more, or None.
    """

    def __init__(self, path: Path) -> None:
        """Takes hold of the file. What an earlier run wrote there stays until something is written.

        Raises:
            PlanError: When it can't be written. Nothing was touched.
        """
        self.failure: str | None = None
        self._held = bytearray()
        self._holding = False
        self._path, self._is_new, self._is_begun = path, False, False
        try:
            self._is_new = not path.exists()
            self._file: BinaryIO | None = path.open("ab", buffering=0)
        except OSError as error:
            raise PlanError(f"the trace {path} can't be written: {error.strerror}; name another file") from error

    def write(self, record: TraceRecord) -> None:
        """Adds a record. Raises nothing; see `failure`."""
        if self._file is None:
            return
        self._held += encode_record(record)
        if not self._holding or len(self._held) > HELD_BYTES_MOST:
            self._flush()

    def discard(self) -> None:
        """Drops what is held and lets go of the file, for a run that never began: an older trace stays as it was."""
        self._held.clear()
        self.close()
        if self._is_new and not self._is_begun:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def hold(self) -> None:
        """Keeps what comes in memory until `release`."""
        self._holding = True

    def release(self) -> None:
        """Writes what was held and writes on directly."""
        self._holding = False
        self._flush()

    def close(self) -> None:
        """Writes what was held and closes the file. Raises nothing; see `failure`."""
        self.release()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _flush(self) -> None:
        if self._file is None or not self._held:
            return
        try:
            self._begin(self._file)
            while self._held:
                del self._held[: self._file.write(self._held)]  # a disk about to be full takes a part
        except OSError as error:
            self.failure = f"the trace could not be written on: {error.strerror}"
            self._file.close()
            self._file = None
        self._held.clear()

    def _begin(self, file: BinaryIO) -> None:
        if not self._is_begun and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.truncate(0)
        self._is_begun = True
