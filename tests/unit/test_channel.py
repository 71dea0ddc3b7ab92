"""The way between two QEMUs on one host: nobody else may enter it, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from livemig.core.errors import RefusedError
from livemig.engine.channel import SOCKET_PATH_BYTES_MOST, Channel, local_channel
from livemig.hosts.local import LocalProcess
from livemig.hosts.local_host import LocalHost


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own to make folders in."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def itself() -> Iterator[LocalProcess]:
    """A process of this user: this one."""
    process = LocalProcess(os.getpid())
    yield process
    process.close()


def channel_between(
    source: LocalProcess | None, destination: LocalProcess | None
) -> AbstractAsyncContextManager[Channel]:
    """The channel of two QEMUs on this host."""
    return local_channel(LocalHost(), source, destination, "0badcafe")


def owned_by(*owners: tuple[int, int]) -> list[LocalProcess]:
    """Processes that seem to belong to these users and groups."""

    class Owned(LocalProcess):
        def __init__(self, owner: tuple[int, int]) -> None:
            self.pid, self._owner = 0, owner

        @property
        def owner(self) -> tuple[int, int]:
            return self._owner

    return [Owned(owner) for owner in owners]


async def test_the_folder_is_the_users_alone(itself, temporary):
    """Mode 0700: nobody else can connect first."""
    async with channel_between(itself, itself) as channel:
        (folder,) = temporary.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.geteuid()
        assert channel.listen_uri == f"unix:{folder}/migration.sock"
        assert channel.description == "UNIX socket on this host"


async def test_each_run_has_its_own_folder(itself):
    """Two migrations at once do not meet."""
    async with channel_between(itself, itself) as first, channel_between(itself, itself) as second:
        assert first.listen_uri != second.listen_uri


@pytest.mark.parametrize("error", [None, RuntimeError, asyncio.CancelledError])
async def test_nothing_is_left_behind(itself, temporary, error):
    """After success, failure and Ctrl-C the folder is gone with what QEMU made in it."""
    try:
        async with channel_between(itself, itself) as channel:
            Path(channel.listen_uri.removeprefix("unix:")).touch()
            if error is not None:
                raise error
    except (RuntimeError, asyncio.CancelledError):
        pass
    assert list(temporary.iterdir()) == []


async def test_a_folder_that_is_gone_already_is_no_error(itself):
    """Somebody cleaned up before us."""
    async with channel_between(itself, itself) as channel:
        Path(channel.listen_uri.removeprefix("unix:")).parent.rmdir()


async def test_a_process_that_can_not_be_seen_is_taken_for_ours(temporary):
    """In another pid namespace nothing is known of its user; the folder stays ours."""
    async with channel_between(None, None):
        (folder,) = temporary.iterdir()
        assert folder.stat().st_uid == os.geteuid()


async def test_a_path_too_long_for_a_socket_is_refused_with_the_remedy(itself, temporary, monkeypatch):
    """A socket's path ends at 107 bytes; a longer one would be cut or refused by QEMU in its own words."""
    deep = temporary / ("x" * 120)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(RefusedError, match="is too long: set TMPDIR to a shorter folder"):
        async with channel_between(itself, itself):
            pytest.fail("entered")
    assert list(deep.iterdir()) == []


async def test_the_longest_path_is_taken(itself, temporary, monkeypatch):
    """The bound is the system's own: 107 bytes and the final zero."""
    rest = (
        SOCKET_PATH_BYTES_MOST
        - len(os.fsencode(temporary))
        - len("/")
        - len("/livemig-0badcafe-12345678/migration.sock")
    )
    fitting = temporary / ("x" * rest)
    fitting.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(fitting))
    async with channel_between(itself, itself) as channel:
        assert len(channel.listen_uri.removeprefix("unix:")) == SOCKET_PATH_BYTES_MOST


async def test_no_folder_is_refused_with_the_remedy(itself, monkeypatch):
    """TMPDIR names a place that is not there."""
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    expected = "no folder for the migration: No such file or directory; set TMPDIR to another"
    with pytest.raises(RefusedError) as caught:
        async with channel_between(itself, itself):
            pytest.fail("entered")
    assert caught.value.reasons == (expected,)


async def test_two_users_are_refused(temporary):
    """One of them could not enter the other's folder; and it is gone again."""
    source, destination = owned_by((1000, 1000), (1001, 1000))
    with pytest.raises(RefusedError) as caught:
        async with channel_between(source, destination):
            pytest.fail("entered")
    assert caught.value.reasons == ("source and destination run as different users: start both as the same user",)
    assert list(temporary.iterdir()) == []


async def test_qemus_of_another_user_get_the_folder(temporary, monkeypatch):
    """Run as root, the folder is handed to the user that both run as."""
    given = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.append((path, user, group)))
    async with channel_between(*owned_by((64055, 108), (64055, 108))):
        (folder,) = temporary.iterdir()
        assert given == [(str(folder), 64055, 108)]


async def test_qemus_of_another_user_are_refused_to_an_ordinary_user(temporary, monkeypatch):
    """Who may not hand the folder over is told whom to run as."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(RefusedError) as caught:
        async with channel_between(*owned_by((64055, 108), (64055, 108))):
            pytest.fail("entered")
    expected = "QEMU runs as user 64055, who can't be given a folder: run livemig as that user or root"
    assert caught.value.reasons == (expected,)
    assert list(temporary.iterdir()) == []
