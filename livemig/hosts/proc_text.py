"""Reads the texts that /proc gives: bytes in, facts out. Opens nothing, so it serves any host that sent them."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterable

import msgspec

LIMITS = {
    "Max cpu time": resource.RLIMIT_CPU,
    "Max file size": resource.RLIMIT_FSIZE,
    "Max data size": resource.RLIMIT_DATA,
    "Max stack size": resource.RLIMIT_STACK,
    "Max core file size": resource.RLIMIT_CORE,
    "Max resident set": resource.RLIMIT_RSS,
    "Max processes": resource.RLIMIT_NPROC,
    "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK,
    "Max address space": resource.RLIMIT_AS,
}
"""Linux's name of each limit and its number."""

_LISTENING = "0A"
_UNIX_LISTENS = 0x10000
_QEMU_VERSION = re.compile(r"QEMU emulator version (\d+\.\d+(?:\.\d+)?)")
_ENDED = frozenset("ZXx")


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What /proc/PID/status says.

    Attributes:
        pid: The process that a thread belongs to.
        parent: Its parent.
        user: Its effective user id.
        group: Its effective group id.
        groups: Its supplementary groups.
        umask: Its umask.
        pids: Its pid in each pid namespace, the outermost first.
    """

    pid: int
    parent: int
    user: int
    group: int
    groups: tuple[int, ...]
    umask: int
    pids: tuple[int, ...]


def read_status(text: bytes) -> Status:
    """Reads /proc/PID/status.

    Raises:
        ValueError: When it is none.
    """
    fields = dict(_pairs(os.fsdecode(text)))
    try:
        return Status(
            pid=int(fields["Tgid"]),
            parent=int(fields["PPid"]),
            user=int(fields["Uid"].split()[1]),
            group=int(fields["Gid"].split()[1]),
            groups=tuple(int(group) for group in fields["Groups"].split()),
            umask=int(fields.get("Umask", "0022"), 8),
            pids=tuple(int(pid) for pid in fields.get("NSpid", fields["Tgid"]).split()),
        )
    except (LookupError, ValueError) as error:
        raise ValueError("that is no status of a process") from error


def read_limits(text: bytes) -> dict[int, tuple[int, int]]:
    """Reads /proc/PID/limits: soft and hard by number, -1 for unlimited."""
    found = {}
    for line in os.fsdecode(text).splitlines():
        for name, number in LIMITS.items():
            if line.startswith(f"{name} "):
                soft, hard = line[len(name) :].split()[:2]
                found[number] = (_limit(soft), _limit(hard))
    return found


def read_environment(text: bytes) -> dict[str, str]:
    """Reads /proc/PID/environ."""
    pairs = (entry.partition("=") for entry in os.fsdecode(text).split("\0"))
    return {key: value for key, equals, value in pairs if equals and key}


def read_arguments(text: bytes) -> tuple[str, ...]:
    """Reads /proc/PID/cmdline; empty for a zombie or a thread of the kernel."""
    return tuple(os.fsdecode(text).removesuffix("\0").split("\0")) if text else ()


def read_start(text: bytes) -> tuple[int, bool]:
    """Reads /proc/PID/stat: when it started, in ticks since the boot, and whether it has ended (a zombie has).

    Raises:
        ValueError: When it is none.
    """
    fields = text.rpartition(b")")[2].split()
    if len(fields) < 20:
        raise ValueError("that is no stat of a process")
    return int(fields[19]), fields[0].decode() in _ENDED


def read_tap(text: bytes) -> str | None:
    """Reads /proc/PID/fdinfo/N: the interface behind a tap's descriptor, or None when it is no tap."""
    found = re.search(r"^iff:\s*(\S+)", os.fsdecode(text), re.MULTILINE)
    return found[1] if found else None


def read_ports(text: bytes, *, listening_only: bool) -> frozenset[int]:
    """Reads /proc/net/tcp, tcp6, udp or udp6: local ports."""
    rows = (line.split() for line in os.fsdecode(text).splitlines())
    rows = (row for row in rows if len(row) > 3 and ":" in row[1])
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if not listening_only or row[3] == _LISTENING)


def read_available_bytes(text: bytes) -> int:
    """Reads /proc/meminfo: how much memory a new process may take without swapping, 0 when it is not said."""
    found = re.search(rb"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def read_cpu_flags(text: bytes) -> frozenset[str]:
    """Reads /proc/cpuinfo: the features that every processor of the host has."""
    lines = re.findall(rb"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    sets = [frozenset(line.decode("ascii", "replace").split()) for line in lines]
    return frozenset.intersection(*sets) if sets else frozenset()


def read_listening_inodes(text: bytes, path: str) -> frozenset[int]:
    """Reads /proc/net/unix: the inodes of the sockets that listen at a path."""
    wanted = os.fsencode(path)
    found = set()
    for line in text.splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == wanted and int(fields[3], 16) & _UNIX_LISTENS:
            found.add(int(fields[6]))
    return frozenset(found)


def read_qemu_version(text: bytes) -> str | None:
    """Reads what ``--version`` prints; None when that is no QEMU."""
    found = _QEMU_VERSION.search(os.fsdecode(text))
    return found[1] if found else None


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        yield key, value.strip()


def _limit(text: str) -> int:
    return resource.RLIM_INFINITY if text == "unlimited" else int(text)
