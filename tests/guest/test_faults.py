"""A page that a migration lost or left stale is found and named. Here it is damaged by hand, through the debugger."""

import asyncio
import struct
import time
from dataclasses import dataclass

import pytest

from livemig.lab.machine import Machine
from livemig.lab.serial_lines import Fault, FaultKind
from livemig.lab.workload import Content, Rewrite, Workload

from .conftest import EVERY_ACCELERATOR, MIB, StartMachine
from .debugger import debugger_of, qmp_of

PAGE = 4096
CHECK_SWEEP_S = 0.5
"""One sweep over everything; what damage there is must be found within it, with some room for a busy machine."""
WORKLOAD = Workload(
    working_set_bytes=4 * MIB, fill_bytes=8 * MIB, dirty_rate_bytes_s=20 * MIB, check_sweep_s=CHECK_SWEEP_S
)
HOT_PAGE, COLD_PAGE = 300, 1500


@dataclass
class Hand:
    """Reaches into one guest's memory."""

    machine: Machine

    def page(self, index: int) -> int:
        assert self.machine.serial.banner is not None
        return self.machine.serial.banner.page_base + index * PAGE

    def table_page(self, number: int) -> int:
        assert self.machine.serial.banner is not None
        return self.machine.serial.banner.table_base + number * PAGE

    async def read(self, *places: tuple[int, int]) -> list[bytes]:
        """All at one moment."""
        async with qmp_of(self.machine.qmp_path) as qmp, debugger_of(qmp, self.machine.folder) as debugger:
            return [await debugger.read(address, size_bytes) for address, size_bytes in places]

    async def write(self, *places: tuple[int, bytes]) -> None:
        async with qmp_of(self.machine.qmp_path) as qmp, debugger_of(qmp, self.machine.folder) as debugger:
            for address, data in places:
                await debugger.write(address, data)

    async def fault_after(self, *places: tuple[int, bytes]) -> tuple[Fault, float]:
        """Damages, and returns the first fault said and after how many seconds."""
        waiting = asyncio.ensure_future(self.machine.serial.next(Fault, timeout_s=20))
        await self.write(*places)
        start_s = time.monotonic()
        return await waiting, time.monotonic() - start_s


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
async def test_a_stale_page_is_named_within_one_sweep(start_machine: StartMachine, accelerator: str) -> None:
    """The page is put back to what it held before: its index, address, expected and found generation are said."""
    workload = WORKLOAD if accelerator == "tcg" else Workload(working_set_bytes=2 * MIB, check_sweep_s=CHECK_SWEEP_S)
    hand = Hand(await start_machine(workload, accelerator=accelerator, memory_bytes=32 * MIB))
    [old] = await hand.read((hand.page(HOT_PAGE), PAGE))
    await asyncio.sleep(1.0)

    fault, took_s = await hand.fault_after((hand.page(HOT_PAGE), old))

    assert fault.kind is FaultKind.STALE
    assert (fault.page_index, fault.address) == (HOT_PAGE, hand.page(HOT_PAGE))
    assert fault.found == struct.unpack_from("<I", old, 4)[0] < fault.expected
    assert took_s < 2 * CHECK_SWEEP_S
    verdict = await hand.machine.serial.ask_verdict(all_bodies=accelerator == "tcg")
    assert not verdict.good
    assert (verdict.bad_count, verdict.fault_count) == (0, 1)  # it was repaired when it was named
    assert hand.machine.serial.fault_count == 1


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        (FaultKind.LOST, (0, bytes(PAGE))),
        (FaultKind.CORRUPT, (8, b"\xff\xff\xff\xff")),
        (FaultKind.CORRUPT, (4095, b"\x00")),
        (FaultKind.FOREIGN, None),
    ],
    ids=["lost", "checksum", "last byte", "foreign"],
)
async def test_a_cold_page_is_checked_too(
    start_machine: StartMachine, kind: FaultKind, damage: tuple[int, bytes] | None
) -> None:
    """Memory that is filled and never written again is found by the check alone."""
    hand = Hand(await start_machine(WORKLOAD, memory_bytes=32 * MIB))
    if damage is None:
        [neighbour] = await hand.read((hand.page(COLD_PAGE + 1), PAGE))
        damage = (0, neighbour)

    fault, took_s = await hand.fault_after((hand.page(COLD_PAGE) + damage[0], damage[1]))

    assert fault.kind is kind
    assert (fault.page_index, fault.found_by) == (COLD_PAGE, "check")
    assert took_s < 2 * CHECK_SWEEP_S
    await asyncio.sleep(2 * CHECK_SWEEP_S)
    assert hand.machine.serial.fault_count == 1


