"""Launches that can't be, or fail: said by name, with QEMU's words, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import livemig
from livemig.core.errors import (
    CommandError,
    CommandLineError,
    ConnectError,
    HostError,
    LaunchError,
    PlanError,
    RefusedError,
)
from livemig.core.status import RunState
from livemig.engine import connect
from livemig.engine.host_pool import HostPool
from livemig.engine.launch import Launched, launch
from livemig.engine.launch_plan import LaunchOptions
from livemig.engine.recovered_side import RecoveredSide
from livemig.engine.run_record import SideRecord
from livemig.hosts.launch_folder import remove_folder
from livemig.hosts.local_host import LocalHost
from livemig.lab.machine import Machine, MachineSettings
from livemig.qemu.address import Address
from tests.engine.pair import spawn_livemig
from tests.launch.bench import Bench, assert_waits, need_root, run_state

pytestmark = pytest.mark.qemu

BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "64M")
QUICK = livemig.Plan(probation_s=0.1)
MOVE_COUNT = 20
MiB = 2**20


async def assert_fails(bench: Bench, plan, words: str, **options) -> LaunchError:
    before = {path.name for path in bench.folder.iterdir()}
    with pytest.raises(LaunchError, match=words) as raised:
        await launch(plan, **options)
    assert {path.name for path in bench.folder.iterdir()} == before
    assert not await asyncio.to_thread(_processes_with, str(plan.spare_path))
    return raised.value


def _processes_with(text: str) -> list[int]:
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            line = (each / "cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in line:
            found.append(int(each.name))
    return found


async def test_one_that_dies_at_once_is_quoted(bench: Bench) -> None:
    source = await bench.source(*BARE)
    plan = await bench.plan(source, arguments="-device no-such-device")
    error = await assert_fails(bench, plan, "no-such-device")
    assert error.exit_code == (1 if plan.host.is_local else None)  # another host's shell tells it to nobody
    assert "no-such-device" in error.stderr
    assert plan.command == error.command


async def test_one_that_dies_says_no_secret(bench: Bench) -> None:
    source = await bench.source(*BARE)
    plan = await bench.plan(source, arguments="-object secret,id=s0,data=geheim,nonsense=geheim")
    error = await assert_fails(bench, plan, "nonsense")
    assert "geheim" not in str(error) + error.stderr + error.command


async def test_one_that_never_answers_is_ended(bench: Bench) -> None:
    source = await bench.source(*BARE)
    await assert_fails(
        bench,
        await bench.plan(source, command="/bin/sleep -m 60"),
        "ended at once|does not answer|can't be started",
        timeout_s=1.0,
    )
    hanging = bench.folder / "hang"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    if not source.host.is_local:  # another host's program is asked for its version first
        with pytest.raises(RefusedError, match="takes more than 4 s"):
            await bench.plan(source, command=str(hanging))
        return
    await assert_fails(bench, await bench.plan(source, command=str(hanging)), "does not answer", timeout_s=0.5)


async def test_one_that_is_cancelled_is_gone(bench: Bench) -> None:
    source = await bench.source(*BARE)
    plan = await bench.plan(source)
    for delay_s in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.12, 0.16):
        task = asyncio.create_task(launch(plan))
        await asyncio.sleep(delay_s)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).end()  # it was quicker than the cancel
        assert not plan.folder.exists()
        assert not plan.qmp_path.exists()
        assert not _processes_with(str(plan.spare_path))


async def test_a_cancel_while_the_host_is_lost_says_what_may_be_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the program was started nobody knows: that is not silence."""
    plan = await bench.plan(await bench.source(*BARE))
    left: list[str] = []

    async def lost(*_: object) -> None:
        await asyncio.sleep(0.2)
        raise HostError("no answer within 10 s", host="b")

    monkeypatch.setattr(type(plan.host), "start", lost)
    task = asyncio.create_task(launch(plan, run_id="0000000a", left=left))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (line,) = left
    assert "no answer within 10 s" in line
    assert "livemig recover 0000000a" in line


async def test_a_missing_image_is_named(bench: Bench) -> None:
    (bench.folder / "a.img").write_bytes(bytes(2**20))
    source = await bench.source(*BARE, "-hda", "{folder}/a.img")
    with pytest.raises(RefusedError, match=r"/nowhere/a\.img is not there"):
        await bench.plan(source, maps=[f"{bench.folder}=/nowhere"])


