"""SSH drops and links are cut in every phase of a run: one guest runs afterwards, whole, and that is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

import livemig
from livemig.core import event as events
from livemig.core.errors import LivemigError
from livemig.core.plan import Security
from livemig.engine.launch import Launched, launch
from livemig.lab.two_hosts import Host
from livemig.lab.workload import Workload
from tests.engine.pair import IDLE, MiB
from tests.ssh.between import QUICK, Between

pytestmark = pytest.mark.qemu
GENTLE = Workload(working_set_bytes=4 * MiB, dirty_rate_bytes_s=MiB, fill_bytes=48 * MiB)
"""Converges even where TLS has a tenth of a processor."""
SLOW = msgspec.structs.replace(QUICK, bandwidth_bytes_s=40e6)
"""A copy of some seconds."""
LINK_BYTES_S = 40e6
BUSY = Workload(working_set_bytes=24 * MiB, dirty_rate_bytes_s=30 * MiB, fill_bytes=48 * MiB)
"""What is left of it after a round takes that link half a second: a switchover within which a link can be cut."""
AWAY_S = 0.3
PHASES: dict[str, type[events.Event]] = {
    "setup": events.Prepared,
    "first copy": events.Progressed,
    "later rounds": events.RoundCompleted,
    "switchover": events.SourceStopped,
    "just after": events.DestinationRunning,
}


class Once:
    """Does something beside a run at the first event of a kind, and is awaited after the run."""

    def __init__(self, kinds: tuple[type[events.Event], ...], act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._kinds, self._act = kinds, act
        self._task: asyncio.Task[None] | None = None

    def __call__(self, _: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, self._kinds) and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._act())

    async def done(self) -> None:
        """Waits for it; it must have come to it."""
        assert self._task is not None
        await self._task


async def drop(between: Between, *hosts: Host) -> None:
    """Kills the sshd of hosts with their sessions, and starts them again a moment later. QEMU goes on."""
    for host in hosts:
        between.lab.kill_sshd(host)
    await asyncio.sleep(AWAY_S)
    for host in hosts:
        await between.lab.start_sshd(host)


@pytest.mark.parametrize(
    ("sides", "phase"),
    [*((side, phase) for side in "AB" for phase in PHASES), ("AB", "first copy"), ("AB", "switchover")],
)
async def test_ssh_drops_and_comes_back(between: Between, phase: str, sides: str) -> None:
    """A guest that ends no round before its switchover loses it there."""
    await between.start(GENTLE)
    hosts = [between.lab.host(name) for name in sides]
    kinds = (PHASES[phase],) if phase == "just after" else (PHASES[phase], events.SourceStopped)
    dropping = Once(kinds, lambda: drop(between, *hosts))
    report, _ = await between.migrate(SLOW, on_event=dropping)
    await dropping.done()
    assert report.outcome == "completed", report.reason
    assert not report.source_kept, report.warnings
    await between.assert_arrived()


@pytest.mark.parametrize("side", ["source", "destination"])
async def test_ssh_drops_right_after_the_launch(between: Between, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is prepared: the guest moves, or it is refused, and what was launched is gone."""
    await between.start(IDLE)
    host = between.lab.a if side == "source" else between.lab.b
    dropping: list[asyncio.Task[None]] = []

    async def launched_and_lost(*given: Any, **named: Any) -> Launched:
        launched = await launch(*given, **named)
        dropping.append(asyncio.get_running_loop().create_task(drop(between, host)))
        await asyncio.sleep(0)
        return launched

    monkeypatch.setattr("livemig.engine.connect.launch", launched_and_lost)
    try:
        report, _ = await between.migrate()
    except LivemigError:
        await asyncio.gather(*dropping)
        await between.assert_stayed()
    else:
        await asyncio.gather(*dropping)
        assert report.outcome == "completed", report.reason
        await between.assert_arrived()
    assert dropping