@pytest.mark.qemu
async def test_half_a_page_is_found(start_machine: StartMachine) -> None:
    """Its two ends are of different generations."""
    hand = Hand(await start_machine(WORKLOAD, memory_bytes=32 * MIB))
    [old] = await hand.read((hand.page(HOT_PAGE), PAGE))
    await asyncio.sleep(0.6)

    fault, _ = await hand.fault_after((hand.page(HOT_PAGE) + PAGE // 2, old[PAGE // 2 :]))

    assert (fault.kind, fault.page_index) == (FaultKind.TORN, HOT_PAGE)


@pytest.mark.qemu
@pytest.mark.parametrize("content", [Content.ENDS, Content.CONSTANT, Content.RANDOM])
@pytest.mark.parametrize("rewrite", list(Rewrite))
async def test_a_byte_of_a_body_is_found_by_the_verdict(
    start_machine: StartMachine, content: Content, rewrite: Rewrite
) -> None:
    """The check samples bodies; the verdict looks at each byte and names the word."""
    workload = Workload(working_set_bytes=4 * MIB, content=content, rewrite=rewrite, dirty_rate_bytes_s=0)
    hand = Hand(await start_machine(workload, memory_bytes=32 * MIB))
    at = hand.page(HOT_PAGE) + 2049
    [byte] = await hand.read((at, 1))
    await hand.write((at, bytes([byte[0] ^ 1])))

    verdict = await hand.machine.serial.ask_verdict()

    fault = hand.machine.serial.faults[-1]
    assert (fault.kind, fault.page_index, fault.address) == (FaultKind.BODY, HOT_PAGE, hand.page(HOT_PAGE) + 2048)
    assert fault.expected ^ fault.found == 1 << 8
    assert verdict.fault_count == 1
    assert (await hand.machine.serial.ask_verdict()).bad_count == 0


@pytest.mark.qemu
async def test_the_samples_come_round_to_every_word(start_machine: StartMachine) -> None:
    """254 sweeps of 4 words see a whole body without a verdict."""
    workload = Workload(working_set_bytes=MIB, dirty_rate_bytes_s=0, check_sweep_s=0.01)
    hand = Hand(await start_machine(workload, memory_bytes=32 * MIB))

    fault, _ = await hand.fault_after((hand.page(5) + 3001, b"\x07"))

    assert (fault.kind, fault.page_index, fault.found_by) == (FaultKind.BODY, 5, "check")


@pytest.mark.qemu
async def test_a_stale_page_of_the_table_is_named(start_machine: StartMachine) -> None:
    """The generations can be lost as any memory: their sums, kept elsewhere, tell."""
    hand = Hand(await start_machine(WORKLOAD, memory_bytes=32 * MIB))
    [old] = await hand.read((hand.table_page(0), PAGE))
    await asyncio.sleep(0.6)
    await hand.write((hand.table_page(0), old))

    await asyncio.sleep(2 * CHECK_SWEEP_S)

    kinds = {fault.kind for fault in hand.machine.serial.faults}
    assert kinds == {FaultKind.TABLE, FaultKind.NEWER}
    table = next(fault for fault in hand.machine.serial.faults if fault.kind is FaultKind.TABLE)
    assert (table.page_index, table.address) == (0, hand.table_page(0))
    assert (await hand.machine.serial.ask_verdict()).bad_count == 0


@pytest.mark.qemu
async def test_table_and_pages_stale_together_are_found(start_machine: StartMachine) -> None:
    """They agree with each other, but not with the sum."""
    workload = Workload(working_set_bytes=64 * 1024, dirty_rate_bytes_s=20 * MIB, check_sweep_s=CHECK_SWEEP_S)
    hand = Hand(await start_machine(workload, memory_bytes=32 * MIB))
    places = [(hand.table_page(0), PAGE), *((hand.page(index), PAGE) for index in range(16))]
    old = await hand.read(*places)
    await asyncio.sleep(0.2)

    fault, took_s = await hand.fault_after(*((address, data) for (address, _), data in zip(places, old, strict=True)))

    assert (fault.kind, fault.page_index) == (FaultKind.TABLE, 0)
    assert took_s < 2 * CHECK_SWEEP_S
    await asyncio.sleep(CHECK_SWEEP_S)
    assert hand.machine.serial.fault_count == 1


@pytest.mark.qemu
async def test_sums_table_and_pages_stale_together_are_found(start_machine: StartMachine) -> None:
    """All of it agrees, but not with the number of writes, which lies in another page yet."""
    workload = Workload(working_set_bytes=64 * 1024, dirty_rate_bytes_s=20 * MIB, check_sweep_s=CHECK_SWEEP_S)
    hand = Hand(await start_machine(workload, memory_bytes=32 * MIB))
    assert hand.machine.serial.banner is not None
    places = [
        (hand.machine.serial.banner.sum_base, PAGE),
        (hand.table_page(0), PAGE),
        *((hand.page(index), PAGE) for index in range(16)),
    ]
    old = await hand.read(*places)
    await asyncio.sleep(0.2)

    fault, _ = await hand.fault_after(*((address, data) for (address, _), data in zip(places, old, strict=True)))

    assert fault.kind is FaultKind.TOTAL
    assert struct.unpack_from("<I", old[0])[0] <= fault.found < fault.expected


@pytest.mark.qemu
@pytest.mark.parametrize("offset", [0, 4095], ids=["first byte", "last byte"])
async def test_a_page_that_must_be_zero_and_is_not(start_machine: StartMachine, offset: int) -> None:
    """Of zero pages only that is known; their ends are looked at by each sweep."""
    workload = Workload(
        working_set_bytes=4 * MIB, content=Content.ZERO, dirty_rate_bytes_s=MIB, check_sweep_s=CHECK_SWEEP_S
    )
    hand = Hand(await start_machine(workload, memory_bytes=32 * MIB))

    fault, _ = await hand.fault_after((hand.page(900) + offset, b"\x01"))

    assert (fault.kind, fault.page_index) == (FaultKind.CORRUPT, 900)


@pytest.mark.qemu
async def test_many_faults_do_not_silence_the_heart(start_machine: StartMachine) -> None:
    """A thousand pages at once: each is counted, some lines may be dropped, beats go on."""
    hand = Hand(await start_machine(WORKLOAD, memory_bytes=32 * MIB))
    start = hand.page(1024)
    hand.machine.serial.heartbeat.restart()
    await hand.write((start, bytes(1000 * PAGE)))

    await asyncio.sleep(2 * CHECK_SWEEP_S)
    verdict = await hand.machine.serial.ask_verdict()

    assert verdict.fault_count == 1000
    assert {fault.kind for fault in hand.machine.serial.faults} == {FaultKind.LOST}
    assert hand.machine.serial.heartbeat.problems == []
    assert hand.machine.serial.heartbeat.missed_count == 0
