"""Two fake QEMUs to move a guest between, each with a stand-in process, and what must hold however a run ends."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import livemig
from livemig.core import policy
from livemig.core.errors import LivemigError
from livemig.core.event import Ended, Event
from livemig.engine import act, finish, live, preflight, settle, side
from livemig.hosts import local
from livemig.qemu.monitor import Monitor
from tests.qmp.fake_migration import FakeGuest
from tests.qmp.fake_qemu import JSON, FakeQemu, Faults

PLAN = livemig.Plan(probation_s=0.02)
RUN_BOUND_S = 20.0


class FaultyQemu(FakeQemu):
    """A fake that can die at a command, its process with it.

    Attributes:
        die_at: The in-band command, counted over all connections, that it dies at instead of answering.
        die_at_name: The same by its name.
        lingers_s: How long its process lives on after its sockets closed, as one that frees a large memory does.
        count: The commands so far.
        lost_events: Names of events that never come.
    """

    def __init__(self, path: Path, *, faults: Faults | None = None, **state: Any) -> None:
        super().__init__(path, faults=faults, **state)
        self.die_at: int | None = None
        self.die_at_name = ""
        self.lingers_s = 0.0
        self.count = 0
        self.lost_events: set[str] = set()

    def emit(self, name: str, data: JSON | None = None) -> None:
        """As QEMU does, or not at all."""
        if name not in self.lost_events:
            super().emit(name, data)

    def answer(self, command: str, arguments: JSON) -> Any:
        """As QEMU does, or not at all."""
        self.count += 1
        if self.count == self.die_at or command == self.die_at_name:
            for client in self._clients:
                client.close()
            self.spawn(self.die())
            return {}
        return super().answer(command, arguments)

    @property
    def state(self) -> str:
        """Its run state; ``gone`` when it has ended."""
        return "gone" if self.gone.is_set() else self.run_state


class FakePair:
    """A source whose guest runs and a destination that waits.

    Attributes:
        source: The source.
        destination: The destination.
        seen: The events of the run.
        ran_together: Whether both ever ran at the same time.
    """

    def __init__(self, source: FaultyQemu, destination: FaultyQemu) -> None:
        self.source, self.destination = source, destination
        self.seen: list[Event] = []

    async def migrate(
        self,
        plan: livemig.Plan = PLAN,
        *,
        cancel_at: str | None = None,
        on_event: Callable[[Event], None] = lambda _event: None,
    ) -> livemig.Report | LivemigError:
        """Moves the guest; returns the report, or why it was refused. Anything else that is raised fails the test."""
        migration = livemig.migrate(plan, source=self.source.path, destination=self.destination.path)
        async with asyncio.timeout(RUN_BOUND_S):
            try:
                await migration.__aenter__()
            except LivemigError as error:
                return error
            try:
                async for event in migration:
                    self.seen.append(event)
                    on_event(event)
                    if type(event).__name__ == cancel_at:
                        migration.cancel("the test cancels")
            finally:
                await migration.__aexit__(None, None, None)
        return migration.report

    def check(self, end: livemig.Report | LivemigError) -> None:
        """Holds the end against what is true of both fakes: never two runners, and what is said is so."""
        source, destination = self.source.state, self.destination.state
        states = f"source {source}, destination {destination}, said {end!r}"
        assert not (source == destination == "running"), states
        if isinstance(end, LivemigError):
            assert source in ("running", "gone"), states
            assert not self.seen, states
            return
        assert isinstance(self.seen[-1], Ended), states
        match end.running_on:
            case livemig.RunningOn.SOURCE:
                assert source == "running", states
                assert end.outcome in (livemig.Outcome.FAILED, livemig.Outcome.CANCELLED), states
            case livemig.RunningOn.DESTINATION:
                assert destination == "running", states
                assert end.outcome is livemig.Outcome.COMPLETED, states
            case livemig.RunningOn.NONE:
                assert "running" not in (source, destination), states
            case livemig.RunningOn.UNKNOWN:
                assert end.outcome is livemig.Outcome.UNKNOWN, states


@contextlib.asynccontextmanager
async def fake_pair(
    *, source: Faults | None = None, destination: Faults | None = None, guest: FakeGuest | None = None
) -> AsyncIterator[FakePair]:
    """Starts two fakes, each with a process that ends with it, and the other way round."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lm-")))
        fakes = []
        for name, faults, state in (
            ("source", source, {"guest": guest}),
            ("destination", destination, {"incoming": True, "paused": True}),
        ):
            fake = await stack.enter_async_context(FaultyQemu(folder / name, faults=faults or Faults(), **state))
            await stack.enter_async_context(_process_of(fake))
            fakes.append(fake)
        yield FakePair(*fakes)