async def test_ssh_is_gone_for_long_right_after_the_launch(between: Between, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was launched can't be ended then: that is said, and recovery does it once the host is back."""
    monkeypatch.setattr("livemig.hosts.ssh.process.END_BOUND_S", 0.5)
    await between.start(IDLE)
    host = between.lab.b

    async def launched_and_lost(*given: Any, **named: Any) -> Launched:
        launched = await launch(*given, **named)
        between.lab.kill_sshd(host)
        return launched

    monkeypatch.setattr("livemig.engine.connect.launch", launched_and_lost)
    with pytest.raises(LivemigError) as failed:
        await between.migrate()
    assert any("what was launched at ssh://B" in note for note in failed.value.__notes__)
    await between.lab.start_sshd(host)
    assert between.destination.left_behind != []
    (found,) = await livemig.recover()
    assert (found.ending.running_on, found.ending.left) == ("source", ()), found
    await between.assert_stayed()


async def test_ssh_falls_silent_and_comes_back(between: Between) -> None:
    """No end of it is heard: that nothing is answered any more is noticed, and the connection is made again."""
    await between.start(GENTLE)
    lab = between.lab

    async def fall_silent() -> None:
        await lab.cut(lab.a, "management")
        await asyncio.sleep(15)
        await lab.mend(lab.a, "management")

    silence = Once((events.Progressed,), fall_silent)
    plan = msgspec.structs.replace(SLOW, migrate_address=lab.b.data_address)
    report, _ = await between.migrate(plan, on_event=silence)
    await silence.done()
    assert report.outcome == "completed", report.reason
    assert any("connection to the source's host is back" in text for text in report.warnings), report.warnings
    await between.assert_arrived()


@pytest.mark.parametrize("lab", [LINK_BYTES_S], indirect=True, ids=["40MB/s"])
@pytest.mark.parametrize(("phase", "gated"), [*((phase, False) for phase in PHASES), ("switchover", True)])
async def test_the_data_link_is_cut(between: Between, phase: str, gated: bool) -> None:
    """Until the switchover has ended the guest stays where it was; what comes later, it does not need that link."""
    await between.start(BUSY)
    lab = between.lab
    plan = msgspec.structs.replace(
        QUICK,
        security=Security.TLS,
        migrate_address=lab.b.data_address,
        downtime_limit_s=0.05 if phase == "later rounds" else 1.5,
        pause_before_switchover=gated,
    )
    cutting = Once((PHASES[phase],), lambda: lab.cut(lab.b, "data"))
    report, seen = await between.migrate(plan, on_event=cutting)
    await cutting.done()
    if phase == "switchover" and report.outcome == "completed":
        await between.assert_arrived()  # it was quicker than the cut
        return
    wanted = ("completed", "destination") if phase == "just after" else ("failed", "source")
    assert (report.outcome, report.running_on, report.guest_state) == (*wanted, "running"), report.reason
    if phase == "just after":
        await between.assert_arrived()
    else:
        assert any(isinstance(event, events.SourceStopped) for event in seen) is (phase == "switchover")
        await between.assert_stayed()


@pytest.mark.parametrize("lab", [LINK_BYTES_S], indirect=True, ids=["40MB/s"])
@pytest.mark.parametrize("phase", ["first copy", "switchover"])
async def test_the_data_link_is_cut_for_a_moment(between: Between, phase: str) -> None:
    """TCP sends again what was lost: a link that is back in time costs nothing but that time."""
    await between.start(BUSY)
    lab = between.lab

    async def cut() -> None:
        await lab.cut(lab.b, "data")
        await asyncio.sleep(AWAY_S)
        await lab.mend(lab.b, "data")

    plan = msgspec.structs.replace(QUICK, migrate_address=lab.b.data_address, downtime_limit_s=1.5)
    cutting = Once((PHASES[phase],), cut)
    report, _ = await between.migrate(plan, on_event=cutting)
    await cutting.done()
    assert report.outcome == "completed", report.reason
    await between.assert_arrived()
