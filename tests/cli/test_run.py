"""`livemig run` on real QEMU as a user runs it: exit codes, JSON lines, refusals that touch nothing."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import termios
from pathlib import Path

import msgspec
import pytest

from livemig.qemu.monitor import Monitor
from tests.cli.command_line import finish, livemig, read_until, run_arguments, start
from tests.engine.pair import HOT, IDLE, LOADED, MiB, Pair

pytestmark = pytest.mark.qemu

SLOW = ("--bandwidth", "20MiB/s")
"""The first copy of 64 MiB takes three seconds."""


async def test_completed(pair: Pair) -> None:
    """Exit code 0; the same id in the first and the last object; every line is one event."""
    await pair.start()
    ran = await livemig(*run_arguments(pair, "--json"))

    assert (ran.code, ran.stderr) == (0, "")
    ended = ran.ended
    assert (ended["outcome"], ended["running_on"], ended["guest_state"]) == ("completed", "destination", "running")
    assert 0 < ended["downtime_s"] <= 0.3 < ended["total_s"] + 0.3
    assert ended["qemu_downtime_s"] is not None
    assert ended["sent_bytes"] > 64 * MiB
    assert ended["round_count"] >= 1
    assert ended["warnings"] == []
    assert (ended["forecasts"][0]["at"], ended["forecasts"][-1]["at"]) == ("start", "commit")
    assert all(0 <= one["converges"] <= 1 for one in ended["forecasts"])
    assert ran.objects[0] == {"event": "started", "id": ended["id"]}
    prepared = next(one for one in ran.objects if one["event"] == "prepared")
    assert prepared["id"] == ended["id"]
    progress = [one["progress"] for one in ran.objects if one["event"] == "progressed"]
    assert progress == sorted(progress)
    await pair.assert_runs_only("destination")
    await pair.assert_settings_restored("destination")


async def test_lines_without_a_terminal(pair: Pair) -> None:
    """The id first, then one line a round, then how it ended; no control characters."""
    await pair.start()
    ran = await livemig(*run_arguments(pair, "--bandwidth", "60MiB/s", "--keep-source"))

    assert (ran.code, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("run ")
    rounds = [line for line in lines if "  round " in line]
    assert 1 <= len(rounds) <= 200
    assert [line.split("  round ")[1].split(":")[0] for line in rounds] == [str(n + 1) for n in range(len(rounds))]
    assert "limit 300 ms" in rounds[0]
    assert any(line.startswith("completed: ") for line in lines)
    assert any("the source is kept, paused" in line for line in lines)
    assert all(line.isprintable() for line in lines)
    forecasts = [line for line in lines if "forecast at" in line]
    assert len(forecasts) >= 2
    assert any(line.startswith("actual") for line in lines)
    assert len(lines) < 20 + len(rounds) + len(forecasts)
    assert (await pair.run_states())["source"] == "postmigrate"


async def test_failed(pair: Pair) -> None:
    """Exit code 1 when the destination dies; the guest is at the source as before."""
    await pair.start()
    process = await start(*run_arguments(pair, "--json", *SLOW))
    await read_until(process, "progressed")
    os.kill(pair.destination.pid, signal.SIGKILL)
    ran = await finish(process)

    assert ran.code == 1
    ended = ran.ended
    assert (ended["outcome"], ended["running_on"], ended["guest_state"]) == ("failed", "source", "running")
    assert ended["downtime_s"] is None
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory_bytes": 96 * MiB}, ["memory", "128 MiB", "96 MiB", "-m"]),
        ({"machine_type": "q35"}, ["machine", "pc-i440fx", "-machine"]),
    ],
    ids=["memory", "machine type"],
)
async def test_destination_that_differs_is_refused(pair: Pair, changes, words) -> None:
    """QEMU would find out only after everything was sent, and not say why: both are named beforehand."""
    await pair.start()
    await pair.destination.stop()
    pair.destination = await pair.waiting(**changes)
    ran = await livemig(*run_arguments(pair, "--json"))

    assert ran.code == 2
    for word in words:
        assert word in ran.complaint
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
    assert (await pair.run_states())["destination"] == "inmigrate"


async def test_cancelled_at_the_deadline(pair: Pair) -> None:
    """Exit code 3; the reason names the deadline."""
    await pair.start(HOT)
    ran = await livemig(*run_arguments(pair, "--json", *SLOW, "--deadline", "1s", "--downtime-limit", "20ms"))

    assert ran.code == 3
    assert (ran.ended["outcome"], ran.ended["running_on"]) == ("cancelled", "source")
    assert "deadline" in ran.ended["reason"]
    await pair.assert_runs_only("source")


async def test_guest_shut_down(pair: Pair) -> None:
    """Exit code 5 when the guest switches itself off on the way."""
    await pair.start()
    process = await start(*run_arguments(pair, "--json", *SLOW))
    await read_until(process, "progressed")
    pair.source.serial.send(b"p")
    ran = await finish(process)

    assert ran.code == 5
    ended = ran.ended
    assert (ended["outcome"], ended["running_on"], ended["guest_state"]) == ("guest_shut_down", "none", "none")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
async def test_signal_before_the_switchover_cancels(pair: Pair, name: str) -> None:
    """Exit code 130, also when it comes twice; the source runs when livemig has ended, settings as before."""
    await pair.start()
    process = await start(*run_arguments(pair, "--json", *SLOW))
    await read_until(process, "progressed")
    process.send_signal(signal.Signals[name])
    await asyncio.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.Signals[name])
    ran = await finish(process)

    assert (ran.code, ran.stderr) == (130, "")
    ended = ran.ended
    assert (ended["outcome"], ended["running_on"], ended["guest_state"]) == ("cancelled", "source", "running")
    assert f"{name} received" in ended["reason"]
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
    assert (await pair.run_states())["destination"] == "gone"


async def test_signal_in_the_preparation(pair: Pair) -> None:
    """At random moments from the first line on: always 130, and the guest runs at the source, settings as before."""
    await pair.start()
    for delay_s in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08):
        process = await start(*run_arguments(pair, "--json", *SLOW))
        first = await read_until(process, "started")
        await asyncio.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        ran = await finish(process)
        assert ran.code == 130, ran
        assert (ran.ended["outcome"], ran.ended["running_on"]) == ("cancelled", "source")
        assert ran.ended["id"] == first[0]["id"]
        states = await pair.run_states()
        assert states["source"] == "running"
        await pair.assert_settings_restored("source")
        if states["destination"] == "gone":
            pair.destination = await pair.waiting()
    await pair.assert_runs_only("source")


async def test_signal_in_the_probation(pair: Pair) -> None:
    """The guest has moved: exit code 0, the source is kept, and that is said."""
    await pair.start()
    process = await start(*run_arguments(pair, "--json", "--probation", "20s"))
    await read_until(process, "destination-running")
    process.send_signal(signal.SIGINT)
    ran = await finish(process, timeout_s=10)

    assert ran.code == 0
    assert (ran.ended["outcome"], ran.ended["running_on"]) == ("completed", "destination")
    assert any("the source is kept, paused" in text for text in ran.ended["warnings"])
    await pair.assert_runs_only("destination")
    assert (await pair.run_states())["source"] == "postmigrate"


async def test_ignored_signal_stays_ignored(pair: Pair) -> None:
    """Under nohup a hang-up is nothing to cancel for."""
    await pair.start()
    process = await start(*run_arguments(pair, "--json"), prefix=("sh", "-c", "trap '' HUP; exec \"$@\"", "sh"))
    await read_until(process, "progressed")
    process.send_signal(signal.SIGHUP)
    ran = await finish(process)
    assert (ran.code, ran.ended["outcome"]) == (0, "completed")


@pytest.mark.parametrize("options", [("--json",), ()], ids=["json", "lines"])
async def test_closed_stdout_cancels(pair: Pair, options: tuple[str, ...]) -> None:
    """`| head -1`: seen at once, also while there is nothing to print; the guest stays and no traceback is shown."""
    await pair.start()
    ours, theirs = os.pipe()
    process = await start(*run_arguments(pair, *SLOW, *options), stdout=theirs)
    os.close(theirs)
    with os.fdopen(ours) as output:
        for _ in range(4):
            await asyncio.to_thread(output.readline)
    async with asyncio.timeout(10):
        code = await process.wait()
    assert process.stderr is not None
    assert (code, await process.stderr.read()) == (3, b"")
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")


async def test_reader_that_stalls_does_not_stall_the_migration(pair: Pair) -> None:
    """Somebody scrolls in `less`: the guest moves all the same, and all but old progress is there to read after."""
    await pair.start(IDLE)
    process = await start(
        *run_arguments(pair, "--json"), limit=2**16, prefix=("sh", "-c", '"$@" | (sleep 4; cat)', "sh")
    )
    async with asyncio.timeout(3.5):
        while (await pair.run_states())["destination"] != "running":
            await asyncio.sleep(0.1)
    ran = await finish(process)
    assert ran.ended["outcome"] == "completed"


async def test_interrupt_with_a_reader_that_never_reads(pair: Pair) -> None:
    """The output is stuck for good: Ctrl-C still cancels, and livemig still ends."""
    await pair.start(HOT)
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
    process = await start(*run_arguments(pair, "--json", *SLOW, "--downtime-limit", "10ms"), stdout=theirs)
    os.close(theirs)
    try:
        async with asyncio.timeout(20):
            while len(os.read(ours, 1)) == 0 or _waiting_bytes(ours) < 3500:
                await asyncio.sleep(0.1)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
    finally:
        os.close(ours)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")


def _waiting_bytes(descriptor: int) -> int:
    """How much stands in a pipe, unread."""
    answer = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(answer, sys.byteorder)


async def test_full_disk_costs_the_trace_not_the_migration(pair: Pair) -> None:
    """--trace on a full disk: the guest moves, and a warning says why there is no trace."""
    await pair.start()
    ran = await livemig(*run_arguments(pair, "--json", "--trace", "/dev/full"))
    assert (ran.code, ran.ended["outcome"]) == (0, "completed")
    assert any("trace" in text and "No space left" in text for text in ran.ended["warnings"])
    await pair.assert_runs_only("destination")


async def test_stdout_on_a_full_disk_cancels(pair: Pair) -> None:
    """What can't be told is not done."""
    await pair.start()
    with Path("/dev/full").open("wb") as full:
        ran = await livemig(*run_arguments(pair, "--json", *SLOW), stdout=full)
    assert (ran.code, ran.stderr) == (3, "")
    await pair.assert_runs_only("source")


