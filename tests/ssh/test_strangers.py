"""Hostile clients on the port that the destination listens at: they delay the start, and nothing more."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import livemig
from livemig.core import event as events
from livemig.core import inputs
from livemig.core.plan import Security
from livemig.core.trace import InputRecord, decode_trace
from livemig.engine import channel as channels
from livemig.engine.side import Side
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.two_hosts.qemu import qemu_in
from livemig.simulation.replay import replay
from tests.engine.pair import IDLE, MiB, run_state
from tests.ssh.between import QUICK, Between

pytestmark = pytest.mark.qemu

STANDSTILL_MOST_S = 1.0
"""How long a stranger may make the source's guest stand still."""
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""How a TLS client begins, with some 500 bytes still to come."""


class Strangers:
    """Connect to the destination's port before the source does, and do one thing.

    Attributes:
        met: How often the destination was met with.
    """

    def __init__(self, kind: str, *, times: int = 1) -> None:
        """Connects nowhere yet.

        Args:
            kind: ``silent``, ``garbage``, ``http``, ``scan`` (connects and is gone), ``drip`` (begins a handshake and
                goes on byte by byte), ``flood`` (fifty silent ones) or ``storm`` (garbage on new connections without
                end).
            times: How many destinations, one after the other, are met with.
        """
        self.kind = kind
        self.met = 0
        self._times = times
        self._sockets: list[socket.socket] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def meet(self, uri: str) -> None:
        """Connects to where the source will connect."""
        if self.met >= self._times:
            return
        self.met += 1
        host, _, port = uri.removeprefix("tcp:").rpartition(":")
        coming = [self._come(host, int(port)) for _ in range(50 if self.kind == "flood" else 1)]
        await asyncio.gather(*coming, return_exceptions=True)  # the queue may be full
        if self.kind == "storm":
            self._tasks.append(asyncio.create_task(self._come_again(host, int(port))))
        await asyncio.sleep(0.05)  # they are first

    async def _come(self, host: str, port: int) -> None:
        opened = await asyncio.to_thread(socket.create_connection, (host, port), 0.3)
        self._sockets.append(opened)
        match self.kind:
            case "garbage" | "storm":
                opened.sendall(os.urandom(4096))
            case "http":
                opened.sendall(b"GET / HTTP/1.0\r\n\r\n")
            case "drip":
                opened.sendall(CLIENT_HELLO)
                self._tasks.append(asyncio.create_task(_drip(opened)))
            case "scan":
                opened.close()
            case _:
                pass

    async def _come_again(self, host: str, port: int) -> None:
        while True:
            with contextlib.suppress(OSError):
                await self._come(host, port)
                self._sockets.pop().close()
            await asyncio.sleep(0.005)

    async def leave(self) -> None:
        """Closes all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in self._sockets:
            each.close()


async def _drip(opened: socket.socket) -> None:
    while True:
        await asyncio.sleep(0.05)
        opened.sendall(b"\0")


@pytest.fixture
async def bystander(between: Between) -> AsyncIterator[Heartbeat]:
    """A guest on the source's host that nobody moves: it tells how long this machine alone makes one stand still."""
    host = between.lab.a
    heartbeat = Heartbeat()
    settings = MachineSettings(workload=IDLE, memory_bytes=16 * MiB, binary=qemu_in(host))
    async with Machine(settings, folder=host.private_folder_outside, name="bystander", heartbeat=heartbeat) as machine:
        await machine.serial.wait_ready()
        yield heartbeat


class Standstill:
    """How long the guest stood still at the source, at the longest, and the bystander meanwhile.

    Attributes:
        longest_s: The guest's; None before `end`.
        bystander_s: The bystander's.
    """

    def __init__(self, guest: Heartbeat, bystander: Heartbeat) -> None:
        """Begins to look."""
        self.longest_s: float | None = None
        self.bystander_s = 0.0
        self._guest, self._bystander = guest, bystander
        guest.restart()
        bystander.restart()

    def until_switchover(self, _: Any, event: events.Event) -> None:
        """Ends with the source's STOP: that is livemig's own doing."""
        if isinstance(event, events.SourceStopped):
            self.end()

    def end(self) -> None:
        """Looks no more; does nothing when that was so."""
        if self.longest_s is None:
            now_s = asyncio.get_running_loop().time()
            self.longest_s = max(self._guest.longest_gap_s, self._guest.silence_s(now_s))
            self.bystander_s = max(self._bystander.longest_gap_s, self._bystander.silence_s(now_s))

    def assert_short(self) -> None:
        """No stranger stopped the guest for long, however slow this machine is."""
        self.end()
        assert self.longest_s is not None
        assert self.longest_s <= STANDSTILL_MOST_S + self.bystander_s, (self.longest_s, self.bystander_s)


