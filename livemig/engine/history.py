"""Keeps what migrations taught, in a file of the user's state folder: bounded, versioned, rebuilt when damaged.

A history is never worth a failed run: whatever is wrong with the file is a note, and livemig goes on without it. What
can't be read is kept aside, never overwritten.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from livemig.core.errors import JournalError
from livemig.core.past import PastMigration

VERSION = 1
RECORDS_MOST = 400
FILE_BYTES_MOST = 2 * 2**20
MATCHES_MOST = 40
"""A forecast learns little from more, and a trace holds them all."""
LOCK_BOUND_S = 2.0
"""How long to wait for another livemig, which takes some milliseconds unless it is stopped."""
NULL_UUID = "00000000-0000-0000-0000-000000000000"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PastMigration)


class _Header(msgspec.Struct):
    livemig_history: int


class _Content(msgspec.Struct):
    """What a file holds, as far as it can be read; `aside` is what it is kept under if it is not whole."""

    records: list[PastMigration]
    notes: tuple[str, ...] = ()
    aside: str = ""


def state_folder() -> Path:
    """Returns livemig's folder for what outlives a run: ``$XDG_STATE_HOME/livemig``, or ``~/.local/state/livemig``.

    Raises:
        JournalError: When there is no home folder.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return Path(given) / "livemig"
    try:
        return Path("~/.local/state").expanduser() / "livemig"
    except RuntimeError as error:
        reason = "this user has no home folder: set HOME or XDG_STATE_HOME"
        raise JournalError(f"no journal can be kept: {reason}", path="") from error


def guest_key(uuid: str, name: str, memory_bytes: int) -> str:
    """Names a guest: by its UUID where it has one, else by what it is."""
    return uuid if uuid and uuid != NULL_UUID else f"{name or 'unnamed'} {memory_bytes}"


def hosts_key(source_host: str, source_version: str, destination_host: str, destination_version: str) -> str:
    """Names a way between two hosts and their QEMUs."""
    return f"{source_host}/{source_version} to {destination_host}/{destination_version}"


class History:
    """The file; every method may be called at any time, by any number of livemigs at once.

    Blocks, for some milliseconds, or at most `LOCK_BOUND_S` where another livemig holds the file: call it in a thread.
    """

    def __init__(self, folder: Path) -> None:
        """Names the file; touches nothing."""
        self._path = folder / "history.jsonl"

    def matching(self, guest: str, hosts: str) -> tuple[tuple[PastMigration, ...], tuple[str, ...]]:
        """Returns what is known of this guest and of this way, newest first, the guest's own first; and notes.

        Changes nothing, a damaged file neither.
        """
        try:
            content = self._read()
        except OSError as error:
            return (), (f"the history {self._path} can't be read: {_words(error)}",)
        own = [one for one in reversed(content.records) if one.guest == guest]
        others = [one for one in reversed(content.records) if one.guest != guest and one.hosts == hosts]
        return tuple([*own, *others][:MATCHES_MOST]), content.notes

    def append(self, record: PastMigration) -> tuple[str, ...]:
        """Adds a record; returns notes, such as why it could not be kept."""
        try:
            with self._locked():
                content = self._read()
                if content.aside:
                    self._path.replace(self._path.with_name(content.aside))
                self._write([*content.records, record])
        except OSError as error:
            return (f"what this run taught could not be kept in {self._path}: {_words(error)}",)
        return content.notes

    def _read(self) -> _Content:
        """Reads all records. Bytes beyond twice the bound were written by no livemig."""
        try:
            with self._path.open("rb") as file:
                text = file.read(2 * FILE_BYTES_MOST + 1)
        except FileNotFoundError:
            return _Content([])
        name, bad = self._path.name, f"{self._path.name}.bad"
        if len(text) > 2 * FILE_BYTES_MOST:
            return _Content(
                [], (f"the history {self._path} is too large: it is begun anew, the old one is {bad}",), bad
            )
        if not text:
            return _Content([])
        header, *lines = text.splitlines()
        try:
            version = msgspec.json.decode(header, type=_Header).livemig_history
        except (msgspec.DecodeError, ValueError, RecursionError):
            return _Content([], (f"the history {self._path} is damaged: it is begun anew, the old one is {bad}",), bad)
        if version != VERSION:
            old = f"{name}.v{version}.old"
            note = f"the history {self._path} is of version {version}, not {VERSION}: a new one is begun beside it"
            return _Content([], (note,), old)
        records = [record for line in lines if (record := _decoded(line)) is not None]
        if damaged_count := len(lines) - len(records):
            note = f"{damaged_count} of {len(lines)} records of the history {self._path} are damaged and left out"
            return _Content(records, (note,), bad)
        return _Content(records)

    def _write(self, records: list[PastMigration]) -> None:
        """Replaces the file at once: a reader sees the old or the new one, whole. The oldest records go first."""
        encoded = [_encoder.encode(record) for record in records[-RECORDS_MOST:]]
        kept_bytes, first = 0, len(encoded)
        while first > 0 and kept_bytes + len(encoded[first - 1]) + 1 <= FILE_BYTES_MOST:
            first -= 1
            kept_bytes += len(encoded[first]) + 1
        lines = [_encoder.encode(_Header(livemig_history=VERSION)), *encoded[first:]]
        fresh = self._path.with_suffix(".new")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(b"".join(line + b"\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())  # else a crash of the host could leave the new name on an empty file
            fresh.replace(self._path)
        except OSError:
            with suppress(OSError):
                fresh.unlink()
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path.with_suffix(".lock"), flags, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> None:
    give_up_s = time.monotonic() + LOCK_BOUND_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_s:
                raise TimeoutError("another livemig holds it") from None
            time.sleep(0.01)
        else:
            return


def _decoded(line: bytes) -> PastMigration | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _words(error: OSError) -> str:
    return error.strerror or str(error)
