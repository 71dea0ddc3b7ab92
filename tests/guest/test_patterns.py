"""The guest dirties memory as it was told: by its own account, and by what really changed in its memory."""

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from livemig.core.errors import GuestError
from livemig.lab.machine import Machine
from livemig.lab.serial_lines import Notice, Status
from livemig.lab.workload import UNLIMITED, Content, Pattern, Phase, Rewrite, Workload

from .conftest import EVERY_ACCELERATOR, MIB, StartMachine
from .debugger import Qmp, qmp_of

RATE_BYTES_S = 40 * MIB
WORKLOADS: dict[str, dict[str, Any]] = {
    "sweep": {"pattern": Pattern.SWEEP},
    "random": {"pattern": Pattern.RANDOM},
    "hot": {"pattern": Pattern.HOT, "hot_set_bytes": 2 * MIB},
    "constant": {"content": Content.CONSTANT},
    "zero": {"content": Content.ZERO},
    "bursts": {"burst_period_s": 0.1, "burst_duty_percent": 30},
}
SLOW_UNDER_EMULATION: dict[str, dict[str, Any]] = {
    "incompressible": {"content": Content.RANDOM},
    "whole": {"content": Content.RANDOM, "rewrite": Rewrite.WHOLE},
    "constant whole": {"content": Content.CONSTANT, "rewrite": Rewrite.WHOLE},
}


async def _rate_bytes_s(machine: Machine, *, status_count: int = 3) -> float:
    """The mean of some status lines, from a fresh one on."""
    machine.serial.send(b"i")
    first = await machine.serial.next(Status, timeout_s=5)
    for _ in range(status_count):
        last = await machine.serial.next(Status, timeout_s=5)
    return (last.write_count - first.write_count) * 4096 / (last.time_s - first.time_s)


async def _assert_rate_kept(machine: Machine, asked: float) -> None:
    """Sees the rate within 5 % in one of a few windows: this machine has other work, too."""
    seen = []
    for _ in range(6):
        seen.append(await _rate_bytes_s(machine, status_count=2))
        if seen[-1] == pytest.approx(asked, rel=0.05):
            return
    raise AssertionError(f"asked for {asked}, got {seen}")


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
@pytest.mark.parametrize("kind", WORKLOADS)
async def test_the_asked_rate_is_kept(start_machine: StartMachine, accelerator: str, kind: str) -> None:
    """Within 5 %, with every pattern and content, beats and checks going on."""
    workload = Workload(
        working_set_bytes=(8 if kind != "constant" else 2) * MIB,
        dirty_rate_bytes_s=RATE_BYTES_S,
        status_interval_s=0.5,
        **WORKLOADS[kind],
    )
    machine = await start_machine(workload, accelerator=accelerator, memory_bytes=32 * MIB)
    assert machine.serial.ready is not None
    asked = min(RATE_BYTES_S, machine.serial.ready.ceiling_bytes_s * 0.3)
    await machine.serial.change(dirty_rate_bytes_s=round(asked))

    await _assert_rate_kept(machine, asked * (0.3 if kind == "bursts" else 1))
    assert machine.serial.fault_count == 0


@pytest.mark.qemu
@pytest.mark.parametrize("kind", SLOW_UNDER_EMULATION)
async def test_whole_bodies_keep_the_rate_too(start_machine: StartMachine, kind: str) -> None:
    """Where instructions are not emulated one by one."""
    workload = Workload(
        working_set_bytes=8 * MIB,
        dirty_rate_bytes_s=RATE_BYTES_S,
        status_interval_s=0.5,
        **SLOW_UNDER_EMULATION[kind],
    )
    machine = await start_machine(workload, memory_bytes=32 * MIB)

    await _assert_rate_kept(machine, RATE_BYTES_S)
    assert (await machine.serial.ask_verdict()).good


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
async def test_the_rate_just_below_the_ceiling_is_kept(start_machine: StartMachine, accelerator: str) -> None:
    """Three quarters of what the guest does unbridled it does as asked; this machine's other work moves both."""
    workload = Workload(working_set_bytes=8 * MIB, status_interval_s=0.5)
    machine = await start_machine(workload, accelerator=accelerator)

    shares: list[float] = []
    while len(shares) < 6 and (not shares or shares[-1] != pytest.approx(1, rel=0.05)):
        await machine.serial.change(dirty_rate_bytes_s="max")
        asked = round(await _rate_bytes_s(machine, status_count=1) * 0.75)
        await machine.serial.change(dirty_rate_bytes_s=asked)
        shares.append(await _rate_bytes_s(machine, status_count=1) / asked)

    assert shares[-1] == pytest.approx(1, rel=0.05), shares


