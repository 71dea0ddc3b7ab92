"""Reads from /proc what a second QEMU beside a running one has to share with it, and who would start it again.

Only reads. What can't be read for lack of rights raises `PermissionError`; the caller says what to do about it.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from livemig.hosts.confinement import cgroup_limits

SYSTEMCTL_BOUND_S = 3.0
_DELETED = " (deleted)"
_UNIT = re.compile(r"/([^/]+\.service)(?:/|$)")
PORT_TABLES = ("tcp", "tcp6", "udp", "udp6")
_SUPERVISORS = frozenset(
    {"runsv", "supervise", "s6-supervise", "supervisord", "containerd-shim", "conmon", "monit", "docker-init", "tini"}
)
_LIBVIRT_PATHS = ("/var/lib/libvirt/qemu/", "/run/libvirt/qemu/", "/var/run/libvirt/qemu/")
_LIMITS = {
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


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process runs in.

    Attributes:
        user: Its effective user id.
        group: Its effective group id.
        groups: Its supplementary groups.
        umask: Its umask.
        limits: Soft and hard limit by the number that the resource module gives it; -1 is unlimited.
        environment: Its environment, as it was at its start.
        cwd: Its working folder.
        network_namespace: A path to enter it by while the process lives, or None when it is livemig's own.
        cpus: The processors it may run on.
        nice: Its nice value.
        scheduling: Its scheduling class and static priority, by the kernel's numbers.
        oom_score_adj: How much rather than others it is to be killed when memory runs out.
    """

    user: int
    group: int
    groups: tuple[int, ...]
    umask: int
    limits: dict[int, tuple[int, int]]
    environment: dict[str, str]
    cwd: str
    network_namespace: str | None
    cpus: tuple[int, ...]
    nice: int
    scheduling: tuple[int, int]
    oom_score_adj: int


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A running process.

    Attributes:
        pid: Its process id.
        argv: Its command line.
        executable: Its program's file, or None when that is gone and no other took its place.
        executable_replaced: Whether the file was deleted or replaced since it started.
        surroundings: What it runs in.
        other_root: Whether it sees another file system than livemig: a container, a chroot, a private /tmp.
    """

    pid: int
    argv: tuple[str, ...]
    executable: str | None
    executable_replaced: bool
    surroundings: Surroundings
    other_root: bool


def read_process(pid: int) -> ProcessFacts:
    """Reads a process of this machine.

    Raises:
        PermissionError: When it belongs to somebody else.
        ProcessLookupError: When it has ended.
    """
    folder = Path(f"/proc/{pid}")
    try:
        argv = tuple(_text(folder / "cmdline").removesuffix("\0").split("\0"))
        surroundings = _surroundings(folder)
        linked = str((folder / "exe").readlink())
        other_root = str((folder / "root").readlink()) != "/" or _namespace(folder, "mnt") != _namespace(_OWN, "mnt")
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, f"process {pid} has ended") from error
    replaced = linked.endswith(_DELETED)
    executable = _replacement(linked, argv[0], surroundings) if replaced else linked
    return ProcessFacts(
        pid=pid,
        argv=argv,
        executable=executable,
        executable_replaced=replaced,
        surroundings=surroundings,
        other_root=other_root,
    )


def own_surroundings() -> Surroundings:
    """What livemig itself runs in: for a QEMU whose source can't be seen."""
    return _surroundings(_OWN)


def tap_name(pid: int, descriptor: int) -> str | None:
    """Returns the interface behind a tap's descriptor, or None when it is no tap.

    Raises:
        PermissionError: When the process belongs to somebody else.
    """
    try:
        return tap_name_in(_text(Path(f"/proc/{pid}/fdinfo/{descriptor}")))
    except FileNotFoundError:
        return None


