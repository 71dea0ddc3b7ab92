"""What a `Monitor` does when QEMU, the socket or whoever sits behind it misbehaves."""

import asyncio
import json
import logging
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from livemig.core.errors import (
    CommandError,
    ConnectError,
    MonitorLost,
    MonitorTimeout,
    ReplyError,
)
from livemig.core.status import MigrationStatus, RunState
from livemig.qemu.event_stream import PENDING_LIMIT, EndKind
from livemig.qemu.monitor import IN_BAND_LIMIT, Monitor

from .conftest import real_qemu, until
from .fake_qemu import FakeQemu

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}}, "capabilities": []}}\r\n'


async def test_without_out_of_band(fake: FakeQemu) -> None:
    fake.faults.out_of_band = False
    async with await Monitor.connect(fake.path) as monitor:
        assert not monitor.out_of_band
        with pytest.raises(CommandError, match="no out-of-band"):
            await monitor.execute_out_of_band("yank", {"instances": []})
        assert await monitor.query_status() is RunState.PRELAUNCH


async def test_a_timeout_is_said_and_the_late_answer_confuses_nothing(fake: FakeQemu) -> None:
    fake.faults.reply_delay_s["query-version"] = 0.15
    async with await Monitor.connect(fake.path) as monitor:
        for _ in range(3):
            with pytest.raises(MonitorTimeout) as caught:
                await monitor.execute("query-version", timeout_s=0.03)
            assert caught.value.command == "query-version"
            assert caught.value.timeout_s == 0.03
            assert monitor.unanswered_count == 1
            assert await monitor.query_status() is RunState.PRELAUNCH
            assert monitor.unanswered_count == 0


async def test_a_hanging_qemu_still_hears_yank(fake: FakeQemu) -> None:
    """Polls that time out must not fill QEMU's queue: it then stops reading, out-of-band commands included."""
    async with await Monitor.connect(fake.path) as monitor:
        fake.faults.silent_after = 0
        for _ in range(20):
            with pytest.raises(MonitorTimeout):
                await monitor.execute("query-migrate", timeout_s=0.01)
        assert monitor.unanswered_count == IN_BAND_LIMIT
        await monitor.execute_out_of_band("yank", {"instances": []}, timeout_s=1.0)
        fake.faults.silent_after = None
        await until(lambda: monitor.unanswered_count == 0)
        assert await monitor.query_status() is RunState.PRELAUNCH
    assert len(fake.commands) == IN_BAND_LIMIT + 2


@pytest.mark.qemu
async def test_a_stopped_real_qemu_is_left_within_the_bound(socket_path: Path) -> None:
    async with real_qemu(socket_path) as process:
        monitor = await Monitor.connect(str(socket_path), starting=True)
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(MonitorTimeout):
                await monitor.execute("query-status", timeout_s=0.1)
            started_s = time.monotonic()
            await monitor.close()
            assert time.monotonic() - started_s < 2.0
        finally:
            process.send_signal(signal.SIGCONT)


@pytest.mark.qemu
async def test_a_killed_real_qemu(socket_path: Path) -> None:
    async with real_qemu(socket_path) as process, await Monitor.connect(str(socket_path), starting=True) as monitor:
        with monitor.subscribe() as events:
            process.kill()
            assert await events.next(5.0) is None
            assert events.end is not None
        end = await monitor.wait_closed()
        assert end.kind is EndKind.END_OF_FILE


@pytest.mark.qemu
async def test_a_qemu_killed_with_commands_unread_ends_orderly(socket_path: Path) -> None:
    """The kernel then resets the connection instead of ending it; every event was read all the same."""
    async with real_qemu(socket_path) as process, await Monitor.connect(str(socket_path), starting=True) as monitor:
        process.send_signal(signal.SIGSTOP)
        with monitor.subscribe() as events:
            with pytest.raises(MonitorTimeout):
                await monitor.execute("cont", timeout_s=0.1)
            process.kill()
            assert await events.next(5.0) is None
        assert (await monitor.wait_closed()).kind is EndKind.END_OF_FILE