def let_meet(strangers: Strangers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the strangers come once the destination listens, before the source connects."""
    real = channels._ClearText.connect_uri

    async def met(self: channels._ClearText, destination: Side) -> str:
        uri = await real(self, destination)
        await strangers.meet(uri)
        return uri

    monkeypatch.setattr(channels._ClearText, "connect_uri", met)


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("silent", 1),
        ("silent", 2),
        ("garbage", 1),
        ("http", 2),
        ("scan", 1),
        ("drip", 1),
        ("drip", 2),
        ("flood", 1),
        ("storm", 2),
    ],
)
async def test_a_stranger_only_delays(
    between: Between, bystander: Heartbeat, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, times: int
) -> None:
    """The guest moves all the same, on another port or through SSH, and never stood still for more than a second.

    Its trace, which then holds several attempts, can be replayed.
    """
    strangers, trace = Strangers(kind, times=times), tmp_path / "trace"
    let_meet(strangers, monkeypatch)
    await between.start(IDLE)
    standstill = Standstill(between.heartbeat, bystander)
    try:
        report, seen = await between.migrate(on_event=standstill.until_switchover, trace_path=trace)
    finally:
        await strangers.leave()
    assert report.outcome == "completed", (report.reason, seen)
    standstill.assert_short()
    assert strangers.met == times or kind in ("http", "storm")
    await between.assert_arrived()
    warned = [event.text for event in seen if isinstance(event, events.Warned)]
    if kind in ("silent", "drip"):
        assert sum("fell silent" in text for text in warned) == times, warned
    attempts = sum(isinstance(event, events.Prepared) for event in seen)
    assert report.warnings[: attempts - 1] == tuple(warned[: attempts - 1])
    with trace.open("rb") as lines:
        records = list(decode_trace(lines))
    assert (
        sum(isinstance(each, InputRecord) and isinstance(each.input, inputs.Prepared) for each in records) == attempts
    )
    assert replay(records).reproduced


async def test_a_cancel_while_another_way_is_tried_holds(
    between: Between, bystander: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between two attempts: the second one does not forget it."""
    strangers = Strangers("silent")
    let_meet(strangers, monkeypatch)
    await between.start(IDLE)

    def cancel(migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.Warned) and "is tried" in event.text:
            migration.cancel("stay")

    try:
        report, _ = await between.migrate(on_event=cancel)
    finally:
        await strangers.leave()
    assert strangers.met == 1
    assert (report.outcome, report.running_on) == ("cancelled", "source"), report.reason
    assert "stay" in report.reason
    await between.assert_stayed()


async def test_a_second_attempt_that_is_refused_is_a_failure_that_is_known(
    between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guest runs at the source, and that is what is said: nothing of the first attempt is left to be unsure of."""
    strangers = Strangers("silent")
    let_meet(strangers, monkeypatch)
    await between.start(IDLE)
    path = between.lab.b.private_folder_outside / "vm.qmp"

    def get_in_the_way(_: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.Warned) and "is tried" in event.text:
            path.write_text("no socket")

    try:
        report, _ = await between.migrate(on_event=get_in_the_way)
    finally:
        await strangers.leave()
    path.unlink()
    assert (report.outcome, report.running_on) == ("failed", "source"), report.reason
    assert "fell silent" in report.reason
    # Said by whoever comes to it first: the launch, or who connects.
    assert re.search("no (QMP )?socket", report.reason), report.reason
    assert report.guest_state == "running"
    await between.assert_stayed()


@pytest.mark.parametrize("kind", ["silent", "garbage", "storm"])
async def test_without_tls_a_stranger_loses_nothing(
    between: Between, bystander: Heartbeat, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Nothing tells the source from a stranger then; the guest may stay where it is, whole, and that is said."""
    strangers = Strangers(kind)
    let_meet(strangers, monkeypatch)
    await between.start(IDLE)
    standstill = Standstill(between.heartbeat, bystander)
    plan = msgspec.structs.replace(QUICK, security=Security.NONE)
    try:
        report, _ = await between.migrate(plan, on_event=standstill.until_switchover)
    finally:
        await strangers.leave()
    standstill.assert_short()
    if report.outcome == "completed":
        await between.assert_arrived()
    else:
        assert (report.outcome, report.running_on) == ("failed", "source"), report.reason
        await between.assert_stayed()


async def test_a_destination_of_somebody_elses_is_not_tried_twice(
    between: Between, bystander: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has nothing of the guest, and its end alone frees the source: it is ended, and that is said."""
    strangers = Strangers("silent")
    let_meet(strangers, monkeypatch)
    await between.start(IDLE)
    host = between.lab.b
    settings = MachineSettings(workload=IDLE, binary=qemu_in(host), incoming="defer", paused=True)
    async with Machine(settings, folder=host.private_folder_outside, name="vm") as waiting:
        standstill = Standstill(between.heartbeat, bystander)
        try:
            report, seen = await between.migrate(on_event=standstill.until_switchover)
        finally:
            await strangers.leave()
        standstill.assert_short()
        assert (report.outcome, report.running_on) == ("failed", "source"), report.reason
        assert "the destination was ended to free both" in report.reason
        assert sum(isinstance(event, events.Prepared) for event in seen) == 1
        assert await run_state(waiting) == "gone"
    assert await run_state(between.source) == "running"
    assert (await between.source.serial.ask_verdict()).good
    assert between.heartbeat.problems == []
    assert between.leftovers() == []
