"""A guest arrives, whole, on real QEMU: idle, loaded, paused, asleep, there and back, under TCG and KVM."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import livemig
from livemig.core import event as events
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine
from livemig.lab.workload import Workload
from livemig.qemu.monitor import Monitor
from tests.engine.pair import HOT, IDLE, LOADED, QUICK, MiB, Pair, migration_settings

pytestmark = pytest.mark.qemu


@pytest.fixture
def pair(either_pair: Pair) -> Pair:
    """Every test here runs with a destination that waits, and with one that livemig launches."""
    return either_pair


@pytest.mark.parametrize("workload", [IDLE, LOADED], ids=["idle", "loaded"])
async def test_guest_arrives_and_source_quits(pair: Pair, workload) -> None:
    """The whole job: one runner, memory right, both settings as before, the source gone."""
    await pair.start(workload)

    report, seen = await pair.migrate()

    assert (report.outcome, report.running_on) == (livemig.Outcome.COMPLETED, livemig.RunningOn.DESTINATION)
    assert report.warnings == ()
    await pair.assert_runs_only("destination")
    await pair.assert_settings_restored("destination")
    assert (await pair.run_states())["source"] == "gone"
    assert isinstance(seen[-1], events.Ended)
    assert report.downtime is not None
    # A machine that is busy may take it a little over; how often, and by how much, `bench policies-real` measures.
    assert 0 < report.downtime.total_s < 1.5 * report.plan.downtime_limit_s
    assert report.guest_state == "running"


@pytest.mark.parametrize("paused", [True, False], ids=["started with -S", "started without -S"])
async def test_waiting_destination_never_runs_by_itself(waiting_pair: Pair, paused: bool) -> None:
    """Whoever started the destination, and how: the guest is continued there only once the source has completed."""
    pair = waiting_pair  # a test on what is done to it before
    await pair.start(destination_paused=paused)
    async with await Monitor.connect(str(pair.destination.spare_qmp_path)) as monitor:
        with monitor.subscribe() as stream:
            report, _ = await pair.migrate()
            names = []
            while (event := stream.take()) is not None:
                names.append((event.name, event.data.get("status")))

    assert report.outcome == livemig.Outcome.COMPLETED
    assert names.index(("MIGRATION", "completed")) < names.index(("RESUME", None))
    await pair.assert_runs_only("destination")


async def test_paused_guest_arrives_paused(pair: Pair) -> None:
    """A guest that its owner paused stays so; there is no downtime to speak of."""
    await pair.start()
    async with await Monitor.connect(str(pair.source.spare_qmp_path)) as monitor:
        await monitor.execute("stop")

    report, _ = await pair.migrate()

    assert (report.outcome, report.guest_state) == (livemig.Outcome.COMPLETED, "paused")
    assert report.downtime is None
    await pair.assert_runs_only("destination", "paused")
    async with await Monitor.connect(str(pair.destination.spare_qmp_path)) as monitor:
        await monitor.execute("cont")
    await pair.assert_runs_only("destination")


async def test_suspended_guest_arrives_suspended(pair: Pair) -> None:
    """A sleeping guest goes on sleeping at the destination, and wakes there."""
    await pair.start()
    pair.source.serial.send(b"s")
    async with await Monitor.connect(str(pair.source.spare_qmp_path)) as monitor:
        async with asyncio.timeout(10):
            while str(await monitor.query_status()) != "suspended":
                await asyncio.sleep(0.02)

    report, _ = await pair.migrate()

    assert (report.outcome, report.guest_state) == (livemig.Outcome.COMPLETED, "suspended")
    await pair.assert_runs_only("destination", "suspended")
    async with await Monitor.connect(str(pair.destination.spare_qmp_path)) as monitor:
        await monitor.execute("system_wakeup")
    await asyncio.sleep(0.5)
    await pair.assert_runs_only("destination")


async def test_guest_paused_by_somebody_on_the_way_arrives_paused(pair: Pair) -> None:
    """A `stop` typed at another monitor while the guest moves is not mistaken for the switchover."""
    await pair.start(HOT)
    stopped = asyncio.Event()

    def stop(_migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.Progressed) and event.round_number == 1:
            stopped.set()

    async def typist() -> None:
        await stopped.wait()
        async with await Monitor.connect(str(pair.source.spare_qmp_path)) as monitor:
            await monitor.execute("stop")

    plan = livemig.Plan(probation_s=0.1, bandwidth_bytes_s=40 * MiB)
    task = asyncio.create_task(typist())
    report, _ = await pair.migrate(plan, on_event=stop)
    await task

    assert (report.outcome, report.guest_state) == (livemig.Outcome.COMPLETED, "paused")
    await pair.assert_runs_only("destination", "paused")


async def test_source_is_kept_paused_when_asked(pair: Pair) -> None:
    """`keep_source` leaves the source's QEMU alive, its guest stopped, its settings as before."""
    await pair.start()

    report, _ = await pair.migrate(msgspec.structs.replace(QUICK, keep_source=True))

    assert report.source_kept
    assert (await pair.run_states())["source"] == "postmigrate"
    await pair.assert_runs_only("destination")
    await pair.assert_settings_restored("source", "destination")


