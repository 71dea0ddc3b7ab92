"""A run that is asked, changed and given up from another process, and one whose process was killed, on real QEMU."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from livemig.engine.journal import journal_folder
from livemig.engine.lock import lock_holder
from livemig.qemu.monitor import Monitor
from tests.cli.command_line import REPOSITORY, finish, livemig, read_until, run_arguments, start
from tests.engine.pair import HOT, IDLE, Pair

pytestmark = pytest.mark.qemu

SLOW = ("--bandwidth", "20MiB/s")


def engine_of(process: asyncio.subprocess.Process) -> int:
    """The child that does the work."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


async def killed_at(pair: Pair, point: str, *options: str) -> str:
    """Starts a run and kills all of it at its first event of a name; returns its id."""
    process = await start(*run_arguments(pair, "--json", "--probation", "200ms", *options))
    first = (await read_until(process, point))[0]
    engine = engine_of(process)
    for pid in (process.pid, engine):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    await process.wait()
    return str(first["id"])


async def test_status_tune_and_cancel_from_another_process(pair: Pair) -> None:
    """A run that can't end by itself is looked at, changed, refused a nonsense, and given up."""
    await pair.start(HOT)
    process = await start(*run_arguments(pair, "--json", *SLOW, "--downtime-limit", "20ms"))
    run_id = (await read_until(process, "progressed"))[0]["id"]

    listed = await livemig("status", "--json")
    assert [(one["id"], one["state"]) for one in listed.objects] == [(run_id, "running")]
    one = await livemig("status", run_id)
    assert "copying" in one.stdout
    assert "downtime limit 20.0 ms" in one.stdout
    tuned = await livemig("tune", run_id, "--downtime-limit", "30ms", "--json")
    assert (tuned.code, tuned.objects[0]["plan"]["downtime_limit_s"]) == (0, 0.03)
    refused = await livemig("tune", run_id, "--bandwidth", "1kB/s")
    assert refused.code == 2
    assert "bandwidth" in refused.complaint
    recovered = await livemig("recover", run_id)
    assert recovered.code == 2
    assert f"livemig cancel {run_id}" in recovered.complaint
    assert (await livemig("cancel", run_id)).code == 0
    ran = await finish(process)

    assert (ran.code, ran.ended["outcome"]) == (3, "cancelled")
    assert "livemig cancel" in ran.ended["reason"]
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
    after = await livemig("status", run_id)
    assert (after.code, "cancelled, the guest on source" in after.stdout) == (0, True)
    late = await livemig("tune", run_id, "--downtime-limit", "1s")
    assert late.code == 2
    assert f"livemig status {run_id}" in late.complaint
    again = await livemig("recover", run_id)
    assert (again.code, "ended before" in again.stdout) == (0, True)


@pytest.mark.parametrize(
    ("point", "code", "side"),
    [("prepared", 1, "source"), ("source-stopped", 0, "destination"), ("destination-running", 0, "destination")],
)
async def test_killed_engine_is_made_up_for_at_once(either_pair: Pair, point: str, code: int, side: str) -> None:
    """Its parent recovers: the last line, the exit code, one guest that stood still for a moment, nothing left."""
    pair = either_pair
    await pair.start()
    process = await start(*run_arguments(pair, "--json", "--probation", "200ms"))
    await read_until(process, point)
    os.kill(engine_of(process), signal.SIGKILL)
    ran = await finish(process)
    if pair.launching:
        await pair.attach(expected=side == "destination")

    if point == "source-stopped" and ran.ended["running_on"] == "source":
        code, side = 1, "source"  # it had not sent everything, and is taken back
    assert (ran.code, ran.ended["running_on"], ran.ended["guest_state"]) == (code, side, "running"), ran
    assert "SIGKILL" in ran.ended["reason"]
    await pair.assert_runs_only(side)
    await pair.assert_settings_restored(side)
    assert list((journal_folder() / "runs").iterdir()) == []


async def test_killed_with_its_parent_and_recovered_by_hand(pair: Pair) -> None:
    """Said so by status, tune and cancel; a dry run changes nothing; recover finishes, and a second one has no work."""
    await pair.start()
    run_id = await killed_at(pair, "progressed", *SLOW)

    status = await livemig("status", run_id)
    assert status.code == 4
    assert f"livemig recover {run_id}" in status.stdout
    for arguments in (("cancel", run_id), ("tune", run_id, "--downtime-limit", "1s")):
        asked = await livemig(*arguments)
        assert asked.code == 2
        assert f"livemig recover {run_id}" in asked.complaint
    dry = await livemig("recover", run_id, "--dry-run")
    assert dry.code == 0
    assert "would do next: cancel" in dry.stdout
    async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
        assert str((await monitor.query_migrate()).status) == "active"
        assert await lock_holder(monitor) == run_id
    done = await livemig("recover", "--json")
    assert (done.code, done.objects[0]["outcome"], done.objects[0]["running_on"]) == (0, "failed", "source")
    again = await livemig("recover", "--json")
    assert (again.code, again.objects) == (0, [])
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
    assert (await pair.run_states())["destination"] == "gone"