async def test_a_destination_without_memory_is_refused(bench: Bench) -> None:
    """In a cgroup that can't hold the guest: the kernel would end a QEMU that is launched there, in the middle."""
    need_root()
    source = await bench.source(*BARE[:-1], "512M")
    await source.close()
    with cgroup_of(256 * MiB) as procs:
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *("sh", "-c", f'echo $$ >{procs}; exec "$@"', "sh", sys.executable, "-m", "livemig", "run", "--json"),
                *("--src-qmp", str(bench.folder / "a.qmp"), "--dst-qmp", str(bench.folder / "b.qmp")),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    assert "512.0 MiB of memory" in done.stderr
    assert "can be had here" in done.stderr
    assert not (bench.folder / "b.qmp.livemig").exists()


@contextlib.contextmanager
def cgroup_of(memory_bytes: int) -> Iterator[Path]:
    """A cgroup with a limit, below this process's own; gives the file that takes a process in."""
    of_memory = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    controllers, path = next((names, path) for _, names, path in of_memory if names in ("memory", ""))
    limit = "memory.limit_in_bytes" if controllers else "memory.max"
    folder = Path(f"/sys/fs/cgroup/{controllers}/{path}/lm{os.getpid()}")
    folder.mkdir()
    try:
        assert (folder / limit).exists(), "this test needs a cgroup that limits memory"
        (folder / limit).write_text(str(memory_bytes))
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


