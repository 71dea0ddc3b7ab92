"""The way memory takes from source to destination: on one host a UNIX socket in a folder only QEMU's user may enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from livemig.core.errors import RefusedError
from livemig.hosts.host import HostProcess

SOCKET_PATH_BYTES_MOST = 107


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """The two ends of the way.

    Attributes:
        listen_uri: Where the destination listens, for ``migrate-incoming``.
        connect_uri: What the source connects to, for ``migrate``.
        description: For the screen and the report.
    """

    listen_uri: str
    connect_uri: str
    description: str


@contextmanager
def local_channel(source: HostProcess | None, destination: HostProcess | None) -> Iterator[Channel]:
    """Makes the folder of the channel, and removes it afterwards.

    The folder has mode 0700 and belongs to the user that both QEMUs run as, so nobody else can connect first.

    Raises:
        RefusedError: When the two run as different users, or the folder can't be made. Nothing was touched.
    """
    folder = _private_folder()
    try:
        _hand_over(folder, _owners(source, destination))
        path = folder / "migration.sock"
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MOST:
            raise RefusedError((f"the socket path {path} is too long: set TMPDIR to a shorter folder",))
        yield Channel(listen_uri=f"unix:{path}", connect_uri=f"unix:{path}", description="UNIX socket on this host")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _private_folder() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="livemig-"))
    except OSError as error:
        raise RefusedError((f"no folder for the migration socket: {error.strerror}; set TMPDIR to another",)) from error


def _owners(*processes: HostProcess | None) -> set[tuple[int, int]]:
    try:
        return {process.owner for process in processes if process is not None}
    except OSError as error:
        raise RefusedError(("one of the two QEMUs has just ended: start it again",)) from error


def _hand_over(folder: Path, owners: set[tuple[int, int]]) -> None:
    users = {user for user, _ in owners}
    if len(users) > 1:
        raise RefusedError(("source and destination run as different users: start both as the same user",))
    for user, group in owners:
        if user != os.geteuid():
            try:
                os.chown(folder, user, group)
            except OSError as error:
                raise RefusedError(
                    (f"QEMU runs as user {user}, who can't be given a folder: run livemig as that user or root",)
                ) from error
