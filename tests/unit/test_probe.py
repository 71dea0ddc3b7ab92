"""How a probe is written, and what its answers add up to."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from livemig.core.errors import PlanError, RefusedError
from livemig.core.plan import Plan
from livemig.core.probe import Answers, ProbeTarget
from livemig.engine.probe import Probe, _checksum


@pytest.mark.parametrize(
    ("text", "kind", "host", "port"),
    [
        ("tcp:guest:22", "tcp", "guest", 22),
        ("tcp:[fd00::1]:443", "tcp", "fd00::1", 443),
        ("ping:198.18.0.1", "ping", "198.18.0.1", 0),
        ("ping:fd00::1", "ping", "fd00::1", 0),
        ("ping:[fd00::1]", "ping", "fd00::1", 0),
    ],
)
def test_target(text: str, kind: str, host: str, port: int) -> None:
    target = ProbeTarget.parse(text)
    assert (target.kind, target.host, target.port) == (kind, host, port)
    assert ProbeTarget.parse(str(target)) == target


@pytest.mark.parametrize(
    "text", ["", "guest", "tcp:guest", "tcp:guest:", "tcp::22", "tcp:g:0", "tcp:g:65536", "udp:g:1", "ping:"]
)
def test_no_target(text: str) -> None:
    with pytest.raises(PlanError):
        Plan(probe=text)


def test_longest_silence() -> None:
    """The present one counts; what was before the restart does not."""
    answers = Answers()
    assert answers.longest_s(5.0) == 0.0
    for time_s in (1.0, 4.0, 4.5):
        answers.note(time_s)
    assert answers.longest_s(4.5) == 3.0
    answers.restart()
    answers.note(5.0)
    assert answers.longest_s(5.1) == 0.5
    assert answers.longest_s(9.0) == 4.0


def test_checksum() -> None:
    """The example of RFC 1071, and that a right packet sums to nothing."""
    data = bytes([0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7])
    assert _checksum(data) == 0x220D
    assert _checksum(data + _checksum(data).to_bytes(2, "big")) == 0


async def test_tcp_answers_stop_and_come_back() -> None:
    """A listener that goes away is silence from then on; a refusal is no answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    probe = Probe(ProbeTarget.parse(f"tcp:127.0.0.1:{port}"))
    await probe.start()
    try:
        probe.restart()
        listener.close()
        await asyncio.sleep(0.3)
        seen = probe.blackout(None)
        assert seen.longest_s > 0.2
        with socket.create_server(("127.0.0.1", port)):
            assert await probe.wait_answer(loop_now(), 10)
        assert probe.blackout(0.0).answers_afterwards
        assert not probe.blackout(loop_now() + 100).answers_afterwards
    finally:
        probe.close()


async def test_a_probe_without_descriptors_goes_on_when_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that the silence was its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        probe = Probe(ProbeTarget.parse(f"tcp:127.0.0.1:{listener.getsockname()[1]}"))
        await probe.start()
        try:
            with monkeypatch.context() as patched:
                patched.setattr(socket, "socket", no_descriptor)
                await asyncio.sleep(0.2)
            assert await probe.wait_answer(loop_now(), 10)
            assert "the probe itself could not ask: [Errno 24]" in probe.trouble
        finally:
            probe.close()


def no_descriptor(*_: object) -> None:
    """As `socket.socket` when there are too many."""
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_ping_answers(host: str) -> None:
    """Needs root, or a user whose group may ping."""
    probe = Probe(ProbeTarget.parse(f"ping:{host}"))
    await probe.start()
    assert await probe.wait_answer(loop_now(), 10)
    probe.close()


async def test_nobody_there_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RefusedError, match="nobody answers at --probe"):
        await Probe(ProbeTarget.parse(f"tcp:127.0.0.1:{port}")).start()
    with pytest.raises(RefusedError, match="can't be looked up"):
        await Probe(ProbeTarget.parse("ping:no-such-host.invalid")).start()


def loop_now() -> float:
    """Now, monotonic."""
    return asyncio.get_running_loop().time()