async def _pages(qmp: Qmp, machine: Machine, size_bytes: int, file: Path) -> bytes:
    assert machine.serial.banner is not None
    await qmp.ask("pmemsave", val=machine.serial.banner.page_base, size=size_bytes, filename=str(file))
    return await asyncio.to_thread(file.read_bytes)


def _event_s(event: dict[str, Any]) -> float:
    return float(event["timestamp"]["seconds"] + event["timestamp"]["microseconds"] / 1e6)


async def _dirtied(
    machine: Machine, size_bytes: int, *, for_s: float, paused_for_s: float = 0.0
) -> tuple[list[int], float]:
    """Which pages changed while the guest ran for a while, and for how long, by QEMU's own clock."""
    async with qmp_of(machine.qmp_path) as qmp:
        await qmp.ask("stop")
        before = await _pages(qmp, machine, size_bytes, machine.folder / "before")
        await asyncio.sleep(paused_for_s)
        qmp.events.clear()
        await qmp.ask("cont")
        await asyncio.sleep(for_s)
        await qmp.ask("stop")
        resumed, stopped = await qmp.wait_event("RESUME"), await qmp.wait_event("STOP")
        after = await _pages(qmp, machine, size_bytes, machine.folder / "after")
        await qmp.ask("cont")
    offsets = range(0, size_bytes, 4096)
    changed = [at // 4096 for at in offsets if before[at : at + 4096] != after[at : at + 4096]]
    return changed, _event_s(stopped) - _event_s(resumed)


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
async def test_the_rate_is_true_by_the_hosts_clock(start_machine: StartMachine, accelerator: str) -> None:
    """Counted in the guest's memory from outside: a sweep that does not come round changes rate x time bytes."""
    machine = await start_machine(
        Workload(working_set_bytes=60 * MIB, dirty_rate_bytes_s=RATE_BYTES_S), accelerator=accelerator
    )

    changed, took_s = await _dirtied(machine, 60 * MIB, for_s=1.0)

    # After standing still the guest makes up for 50 ms at most.
    assert len(changed) * 4096 / took_s == pytest.approx(RATE_BYTES_S, rel=0.07)


@pytest.mark.qemu
async def test_after_a_pause_it_does_not_make_up_for_it(start_machine: StartMachine) -> None:
    """A pause of a second is no reason for a burst of a second's writes."""
    machine = await start_machine(Workload(working_set_bytes=60 * MIB, dirty_rate_bytes_s=RATE_BYTES_S))

    changed, took_s = await _dirtied(machine, 60 * MIB, for_s=0.2, paused_for_s=1.0)

    assert len(changed) * 4096 <= RATE_BYTES_S * (took_s + 0.06)


@pytest.mark.qemu
async def test_a_sweep_goes_in_order_and_an_idle_guest_changes_nothing(start_machine: StartMachine) -> None:
    """Contiguous pages; and with rate 0 none at all."""
    machine = await start_machine(Workload(working_set_bytes=32 * MIB, dirty_rate_bytes_s=20 * MIB))
    changed, _ = await _dirtied(machine, 32 * MIB, for_s=0.3)
    jumps = [page for page, following in pairwise(changed) if following != page + 1]
    assert len(jumps) <= 1  # where it came round

    await machine.serial.change(dirty_rate_bytes_s=0)
    changed, _ = await _dirtied(machine, 32 * MIB, for_s=0.3)
    assert changed == []


@pytest.mark.qemu
async def test_most_writes_hit_the_hot_set(start_machine: StartMachine) -> None:
    """9 of 10 here; the generations that memory holds tell."""
    machine = await start_machine(
        Workload(
            pattern=Pattern.HOT,
            working_set_bytes=32 * MIB,
            hot_set_bytes=4 * MIB,
            hot_writes_percent=90,
            dirty_rate_bytes_s=100 * MIB,
        )
    )
    await asyncio.sleep(0.5)
    async with qmp_of(machine.qmp_path) as qmp:
        await qmp.ask("stop")
        data = await _pages(qmp, machine, 32 * MIB, machine.folder / "pages")
    generations = [int.from_bytes(data[at + 4 : at + 8], "little") for at in range(0, len(data), 4096)]

    assert sum(generations[:1024]) / sum(generations) == pytest.approx(0.9, abs=0.01)


@pytest.mark.qemu
async def test_random_writes_spread_evenly_and_by_seed(start_machine: StartMachine) -> None:
    """D(T) of random writes is 1 - exp(-x): 63 % of the pages after as many writes as there are pages."""
    machine = await start_machine(
        Workload(pattern=Pattern.RANDOM, working_set_bytes=32 * MIB, dirty_rate_bytes_s=64 * MIB)
    )

    changed, took_s = await _dirtied(machine, 32 * MIB, for_s=0.5)

    writes_per_page = took_s * 64 / 32
    assert len(changed) / 8192 == pytest.approx(1 - 2.718281828**-writes_per_page, abs=0.04)


@pytest.mark.qemu
async def test_the_second_phase_comes_at_its_time(start_machine: StartMachine) -> None:
    """Another rate and working set from then on."""
    machine = await start_machine(
        Workload(
            working_set_bytes=4 * MIB,
            dirty_rate_bytes_s=10 * MIB,
            status_interval_s=0.2,
            phase2_at_s=0.8,
            phase2=Phase(working_set_bytes=16 * MIB, dirty_rate_bytes_s=60 * MIB),
        )
    )
    assert await _rate_bytes_s(machine, status_count=1) == pytest.approx(10 * MIB, rel=0.05)
    notice = await machine.serial.next(Notice, timeout_s=5)
    assert notice.event == "phase2"
    assert notice.time_s == pytest.approx(0.8, abs=0.02)

    changed, took_s = await _dirtied(machine, 16 * MIB, for_s=0.2)
    assert len(changed) * 4096 == pytest.approx(60 * MIB * took_s, rel=0.4)
    assert await _rate_bytes_s(machine, status_count=1) == pytest.approx(60 * MIB, rel=0.05)


@pytest.mark.qemu
async def test_a_change_while_it_runs_takes_effect_or_is_refused_whole(start_machine: StartMachine) -> None:
    """And a refusal names the value."""
    machine = await start_machine(Workload(working_set_bytes=8 * MIB, status_interval_s=0.3))
    await machine.serial.change(dirty_rate_bytes_s=30 * MIB, pattern="random")
    assert await _rate_bytes_s(machine, status_count=1) == pytest.approx(30 * MIB, rel=0.05)

    with pytest.raises(GuestError, match="working_set_exceeds_fill"):
        await machine.serial.change(dirty_rate_bytes_s=5 * MIB, working_set_bytes=9 * MIB)
    assert await _rate_bytes_s(machine, status_count=1) == pytest.approx(30 * MIB, rel=0.05)


@pytest.mark.qemu
async def test_the_content_is_what_was_asked(start_machine: StartMachine) -> None:
    """Zero pages are zero; random bodies don't compress; the others nearly vanish."""
    import zlib

    sizes = {}
    for content in Content:
        machine = await start_machine(
            Workload(working_set_bytes=4 * MIB, content=content, dirty_rate_bytes_s=UNLIMITED), name=content
        )
        async with qmp_of(machine.qmp_path) as qmp:
            data = await _pages(qmp, machine, 4 * MIB, machine.folder / "pages")
        await machine.stop()
        sizes[content] = len(zlib.compress(data, 1)) / len(data)
        assert (data.count(0) == len(data)) == (content is Content.ZERO)

    assert sizes[Content.RANDOM] > 0.99
    assert sizes[Content.CONSTANT] < 0.05
    assert sizes[Content.ENDS] < 0.05
