"""What fails on real QEMU ends as the contract says: one runner, the right outcome, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import msgspec
import pytest

import livemig
from livemig.core import event as events
from livemig.qemu.monitor import Monitor
from tests.engine.pair import HOT, LOADED, QUICK, MiB, Pair
from tests.engine.proxy import Proxy

pytestmark = pytest.mark.qemu


@pytest.fixture
def pair(either_pair: Pair) -> Pair:
    """Every test here runs with a destination that waits, and with one that livemig launches."""
    return either_pair


SLOW = livemig.Plan(probation_s=0.1, bandwidth_bytes_s=30 * MiB)
"""Slow enough that the first copy of 64 MiB is still under way after a second."""
RANDOM_MOMENTS_S = [round(random.Random(seed).uniform(0.0, 1.2), 3) for seed in range(4)]


def after(event_type, action, *, count: int = 1):
    """Returns a listener that acts on the count-th event of a type."""
    seen = 0

    def listen(migration: livemig.Migration, event: events.Event) -> None:
        nonlocal seen
        if isinstance(event, event_type):
            seen += 1
            if seen == count:
                action(migration)

    return listen


async def assert_cancelled(pair: Pair, report: livemig.Report) -> None:
    """The guest stays at the source, whole, its settings as before; the destination is gone."""
    assert (report.outcome, report.running_on) == (livemig.Outcome.CANCELLED, livemig.RunningOn.SOURCE), report.reason
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
    assert (await pair.run_states())["destination"] == "gone"


async def test_cancel_in_setup(pair: Pair) -> None:
    """A cancel before a byte was sent."""
    await pair.start()
    report, _ = await pair.migrate(SLOW, on_event=after(events.Prepared, lambda migration: migration.cancel("stay")))
    await assert_cancelled(pair, report)
    assert "stay" in report.reason


async def test_cancel_while_active(pair: Pair) -> None:
    """A cancel in the first copy; a second one changes nothing."""
    await pair.start()

    def cancel_twice(migration: livemig.Migration) -> None:
        migration.cancel("stay")
        migration.cancel("stay, please")

    report, _ = await pair.migrate(SLOW, on_event=after(events.Progressed, cancel_twice, count=6))
    await assert_cancelled(pair, report)


async def test_cancel_in_pre_switchover(pair: Pair) -> None:
    """With the gate, a cancel asked for during the copy also holds when it comes to the last word."""
    await pair.start(LOADED)
    plan = msgspec.structs.replace(QUICK, pause_before_switchover=True)

    def cancel(migration: livemig.Migration) -> None:
        # Past the policy's own cancel: what it is asked in the very moment that QEMU stops the guest.
        run = migration._run
        assert run is not None
        run.live.policy.cancel_reason = "stay"

    report, seen = await pair.migrate(plan, on_event=after(events.Progressed, cancel))

    await assert_cancelled(pair, report)
    assert any(isinstance(event, events.SourceStopped) for event in seen)


async def test_leaving_the_context_early_cancels(pair: Pair) -> None:
    """An exception in the caller's loop leaves the guest running at the source."""
    await pair.start()
    migration = livemig.migrate(SLOW, source=pair.source_address, destination=pair.destination_address)

    async def fail_on_progress() -> None:
        async with migration:
            async for event in migration:
                if isinstance(event, events.DestinationLaunched):
                    await pair.attach()
                if isinstance(event, events.Progressed):
                    raise KeyError

    with pytest.raises(KeyError):
        await fail_on_progress()
    await assert_cancelled(pair, migration.report)