async def test_refusals_touch_nothing(pair: Pair) -> None:
    """What can't be the source or the destination: one line with reason and remedy, exit code 2, all as before."""
    await pair.start()
    source, destination = str(pair.source.qmp_path), str(pair.destination.qmp_path)
    other_source, other_destination = str(pair.source.spare_qmp_path), str(pair.destination.spare_qmp_path)
    (link := pair.folder / "link").symlink_to(source)
    unwritable = str(pair.folder / "missing" / "trace")
    listening = await pair.waiting(incoming=f"unix:{pair.folder}/in")
    cases = [
        ((source, source), ["source and destination", "waiting"]),
        ((source, f"unix:{link}"), ["source and destination", "waiting"]),
        ((source, other_source), ["same QEMU", "--dst-qmp"]),
        ((destination, other_destination), ["same QEMU"]),
        ((destination, source), ["the source waits for an incoming migration itself", "destination is running"]),
        ((source, str(listening.qmp_path)), ["listens already", "-S -incoming defer"]),
        ((source, destination, "--trace", unwritable), [unwritable, "No such file"]),
    ]
    (old_trace := pair.folder / "old.jsonl").write_text("precious")
    cases.append(((source, other_source, "--trace", str(old_trace)), ["same QEMU"]))
    before = await pair.run_states()
    for (src_qmp, dst_qmp, *options), words in cases:
        ran = await livemig("run", "--json", "--src-qmp", src_qmp, "--dst-qmp", dst_qmp, *options)
        assert ran.code == 2, ran
        for word in words:
            assert word in ran.complaint
        assert (ran.ended["outcome"], ran.ended["running_on"]) == ("refused", "source")
        assert ran.ended["id"] == ran.objects[0]["id"]
        assert await pair.run_states() == before
        await pair.assert_settings_restored("source", "destination")
    assert old_trace.read_text() == "precious"
    await pair.assert_runs_only("source", "running")