async def test_a_guest_larger_than_what_is_left_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up front: nothing was launched."""
    source = await bench.source(*BARE)
    destination = Address(path=str(bench.folder / "b.qmp"))
    monkeypatch.setattr("livemig.hosts.process.available_memory_bytes", lambda: 64 * MiB - 1)
    with pytest.raises(RefusedError, match=r"64\.0 MiB of memory"):
        await connect.launch_plan(source, destination, LocalHost(), LaunchOptions())
    monkeypatch.setattr("livemig.hosts.process.available_memory_bytes", lambda: 64 * MiB)
    planned = await connect.launch_plan(source, destination, LocalHost(), LaunchOptions())
    assert planned.qmp_path == bench.folder / "b.qmp"


async def test_what_a_side_refuses_names_the_side(bench: Bench) -> None:
    """Of two QEMUs, one has to know which."""
    source = await bench.source(*BARE)
    with pytest.raises(CommandError, match=r"^the source's QEMU refused no-such-command: "):
        await source.monitor.execute("no-such-command")


async def test_a_file_in_the_monitors_place_is_refused_at_once(bench: Bench) -> None:
    """It is not waited for, as for a QEMU that is about to listen there."""
    source = await bench.source(*BARE)
    await source.close()
    (bench.folder / "file").write_text("precious")
    with pytest.raises(ConnectError, match="file: that is no QMP socket"):
        async with livemig.migrate(QUICK, source=str(source.address), destination=str(bench.folder / "file")):
            pass


async def test_a_taken_port_is_named_or_left(bench: Bench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        source = await bench.source(*BARE)
        with pytest.raises(RefusedError, match=f"port {port} is taken"):
            await bench.plan(source, arguments=f"-gdb tcp:127.0.0.1:{port}")
        taken.close()


async def test_a_taken_socket_is_named(bench: Bench) -> None:
    source = await bench.source(*BARE)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.folder / "taken.qmp"))
        listener.listen()
        with pytest.raises(RefusedError, match="somebody listens"):
            await bench.plan(source, "taken.qmp")
    (bench.folder / "file").write_text("precious")
    with pytest.raises(RefusedError, match="no socket"):
        await bench.plan(source, "file")
    with pytest.raises(RefusedError, match="no folder"):
        await bench.plan(source, "nowhere/b.qmp")
    (bench.folder / "b.qmp.livemig").mkdir()
    with pytest.raises(RefusedError, match="not livemig's"):
        await bench.plan(source)
    assert (bench.folder / "file").read_text() == "precious"


async def test_a_folder_in_use_is_named_and_a_dead_ones_is_replaced(bench: Bench) -> None:
    source = await bench.source(*BARE)
    launched = await bench.launch(source)
    with pytest.raises(RefusedError, match="somebody listens"):
        await bench.plan(source)
    assert await launched.process.end(5)
    assert launched.plan.qmp_path.exists()
    again = await bench.launch(source)
    await assert_waits(again)
    assert stat.S_IMODE(again.plan.folder.stat().st_mode) == 0o700
    remove_folder(bench.folder)
    assert bench.folder.exists()


async def test_options_that_make_no_sense(bench: Bench) -> None:
    source = await bench.source(*BARE)
    for options in (
        {"maps": ["x"]},
        {"settings": ["x"]},
        {"arguments": "'"},
        {"command": ""},
        {"command": "qemu", "maps": ["/a=/b"]},
        {"settings": ["none.mac=1"]},
        {"arguments": "-S"},
    ):
        with pytest.raises(PlanError):
            await bench.plan(source, **options)
    with pytest.raises(CommandLineError, match="--frob"):
        await bench.plan(source, arguments="--frob")
    with pytest.raises(RefusedError, match="no program"):
        await bench.plan(source, command="no-such-qemu -m 1")


async def test_a_given_command_is_launched(bench: Bench) -> None:
    source = await bench.source(*BARE)
    line = "qemu-system-x86_64 -nodefaults -display none -m 64M -daemonize -incoming tcp:0:1"
    await assert_waits(await bench.launch(source, command=line))


async def test_a_source_by_tcp_needs_a_command(bench: Bench) -> None:
    source = await bench.source(*BARE)
    source.address = Address(host="127.0.0.1", port=4444)
    with pytest.raises(RefusedError) as refused:
        await bench.plan(source)
    for words in ("tcp:127.0.0.1:4444", str(bench.folder / "b.qmp"), "no socket of this host", "--dst-command"):
        assert words in str(refused.value)
    await assert_waits(await bench.launch(source, command="qemu-system-x86_64 -nodefaults -display none"))


async def test_a_process_of_somebody_else_is_refused(bench: Bench) -> None:
    need_root()
    bench.folder.chmod(0o777)
    source = await bench.source(*BARE)
    os.seteuid(65534)
    try:
        with pytest.raises(RefusedError, match="as root"):
            await bench.plan(source)
    finally:
        os.seteuid(0)


async def test_file_backed_memory_on_one_host(bench: Bench) -> None:
    memory = bench.folder / "memory"
    memory.write_bytes(bytes(2**26))
    backend = "memory-backend-file,id=m0,size=64M,share=on,mem-path={folder}/memory"
    source = await bench.source(*BARE, "-object", backend, "-machine", "pc,memory-backend=m0")
    with pytest.raises(RefusedError, match="overwritten"):
        await bench.plan(source)
    await assert_waits(await bench.launch(source, maps=[f"{memory}={memory}.new"]))


async def test_the_guest_moves_on_and_on(bench: Bench) -> None:
    """Twenty moves, each into a destination launched from the QEMU before; nothing grows and nothing is left."""
    async with Machine(MachineSettings(), folder=bench.folder) as machine:
        await machine.serial.wait_ready()
        qmp, folder, lengths = machine.qmp_path, None, set()
        for number in range(MOVE_COUNT):
            source = await bench.connect(qmp.name)
            plan = await bench.plan(source, f"{number}.qmp")
            launched = await bench.launch_planned(plan)
            await source.close()
            async with livemig.migrate(QUICK, source=str(qmp), destination=str(plan.qmp_path)) as migration:
                async for _ in migration:
                    pass
            assert migration.report.outcome == "completed"
            assert plan.source_folder == folder
            if folder is not None:
                remove_folder(folder)
            qmp, folder = plan.qmp_path, plan.folder
            lengths.add(len(plan.redacted_argv))
            assert not await launched.process.is_gone()
        assert len(lengths) == 1
        left = {path.name for path in bench.folder.iterdir()} - {path.name for path in bench.folder.glob("guest*")}
        assert left == {f"{MOVE_COUNT - 1}.qmp", f"{MOVE_COUNT - 1}.qmp.livemig"}


async def test_a_stranger_at_the_launched_ones_monitor_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody launched another QEMU at the same path in the same moment: the guest is not sent to that."""
    source = await bench.source(*BARE)
    await source.close()
    stranger = await bench.source(*BARE, "-incoming", "defer", qmp="stranger.qmp")
    await stranger.close()

    async def launch_beside(plan, **options):
        launched = await launch(plan, **options)
        plan.qmp_path.unlink()
        plan.qmp_path.symlink_to(bench.folder / "stranger.qmp")
        return launched

    monkeypatch.setattr(connect, "launch", launch_beside)
    with pytest.raises(LaunchError, match="another QEMU answers there"):
        async with livemig.migrate(QUICK, source=str(source.address), destination=str(bench.folder / "b.qmp")):
            pass
    assert not (bench.folder / "b.qmp.livemig").exists()
    assert not _processes_with(f"{bench.folder}/b.qmp.livemig")
    assert stranger.process is not None
    assert bench.adopt(stranger.process.pid).alive


