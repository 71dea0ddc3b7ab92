"""What a launched destination runs in is what its source runs in: user, limits, umask, environment, network, folder."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import livemig
from livemig.core.errors import RefusedError
from livemig.core.status import RunState
from livemig.engine.launch_plan import LaunchOptions, folder_of, supervisor_of
from livemig.engine.side import Side
from livemig.hosts import process as process_module
from livemig.hosts.local import LocalProcess
from livemig.hosts.places import listened_at
from livemig.hosts.process import (
    available_memory_bytes,
    busy_ports,
    own_surroundings,
    read_process,
    supervisor,
    systemd_runs,
)
from livemig.hosts.start import Program, scope_prefix, start
from tests.launch.bench import QEMU, Bench, assert_waits, need_root

BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "64M")
NOBODY = 65534


def status(pid: int, name: str) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(name))


@pytest.mark.qemu
async def test_it_has_the_surroundings_of_its_source(bench: Bench) -> None:
    environment = {"PATH": os.environ["PATH"], "LIVEMIG_TEST": "a,b=c\nd", "HOME": "/"}
    prefix = (
        *("prlimit", "--nofile=700:900", "--core=0:0", "taskset", "--cpu-list", "1", "nice", "-n", "5"),
        *("chrt", "--batch", "0", "sh", "-c", 'umask 027; echo 321 >/proc/self/oom_score_adj; exec "$@"', "sh"),
    )
    source = await bench.source(*BARE, prefix=prefix, env=environment)
    launched = await bench.launch(source)
    await assert_waits(launched)
    assert source.process is not None
    first, second = (read_process(pid).surroundings for pid in (source.process.pid, launched.process.pid))
    assert first == second
    assert second.limits[7][1] == 900
    assert second.limits[4] == (0, 0)
    assert second.umask == 0o027
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    assert (second.cpus, second.nice, second.oom_score_adj) == ((1,), nice, 321)
    assert second.scheduling == (os.SCHED_BATCH, 0)
    assert launched.plan.warnings == ()
    assert os.getsid(launched.process.pid) == launched.process.pid
    opened = [os.readlink(f"/proc/{launched.process.pid}/fd/{number}") for number in (0, 1)]  # noqa: PTH115
    assert opened == ["/dev/null", "/dev/null"]


@pytest.mark.qemu
async def test_it_runs_as_its_sources_user(bench: Bench) -> None:
    need_root()
    bench.open_to_all()
    prefix = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--groups=24,25")
    source = await bench.source(*BARE, prefix=prefix)
    launched = await bench.launch(source)
    await assert_waits(launched)
    assert status(launched.process.pid, "Uid:") == [str(NOBODY)] * 4
    assert status(launched.process.pid, "Gid:") == [str(NOBODY)] * 4
    assert status(launched.process.pid, "Groups:") == ["24", "25"]
    assert int(status(launched.process.pid, "CapEff:")[0], 16) == 0
    assert launched.plan.folder.stat().st_uid == NOBODY


@pytest.mark.qemu
async def test_a_folder_its_user_cannot_write_to_is_refused(bench: Bench) -> None:
    need_root()
    bench.open_to_all()
    closed = bench.folder / "closed"
    closed.mkdir(mode=0o700)
    source = await bench.source(*BARE, prefix=("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"))
    with pytest.raises(RefusedError, match="can't write"):
        await bench.plan(source, "closed/b.qmp")


@pytest.mark.qemu
async def test_it_runs_in_its_sources_network_namespace(bench: Bench) -> None:
    need_root()
    name = f"lm{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        source = await bench.source(*BARE, "-gdb", "tcp::17235", prefix=("nsenter", f"--net=/run/netns/{name}"))
        launched = await bench.launch(source)
        await assert_waits(launched)
        assert source.process is not None
        namespaces = {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in (source.process.pid, launched.process.pid)}  # noqa: PTH116
        assert namespaces == {os.stat(f"/run/netns/{name}").st_ino}  # noqa: PTH116
        assert {17235, 17236} <= busy_ports(launched.process.pid)
        assert not {17235, 17236} & busy_ports()
        await bench.close()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.qemu
@pytest.mark.parametrize("replaced", [True, False])
async def test_a_deleted_program_is_found_by_its_path(bench: Bench, replaced: bool) -> None:
    found = shutil.which(QEMU)
    assert found
    own = bench.folder / "qemu"
    shutil.copy(found, own)
    source = await bench.source(*BARE, "-L", "/usr/share/qemu", "-L", "/usr/share/seabios", binary=str(own))
    own.unlink()
    if not replaced:
        with pytest.raises(RefusedError, match=r"deleted|install that QEMU there"):
            await bench.plan(source)
        return
    shutil.copy(found, own)
    launched = await bench.launch(source)
    await assert_waits(launched)
    assert str(own) in launched.plan.command
    assert "replaced" in launched.plan.warnings[0]


@pytest.mark.qemu
async def test_a_source_in_another_root_is_refused(bench: Bench) -> None:
    need_root()
    source = await bench.source(*BARE, prefix=("unshare", "--mount"))
    with pytest.raises(RefusedError, match="--dst-command"):
        await bench.plan(source)


@pytest.mark.qemu
async def test_what_it_could_not_take_over_is_said(bench: Bench) -> None:
    """As seen at the running process, whatever was planned."""
    source = await bench.source(*BARE)
    plan = await bench.plan(source)
    assert source.process is not None
    os.setpriority(os.PRIO_PROCESS, source.process.pid, 7)
    launched = await bench.launch_planned(plan)
    (warning,) = launched.plan.warnings
    assert "nice value" in warning


@pytest.mark.qemu
async def test_it_has_a_scope_of_its_own_or_a_session(bench: Bench) -> None:
    """A scope where systemd runs, so that it does not end with livemig's service; a session everywhere."""
    source = await bench.source(*BARE)
    launched = await bench.launch(source)
    pid = launched.process.pid
    assert os.getsid(pid) == pid
    cgroup = Path(f"/proc/{pid}/cgroup").read_text()
    if systemd_runs():
        assert ".scope" in cgroup
        assert cgroup != Path("/proc/self/cgroup").read_text()
    else:
        assert scope_prefix() == []
        assert cgroup == Path("/proc/self/cgroup").read_text()