@pytest.mark.parametrize(("last_bytes", "kind"), [(b"", EndKind.END_OF_FILE), (b'{"event": "ST', EndKind.BROKEN)])
async def test_the_last_events_are_read_although_writing_failed(
    socket_path: Path, last_bytes: bytes, kind: EndKind
) -> None:
    event = b'{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 0}}\r\n'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen()
        connecting = asyncio.create_task(Monitor.connect(str(socket_path)))
        await asyncio.sleep(0.05)
        peer, _ = listener.accept()
        peer.sendall(GREETING)
        await asyncio.sleep(0.05)
        peer.sendall(b'{"return": {}}\r\n')
        monitor = await connecting
        with monitor.subscribe() as events:
            peer.sendall(event)
            await asyncio.sleep(0)
            peer.sendall(event * 3000 + last_bytes)
            peer.close()
            commands = [monitor.execute("query-status", timeout_s=1.0) for _ in range(3)]
            results = await asyncio.gather(*commands, return_exceptions=True)
            assert {type(result) for result in results} == {MonitorLost}
            seen = [event.name async for event in events]
            assert seen == ["RESUME"] * 3001
            assert events.end is not None
            assert events.end.kind is kind
        await monitor.close()


async def test_closing_is_bounded_although_qemu_reads_nothing(fake: FakeQemu) -> None:
    monitor = await Monitor.connect(fake.path)
    fake.faults.stop_reading = True
    with pytest.raises(MonitorTimeout):
        await monitor.execute("human-monitor-command", {"command-line": "x" * 5_000_000}, timeout_s=0.1)
    started_s = time.monotonic()
    await monitor.close()
    assert time.monotonic() - started_s < 2.0
    assert monitor.end is not None
    assert monitor.end.kind is EndKind.CLOSED


async def test_the_connection_ends_under_a_command(fake: FakeQemu) -> None:
    async with await Monitor.connect(fake.path) as monitor:
        fake.faults.close_after = 0
        with pytest.raises(MonitorLost) as caught:
            await monitor.execute("query-status", timeout_s=None)
        assert caught.value.orderly
        assert caught.value.command == "query-status"
        assert monitor.closed


async def test_the_end_wakes_everyone(fake: FakeQemu) -> None:
    async with await Monitor.connect(fake.path) as monitor:
        fake.faults.silent_after = 0
        stream = monitor.subscribe("STOP")
        waiting = [
            *(asyncio.create_task(monitor.execute("stop", timeout_s=None)) for _ in range(IN_BAND_LIMIT + 3)),
            asyncio.create_task(stream.wait_for("STOP", timeout_s=None)),
        ]
        await asyncio.sleep(0.02)
        await fake.die()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {MonitorLost}
        assert await stream.next(None) is None


@pytest.mark.parametrize(
    "garbage",
    [
        b"not json\r\n",
        b'{"event": 5}\r\n',
        b'{"event": "STOP", "timestamp": {"seconds": "x"}}\r\n',
        b'{"event": "STOP", "data": []}\r\n',
        b'{"error": {"class": "GenericError", "desc": "JSON parse error"}}\r\n',
        b"[]\r\n",
        b"\xff\xff\r\n",
        b'{"a":' * 100_000 + b"\r\n",
        b"\r\n",
    ],
)
async def test_garbage_amid_the_stream_is_a_broken_end(fake: FakeQemu, garbage: bytes) -> None:
    async with await Monitor.connect(fake.path) as monitor:
        fake.faults.bytes_after[1] = garbage
        with monitor.subscribe() as events:
            with pytest.raises(MonitorLost) as caught:
                await monitor.query_status()
            assert not caught.value.orderly
            assert [event async for event in events] == []
            assert events.end is not None
            assert events.end.kind is EndKind.BROKEN
            assert "not QMP" in events.end.reason


async def test_an_end_amid_a_message_is_not_orderly(fake: FakeQemu) -> None:
    async with await Monitor.connect(fake.path) as monitor:
        fake.faults.bytes_after[1] = b'{"event": "RES'
        fake.faults.close_after = 0
        with pytest.raises(MonitorLost) as caught:
            await monitor.query_status()
        assert not caught.value.orderly


@pytest.mark.parametrize(
    "reply",
    [
        b'{"id": "__qmp#00000"}\r\n',
        b'{"id": "__qmp#00000", "error": {}}\r\n',
        b'{"id": "__qmp#00000", "error": {"class": 1, "desc": "x"}}\r\n',
        b'{"id": "__qmp#00000", "error": "x"}\r\n',
    ],
)
async def test_a_reply_that_makes_no_sense(fake: FakeQemu, reply: bytes) -> None:
    async with await Monitor.connect(fake.path) as monitor:
        fake.faults.bytes_after[1] = reply
        with pytest.raises(ReplyError) as caught:
            await monitor.query_status()
        assert caught.value.command == "query-status"
        assert await monitor.query_status() is RunState.PRELAUNCH


