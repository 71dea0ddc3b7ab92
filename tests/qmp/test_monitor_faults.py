"""What a `Monitor` does when QEMU, the socket or whoever sits behind it misbehaves."""

import asyncio
import logging
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from livemig.core.errors import (
    AddressError,
    CommandError,
    ConnectError,
    LivemigError,
    MonitorLost,
    MonitorTimeout,
    ReplyError,
)
from livemig.core.status import MigrationStatus, RunState
from livemig.qemu.address import Address
from livemig.qemu.event_stream import PENDING_LIMIT, EndKind
from livemig.qemu.monitor import IN_BAND_LIMIT, Monitor

from .conftest import real_qemu, until
from .fake_migration import FakeGuest
from .fake_qemu import FakeQemu, Faults

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}}, "capabilities": []}}\r\n'


async def refused(path: Path | str | Address, timeout_s: float = 1.0, silence_s: float = 0.3) -> str:
    """Connects, expects to fail within the bounds, and gives the reason."""
    started_s = time.monotonic()
    with pytest.raises(ConnectError) as caught:
        await Monitor.connect(
            path if isinstance(path, Address) else str(path), timeout_s=timeout_s, silence_s=silence_s
        )
    assert time.monotonic() - started_s < timeout_s + silence_s + 0.5
    return str(caught.value)


async def test_a_missing_socket_fails_at_once(tmp_path: Path) -> None:
    started_s = time.monotonic()
    assert "no such socket" in await refused(tmp_path / "none")
    assert time.monotonic() - started_s < 0.5


async def test_a_starting_qemu_s_socket_is_waited_for(socket_path: Path) -> None:
    connecting = asyncio.create_task(Monitor.connect(str(socket_path), starting=True))
    await asyncio.sleep(0.1)
    async with FakeQemu(socket_path):
        async with await connecting as monitor:
            assert await monitor.query_status() is RunState.RUNNING


async def test_nobody_listening_is_retried_and_then_said(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(socket_path))
    started_s = time.monotonic()
    assert "nobody listens" in await refused(socket_path, timeout_s=0.3)
    assert time.monotonic() - started_s > 0.2


