"""Proves that a process of this machine holds the other end of a connection. Only reads.

A number that a QEMU gives for one of its threads is one of its own pid namespace: here it may be a stranger's, even
another guest's QEMU. The kernel knows better, whoever made the listening socket (libvirt, systemd) and whatever a
program is called.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = 1
_SHOW_PEER = 4
_PEER_ATTRIBUTE = 2
_HEADER = struct.Struct("=IHHII")
_QUERY = struct.Struct("=BBHIIIII")
_ATTRIBUTE = struct.Struct("=HHI")
_MESSAGE_BYTES = 16
_ANY = 0xFFFFFFFF
_REPLY_BOUND_S = 1.0
_CREDENTIALS = struct.Struct("3i")


def holds_other_end(pid: int, connection: socket.socket) -> bool:
    """Whether a process surely has the other end of an established connection; False where that can't be proven.

    By the inode of the socket there, which is among the process's descriptors; where these may not be looked at, by
    whoever made the listening socket, if it was this very process.
    """
    try:
        return bool(_inodes_of_other_end(pid, connection) & _inodes_held(pid))
    except PermissionError:
        return connection.family == socket.AF_UNIX and _maker(connection) == pid
    except OSError:
        return False


def _maker(connection: socket.socket) -> int:
    """Who made the listening socket: of this pid namespace, else 0."""
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return 0
    return int(_CREDENTIALS.unpack(packed)[0])


def _inodes_held(pid: int) -> set[int]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            link = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
            if link.startswith("socket:["):
                found.add(int(link[8:-1]))
    return found


def _inodes_of_other_end(pid: int, connection: socket.socket) -> set[int]:
    if connection.family != socket.AF_UNIX:
        return set(_tcp_inodes(pid, connection))
    try:
        return {_unix_peer_inode(os.fstat(connection.fileno()).st_ino)}
    except OSError:  # a kernel without unix_diag: the listening socket is held by whoever accepts from it
        return set(_listening_inodes(pid, connection))


def _unix_peer_inode(inode: int) -> int:
    """Asks the kernel (unix_diag) for the inode of a UNIX socket's peer.

    Raises:
        OSError: When it does not tell.
    """
    query = _QUERY.pack(socket.AF_UNIX, 0, 0, _ANY, inode, _SHOW_PEER, _ANY, _ANY)
    header = _HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_REPLY_BOUND_S)
        kernel.send(header + query)
        reply = kernel.recv(4096)
    _, kind, *_ = _HEADER.unpack_from(reply)
    if kind == _SOCK_DIAG_BY_FAMILY:
        position = _HEADER.size + _MESSAGE_BYTES
        while position + _ATTRIBUTE.size <= len(reply):
            length, attribute, value = _ATTRIBUTE.unpack_from(reply, position)
            if attribute == _PEER_ATTRIBUTE and value:
                return int(value)
            position += max(4, (length + 3) & ~3)
    raise OSError("the kernel does not tell a socket's peer")


def _listening_inodes(pid: int, connection: socket.socket) -> Iterator[int]:
    path = connection.getpeername()
    name = os.fsdecode(path) if isinstance(path, bytes) else path
    for owner in ("self", pid):  # a socket is in the table of the network namespace it was made in
        for line in _lines(f"/proc/{owner}/net/unix"):
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and name and fields[7] == name:
                yield int(fields[6])


def _tcp_inodes(pid: int, connection: socket.socket) -> Iterator[int]:
    """The connection as the other side sees it: its local port is our remote one."""
    here, there = connection.getsockname()[1], connection.getpeername()[1]
    for owner in ("self", pid):
        for name in ("tcp", "tcp6"):
            for line in _lines(f"/proc/{owner}/net/{name}"):
                found = re.match(r"\s*\d+: ([0-9A-F]+):([0-9A-F]+) [0-9A-F]+:([0-9A-F]+) 01 ", line)
                if found and (int(found[2], 16), int(found[3], 16)) == (there, here) and _is_loopback(found[1]):
                    yield int(line.split()[9])


def _is_loopback(address: str) -> bool:
    """Whether an address of the kernel's table, in its byte order, is one of this machine alone."""
    mapped = address.removeprefix("0000000000000000FFFF0000")
    return mapped.endswith("7F") if len(mapped) == 8 else address == "0" * 24 + "01000000"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_bytes().decode("utf-8", "surrogateescape").splitlines()[1:]
    except OSError:
        return []