async def test_unknown_and_repeated_replies_are_dropped(fake: FakeQemu) -> None:
    async with await Monitor.connect(fake.path) as monitor:
        fake.faults.bytes_after[1] = b'{"return": {}, "id": "nobody"}\r\n{"return": {}, "id": 7}\r\n{"return": {}}\r\n'
        fake.faults.duplicate_replies = True
        for _ in range(10):
            assert await monitor.query_status() is RunState.PRELAUNCH


@pytest.mark.parametrize("reply", [{}, [], {"status": 5}, None, "running"])
async def test_a_run_state_that_makes_no_sense(fake: FakeQemu, reply: object) -> None:
    fake.faults.replies["query-status"] = reply
    async with await Monitor.connect(fake.path) as monitor:
        with pytest.raises(ReplyError):
            await monitor.query_status()


async def test_unknown_states_are_unknown(fake: FakeQemu) -> None:
    fake.faults.replies["query-status"] = {"status": "levitating"}
    fake.faults.replies["query-migrate"] = {"status": "levitating"}
    async with await Monitor.connect(fake.path) as monitor:
        assert await monitor.query_status() is RunState.UNKNOWN
        observation = await monitor.query_migrate()
        assert observation.status is MigrationStatus.UNKNOWN
        assert observation.status_text == "levitating"


async def test_late_and_repeated_events_keep_their_timestamps(fake: FakeQemu) -> None:
    fake.faults.event_delay_s["STOP"] = 0.1
    fake.faults.duplicate_events.add("RESUME")
    async with await Monitor.connect(fake.path) as monitor:
        with monitor.subscribe() as events:
            await monitor.execute("cont")
            await monitor.execute("stop")
            await monitor.execute("cont")
            seen = [await events.wait_for(timeout_s=1.0) for _ in range(5)]
    assert [event.name for event in seen] == ["RESUME"] * 4 + ["STOP"]
    assert seen[4].timestamp_s < seen[3].timestamp_s
    assert seen[4].arrival_s > seen[3].arrival_s + 0.05


async def test_nobody_reading_events_neither_stalls_nor_loses_what_matters(fake: FakeQemu) -> None:
    async with await Monitor.connect(fake.path) as monitor:
        with monitor.subscribe() as events:
            for _ in range(PENDING_LIMIT + 500):
                fake.emit("BLOCK_IO_ERROR", {"device": "disk0"})
            fake.emit("RESUME")
            await until(lambda: events.dropped_count == 500)
            assert await monitor.query_status() is RunState.PRELAUNCH
            assert events.pending_count == PENDING_LIMIT + 1
            assert (await events.wait_for("RESUME", timeout_s=1.0)).name == "RESUME"


async def test_secrets_and_foreign_records_stay_out_of_the_log(
    fake: FakeQemu, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with await Monitor.connect(fake.path) as monitor:
        await monitor.execute("object-add", {"qom-type": "secret", "id": "key0", "data": "s3cret"})
        await monitor.execute("migrate-set-parameters", {"downtime-limit": 20})
    with pytest.raises(ConnectError):
        await Monitor.connect(fake.path + "x")
    text = caplog.text
    assert "s3cret" not in text
    assert "object-add" in text
    assert "{'downtime-limit': 20}" in text
    foreign = [record for record in caplog.records if record.name.startswith("qemu")]
    assert all("Registering" in record.message for record in foreign)


async def test_an_event_that_overtakes_the_negotiation_is_no_refusal(tmp_path: Path) -> None:
    """Seen while a guest moved: a second monitor was connected in the very moment of an event."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        await reader.read(4096)
        event = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 0}}
        answers: list[dict[str, Any]] = [event, event, {"return": {}}]
        for message in answers:
            writer.write(json.dumps(message).encode() + b"\r\n")
        request = json.loads(await reader.read(4096))
        writer.write(json.dumps({"return": {"status": "paused"}, "id": request["id"]}).encode() + b"\r\n")
        await reader.read()
        writer.close()

    path = tmp_path / "qmp"
    async with await asyncio.start_unix_server(serve, path), await Monitor.connect(str(path)) as monitor:
        assert await monitor.query_status() is RunState.PAUSED