@pytest.mark.timeout(600)
async def test_cancel_at_fifty_random_moments_around_stop(pair: Pair) -> None:
    """Whenever the cancel comes, before or after STOP, exactly one side runs the guest and its memory is right."""
    chance = random.Random(20261123)
    outcomes = []
    await pair.start(
        msgspec.structs.replace(LOADED, working_set_bytes=4 * MiB, fill_bytes=8 * MiB), memory_bytes=32 * MiB
    )
    for _ in range(50):
        delay_s = chance.choice([0.0, chance.uniform(0, 0.02), chance.uniform(0.1, 0.4)])

        def cancel(migration: livemig.Migration, event: events.Event, delay_s: float = delay_s) -> None:
            wanted = events.SourceStopped if delay_s < 0.05 else events.Prepared
            if isinstance(event, wanted):
                asyncio.get_running_loop().call_later(delay_s, migration.cancel, "stay")

        report, _ = await pair.migrate(msgspec.structs.replace(QUICK, probation_s=0.0), on_event=cancel)
        outcomes.append(report.outcome)
        if report.outcome is livemig.Outcome.COMPLETED:
            await pair.assert_runs_only("destination")
            await pair.swap()
        else:
            assert livemig.Outcome.CANCELLED is report.outcome, report.reason
            await pair.assert_runs_only("source")
            await pair.assert_settings_restored("source")
            pair.destination = await pair.waiting()
    assert {livemig.Outcome.COMPLETED, livemig.Outcome.CANCELLED} == set(outcomes)


@pytest.mark.parametrize("moment_s", RANDOM_MOMENTS_S)
async def test_destination_killed(pair: Pair, moment_s: float) -> None:
    """SIGKILL of the destination: failed, and the guest never noticed."""
    await pair.start()

    def kill(_migration: livemig.Migration) -> None:
        asyncio.get_running_loop().call_later(moment_s, os.kill, pair.destination.pid, signal.SIGKILL)

    report, _ = await pair.migrate(SLOW, on_event=after(events.Prepared, kill))

    assert (report.outcome, report.running_on) == (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE)
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")


@pytest.mark.parametrize("after_s", [0.0, 0.003, 0.02, 0.1])
async def test_destination_killed_in_the_switchover(pair: Pair, after_s: float, monkeypatch) -> None:
    """SIGKILL at the source's STOP or soon after, with nothing that holds the switchover back: what is said is so.

    The link is slow, so that most of these come while the rest is sent; a late one finds the guest at the destination.
    """
    await pair.start(msgspec.structs.replace(LOADED, working_set_bytes=4 * MiB, dirty_rate_bytes_s=400 * MiB))
    async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
        with monitor.subscribe("STOP") as stream:

            async def kill() -> None:
                await stream.wait_for("STOP", timeout_s=60)
                await asyncio.sleep(after_s)
                os.kill(pair.destination.pid, signal.SIGKILL)

            killing = asyncio.create_task(kill())
            async with Proxy.between(monkeypatch, bytes_s=60 * MiB):
                report, _ = await pair.migrate(livemig.Plan(probation_s=0.1, downtime_limit_s=0.4))
            await killing

    states = await pair.run_states()
    assert states["destination"] == "gone"
    if report.outcome is livemig.Outcome.COMPLETED:  # the kill came after all had been seen to
        assert states["source"] in ("gone", "postmigrate")
        return
    expected = {"running": livemig.RunningOn.SOURCE, "postmigrate": livemig.RunningOn.NONE}
    assert report.running_on is expected[states["source"]], (report, states)
    if states["source"] == "running":
        assert report.outcome is livemig.Outcome.FAILED, report.reason
        await pair.assert_runs_only("source")
        await pair.assert_settings_restored("source")
    else:
        assert report.outcome is livemig.Outcome.UNKNOWN, report.reason


@pytest.mark.parametrize("moment_s", RANDOM_MOMENTS_S)
async def test_source_killed(pair: Pair, moment_s: float) -> None:
    """SIGKILL of the source while it copies: the guest is lost, and nothing pretends otherwise."""
    await pair.start()

    def kill(_migration: livemig.Migration) -> None:
        asyncio.get_running_loop().call_later(moment_s, os.kill, pair.source.pid, signal.SIGKILL)

    report, _ = await pair.migrate(SLOW, on_event=after(events.Prepared, kill))

    assert livemig.RunningOn.NONE is report.running_on, report.reason
    assert await pair.run_states() == {"source": "gone", "destination": "gone"}


async def test_source_killed_after_it_completed(pair: Pair) -> None:
    """The source dies once everything was handed over: the guest goes on at the destination."""
    await pair.start()

    def kill(migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.DestinationRunning):
            os.kill(pair.source.pid, signal.SIGKILL)

    report, _ = await pair.migrate(on_event=kill)

    assert (report.outcome, report.running_on) == (livemig.Outcome.COMPLETED, livemig.RunningOn.DESTINATION)
    await pair.assert_runs_only("destination")


