"""Getting a connection: every way it can fail is said in one line, in bounded time."""

import asyncio
import errno
import socket
import time
from pathlib import Path

import pytest

from livemig.core.errors import (
    AddressError,
    ConnectError,
    LivemigError,
)
from livemig.core.status import RunState
from livemig.qemu import dial
from livemig.qemu.address import Address
from livemig.qemu.monitor import Monitor

from .fake_qemu import FakeQemu

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


async def test_a_file_that_is_no_socket_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    started_s = time.monotonic()
    assert "no QMP socket" in await refused(tmp_path / "file", timeout_s=30)
    assert time.monotonic() - started_s < 5


async def test_a_starting_qemu_s_socket_is_waited_for(socket_path: Path) -> None:
    connecting = asyncio.create_task(Monitor.connect(str(socket_path), starting=True))
    await asyncio.sleep(0.1)
    async with FakeQemu(socket_path), await connecting as monitor:
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
        async with FakeQemu(socket_path), await connecting:
            pass


async def test_permission_denied_fails_at_once(fake: FakeQemu, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(_: str) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(dial, "_open_unix", deny)  # root, as CI may be, is never denied
    started_s = time.monotonic()
    assert "permission denied" in await refused(fake.path)
    assert time.monotonic() - started_s < 0.2


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
        (b'{"QMP": {"version": {"qemu"', "does not speak QMP"),
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


async def test_one_that_still_closes_the_client_before_is_asked_again(fake: FakeQemu) -> None:
    fake.faults.lost_negotiations = 1
    async with await Monitor.connect(fake.path, timeout_s=1.0, silence_s=0.2) as monitor:
        assert await monitor.query_status() is RunState.PRELAUNCH
    fake.faults.lost_negotiations = 2
    assert "main loop hangs" in await refused(fake.path)


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
        "ssh://host",
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
    assert address.is_on_its_host is loopback