IN_ANOTHER_PID_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")


@pytest.mark.qemu
async def test_a_source_in_another_pid_namespace_is_not_taken_for_another_qemu(bench: Bench) -> None:
    """The thread id that it gives is, out here, one of another guest's QEMU, which must not be killed in its place."""
    need_root()
    other = await bench.source(*BARE, "-smp", "16", qmp="other.qmp")
    assert other.process is not None
    source = await _source_with_a_thread_of(other, bench)
    stranger = LocalProcess.of_thread(source.facts.thread_ids[0])
    assert stranger is not None
    assert stranger.pid == other.process.pid  # what believing it would come to
    stranger.close()
    assert source.process is None

    with pytest.raises(RefusedError) as refused:
        await bench.plan(source)
    for words in (str(bench.folder / "a.qmp"), str(bench.folder / "b.qmp"), "container", "--dst-command"):
        assert words in str(refused.value)
    assert await supervisor_of(source) is None
    assert not await source.end()  # told to quit; that it is gone can't be proven
    assert not await other.process.is_gone()
    assert await other.monitor.query_status() is RunState.PRELAUNCH


async def _source_with_a_thread_of(other: Side, bench: Bench) -> Side:
    """A QEMU in a pid namespace of its own that gives for its vCPU the number of a thread of another one out here."""
    assert other.process is not None
    tasks = {int(task.name) for task in Path(f"/proc/{other.process.pid}/task").iterdir()}
    for wanted in other.facts.thread_ids:
        script = f'echo {wanted - 3} >/proc/sys/kernel/ns_last_pid; exec "$@"'  # two threads come before
        source = await bench.source(*BARE, prefix=(*IN_ANOTHER_PID_NAMESPACE, script, "sh"))
        if source.facts.thread_ids[0] in tasks:
            return source
        await source.end()
    raise AssertionError("no such number came up")


