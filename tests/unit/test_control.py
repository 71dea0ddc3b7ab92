"""The control socket: what is asked of a running engine, and what is said where there is none that answers."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

import livemig
from livemig.core import event as events
from livemig.core.errors import ControlError, PlanError
from livemig.core.phases import Phase
from livemig.engine import control
from livemig.engine.control import LiveStatus, Request, StatusKeeper, ask, listening
from livemig.engine.run_files import RunFiles, socket_path


@pytest.fixture
def held(own_state: Path):
    """A run that this process drives."""
    files = RunFiles.hold("a1", reserve=False)
    yield files
    files.close()


def answers(*, asked: list[Request]):
    """Takes note of what is asked."""
    keeper = StatusKeeper("a1", "/a", "/b")

    def answer(request: Request) -> LiveStatus:
        asked.append(request)
        if request.do == "tune" and request.change.deadline_s == 0:
            raise PlanError("a deadline of 0 makes no sense")
        return keeper.now(livemig.Plan(), None)

    return answer


async def test_asked_and_answered(held: RunFiles) -> None:
    """Status, tune and cancel arrive; what is refused is said in the engine's own words; the socket is gone after."""
    asked: list[Request] = []
    async with listening("a1", answers(asked=asked)):
        assert (await ask("a1", Request(do="status"))).id == "a1"
        change = livemig.PlanChange(downtime_limit_s=0.5)
        await ask("a1", Request(do="tune", change=change))
        await ask("a1", Request(do="cancel", reason="enough"))
        with pytest.raises(ControlError, match="a deadline of 0 makes no sense"):
            await ask("a1", Request(do="tune", change=livemig.PlanChange(deadline_s=0.0)))
    assert [request.do for request in asked] == ["status", "tune", "cancel", "tune"]
    assert asked[1].change == change
    assert not socket_path("a1").exists()


async def test_garbage_is_answered_and_does_no_harm(held: RunFiles) -> None:
    """What is no request gets an error, and the next one its answer."""
    asked: list[Request] = []
    async with listening("a1", answers(asked=asked)):
        for garbage in (b"\xff\n", b"{}\n", b'{"do": "explode"}\n', b""):
            reader, writer = await asyncio.open_unix_connection(socket_path("a1"))
            writer.write(garbage)
            writer.write_eof()
            assert b"error" in await reader.readline()
            writer.close()
        assert await ask("a1", Request(do="status"))
    assert len(asked) == 1


@pytest.mark.parametrize("left", [False, True], ids=["nothing", "socket of a dead process"])
async def test_gone(own_state: Path, left: bool) -> None:
    """No engine: said so, with where to go on."""
    if left:
        files = RunFiles.hold("a1", reserve=False)
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(socket_path("a1")))
        dead.close()
        os.close(files._descriptor)
    with pytest.raises(ControlError, match="livemig recover a1") as caught:
        await ask("a1", Request(do="status"))
    assert caught.value.gone


async def test_hangs(held: RunFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that lives and does not answer is not taken for a dead one."""
    monkeypatch.setattr(control, "ANSWER_BOUND_S", 0.1)
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(str(socket_path("a1")))
    silent.listen()
    with pytest.raises(ControlError, match="lives and does not answer") as caught:
        await ask("a1", Request(do="status"))
    assert not caught.value.gone
    silent.close()


async def test_no_id(own_state: Path) -> None:
    """What can't be an id is no path either."""
    with pytest.raises(ControlError, match="no run's id"):
        await ask("../../etc", Request(do="status"))


def test_what_is_kept_of_the_events() -> None:
    """The latest of each figure, and what is being done."""
    keeper = StatusKeeper("a1", "/a", "/b")
    assert keeper.now(livemig.Plan(), None).doing == "preparing"
    keeper.take(
        events.Progressed(
            time_s=1.0,
            phase=Phase.PRECOPY,
            progress=0.5,
            round_number=2,
            remaining_bytes=7,
            sent_bytes=9,
            throughput_bytes_s=1e6,
            newly_dirtied_bytes_s=None,
            expected_downtime_s=0.01,
            downtime_limit_s=0.3,
            left_s=(1.0, 2.0),
        )
    )
    status = keeper.now(livemig.Plan(), 1.5)
    assert (status.progress, status.round_number, status.left_s, status.time_s) == (0.5, 2, (1.0, 2.0), 1.5)
    keeper.take(events.SourceStopped(time_s=2.0))
    assert "stands still" in keeper.now(livemig.Plan(), 2.0).doing
