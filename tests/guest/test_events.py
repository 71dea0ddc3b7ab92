"""What the guest does by itself and on command: ending, sleeping, beating, answering."""

import asyncio
from pathlib import Path

import pytest

from livemig.lab.machine import Machine
from livemig.lab.serial_lines import Banner, Notice
from livemig.lab.workload import Workload

from .conftest import EVERY_ACCELERATOR, MIB, StartMachine
from .debugger import qmp_of

MACHINE_TYPES = ["pc", "q35"]
SMALL = Workload(working_set_bytes=2 * MIB, dirty_rate_bytes_s=10 * MIB)


async def _notice(machine: Machine, event: str) -> Notice:
    return await machine.serial.next(Notice, timeout_s=10, where=lambda notice: notice.event == event)


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
@pytest.mark.parametrize("machine_type", MACHINE_TYPES)
async def test_power_off(start_machine: StartMachine, accelerator: str, machine_type: str) -> None:
    """On command: said first, then QEMU ends as the guest's own doing."""
    machine = await start_machine(SMALL, accelerator=accelerator, machine_type=machine_type, memory_bytes=32 * MIB)
    async with qmp_of(machine.qmp_path) as qmp:
        said = asyncio.ensure_future(_notice(machine, "poweroff"))
        await asyncio.sleep(0)
        machine.serial.send(b"p")
        await said
        shutdown = await qmp.wait_event("SHUTDOWN")

    assert shutdown["data"] == {"guest": True, "reason": "guest-shutdown"}
    assert await machine.wait_ended(timeout_s=5) == 0


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
@pytest.mark.parametrize("machine_type", MACHINE_TYPES)
async def test_reset(start_machine: StartMachine, accelerator: str, machine_type: str) -> None:
    """QEMU says that the guest did it, and the guest boots again: beats begin at 1, memory is right."""
    machine = await start_machine(SMALL, accelerator=accelerator, machine_type=machine_type, memory_bytes=32 * MIB)
    async with qmp_of(machine.qmp_path) as qmp:
        booting = asyncio.ensure_future(machine.serial.next(Banner, timeout_s=5, where=lambda it: it.at_boot))
        await asyncio.sleep(0)
        machine.serial.send(b"r")
        reset = await qmp.wait_event("RESET")
        await booting
        await machine.serial.wait_ready()

    assert reset["data"] == {"guest": True, "reason": "guest-reset"}
    assert machine.serial.heartbeat.reset_count == 1
    assert len(machine.serial.heartbeat.problems) == 1
    assert (await machine.serial.ask_verdict(all_bodies=False)).good


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
@pytest.mark.parametrize("machine_type", MACHINE_TYPES)
async def test_sleep_and_wake(start_machine: StartMachine, accelerator: str, machine_type: str) -> None:
    """Suspended to memory and woken, it goes on where it was: counters, time and pages."""
    machine = await start_machine(SMALL, accelerator=accelerator, machine_type=machine_type, memory_bytes=32 * MIB)
    async with qmp_of(machine.qmp_path) as qmp:
        machine.serial.send(b"s")
        asleep = await _notice(machine, "suspend")
        await qmp.wait_event("SUSPEND")
        assert (await qmp.ask("query-status"))["status"] == "suspended"
        await asyncio.sleep(0.2)
        waking = asyncio.ensure_future(_notice(machine, "wake"))
        await qmp.ask("system_wakeup")
        awake = await waking
        await asyncio.sleep(0.3)

    assert awake.time_s - asleep.time_s < 0.1  # the guest's time stood still
    assert machine.serial.heartbeat.problems == []
    assert machine.serial.heartbeat.silence_s(asyncio.get_running_loop().time()) < 0.1
    assert (await machine.serial.ask_verdict(all_bodies=False)).good


@pytest.mark.qemu
@pytest.mark.parametrize("event", ["poweroff", "reset", "suspend"])
async def test_events_come_at_their_time(start_machine: StartMachine, event: str) -> None:
    """By the guest's clock, once; the next boot does it again, as it has the same parameters."""
    workload = Workload(
        working_set_bytes=MIB,
        poweroff_at_s=0.3 if event == "poweroff" else 0,
        reset_at_s=0.3 if event == "reset" else 0,
        suspend_at_s=0.3 if event == "suspend" else 0,
    )
    machine = await start_machine(workload, memory_bytes=16 * MIB)

    notice = await _notice(machine, event)

    assert notice.time_s == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