@pytest.mark.qemu
async def test_a_source_in_another_pid_namespace_moves_into_a_given_command(bench: Bench) -> None:
    """What can't be seen is said: its end."""
    need_root()
    source = await bench.source(*BARE, prefix=(*IN_ANOTHER_PID_NAMESPACE, 'exec "$@"', "sh"))
    await source.close()
    migration = livemig.migrate(
        livemig.Plan(probation_s=0.1),
        source=str(bench.folder / "a.qmp"),
        destination=str(bench.folder / "b.qmp"),
        launch=LaunchOptions.parse(command=shlex.join((QEMU, *BARE))),
    )
    async with migration:
        async for _ in migration:
            pass
    assert migration.report.outcome == "completed", migration.report.reason
    assert any("its end could not be seen" in warning for warning in migration.report.warnings)
    assert not (bench.folder / "a.qmp").exists() or not listened_at(bench.folder / "a.qmp")


@pytest.mark.qemu
async def test_it_outlives_livemig(bench: Bench) -> None:
    source = await bench.source(*BARE)
    await source.close()
    program = (
        "import asyncio, sys\n"
        "from livemig.engine.launch import *\nfrom livemig.engine.launch_plan import *\n"
        "from livemig.engine.side import Side\n"
        "from livemig.qemu.address import Address\n"
        "async def main():\n"
        "    side = await Side.connect('source', Address(path=sys.argv[1]))\n"
        "    launched = await launch(await plan_launch(side, side.host, Address(path=sys.argv[2]), LaunchOptions()))\n"
        "    await side.close()\n"
        "    print(launched.process.pid)\n"
        "asyncio.run(main())\n"
    )
    paths = [str(bench.folder / name) for name in ("a.qmp", "b.qmp")]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    launched = bench.adopt(int(done.stdout))
    await asyncio.sleep(0.1)
    assert launched.alive
    waiting = await bench.connect("b.qmp")
    folder = await folder_of(waiting)
    assert folder == Path(f"{bench.folder}/b.qmp.livemig")
    assert await supervisor_of(waiting) is None


def test_a_supervisor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = read_process(os.getpid())
    argv = ("qemu", "-chardev", "socket,path=/var/lib/libvirt/qemu/domain-1/monitor.sock")
    assert "virsh" in (supervisor(msgspec.structs.replace(facts, argv=argv)) or "")
    texts = {"cgroup": "0::/system.slice/vm1.service\n", "status": "PPid:\t7\n", "comm": "bash\n"}
    monkeypatch.setattr(process_module, "_text_or_empty", lambda path: texts[path.name])
    monkeypatch.setattr(process_module, "_restart_policy", lambda unit: {"vm1.service": "always"}[unit])
    assert "vm1.service" in (supervisor(facts) or "")
    monkeypatch.setattr(process_module, "_restart_policy", lambda _: "no")
    assert supervisor(facts) is None
    texts["comm"] = "runsv\n"
    assert "runsv" in (supervisor(facts) or "")


def test_a_scope_is_used_where_systemd_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livemig.hosts.start.systemd_runs", lambda: False)
    assert scope_prefix() == []
    monkeypatch.setattr("livemig.hosts.start.systemd_runs", lambda: True)
    monkeypatch.setattr("livemig.hosts.start.shutil.which", lambda name: f"/bin/{name}")
    assert scope_prefix()[0] == "/bin/systemd-run"
    assert "--scope" in scope_prefix()


def test_memory_that_is_available() -> None:
    assert available_memory_bytes() > 2**24


def test_a_process_that_has_ended_is_no_process() -> None:
    with pytest.raises(ProcessLookupError):
        read_process(2**22 + 1)


async def test_becoming_the_program_takes_little_time(folder: Path) -> None:
    program = Program(executable="/bin/true", argv=("true",), surroundings=own_surroundings())
    taken_s = []
    for _ in range(5):
        begun_s = time.monotonic()
        started = start(program, stderr_path=folder / "stderr")
        assert await started.wait_ended(10)
        taken_s.append(time.monotonic() - begun_s)
        assert started.exit_code == 0
        started.close()
    assert min(taken_s) < 0.1, taken_s


async def test_what_cannot_be_become_says_so(folder: Path) -> None:
    program = Program(executable="/nowhere", argv=("x",), surroundings=own_surroundings())
    started = start(program, stderr_path=folder / "stderr")
    assert await started.wait_ended(10)
    started.close()
    assert started.exit_code == 126
    assert "/nowhere" in (folder / "stderr").read_text()