async def test_busy_monitor_is_refused(pair: Pair) -> None:
    """Another client holds one of the sockets: that socket is named, with the remedy, within two seconds."""
    await pair.start()
    for machine in (pair.source, pair.destination):
        async with await Monitor.connect(str(machine.qmp_path)):
            ran = await livemig(*run_arguments(pair), timeout_s=5)
            assert ran.code == 2
            for words in (str(machine.qmp_path), "another client holds", "-qmp unix:PATH,server=on,wait=off"):
                assert words in ran.complaint
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source", "destination")
    assert (await pair.run_states())["destination"] == "inmigrate"


async def test_source_that_migrates_or_has_migrated_is_refused(pair: Pair) -> None:
    """Somebody else's migration goes on; a guest that was handed over is not handed over again."""
    await pair.start(msgspec.structs.replace(LOADED, dirty_rate_bytes_s=1 * MiB))
    other = await pair.waiting(incoming=f"unix:{pair.folder}/in")
    while not (pair.folder / "in").exists():
        await asyncio.sleep(0.01)
    async with await Monitor.connect(str(pair.source.spare_qmp_path)) as monitor:
        await monitor.execute("migrate-set-parameters", {"max-bandwidth": 10 * MiB})
        await monitor.execute("migrate", {"uri": f"unix:{pair.folder}/in"})
        await asyncio.sleep(0.5)
        print(await monitor.execute("query-migrate"), await monitor.execute("query-status"))
        ran = await livemig(*run_arguments(pair))
        await asyncio.sleep(0.5)
        print(await monitor.execute("query-migrate"), await monitor.execute("query-status"))
        print(ran.stdout)
        assert ran.code == 2
        assert "already migrates" in ran.complaint
        assert "migrate_cancel" in ran.complaint
        assert str((await monitor.query_migrate()).status) == "active"
        await monitor.execute("migrate-set-parameters", {"max-bandwidth": 0})
        async with asyncio.timeout(20):
            while str((await monitor.query_migrate()).status) != "completed":
                await asyncio.sleep(0.05)
    ran = await livemig(*run_arguments(pair))
    assert ran.code == 2
    assert "handed its guest over already" in ran.complaint
    assert (await pair.run_states()) == {"source": "postmigrate", "destination": "inmigrate"}
    assert other.exit_code is None