async def test_guest_powers_off_half_way(pair: Pair) -> None:
    """The guest ends itself while it moves: an outcome of its own, no failure."""
    await pair.start()
    report, _ = await pair.migrate(
        SLOW, on_event=after(events.Progressed, lambda _migration: pair.source.serial.send(b"p"), count=3)
    )
    assert (report.outcome, report.running_on) == (livemig.Outcome.GUEST_SHUT_DOWN, livemig.RunningOn.NONE)
    assert await pair.run_states() == {"source": "gone", "destination": "gone"}


async def test_guest_resets_half_way(pair: Pair) -> None:
    """A guest that reboots while it moves is moved all the same, and that is said."""
    await pair.start(msgspec.structs.replace(LOADED, dirty_rate_bytes_s=1 * MiB))

    report, _ = await pair.migrate(
        SLOW, on_event=after(events.Progressed, lambda _migration: pair.source.serial.send(b"r"), count=3)
    )

    assert livemig.Outcome.COMPLETED is report.outcome, report.reason
    assert any("RESET" in text for text in report.warnings)
    assert pair.heartbeat.reset_count == 1
    assert (await pair.run_states())["destination"] == "running"


async def test_guest_without_reboot_resets_half_way(pair: Pair) -> None:
    """Under -no-reboot a reset ends the source's QEMU: the guest ended itself."""
    await pair.start(source_arguments=("-no-reboot",))
    report, _ = await pair.migrate(
        SLOW, on_event=after(events.Progressed, lambda _migration: pair.source.serial.send(b"r"), count=3)
    )
    assert (report.outcome, report.running_on) == (livemig.Outcome.GUEST_SHUT_DOWN, livemig.RunningOn.NONE)


async def test_guest_resets_in_probation(pair: Pair) -> None:
    """A guest that does not live well at the destination: told, and the source is kept, never continued."""
    await pair.start()

    def reset(_migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.DestinationRunning):
            pair.destination.serial.send(b"r")

    report, _ = await pair.migrate(livemig.Plan(probation_s=2.0), on_event=reset)

    assert livemig.Outcome.COMPLETED is report.outcome
    assert report.source_kept
    assert any("reset" in text for text in report.warnings)
    assert await pair.run_states() == {"source": "postmigrate", "destination": "running"}


async def test_deadline_cancels(pair: Pair) -> None:
    """A guest too busy to move by the deadline stays."""
    await pair.start(HOT)
    plan = msgspec.structs.replace(SLOW, deadline_s=1.5, downtime_limit_s=0.05)
    report, _ = await pair.migrate(plan)
    await assert_cancelled(pair, report)
    assert "deadline" in report.reason
    assert report.total_s == pytest.approx(1.5, abs=0.5)


async def test_deadline_pauses(pair: Pair) -> None:
    """`pause` is the one consented excess: limits are lifted at the deadline and the guest moves."""
    await pair.start(HOT)
    plan = msgspec.structs.replace(SLOW, deadline_s=1.5, downtime_limit_s=0.05, at_deadline=livemig.AtDeadline.PAUSE)
    report, seen = await pair.migrate(plan)
    assert livemig.Outcome.COMPLETED is report.outcome, report.reason
    await pair.assert_runs_only("destination")
    stopped = next(event for event in seen if isinstance(event, events.SourceStopped))
    assert stopped.time_s >= 1.5


async def test_tune_while_running(pair: Pair) -> None:
    """A cap is lifted and a limit raised on the way; the guest moves then."""
    await pair.start(HOT)
    plan = msgspec.structs.replace(SLOW, downtime_limit_s=0.02)

    def tune(migration: livemig.Migration) -> None:
        migration.tune(livemig.PlanChange(downtime_limit_s=2.0, bandwidth_bytes_s=400 * MiB))

    report, seen = await pair.migrate(plan, on_event=after(events.RoundCompleted, tune))

    assert livemig.Outcome.COMPLETED is report.outcome, report.reason
    assert report.plan.downtime_limit_s == 2.0
    reasons = [event.reason for event in seen if isinstance(event, events.Decided)]
    assert any("as the user asks" in reason for reason in reasons)


