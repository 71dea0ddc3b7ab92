"""What confines a process from outside, and what a second one beside it did not get: cgroups, labels, capabilities.

Only reads. A launched QEMU is in another cgroup than its source, on purpose; whether that matters is said here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from livemig.core.units import format_size

_UNLIMITED_BYTES = 2**60
"""What the older cgroups write for no limit is a little less than 2⁶³."""
_UNCONFINED = frozenset({"", "unconfined", "kernel"})


class CgroupLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a process's cgroups, with all those above them, let it have.

    Attributes:
        memory_bytes: Of memory, in bytes; None when unlimited.
        memory_room_bytes: How much of that is left, in bytes.
        cpu_count: Of processor time, in processors; None when unlimited.
    """

    memory_bytes: int | None = None
    memory_room_bytes: int | None = None
    cpu_count: float | None = None


def cgroup_limits(
    pid: int | str, *, cgroups: Path = Path("/sys/fs/cgroup"), processes: Path = Path("/proc")
) -> CgroupLimits:
    """Reads the limits of both kinds of cgroups; what can't be read limits nothing.

    Args:
        pid: The process, or ``self``.
        cgroups: Where the cgroups are mounted.
        processes: Where the processes are.
    """
    memory, rooms, cpus = [], [], []
    for controllers, path in _memberships(_text(processes / str(pid) / "cgroup")):
        for folder in _upwards(controllers, path, cgroups):
            limit = _bytes(folder, "memory.max", "memory.limit_in_bytes")
            if limit is not None:
                memory.append(limit)
                rooms.append(max(0, limit - (_bytes(folder, "memory.current", "memory.usage_in_bytes") or 0)))
            share = _cpu_count(folder)
            if share is not None:
                cpus.append(share)
    return CgroupLimits(
        memory_bytes=min(memory, default=None),
        memory_room_bytes=min(rooms, default=None),
        cpu_count=min(cpus, default=None),
    )


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What confines one process.

    Attributes:
        cgroup: What its cgroups let it have; None where that was not read.
        label: What SELinux or AppArmor confine it as; empty where neither does.
        capabilities: Its effective capabilities, as a mask.
        pinned: Whether its threads may run on other processors than the process as a whole.
    """

    cgroup: CgroupLimits | None = None
    label: str = ""
    capabilities: int = 0
    pinned: bool = False


def read_confinement(pid: int) -> Confinement:
    """Looks at a running process; what can't be read confines nothing."""
    return Confinement(
        cgroup=cgroup_limits(pid),
        label=_text(Path(f"/proc/{pid}/attr/current")).rstrip("\0\n"),
        capabilities=capabilities_in(_text(Path(f"/proc/{pid}/status"))),
        pinned=_are_pinned(pid),
    )


def not_taken_over(source: Confinement, launched: Confinement, surroundings_differ: tuple[str, ...]) -> tuple[str, ...]:
    """Returns what a running process has and the one launched from it has not, one line each, with what to do.

    Args:
        source: The first.
        launched: The second.
        surroundings_differ: What else of its surroundings it could not take on.
    """
    found = [
        f"the destination could not take over the source's {what}: run livemig as root, or set it there"
        for what in surroundings_differ
    ]
    if source.cgroup is not None and launched.cgroup is not None:
        found += _cgroups_differ(source.cgroup, launched.cgroup)
    if source.label != launched.label and source.label.partition(" ")[0] not in _UNCONFINED:
        found.append(
            f"the source is confined as {source.label}, and the destination runs as {launched.label or 'unconfined'}: "
            "start the destination yourself where it has to be confined too"
        )
    if source.capabilities & ~launched.capabilities:
        found.append(
            "the source has capabilities that the destination lacks: start the destination as that was started"
        )
    if source.pinned and not launched.pinned:
        found.append("the source's threads are pinned to processors one by one: pin the destination's too")
    return tuple(found)


def _cgroups_differ(here: CgroupLimits, there: CgroupLimits) -> Iterator[str]:
    for what, mine, other in (
        ("memory", _size(here.memory_bytes), _size(there.memory_bytes)),
        ("processor time", _share(here.cpu_count), _share(there.cpu_count)),
    ):
        if mine != other:
            yield (
                f"for {what} the source's cgroup has {mine}, the destination's {other}: set the same there (systemctl "
                "set-property)"
            )


def _size(limit_bytes: int | None) -> str:
    return "no limit" if limit_bytes is None else f"a limit of {format_size(limit_bytes)}"


def _share(cpu_count: float | None) -> str:
    return "no limit" if cpu_count is None else f"a limit of {cpu_count:g} processors"


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or {"memory", "cpu"} & set(controllers.split(",")):
            yield controllers, path


def _upwards(controllers: str, path: str, cgroups: Path) -> Iterator[Path]:
    roots = [cgroups / controllers] if controllers else [cgroups, cgroups / "unified"]
    for root in roots:
        folder = Path(os.path.normpath(root / path.lstrip("/")))
        while folder != root and root in folder.parents:
            yield folder
            folder = folder.parent


def _bytes(folder: Path, *names: str) -> int | None:
    for name in names:
        text = _text(folder / name).strip()
        if text.isdigit() and int(text) < _UNLIMITED_BYTES:
            return int(text)
    return None


def _cpu_count(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def capabilities_in(status: str) -> int:
    """Reads the effective capabilities out of a process's status."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _are_pinned(pid: int) -> bool:
    """Whether its threads may run on other processors than the process as a whole."""
    try:
        threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208
        return any(os.sched_getaffinity(thread) != os.sched_getaffinity(pid) for thread in threads)
    except OSError:
        return False


def _text(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes())
    except OSError:
        return ""