async def test_recovered_by_another_monitor_while_the_first_is_held(pair: Pair) -> None:
    """Somebody holds the monitors that the run used: the other ones of both QEMUs do."""
    await pair.start()
    run_id = await killed_at(pair, "progressed", *SLOW)
    async with (
        await Monitor.connect(str(pair.source.qmp_path), name="test"),
        await Monitor.connect(str(pair.destination.qmp_path), name="test"),
    ):
        done = await livemig("recover", run_id, "--json")
    assert (done.code, done.objects[0]["running_on"]) == (0, "source")
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")


@pytest.mark.parametrize(("point", "side"), [("progressed", "source"), ("destination-running", "destination")])
async def test_the_hook_is_spoken_of_and_not_run(pair: Pair, tmp_path: Path, point: str, side: str) -> None:
    """Whether the engine had run it can't be known: the user is told, where it matters, what to look at."""
    await pair.start()
    hook = ("--on-switchover", f"touch '{tmp_path}/ran it'", "--on-switchover-at", "stopped")
    run_id = await killed_at(pair, point, *(SLOW if side == "source" else ()), *hook)
    (tmp_path / "ran it").unlink(missing_ok=True)
    done = await livemig("recover", run_id, "--json")
    assert (done.code, done.objects[0]["running_on"]) == (0, side)
    told = [text for text in done.objects[0]["warnings"] if "--on-switchover may" in text]
    assert len(told) == 1
    assert f"touch '{tmp_path}/ran it'" in told[0]
    assert not (tmp_path / "ran it").exists()
    await pair.assert_runs_only(side)


async def test_lost_source_is_vouched_for(pair: Pair) -> None:
    """The source dies unseen after it handed all over: a person is asked, and with his word the guest goes on."""
    await pair.start()
    run_id = await killed_at(pair, "source-stopped")
    async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
        async with asyncio.timeout(10):
            while str((await monitor.query_migrate()).status) != "completed":
                await asyncio.sleep(0.01)
    if (await pair.run_states())["destination"] == "running":
        return  # the engine was quicker
    os.kill(pair.source.pid, signal.SIGKILL)
    asked = await livemig("recover", run_id)
    assert asked.code == 4
    assert "--fence-confirmed source" in asked.stdout
    assert (await pair.run_states())["destination"] == "paused"
    done = await livemig("recover", run_id, "--fence-confirmed", "source", "--json")
    assert (done.code, done.objects[0]["running_on"]) == (0, "destination")
    await pair.assert_runs_only("destination")


async def test_stranger_at_the_same_socket_is_left_alone(pair: Pair) -> None:
    """The destination has gone and another QEMU answers at its path: it is neither told anything nor ended."""
    await pair.start()
    run_id = await killed_at(pair, "progressed", *SLOW)
    await pair.destination.stop()
    stranger = await pair.waiting()
    for mine, other in (
        (pair.destination.qmp_path, stranger.qmp_path),
        (pair.destination.spare_qmp_path, stranger.spare_qmp_path),
    ):
        mine.unlink(missing_ok=True)
        mine.symlink_to(other)
    done = await livemig("recover", run_id, "--json")
    assert (done.code, done.objects[0]["running_on"]) == (0, "source"), done
    async with await Monitor.connect(str(stranger.spare_qmp_path), name="test") as monitor:
        assert str(await monitor.query_status()) == "inmigrate"
        assert str((await monitor.query_migrate()).status) == "none"
    await pair.assert_runs_only("source")


async def test_refusals(pair: Pair) -> None:
    """An unknown id, a journal that is damaged or newer: one line, exit code 2, nothing touched."""
    await pair.start()
    for arguments in (
        ("recover", "nobody"),
        ("status", "nobody"),
        ("cancel", "../x"),
        ("tune", "nobody", "--deadline", "1s"),
    ):
        ran = await livemig(*arguments)
        assert ran.code == 2, ran
        assert "livemig status" in ran.complaint
    assert (await livemig("recover", "--fence-confirmed", "source")).code == 2
    path = journal_folder() / "journal.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(b"this is no journal, and it is long enough to be one" * 40)
    ran = await livemig(*run_arguments(pair, "--json"))
    assert (ran.code, ran.ended["outcome"]) == (2, "refused")
    assert "is damaged" in ran.complaint
    assert (await pair.run_states()) == {"source": "running", "destination": "inmigrate"}
    await pair.assert_settings_restored("source", "destination")
    for verb in ("status", "recover"):
        ran = await livemig(verb)
        assert (ran.code, "is damaged" in ran.complaint) == (2, True)


FAULTY = """
from livemig.engine.handover import Handover

async def broken(*_):
    raise ZeroDivisionError("a bug of ours")

Handover.before_continue = broken
from livemig.cli.main import main
main()
"""


async def test_a_fault_of_our_own_is_recovered_at_once(pair: Pair) -> None:
    """Between the source's `completed` and `cont` the engine raises: its parent finishes the move, as after a kill."""
    await pair.start(IDLE)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", FAULTY, *run_arguments(pair, "--json")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    ran = await finish(process)

    assert ran.code == 0, ran.stderr
    assert (ran.ended["outcome"], ran.ended["running_on"]) == ("completed", "destination")
    assert "a bug of ours" in ran.stderr
    assert "livemig's engine had a fault: recovering run" in ran.stderr
    await pair.assert_runs_only("destination")
    await pair.assert_settings_restored("destination")
