"""What confines a source and not the destination launched beside it is said; what is the same is not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from livemig.hosts import confinement
from livemig.hosts.confinement import CgroupLimits, Confinement, cgroup_limits, not_taken_over, read_confinement
from livemig.hosts.process import available_memory_bytes, read_process

GiB = 2**30
PINNING = """
import os, sys, threading
threading.Thread(target=lambda: (os.sched_setaffinity(0, {%d}), print(flush=True), sys.stdin.read())).start()
"""


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process whose affinity is this one's."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def written(root: Path, **files: str) -> Path:
    """A tree of files: two underscores for a slash, one before a dot for none."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_limits_of_the_new_cgroups(tmp_path: Path) -> None:
    """The least on the way up counts."""
    processes = written(tmp_path / "proc", **{"7__cgroup": "0::/system.slice/vm.service\n"})
    cgroups = written(
        tmp_path / "cgroup",
        **{
            "system.slice__memory.max": f"{GiB}\n",
            "system.slice__memory.current": f"{GiB // 4}\n",
            "system.slice__vm.service__memory.max": "max\n",
            "system.slice__vm.service__cpu.max": "150000 100000\n",
            "system.slice__cpu.max": "max 100000\n",
        },
    )
    found = cgroup_limits(7, cgroups=cgroups, processes=processes)
    assert found == CgroupLimits(memory_bytes=GiB, memory_room_bytes=GiB * 3 // 4, cpu_count=1.5)


def test_limits_of_the_old_cgroups(tmp_path: Path) -> None:
    """One tree for each controller; an unlimited one has a huge number."""
    membership = "9:name=systemd:/\n4:memory:/vm/a\n2:cpu,cpuacct:/vm\n0::/\n"
    processes = written(tmp_path / "proc", **{"7__cgroup": membership})
    cgroups = written(
        tmp_path / "cgroup",
        **{
            "memory__vm__a__memory.limit_in_bytes": f"{GiB}\n",
            "memory__vm__a__memory.usage_in_bytes": f"{2 * GiB}\n",
            "memory__vm__memory.limit_in_bytes": "9223372036854771712\n",
            "cpu,cpuacct__vm__cpu.cfs_quota_us": "50000\n",
            "cpu,cpuacct__vm__cpu.cfs_period_us": "100000\n",
        },
    )
    found = cgroup_limits(7, cgroups=cgroups, processes=processes)
    assert found == CgroupLimits(memory_bytes=GiB, memory_room_bytes=0, cpu_count=0.5)


@pytest.mark.parametrize("membership", ["", "0::/\n", "4:memory:/gone\n0::/../../elsewhere\n"])
def test_what_can_not_be_read_limits_nothing(tmp_path: Path, membership: str) -> None:
    processes = written(tmp_path / "proc", **{"7__cgroup": membership})
    assert cgroup_limits(7, cgroups=tmp_path / "cgroup", processes=processes) == CgroupLimits()
    assert cgroup_limits(8, cgroups=tmp_path / "cgroup", processes=processes) == CgroupLimits()


def test_two_alike_differ_in_nothing(sleeper: int) -> None:
    assert not_taken_over(read_confinement(os.getpid()), read_confinement(sleeper), ()) == ()


def test_each_difference_is_one_line() -> None:
    """With what to do about it."""
    mine = Confinement(
        cgroup=CgroupLimits(memory_bytes=GiB, cpu_count=1.5), label="libvirt-1 (enforce)", capabilities=3, pinned=True
    )
    other = Confinement(cgroup=CgroupLimits(cpu_count=1.5), label="unconfined", capabilities=2)
    memory, label, capabilities, pinned = (
        line for line in not_taken_over(mine, other, ("nice value",)) if "nice value" not in line
    )
    assert "for memory the source's cgroup has a limit of 1.0 GiB, the destination's no limit" in memory
    assert "libvirt-1 (enforce)" in label
    assert "capabilities" in capabilities
    assert "pinned" in pinned
    assert "nice value" in not_taken_over(mine, other, ("nice value",))[0]
    assert len(not_taken_over(other, mine, ())) == 1  # the destination's limit alone


def test_threads_pinned_one_by_one_are_seen(sleeper: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    assert not confinement._are_pinned(sleeper)
    assert len(cpus) > 1, "this test needs two processors"
    with subprocess.Popen(
        ["python3", "-c", PINNING % cpus[0]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert confinement._are_pinned(process.pid)
        process.communicate()


def test_memory_is_what_host_and_cgroup_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_info = written(tmp_path, info="MemTotal: 99 kB\nMemAvailable:    2048 kB\n") / "info"
    monkeypatch.setattr("livemig.hosts.process.systemd_runs", lambda: False)
    monkeypatch.setattr("livemig.hosts.process.cgroup_limits", lambda _: CgroupLimits(memory_room_bytes=2**20))
    assert available_memory_bytes(memory_info) == 2**20
    monkeypatch.setattr("livemig.hosts.process.cgroup_limits", lambda _: CgroupLimits())
    assert available_memory_bytes(memory_info) == 2**21
    monkeypatch.setattr("livemig.hosts.process.cgroup_limits", lambda _: CgroupLimits(memory_room_bytes=0))
    monkeypatch.setattr("livemig.hosts.process.systemd_runs", lambda: True)  # the launched has a cgroup of its own
    assert available_memory_bytes(memory_info) == 2**21


def test_how_it_is_scheduled_is_read(sleeper: int) -> None:
    os.setpriority(os.PRIO_PROCESS, sleeper, 5)
    cpu = min(os.sched_getaffinity(0))
    os.sched_setaffinity(sleeper, {cpu})
    os.sched_setscheduler(sleeper, os.SCHED_BATCH, os.sched_param(0))
    Path(f"/proc/{sleeper}/oom_score_adj").write_text("321")
    found = read_process(sleeper).surroundings
    assert (found.nice, found.cpus, found.scheduling, found.oom_score_adj) == (5, (cpu,), (os.SCHED_BATCH, 0), 321)
