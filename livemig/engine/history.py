"""Keeps what migrations taught, in a file of the user's state folder: bounded, versioned, rebuilt when damaged.

A history is never worth a failed run: whatever is wrong with the file is a note, and livemig goes on without it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from livemig.core.past import PastMigration

VERSION = 1
RECORDS_MOST = 400
FILE_BYTES_MOST = 8 * 2**20
MATCHES_MOST = 40
"""A forecast learns little from more, and a trace holds them all."""
NULL_UUID = "00000000-0000-0000-0000-000000000000"

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(PastMigration)


class _Header(msgspec.Struct):
    livemig_history: int


def state_folder() -> Path:
    """Returns livemig's folder for what outlives a run: ``$XDG_STATE_HOME/livemig``, or ``~/.local/state/livemig``."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    return base / "livemig"


def guest_key(uuid: str, name: str, memory_bytes: int) -> str:
    """Names a guest: by its UUID where it has one, else by what it is."""
    return uuid if uuid and uuid != NULL_UUID else f"{name or 'unnamed'} {memory_bytes}"


def hosts_key(source_host: str, source_version: str, destination_host: str, destination_version: str) -> str:
    """Names a way between two hosts and their QEMUs."""
    return f"{source_host}/{source_version} to {destination_host}/{destination_version}"


class History:
    """The file; every method may be called at any time, by any number of livemigs at once."""

    def __init__(self, folder: Path) -> None:
        """Names the file; touches nothing."""
        self._path = folder / "history.jsonl"

    def matching(self, guest: str, hosts: str) -> tuple[tuple[PastMigration, ...], tuple[str, ...]]:
        """Returns what is known of this guest and of this way, newest first, the guest's own first; and notes."""
        try:
            records, notes = self._read()
        except OSError as error:
            return (), (f"the history {self._path} can't be read: {error.strerror}",)
        own = [one for one in reversed(records) if one.guest == guest]
        others = [one for one in reversed(records) if one.guest != guest and one.hosts == hosts]
        return tuple([*own, *others][:MATCHES_MOST]), notes

    def append(self, record: PastMigration) -> tuple[str, ...]:
        """Adds a record; returns notes, such as why it could not be kept."""
        try:
            with self._locked():
                records, notes = self._read()
                self._write([*records, record][-RECORDS_MOST:])
        except OSError as error:
            return (f"what this run taught could not be kept in {self._path}: {error.strerror}",)
        return notes

    def _read(self) -> tuple[list[PastMigration], tuple[str, ...]]:
        """Reads all records; a file that can't be read is set aside when something is written next."""
        try:
            if self._path.stat().st_size > 2 * FILE_BYTES_MOST:
                return [], (f"the history {self._path} is too large: it is begun anew",)
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return [], ()
        if not lines:
            return [], ()
        try:
            version = msgspec.json.decode(lines[0], type=_Header).livemig_history
        except msgspec.DecodeError:
            return [], (f"the history {self._path} is damaged: it is begun anew",)
        if version != VERSION:
            return [], (f"the history {self._path} is of version {version}, not {VERSION}: it is begun anew",)
        records, damaged_count = [], 0
        for line in lines[1:]:
            try:
                records.append(_decoder.decode(line))
            except (msgspec.DecodeError, ValueError, RecursionError):
                damaged_count += 1
        notes = (
            (f"{damaged_count} records of the history {self._path} are damaged and left out",) if damaged_count else ()
        )
        return records, notes

    def _write(self, records: list[PastMigration]) -> None:
        """Replaces the file at once: a reader sees the old or the new one."""
        lines = [_encoder.encode(_Header(livemig_history=VERSION))]
        encoded = [_encoder.encode(record) for record in records]
        while sum(len(line) + 1 for line in encoded) > FILE_BYTES_MOST:
            encoded = encoded[len(encoded) // 4 + 1 :]
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"".join(line + b"\n" for line in [*lines, *encoded]))
        fresh.replace(self._path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