@pytest.mark.parametrize("left_over", [False, True], ids=["nothing there", "a folder left over"])
async def test_of_two_launches_at_once_one_is_refused(bench: Bench, left_over: bool) -> None:
    """Both have looked before either began: the slower one touches nothing of the other's."""
    one, other = await bench.source(*BARE, qmp="a.qmp"), await bench.source(*BARE, qmp="c.qmp")
    if left_over:
        dead = await bench.launch(one)
        assert await dead.process.end(5)
    plans = [await bench.plan(each) for each in (one, other)]
    for _ in range(4):
        found = await asyncio.gather(*(launch(plan) for plan in plans), return_exceptions=True)
        launched = [each for each in found if isinstance(each, Launched)]
        refused = [each for each in found if isinstance(each, RefusedError)]
        assert (len(launched), len(refused)) == (1, 1), found
        assert "another livemig" in str(refused[0])
        await launched[0].release_folder()
        await assert_waits(launched[0])
        assert len(_processes_with(str(plans[0].folder))) == 1
        assert await launched[0].end()
        assert {path.name for path in bench.folder.iterdir()} <= {"a.qmp", "c.qmp", "a.stderr"}
        plans.reverse()


async def test_of_two_runs_at_once_to_one_place_one_moves(bench: Bench) -> None:
    """Two guests, two livemigs, one ``--dst-qmp``: whatever each sees of the other, one arrives and one stays."""
    async with (
        Machine(MachineSettings(), folder=bench.folder, name="one") as one,
        Machine(MachineSettings(), folder=bench.folder, name="two") as two,
    ):
        for machine in (one, two):
            await machine.serial.wait_ready()
        target = bench.folder / "b.qmp"
        options = ("--dst-qmp", str(target), "--probation", "0.1s")
        running = [
            await spawn_livemig("run", "--json", "--src-qmp", str(machine.qmp_path), *options) for machine in (one, two)
        ]
        outputs = [await process.communicate() for process in running]
        ended = [json.loads(output.splitlines()[-1]) for output, _ in outputs]
        assert sorted(end["outcome"] for end in ended) == ["completed", "refused"], ended
        moved = next(number for number, end in enumerate(ended) if end["outcome"] == "completed")
        stayed = (two, one)[moved]
        assert await run_state(stayed.qmp_path) is RunState.RUNNING
        assert await run_state(target) is RunState.RUNNING
        assert len(_processes_with(f"{target}.livemig")) == 1
        left = {path.name for path in bench.folder.iterdir() if not path.name.startswith(("one", "two"))}
        assert left == {"b.qmp", "b.qmp.livemig"}


async def test_recovery_leaves_what_another_run_has_launched(bench: Bench) -> None:
    """A run was killed before it had made its folder; another one's QEMU is in that by now, at the same address."""
    source = await bench.source(*BARE)
    plan = await bench.plan(source)
    launched = await launch(plan, run_id="0000000b")
    bench.adopt(launched.process.pid)
    await launched.release_folder()
    record = SideRecord(address=str(plan.address), own_folder=str(plan.folder))
    hosts = HostPool()
    for run_id, found in (("0000000a", None), ("0000000b", launched.process.pid)):
        side = RecoveredSide("destination", record, run_id, unmarked=False)
        await side.reach(hosts, launched=True, timeout_s=5.0)
        assert (side.process and side.process.pid) == found
        assert await side.is_gone() is (found is None)
        await side.close()
    await LocalHost().remove_launch_folder(plan.folder)
    assert plan.folder.exists()  # somebody listens in it
    await assert_waits(launched)
    await launched.end()