async def test_limits_are_kept_and_reported(pair: Pair) -> None:
    """A cap and a tight limit: the downtime stays within it, and rounds and figures are in the report."""
    await pair.start()
    plan = livemig.Plan(probation_s=0.1, bandwidth_bytes_s=60 * MiB, downtime_limit_s=0.1)

    report, seen = await pair.migrate(plan)

    assert report.outcome == livemig.Outcome.COMPLETED
    assert report.downtime is not None
    assert report.downtime.total_s <= plan.downtime_limit_s
    assert report.round_count >= 2
    assert any(isinstance(event, events.RoundCompleted) for event in seen)
    assert report.qemu_total_s is not None
    assert report.total_s == pytest.approx(report.qemu_total_s, abs=0.2)
    assert report.sent_bytes > 64 * MiB


async def test_somebody_elses_switchover_bandwidth_does_not_break_the_limit(pair: Pair) -> None:
    """QEMU is to reckon with what its own last slot carried; afterwards it has the figure that it had."""
    await pair.start()
    async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
        await monitor.execute("migrate-set-parameters", {"avail-switchover-bandwidth": 10**11})
    plan = livemig.Plan(probation_s=0.1, bandwidth_bytes_s=60 * MiB, downtime_limit_s=0.1, keep_source=True)

    report, _ = await pair.migrate(plan)

    assert report.outcome == livemig.Outcome.COMPLETED
    assert report.round_count >= 2  # with 100 GB/s everything would have fitted in the midst of the first copy
    after = await migration_settings(pair.source)
    assert after["parameters"]["avail-switchover-bandwidth"] == 10**11


async def test_first_slot_is_guarded(pair: Pair) -> None:
    """A small guest on an unlimited link: QEMU may not stop it before it has counted once, with everything to send."""
    workload = Workload(working_set_bytes=12 * MiB, dirty_rate_bytes_s=4000 * MiB)
    await pair.start(workload, memory_bytes=32 * MiB)

    report, seen = await pair.migrate(livemig.Plan(probation_s=0.1, downtime_limit_s=0.3))

    assert report.outcome == livemig.Outcome.COMPLETED
    decisions = [event.reason for event in seen if isinstance(event, events.Decided)]
    assert any("QEMU counts" in reason for reason in decisions)


async def test_there_and_back_twenty_times(pair: Pair) -> None:
    """One guest, twenty moves, its memory checked after each, never reset."""
    await pair.start()
    for _ in range(20):
        report, _ = await pair.migrate(msgspec.structs.replace(QUICK, probation_s=0.0))
        assert report.outcome == livemig.Outcome.COMPLETED, report.reason
        await pair.assert_runs_only("destination")
        await pair.swap()
    assert pair.heartbeat.reset_count == 0


@pytest.mark.kvm
@pytest.mark.parametrize(("accelerator", "dirty_rate_bytes_s"), [("kvm", 20 * MiB), ("kvm,dirty-ring-size=4096", 0)])
async def test_under_kvm(pair: Pair, accelerator: str, dirty_rate_bytes_s: int) -> None:
    """KVM with its dirty bitmap, loaded; with its dirty ring, idle.

    Where KVM has no hardware virtualisation its dirty ring loses writes of a loaded guest, by bare QMP commands as
    well: `python -m bench dirtyring` shows both side by side.
    """
    workload = Workload(working_set_bytes=8 * MiB, dirty_rate_bytes_s=dirty_rate_bytes_s)
    await pair.start(workload, memory_bytes=64 * MiB, accelerator=accelerator)

    report, _ = await pair.migrate()

    assert report.outcome == livemig.Outcome.COMPLETED, report.reason
    await pair.assert_runs_only("destination")
    await pair.assert_settings_restored("destination")


async def test_pause_before_switchover_asks_for_the_last_word(pair: Pair) -> None:
    """With the gate, QEMU waits in pre-switchover until livemig lets it go on."""
    await pair.start()

    report, seen = await pair.migrate(msgspec.structs.replace(QUICK, pause_before_switchover=True))

    assert report.outcome == livemig.Outcome.COMPLETED
    actions = [str(action) for event in seen if isinstance(event, events.Decided) for action in event.actions]
    assert "continue the switchover" in actions
    await pair.assert_runs_only("destination")


async def test_capabilities_while_it_moves(waiting_pair: Pair) -> None:
    """Both sides have what the engine rests on, and nothing that somebody left on, for as long as the guest moves."""
    pair = waiting_pair  # a test on what is done to it before
    await pair.start(HOT)
    for machine in (pair.source, pair.destination):
        async with await Monitor.connect(str(machine.spare_qmp_path)) as monitor:
            left_on = [{"capability": name, "state": True} for name in ("xbzrle", "auto-converge")]
            await monitor.execute("migrate-set-capabilities", {"capabilities": left_on})
    moving = asyncio.Event()

    async def look() -> list[set[str]]:
        await moving.wait()
        return [await capabilities_on(machine) for machine in (pair.source, pair.destination)]

    looking = asyncio.create_task(look())
    plan = livemig.Plan(probation_s=0.1, bandwidth_bytes_s=30 * MiB, deadline_s=1.5, downtime_limit_s=0.05)

    def notice(_migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.Progressed):
            moving.set()

    report, _ = await pair.migrate(plan, on_event=notice)

    assert report.outcome is livemig.Outcome.CANCELLED
    for on in await looking:
        assert {"events", "return-path"} <= on
        assert on.isdisjoint({"xbzrle", "auto-converge", "multifd", "postcopy-ram", "pause-before-switchover"})
    assert {"xbzrle", "auto-converge"} <= await capabilities_on(pair.source)


async def capabilities_on(machine: Machine | LaunchedMachine) -> set[str]:
    """The migration capabilities that are on."""
    capabilities = (await migration_settings(machine))["capabilities"]
    return {name for name, on in capabilities.items() if on}