async def test_replay_of_a_real_run(pair: Pair, tmp_path: Path) -> None:
    """A trace replays with the same decisions; one that was edited differs; what is no trace is refused in one line."""
    await pair.start()
    trace = tmp_path / "run.trace"
    assert (await livemig(*run_arguments(pair, "--trace", str(trace), "--bandwidth", "60MiB/s"))).code == 0

    ran = await livemig("replay", str(trace))
    assert (ran.code, ran.stderr) == (0, "")
    assert "all reproduced" in ran.stdout
    ran = await livemig("replay", "--json", str(trace))
    assert ran.code == 0
    assert ran.objects[-1]["event"] == "ended"
    assert (ran.objects[-1]["difference_count"], ran.objects[-1]["decision_count"] > 2) == (0, True)

    text = trace.read_text()
    edited = tmp_path / "edited.trace"
    edited.write_text(text.replace('"downtime_limit_s":0.3,', '"downtime_limit_s":0.2,', 1))
    ran = await livemig("replay", str(edited))
    assert (ran.code, ran.stderr) == (1, "")
    assert "DIFFERS" in ran.stdout

    lines = text.splitlines(keepends=True)
    wrong = {
        "garbage": ("\x00\xff garbage\n", "no livemig trace"),
        "empty": ("", "empty"),
        "cut": (text[: len(text) // 2], "cut short"),
        "version": (text.replace('"version":2', '"version":99', 1), "version 99"),
        "headless": ("".join(lines[1:]), "no livemig trace"),
        "garbage line": ("".join([*lines[:3], "{}\n", *lines[3:]]), "line 4"),
        "two headers": (lines[0] * 2, "line 2"),
        "no input": (lines[0], "no input"),
    }
    for name, (content, _) in wrong.items():
        (tmp_path / name).write_text(content)
    replays = await asyncio.gather(*(livemig("replay", str(tmp_path / name)) for name in wrong))
    for (name, (_, words)), ran in zip(wrong.items(), replays, strict=True):
        assert (ran.code, ran.stdout) == (2, ""), name
        assert words in ran.complaint
        assert name in ran.complaint
    ran = await livemig("replay", "--json", str(tmp_path / "missing"))
    assert (ran.code, len(ran.objects), ran.ended["outcome"]) == (2, 1, "refused")
    assert "No such file" in ran.complaint