async def test_tune_to_nonsense_changes_nothing(pair: Pair) -> None:
    """A plan that makes no sense is refused where it is asked for."""
    await pair.start()

    def tune(migration: livemig.Migration) -> None:
        with pytest.raises(livemig.PlanError):
            migration.tune(livemig.PlanChange(downtime_limit_s=0.0))

    report, _ = await pair.migrate(on_event=after(events.Prepared, tune))
    assert livemig.Outcome.COMPLETED is report.outcome
    assert QUICK.downtime_limit_s == report.plan.downtime_limit_s


@pytest.mark.parametrize("side", ["source", "destination"])
async def test_monitor_lost_while_moving(pair: Pair, side: str) -> None:
    """The control connection breaks, the QEMUs live: the monitor is opened again and the guest stays whole."""
    await pair.start()

    def cut(migration: livemig.Migration) -> None:
        run = migration._run
        assert run is not None
        getattr(run, f"_{side}").monitor._shut_socket()

    report, _ = await pair.migrate(SLOW, on_event=after(events.Progressed, cut, count=4))

    assert livemig.RunningOn.SOURCE is report.running_on, report.reason
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")


@pytest.mark.one_host("it cuts the socket between both; tests/ssh cuts the data link in every phase")
@pytest.mark.parametrize("fault", ["cut", "black hole"])
async def test_link_fails_while_copying(pair: Pair, fault: str, monkeypatch) -> None:
    """The link is cut, or swallows everything in silence: given up, and the guest runs on at the source."""
    await pair.start()
    async with Proxy.between(monkeypatch) as proxy:
        action = proxy.cut if fault == "cut" else proxy.hold
        report, _ = await pair.migrate(SLOW, on_event=after(events.Progressed, lambda _migration: action(), count=6))
    assert (report.outcome, report.running_on) == (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE), report.reason
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
    assert (await pair.run_states())["destination"] == "gone"


@pytest.mark.one_host("it cuts the socket between both; tests/ssh cuts the data link in every phase")
@pytest.mark.parametrize("fault", ["cut", "black hole"])
async def test_link_fails_after_stop(pair: Pair, fault: str, monkeypatch) -> None:
    """The link dies while the guest stands still: the source is freed within the bound, and the guest runs there."""
    await pair.start(msgspec.structs.replace(LOADED, working_set_bytes=4 * MiB, dirty_rate_bytes_s=400 * MiB))
    async with await Monitor.connect(str(pair.source.spare_qmp_path)) as monitor:
        with monitor.subscribe("STOP", "RESUME") as stream:
            async with Proxy.between(monkeypatch, bytes_s=60 * MiB) as proxy:
                action = proxy.cut if fault == "cut" else proxy.hold
                report, _ = await pair.migrate(
                    livemig.Plan(probation_s=0.1, downtime_limit_s=0.4),
                    on_event=after(events.SourceStopped, lambda _migration: action()),
                )
            stopped = await stream.wait_for("STOP", timeout_s=1)
            resumed = await stream.wait_for("RESUME", timeout_s=1)
    assert (report.outcome, report.running_on) == (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE), report.reason
    assert resumed.timestamp_s - stopped.timestamp_s < 3 * 0.4 + 1 + 0.5
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")


async def test_destination_hangs(pair: Pair) -> None:
    """A destination that is stopped by SIGSTOP answers nothing: given up, ended, and the guest runs at the source."""
    await pair.start()
    report, _ = await pair.migrate(
        SLOW,
        on_event=after(events.Progressed, lambda _migration: os.kill(pair.destination.pid, signal.SIGSTOP), count=4),
    )
    assert (report.outcome, report.running_on) == (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE), report.reason
    await pair.assert_runs_only("source")
    assert (await pair.run_states())["destination"] == "gone"


@pytest.mark.one_host("it takes the place of the socket between both")
async def test_refused_address(pair: Pair, monkeypatch) -> None:
    """`migrate` answers before it connects; that nobody listens comes later, as a failure."""
    await pair.start()
    async with Proxy.between(monkeypatch, listening=False):
        report, _ = await pair.migrate()
    assert (report.outcome, report.running_on) == (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE)
    assert "No such file" in report.reason
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