async def test_a_qemu_that_listens_late_is_reached(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        connecting = asyncio.create_task(Monitor.connect(str(socket_path)))
        await asyncio.sleep(0.1)
        socket_path.unlink()
        async with FakeQemu(socket_path):
            async with await connecting:
                pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open anything")
async def test_permission_denied_fails_at_once(fake: FakeQemu) -> None:
    Path(fake.path).chmod(0)
    assert "permission denied" in await refused(fake.path)


async def test_something_else_than_a_socket(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "file" in await refused(tmp_path / "file")


async def test_tcp(unused_tcp_port: int) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    assert "nobody listens" in await refused(f"tcp:127.0.0.1:{unused_tcp_port}", timeout_s=0.1)
    async with await asyncio.start_server(serve, "127.0.0.1", unused_tcp_port):
        assert "does not speak QMP" in await refused(f"tcp:127.0.0.1:{unused_tcp_port}")
    assert "resolved" in await refused("tcp:no-such-host.invalid:1", timeout_s=5.0)


@pytest.mark.parametrize(
    ("greeting", "reason"),
    [
        (b"", "another client holds"),
        (b"QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) \r\n", "human monitor"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak QMP"),
        (b"\xff\xfe\x00garbage\n", "does not speak QMP"),
        (b"[]\n", "does not speak QMP"),
        (b'{"QMP": 1}\n', "does not speak QMP"),
        (b'{"QMP": {}}\n', "does not speak QMP"),
        (b"[" * 100_000 + b"\n", "does not speak QMP"),
        (b'{"QMP": {"version": {"qemu"', "another client holds"),
    ],
)
async def test_what_is_no_qmp_monitor(fake: FakeQemu, greeting: bytes, reason: str) -> None:
    fake.faults.greeting = greeting
    assert reason in await refused(fake.path)


async def test_closed_at_once(fake: FakeQemu) -> None:
    fake.faults.close_at_connect = True
    assert "closed before QEMU's greeting" in await refused(fake.path)


async def test_greets_and_hangs(fake: FakeQemu) -> None:
    fake.faults.silent_commands.add("qmp_capabilities")
    assert "main loop hangs" in await refused(fake.path, timeout_s=0.5)


async def test_the_queue_of_waiting_clients_is_full(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in waiting:
            client.settimeout(0)
            client.connect_ex(str(socket_path))
        assert "other clients hold this monitor" in await refused(socket_path, timeout_s=0.2)
        for client in waiting:
            client.close()


async def test_cancelling_a_connect_leaves_nothing(fake: FakeQemu) -> None:
    fake.faults.greeting = b""
    for pause_s in (0, 0.001, 0.01, 0.1):
        connecting = asyncio.create_task(Monitor.connect(fake.path))
        await asyncio.sleep(pause_s)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting


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
    async with real_qemu(socket_path) as process:
        async with await Monitor.connect(str(socket_path), starting=True) as monitor:
            with monitor.subscribe() as events:
                process.kill()
                assert await events.next(5.0) is None
                assert events.end is not None
            end = await monitor.wait_closed()
            assert end.kind is EndKind.END_OF_FILE


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
    await refused(fake.path + "x")
    text = caplog.text
    assert "s3cret" not in text
    assert "object-add" in text
    assert "{'downtime-limit': 20}" in text
    assert not [record for record in caplog.records if record.name.startswith("qemu")]


async def test_a_fake_migration_from_start_to_end(tmp_path: Path) -> None:
    """The fake's own lifecycle, as the engine sees it."""
    uri = f"unix:{tmp_path / 'm'}"
    async with (
        FakeQemu(tmp_path / "s") as source,
        FakeQemu(tmp_path / "d", incoming=True, paused=True) as destination,
        await Monitor.connect(source.path) as out,
        await Monitor.connect(destination.path) as into,
    ):
        for monitor in (out, into):
            await monitor.execute(
                "migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]}
            )
        with out.subscribe() as events:
            await into.execute("migrate-incoming", {"uri": uri, "exit-on-error": False})
            await out.execute("migrate", {"uri": uri})
            await events.wait_for("MIGRATION_PASS", timeout_s=1.0, where=lambda event: event.data["pass"] == 2)
            await events.wait_for("STOP", timeout_s=5.0)
            await events.wait_for(
                "MIGRATION", timeout_s=1.0, where=lambda event: event.data["status"] == "completed"
            )
        observation = await out.query_migrate()
        assert observation.status is MigrationStatus.COMPLETED
        assert observation.remaining_bytes == 0
        assert observation.downtime_s
        assert await out.query_status() is RunState.POSTMIGRATE
        assert await into.query_status() is RunState.PAUSED
        assert (await into.query_migrate()).status is MigrationStatus.COMPLETED
        await into.execute("cont")
        assert await into.query_status() is RunState.RUNNING


async def test_a_fake_migration_cancelled_and_one_refused(tmp_path: Path) -> None:
    uri = f"unix:{tmp_path / 'm'}"
    guest = FakeGuest(link_bytes_s=1e6)
    async with FakeQemu(tmp_path / "s", guest=guest) as source, await Monitor.connect(source.path) as out:
        await out.execute("migrate", {"uri": uri})
        await until(lambda: source.migration.status == "failed")
        assert "refused" in ((await out.query_migrate()).error_text or "")
        async with FakeQemu(tmp_path / "d", incoming=True, paused=True) as destination:
            async with await Monitor.connect(destination.path) as into:
                await into.execute("migrate-incoming", {"uri": uri, "exit-on-error": False})
                await out.execute("migrate", {"uri": uri})
                await until(lambda: source.migration.status == "active")
                with pytest.raises(CommandError, match="in progress"):
                    await out.execute("migrate", {"uri": uri})
                await out.execute("migrate_cancel")
                assert (await out.query_migrate()).status is MigrationStatus.CANCELLED
                assert (await into.query_migrate()).status is MigrationStatus.FAILED
                assert await out.query_status() is RunState.RUNNING


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:",
        "tcp:host",
        "tcp::1",
        "tcp:host:x",
        "tcp:host:0",
        "tcp:host:65536",
        "tcp:::1:4444",
        "tcp:a b:1",
        "ssh://host/run/qmp",
        "/run/qmp,server=on,wait=off",
        "/" + "x" * 120,
        "/run/\0",
    ],
)
def test_addresses_that_can_not_be_read(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert caught.value.address == text
    assert isinstance(caught.value, LivemigError)


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("/run/q", Address(path="/run/q"), True),
        ("unix:q.sock", Address(path="q.sock"), True),
        ("tcp:localhost:4444", Address(host="localhost", port=4444), True),
        ("tcp:127.0.0.9:4444", Address(host="127.0.0.9", port=4444), True),
        ("tcp:[::1]:4444", Address(host="::1", port=4444), True),
        ("tcp:example.org:1", Address(host="example.org", port=1), False),
        ("tcp:10.0.0.1:1", Address(host="10.0.0.1", port=1), False),
    ],
)
def test_addresses(text: str, address: Address, loopback: bool) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address
    assert address.is_loopback is loopback


def test_faults_default_to_none() -> None:
    assert Faults() == Faults()
