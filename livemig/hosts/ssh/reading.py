"""From what a host's kernel and tools write to what livemig knows of it. Pure; the scripts are elsewhere."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from livemig.hosts.local import start_ticks_in
from livemig.hosts.open_files import FileKey
from livemig.hosts.process import ProcessFacts, Surroundings, environment_in, limits_in, pairs_in
from livemig.hosts.ssh.shell import Answer

_DELETED = " (deleted)"
_LISTENS = 0x00010000
"""The kernel's mark of a listening socket (``__SO_ACCEPTCON``) in its table of UNIX sockets."""


def process_commands(pid: str) -> dict[str, str]:
    """What to read of a process; ``self`` is the shell that reads."""
    folder = f"/proc/{pid}"
    commands = {
        name: f"cat {folder}/{name}" for name in ("cmdline", "status", "stat", "limits", "environ", "oom_score_adj")
    }
    for name in ("cwd", "exe", "root", "ns/net", "ns/mnt"):
        commands[name] = f"readlink {folder}/{name}"
    for name in ("ns/net", "ns/mnt"):
        commands[f"own {name}"] = f"readlink /proc/self/{name}"
    return commands


def surroundings_in(found: Mapping[str, Answer], folder: str) -> Surroundings:
    """What a process runs in.

    Raises:
        LookupError: When it could not be read.
        ValueError: When it makes no sense.
    """
    status = dict(pairs_in(found["status"].text.splitlines()))
    stat = found["stat"].text.rpartition(")")[2].split()
    own_network = found["ns/net"].text == found["own ns/net"].text
    return Surroundings(
        user=int(status["Uid"].split()[1]),
        group=int(status["Gid"].split()[1]),
        groups=tuple(int(group) for group in status["Groups"].split()),
        umask=int(status.get("Umask", "0022"), 8),
        limits=limits_in(found["limits"].text),
        environment=dict(environment_in(_raw(found["environ"]))),
        cwd=found["cwd"].text,
        network_namespace=None if own_network else f"{folder}/ns/net",
        cpus=tuple(cpus_in(status.get("Cpus_allowed_list", ""))),
        nice=int(stat[16]),
        scheduling=(int(stat[38]), int(stat[37])),
        oom_score_adj=int(found["oom_score_adj"].text),
    )


def facts_in(pid: int, found: Mapping[str, Answer]) -> ProcessFacts:
    """A process, its program's file as its name says.

    Raises:
        ProcessLookupError: When it has ended.
        PermissionError: When it may not be looked into.
    """
    if found["stat"].status != 0:
        raise ProcessLookupError(f"process {pid} has ended")
    if any(found[name].status != 0 for name in ("environ", "cwd", "exe", "ns/mnt")):
        raise PermissionError(f"process {pid} may not be looked into")
    linked = found["exe"].text
    return ProcessFacts(
        pid=pid,
        argv=tuple(_raw(found["cmdline"]).removesuffix("\0").split("\0")),
        executable=linked.removesuffix(_DELETED),
        executable_replaced=linked.endswith(_DELETED),
        surroundings=surroundings_in(found, f"/proc/{pid}"),
        other_root=found["root"].text != "/" or found["ns/mnt"].text != found["own ns/mnt"].text,
    )


def owner_in(status: str) -> tuple[int, int]:
    """The user and group that a process acts as."""
    fields = dict(pairs_in(status.splitlines()))
    return int(fields["Uid"].split()[1]), int(fields["Gid"].split()[1])


def started_in(stat: str) -> int:
    """When a process started, in clock ticks."""
    return start_ticks_in(stat)


def cpus_in(text: str) -> Iterator[int]:
    """Reads a list such as ``0-3,8``."""
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def socket_inodes_in(listing: str) -> set[int]:
    """The inodes of the sockets among a process's descriptors, as ``ls -l`` shows them."""
    return {int(number) for number in re.findall(r"socket:\[(\d+)\]", listing)}


def listening_in(table: str) -> Iterator[tuple[int, str]]:
    """Inode and path of each listening UNIX socket in the kernel's table, or in several, each with its heading."""
    for line in table.splitlines():
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[0] != "Num" and int(fields[3], 16) & _LISTENS:
            yield int(fields[6]), fields[7]


def one_for_each_network(listing: str) -> list[str]:
    """From ``ls -l`` of namespaces: a pid in each network namespace, of those that see the files that ``self`` sees."""
    found: dict[str, dict[str, str]] = {"net": {}, "mnt": {}}
    for pid, kind, name in re.findall(r"/proc/(\w+)/ns/(net|mnt) -> (\S+)", listing):
        found[kind][pid] = name
    own = found["mnt"].get("self")
    beside = {pid: name for pid, name in found["net"].items() if found["mnt"].get(pid) == own}
    return list({name: pid for pid, name in reversed(beside.items())}.values())  # the last ones are soon gone, as `ls`


def listens_at(table: str, inodes: set[int], path: str, cwd: str) -> bool:
    """Whether one of these sockets listens at a path without links; relative names are meant from a folder."""
    return any(
        inode in inodes and posixpath.normpath(posixpath.join(cwd, name)) == path for inode, name in listening_in(table)
    )


def file_key_in(line: str) -> FileKey | None:
    """Reads what ``stat -L -c '%f %d %i %t %T'`` says of a file."""
    fields = line.split()
    if len(fields) != 5:
        return None
    mode, device, inode = int(fields[0], 16), int(fields[1]), int(fields[2])
    if mode & 0o170000 == 0o060000:
        return FileKey("block device", int(fields[3], 16), int(fields[4], 16))
    return FileKey("file", device, inode)


def _raw(answer: Answer) -> str:
    return answer.output.decode("utf-8", "surrogateescape")
