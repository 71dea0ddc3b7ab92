"""Who holds the other end of a connection is proven, not guessed from a number or a name."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from livemig.hosts import peer
from livemig.hosts.local import LocalProcess
from livemig.hosts.peer import holds_other_end

ACCEPT = (
    "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); c = s.accept()[0]; c.send(b'x'); sys.stdin.read()"
)
"""Accepts at a listening socket that was passed to it, as libvirt and systemd pass QEMU its own."""


@contextmanager
def accepting(listener: socket.socket) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A process that has the other end of a connection, though this one made the listening socket."""
    command = [sys.executable, "-I", "-S", "-c", ACCEPT, str(listener.fileno())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(listener.fileno(),)) as process:
        connection = socket.socket(listener.family)
        connection.settimeout(10)
        connection.connect(listener.getsockname())
        listener.close()
        try:
            assert connection.recv(1) == b"x"
            yield process, connection
        finally:
            connection.close()
            process.kill()


def unix(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "s"))
    return listener


def tcp(_: Path) -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


def tcp6(_: Path) -> socket.socket:
    listener = socket.socket(socket.AF_INET6)
    listener.bind(("::1", 0))
    return listener


def silent(*_: object) -> int:
    raise OSError("no unix_diag")


def denied(pid: int) -> set[int]:
    raise PermissionError(pid)


@pytest.mark.parametrize("family", [unix, tcp, tcp6])
def test_it_is_who_accepted(tmp_path: Path, family: Callable[[Path], socket.socket]) -> None:
    """Neither who made the listening socket, nor a bystander."""
    listener = family(tmp_path)
    listener.listen()
    with accepting(listener) as (process, connection):
        assert holds_other_end(process.pid, connection)
        assert not holds_other_end(os.getpid(), connection)
        assert not holds_other_end(1, connection)
        assert not holds_other_end(2**30, connection)
        found = LocalProcess.of_thread(process.pid, connection)
        assert found is not None
        assert found.pid == process.pid
        found.close()
        assert LocalProcess.of_thread(os.getpid(), connection) is None


def test_without_unix_diag_the_listening_socket_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel may have no such module."""
    monkeypatch.setattr(peer, "_unix_peer_inode", silent)
    listener = unix(tmp_path)
    listener.listen()
    with accepting(listener) as (process, connection):
        assert holds_other_end(process.pid, connection)
        assert not holds_other_end(os.getpid(), connection)


def test_of_a_process_that_may_not_be_looked_into_its_own_socket_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel notes who made the listening socket; of one that was passed to it nothing is proven."""
    monkeypatch.setattr(peer, "_inodes_held", denied)
    listener = unix(tmp_path)
    listener.listen()
    with accepting(listener) as (process, connection):
        assert holds_other_end(os.getpid(), connection)
        assert not holds_other_end(process.pid, connection)
    listener = tcp(tmp_path)
    listener.listen()
    with accepting(listener) as (process, connection):
        assert not holds_other_end(process.pid, connection)


def test_the_end_of_a_process_proves_nothing(tmp_path: Path) -> None:
    """Then nobody holds it."""
    listener = unix(tmp_path)
    listener.listen()
    with accepting(listener) as (process, connection):
        process.kill()
        process.wait()
        assert not holds_other_end(process.pid, connection)