@contextlib.asynccontextmanager
async def _process_of(fake: FaultyQemu) -> AsyncIterator[None]:
    """Gives a fake a process to be seen, held and killed by its pid, as QEMU's vCPU thread leads to it."""
    process = await asyncio.create_subprocess_exec("sleep", "120")
    fake.faults.replies.setdefault(
        "query-cpus-fast", [{"cpu-index": 0, "thread-id": process.pid, "qom-path": "/", "target": "x86_64"}]
    )

    async def end_together() -> None:
        await asyncio.wait(
            [asyncio.ensure_future(fake.gone.wait()), asyncio.ensure_future(process.wait())],
            return_when=asyncio.FIRST_COMPLETED,
        )
        if process.returncode is None:
            await asyncio.sleep(fake.lingers_s)
            process.kill()
        await process.wait()
        await fake.die()

    ending = asyncio.create_task(end_together())
    try:
        yield
    finally:
        await fake.die()
        await ending


def compare_nothing(monkeypatch: Any) -> None:
    """Leaves out what the two QEMUs are made of: the fakes are made of nothing, and stand-ins are their processes."""

    async def take_nothing(*_monitors: Monitor) -> tuple[None, None]:
        return (None, None)

    monkeypatch.setattr(preflight, "take_inventories", take_nothing)
    monkeypatch.setattr(local, "holds_other_end", lambda *_: True)  # in truth the test's own process does
    monkeypatch.setattr(preflight, "image_pairs", lambda *_: ())
    monkeypatch.setattr(preflight, "compare", lambda *_, **_options: ())


def shorten_bounds(monkeypatch: Any) -> None:
    """Makes every bound of the engine short, so that a hang is over soon; their order stays."""
    monkeypatch.setattr(policy, "FROZEN_AFTER_S", 0.6)
    monkeypatch.setattr(policy, "CANCEL_BOUND_S", 0.4)
    monkeypatch.setattr(act, "ACTION_BOUND_S", 0.4)
    monkeypatch.setattr(live, "COMPLETION_BOUND_S", 0.5)
    monkeypatch.setattr(settle, "OBSERVE_BOUND_S", 0.4)
    monkeypatch.setattr(settle, "READ_BOUND_S", 0.2)
    monkeypatch.setattr(settle, "EFFECT_BOUND_S", 0.3)
    monkeypatch.setattr(settle, "STEP_BOUND_S", 0.4)
    monkeypatch.setattr(side, "QUIT_BOUND_S", 0.3)
    monkeypatch.setattr(finish, "CONTINUE_BOUND_S", 0.4)
    monkeypatch.setattr(finish, "RESUME_EVENT_BOUND_S", 0.3)
    monkeypatch.setattr(finish, "FINAL_FIGURES_BOUND_S", 0.3)
    for method in (Monitor.execute, Monitor.execute_out_of_band, Monitor.query_status, Monitor.query_migrate):
        monkeypatch.setitem(method.__kwdefaults__, "timeout_s", 0.4)
    monkeypatch.setitem(Monitor.connect.__kwdefaults__, "timeout_s", 0.5)
    monkeypatch.setitem(Monitor.connect.__kwdefaults__, "silence_s", 0.3)
