"""The journal: what every run intends and has done, in a SQLite file of the user's state folder, synced at each change.

Blocks: `livemig.engine.run_journal` keeps it off the event loop. What is wrong with the file is said when it is opened,
before anything of a guest is touched.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

import msgspec

from livemig.core.errors import JournalError
from livemig.engine.history import state_folder
from livemig.engine.run_record import RunRecord

VERSION = 1
ENDED_KEPT = 500
"""Runs that have ended, the latest; what is not settled is kept whatever its age."""
BUSY_BOUND_S = 3.0
"""How long another livemig may write, which takes some milliseconds unless its disk hangs."""

_SHARED_KINDS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "beegfs", "fuse.sshfs", "fuse.glusterfs"}
)
_ELSEWHERE = "set XDG_STATE_HOME to a folder on a local disk"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    id TEXT PRIMARY KEY, started_at TEXT NOT NULL, settled INTEGER NOT NULL, record BLOB NOT NULL
) WITHOUT ROWID
"""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RunRecord)
_Result = TypeVar("_Result")


def journal_folder() -> Path:
    """Returns the folder of the journal, and of what belongs to runs that are driven."""
    return state_folder()


class Journal:
    """The open file. For one thread at a time."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        """For `open_to_write` and `open_to_read`."""
        self.path = folder / "journal.sqlite"
        self._connection = connection

    @classmethod
    def open_to_write(cls, folder: Path | None = None) -> Self:
        """Opens the journal, and makes it where there is none.

        Raises:
            JournalError: When it is damaged, newer, not to be written, or on a network's disk, with the remedy.
        """
        folder = folder or journal_folder()
        path = folder / "journal.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise JournalError(
                f"no journal can be kept in {folder}: {_words(error)}; {_ELSEWHERE}", path=str(path)
            ) from error
        refuse_unsafe(folder, path)
        return cls._connected(folder, path, to_write=True)

    @classmethod
    def open_to_read(cls, folder: Path | None = None) -> Self | None:
        """Opens the journal that is there; None when there is none, or nothing was ever written to it.

        Raises:
            JournalError: When it is damaged or newer, or can't be read.
        """
        folder = folder or journal_folder()
        path = folder / "journal.sqlite"
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise JournalError(
                f"the journal {path} can't be read: {_words(error)}; {_ELSEWHERE}", path=str(path)
            ) from error
        journal = cls._connected(folder, path, to_write=False)
        if journal.version == 0:  # it was made on a full disk, and no run began
            journal.close()
            return None
        return journal

    @classmethod
    def _connected(cls, folder: Path, path: Path, *, to_write: bool) -> Self:
        try:
            connection = sqlite3.connect(path, timeout=BUSY_BOUND_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise JournalError(f"the journal {path} can't be opened: {error}; {_ELSEWHERE}", path=str(path)) from error
        journal = cls(folder, connection)
        try:
            journal._tried(journal._prepare if to_write else journal._check)
        except BaseException:
            journal.close()
            raise
        return journal

    def keep(self, record: RunRecord) -> None:
        """Writes a run's record, new or changed; it is on the disk when this returns.

        Raises:
            JournalError: When it can't be written; `is_full` says whether for lack of space.
        """
        row = (record.id, record.started_at, record.settled, _encoder.encode(record))
        self._tried(lambda: self._connection.execute("INSERT OR REPLACE INTO run VALUES (?, ?, ?, ?)", row))

    def record(self, run_id: str) -> RunRecord | None:
        """Returns a run's record, or None."""
        rows = self._tried(
            lambda: self._connection.execute("SELECT record FROM run WHERE id = ?", (run_id,)).fetchall()
        )
        return self._decoded(rows[0][0]) if rows else None

    def records(self, *, unsettled: bool = False) -> list[RunRecord]:
        """Returns all runs, the oldest first; or those alone that did not end well known."""
        where = " WHERE settled = 0" if unsettled else ""
        rows = self._tried(
            lambda: self._connection.execute(f"SELECT record FROM run{where} ORDER BY started_at, id").fetchall()  # noqa: S608  # a constant
        )
        return [self._decoded(row[0]) for row in rows]

    @property
    def version(self) -> int:
        """What the file says of its form; 0 before anything was written.

        Raises:
            JournalError: When it can't be read.
        """
        return int(self._tried(lambda: self._connection.execute("PRAGMA user_version").fetchone()[0]))

    def close(self) -> None:
        """Closes the file. Raises nothing."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def _prepare(self) -> None:
        self._check()
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # each commit is on the disk before it returns
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        old = "SELECT id FROM run WHERE settled = 1 ORDER BY started_at DESC LIMIT -1 OFFSET ?"
        ids = connection.execute(old, (ENDED_KEPT,)).fetchall()
        if ids:
            connection.executemany("DELETE FROM run WHERE id = ?", ids)

    def _check(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise JournalError(
                f"the journal {self.path} is of version {version}, of a newer livemig than this one: "
                f"use that one, or set XDG_STATE_HOME to another folder",
                path=str(self.path),
            )
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)

    def _tried(self, work: Callable[[], _Result]) -> _Result:
        try:
            return work()
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            raise self._error(error) from error

    def _decoded(self, text: bytes) -> RunRecord:
        try:
            return _decoder.decode(text)
        except (msgspec.DecodeError, ValueError) as error:
            raise self._damaged(str(error)) from error

    def _error(self, error: sqlite3.Error) -> JournalError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or type(error) is sqlite3.DatabaseError:
            return self._damaged(str(error))
        reasons = {
            sqlite3.SQLITE_FULL: f"the disk is full: free some space, or {_ELSEWHERE}",
            sqlite3.SQLITE_READONLY: f"it may not be written: {_ELSEWHERE}",
            sqlite3.SQLITE_CANTOPEN: f"it can't be opened: {_ELSEWHERE}",
            sqlite3.SQLITE_BUSY: "another livemig holds it: see `livemig status`",
        }
        return JournalError(
            f"the journal {self.path}: {reasons.get(code, f'{error}; {_ELSEWHERE}')}", path=str(self.path)
        )

    def _damaged(self, words: str) -> JournalError:
        words = " ".join(words.split())
        return JournalError(
            f"the journal {self.path} is damaged ({words}): look at both QEMUs of any run that was under way, then "
            "move the file away, with those of the same name and -wal or -shm",
            path=str(self.path),
        )


def refuse_unsafe(folder: Path, path: Path) -> None:
    """Refuses a journal that others may change, or that several machines share.

    Raises:
        JournalError: With the remedy.
    """
    for each in (folder, path):
        found = each.stat()
        if found.st_uid != os.geteuid():
            raise JournalError(
                f"{each} belongs to user {found.st_uid}: run livemig as that user, or {_ELSEWHERE}", path=str(path)
            )
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise JournalError(f"{each} may be written by others: `chmod go-w {each}`", path=str(path))
    kind = file_system_kind(folder)
    if kind in _SHARED_KINDS:
        raise JournalError(
            f"{folder} is on a disk that machines share ({kind}), where a journal proves nothing: {_ELSEWHERE}",
            path=str(path),
        )


def file_system_kind(folder: Path) -> str:
    """Returns what kind of file system a folder is on, as the kernel calls it; empty when that can't be seen."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if len(fields) > 6 and fields[2] == wanted and "-" in fields:
            return fields[fields.index("-") + 1]
    return ""


def _words(error: OSError) -> str:
    return error.strerror or str(error)