async def test_the_heartbeat_keeps_its_interval(start_machine: StartMachine, accelerator: str) -> None:
    """10 ms, also while it writes as fast as it can and checks everything: none missed, none doubled."""
    machine = await start_machine(
        Workload(working_set_bytes=8 * MIB, dirty_rate_bytes_s=100e9), accelerator=accelerator
    )
    heartbeat = machine.serial.heartbeat
    machine.serial.send(b"v")
    first = heartbeat.last_counter
    start_s = asyncio.get_running_loop().time()

    await asyncio.sleep(1.5)

    beat_count = heartbeat.last_counter - first
    assert beat_count == pytest.approx((asyncio.get_running_loop().time() - start_s) / 0.01, rel=0.05)
    assert (heartbeat.problems, heartbeat.missed_count) == ([], 0)
    gaps_s = sorted(
        later[0] - earlier[0] for earlier, later in zip(heartbeat.recent, list(heartbeat.recent)[1:], strict=False)
    )
    assert gaps_s[len(gaps_s) // 2] == pytest.approx(0.01, abs=0.003)


@pytest.mark.qemu
async def test_a_beat_each_millisecond_where_it_costs_little(start_machine: StartMachine) -> None:
    """Where it would cost more than 5 %, the guest says that it keeps another interval."""
    machine = await start_machine(Workload(working_set_bytes=MIB, heartbeat_interval_s=0.001), memory_bytes=16 * MIB)
    ready = machine.serial.ready
    assert ready is not None
    assert ready.heartbeat_interval_s >= ready.beat_cost_s * 19
    # A busy machine stops the vCPU now and then, and what was missed is not made up for: the best of some spans counts.
    spans = [await _beats_s(machine) * ready.heartbeat_interval_s for _ in range(10)]
    assert max(spans) == pytest.approx(1, rel=0.08)


async def _beats_s(machine: Machine) -> float:
    """How many beats a second come, over a fifth of a second."""
    first, start_s = machine.serial.heartbeat.last_counter, asyncio.get_running_loop().time()
    await asyncio.sleep(0.2)
    return (machine.serial.heartbeat.last_counter - first) / (asyncio.get_running_loop().time() - start_s)


@pytest.mark.qemu
@pytest.mark.kvm
async def test_a_heartbeat_too_dear_is_stretched(start_machine: StartMachine) -> None:
    """A beat of a millisecond may take no more than 50 us; otherwise the interval grows, and is said."""
    machine = await start_machine(
        Workload(working_set_bytes=MIB, heartbeat_interval_s=0.001), accelerator="kvm", memory_bytes=16 * MIB
    )
    ready = machine.serial.ready

    assert ready is not None
    assert ready.heartbeat_interval_s == pytest.approx(max(0.001, 20 * ready.beat_cost_s), rel=0.05)
    stretched = any(notice.event == "heartbeat_stretched" for notice in machine.serial.notices)
    assert stretched == (ready.heartbeat_interval_s > 0.001)


@pytest.mark.qemu
async def test_a_reader_that_stops_reading_stalls_nothing(start_machine: StartMachine, folder: Path) -> None:
    """Lines are dropped whole and counted; the work goes on; reading again, all is well but for the missing beats."""
    machine = await start_machine(
        Workload(working_set_bytes=MIB, heartbeat_interval_s=0.001, status_interval_s=0.01, dirty_rate_bytes_s=MIB),
        memory_bytes=16 * MIB,
    )
    transport = machine.serial._transport
    assert transport is not None
    transport.pause_reading()
    for _ in range(200):  # each answer has some 100 characters
        machine.serial.send(b"i" * 16)
        await asyncio.sleep(0.01)
    transport.resume_reading()
    await asyncio.sleep(0.3)
    status = machine.serial.status

    assert status is not None
    assert status.dropped_line_count > 0
    assert status.write_count > 400  # of MIB/s for more than 2 s
    assert machine.serial.heartbeat.problems == []
    assert machine.serial.unreadable_count == 0
    assert (await machine.serial.ask_verdict()).good


@pytest.mark.qemu
async def test_a_late_listener_learns_who_it_is(start_machine: StartMachine) -> None:
    """It asks, and the answer is not taken for a reset."""
    machine = await start_machine(SMALL, memory_bytes=16 * MIB)
    await machine.serial.close()
    late = type(machine.serial)(machine.serial_path)
    await asyncio.sleep(0.05)
    await late.connect()
    try:
        await late.wait_ready(timeout_s=5)
        assert late.banner is not None
        assert machine.serial.banner is not None
        assert not late.banner.at_boot
        assert late.banner.page_base == machine.serial.banner.page_base
        assert late.heartbeat.problems == []
        assert late.unreadable_count == 0
    finally:
        await late.close()