def tap_name_in(text: str) -> str | None:
    """Reads the interface out of the kernel's account of a descriptor."""
    found = re.search(r"^iff:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else None


def busy_ports(pid: int | None = None) -> frozenset[int]:
    """Returns the TCP ports that are listened on and the UDP ports in use, in a process's network namespace or ours."""
    folder = Path(f"/proc/{pid or 'self'}/net")
    return ports_in({name: _text_or_empty(folder / name) for name in PORT_TABLES})


def ports_in(tables: Mapping[str, str]) -> frozenset[int]:
    """Reads the ports that are taken out of the kernel's tables, by their names."""
    ports: set[int] = set()
    for name, text in tables.items():
        states = {"0A"} if name.startswith("tcp") else None
        fields = (line.split() for line in text.splitlines()[1:])
        ports |= {int(each[1].rpartition(":")[2], 16) for each in fields if states is None or each[3] in states}
    return frozenset(ports)


def available_memory_bytes(memory_info: Path = Path("/proc/meminfo")) -> int:
    """How much memory a new process may take without swapping, by the kernel's own estimate and livemig's cgroup.

    Args:
        memory_info: The kernel's account of the host's memory.
    """
    available_bytes = available_bytes_in(_text(memory_info))
    if systemd_runs():
        return available_bytes  # the new process gets a cgroup of its own
    room_bytes = cgroup_limits("self").memory_room_bytes
    return available_bytes if room_bytes is None else min(available_bytes, room_bytes)


def available_bytes_in(memory_info: str) -> int:
    """Reads the kernel's estimate of the available memory out of its account of it."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", memory_info, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def supervisor(facts: ProcessFacts) -> str | None:
    """Returns who would start this process again once it ends, with what to do about it; None when nobody would.

    Looks at its command line, its cgroup and its parent; asks systemd for the unit's ``Restart=``.
    """
    cgroup = _text_or_empty(Path(f"/proc/{facts.pid}/cgroup"))
    unit = unit_in(cgroup)
    parent = _parent(facts.pid)
    return who_restarts(
        facts.argv,
        cgroup,
        policy="" if unit is None else _restart_policy(unit),
        parent=parent,
        parent_name=_text_or_empty(Path(f"/proc/{parent}/comm")).strip(),
    )


def unit_in(cgroup: str) -> str | None:
    """Returns the systemd service that a process's cgroups name."""
    found = _UNIT.search(cgroup)
    return found[1] if found else None


def who_restarts(argv: tuple[str, ...], cgroup: str, *, policy: str, parent: int, parent_name: str) -> str | None:
    """Decides who would start a process again, from what was read.

    Args:
        argv: Its command line.
        cgroup: Its cgroups, as the kernel lists them.
        policy: ``Restart=`` of its systemd service, empty where it has none.
        parent: Its parent's pid.
        parent_name: Its parent's name.
    """
    if any(path in argument for argument in argv for path in _LIBVIRT_PATHS) or "machine-qemu" in cgroup:
        return "libvirt runs it: move it with `virsh migrate`, or start it without libvirt"
    unit = unit_in(cgroup)
    if unit is not None and policy not in ("", "no"):
        return f"{unit} starts it again (Restart={policy}): set Restart=no for it first (systemctl edit --runtime)"
    if parent_name in _SUPERVISORS:
        return f"{parent_name} (pid {parent}) starts it again: tell it to let go of that process first"
    return None


def command_lines_with(text: str) -> list[tuple[int, tuple[str, ...]]]:
    """Returns the processes of this machine that have a text in their command line, each with that."""
    wanted, found = os.fsencode(text), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes()
                if wanted in line:
                    found.append((int(folder.name), tuple(os.fsdecode(line).rstrip("\0").split("\0"))))
    return found


def systemd_runs() -> bool:
    """Whether systemd is this machine's first process."""
    return Path("/run/systemd/system").is_dir()


_OWN = Path("/proc/self")


def _surroundings(folder: Path) -> Surroundings:
    status = dict(pairs_in(_text(folder / "status").splitlines()))
    pid = int(status["Pid"])
    own_network = _namespace(folder, "net") == _namespace(_OWN, "net")
    return Surroundings(
        user=int(status["Uid"].split()[1]),
        group=int(status["Gid"].split()[1]),
        groups=tuple(int(group) for group in status["Groups"].split()),
        umask=int(status.get("Umask", "0022"), 8),
        limits=limits_in(_text(folder / "limits")),
        environment=dict(environment_in(_text(folder / "environ"))),
        cwd=_working_folder(folder),
        network_namespace=None if own_network else f"{folder}/ns/net",
        cpus=tuple(sorted(os.sched_getaffinity(pid))),
        nice=os.getpriority(os.PRIO_PROCESS, pid),
        scheduling=(os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(pid).sched_priority),
        oom_score_adj=int(_text(folder / "oom_score_adj")),
    )


def pairs_in(lines: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Reads lines of a key, a colon and a value."""
    for line in lines:
        key, _, value = line.partition(":")
        yield key, value.strip()


def environment_in(text: str) -> Iterable[tuple[str, str]]:
    """Reads the variables of an environment, each ended by a NUL."""
    for entry in text.split("\0"):
        key, equals, value = entry.partition("=")
        if equals and key:
            yield key, value


def limits_in(text: str) -> dict[int, tuple[int, int]]:
    """Reads the kernel's account of a process's limits."""
    found = {}
    for line in text.splitlines():
        for name, number in _LIMITS.items():
            if line.startswith(f"{name} "):
                soft, hard = line[len(name) :].split()[:2]
                found[number] = (_limit(soft), _limit(hard))
    return found


def _working_folder(folder: Path) -> str:
    """Its working folder; the root where that was deleted, since nothing can be meant from it any more."""
    path = str((folder / "cwd").readlink())
    return "/" if path.endswith(_DELETED) and not Path(path).is_dir() else path


def _limit(text: str) -> int:
    return resource.RLIM_INFINITY if text == "unlimited" else int(text)


def _namespace(folder: Path, name: str) -> str:
    return str((folder / "ns" / name).readlink())


def _replacement(linked: str, first: str, surroundings: Surroundings) -> str | None:
    """The file that stands where the deleted one stood, or where the shell would find it."""
    candidates = [linked.removesuffix(_DELETED)]
    if "/" in first:
        candidates.append(str(Path(surroundings.cwd) / first))
    elif found := shutil.which(first, path=surroundings.environment.get("PATH")):
        candidates.append(found)
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


def _restart_policy(unit: str) -> str:
    if not systemd_runs():
        return ""
    command = ["systemctl", "show", "--property=Restart", "--value", "--", unit]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SYSTEMCTL_BOUND_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _parent(pid: int) -> int:
    status = dict(pairs_in(_text_or_empty(Path(f"/proc/{pid}/status")).splitlines()))
    return int(status.get("PPid", "0"))


def _text(path: Path) -> str:
    return os.fsdecode(path.read_bytes())


def _text_or_empty(path: Path) -> str:
    try:
        return _text(path)
    except OSError:
        return ""
