"""The guest starts on every machine it is for, and says clearly when it can't."""

import asyncio
from pathlib import Path

import pytest

from livemig.core.errors import GuestError, PlanError
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Workload, usable_bytes

from .conftest import EVERY_ACCELERATOR, MIB, StartMachine


@pytest.mark.parametrize("accelerator", EVERY_ACCELERATOR)
@pytest.mark.parametrize(
    ("machine_type", "memory_mib", "usable_mib"),
    [("pc", 16, 14), ("pc", 128, 126), ("pc", 3072, 3060), ("q35", 64, 62), ("q35", 3072, 2040), ("pc", 5120, 3060)],
)
async def test_it_boots(
    start_machine: StartMachine, accelerator: str, machine_type: str, memory_mib: int, usable_mib: int
) -> None:
    """On both machine types, from 16 MiB to more than lies below 4 GiB; it names what it can use."""
    machine = await start_machine(
        Workload(working_set_bytes=2 * MIB),
        accelerator=accelerator,
        machine_type=machine_type,
        memory_bytes=memory_mib * MIB,
    )
    banner = machine.serial.banner

    assert banner is not None
    assert banner.ram_bytes == memory_mib * MIB
    assert usable_mib * MIB <= banner.usable_bytes <= memory_mib * MIB
    assert (await machine.serial.ask_verdict(all_bodies=False)).good


@pytest.mark.qemu
async def test_the_last_usable_page_is_really_there(start_machine: StartMachine) -> None:
    """All of a small guest's usable memory can be filled, checked and written."""
    most_bytes = usable_bytes(16 * MIB)
    full = Workload(working_set_bytes=most_bytes, dirty_rate_bytes_s=500 * MIB)
    machine = await start_machine(full, memory_bytes=16 * MIB)
    await asyncio.sleep(0.2)

    verdict = await machine.serial.ask_verdict()
    assert machine.serial.banner is not None
    assert machine.serial.banner.usable_bytes == most_bytes
    assert verdict.good
    assert verdict.page_count == most_bytes // 4096


@pytest.mark.qemu
async def test_the_pages_keep_clear_of_the_program(start_machine: StartMachine) -> None:
    """Table and pages lie behind the guest's data and don't overlap."""
    machine = await start_machine(Workload(working_set_bytes=MIB), memory_bytes=3 * 1024 * MIB)
    banner = machine.serial.banner

    assert banner is not None
    assert banner.table_base >= MIB
    assert banner.page_base >= banner.table_base + banner.usable_bytes // 4096 * 4
    assert banner.page_base + banner.usable_bytes <= banner.ram_bytes


@pytest.mark.qemu
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bogus=3", "unknown_parameter name=bogus"),
        ("working_set_bytes=8X", "bad_value name=working_set_bytes"),
        ("working_set_bytes", "no_value name=working_set_bytes"),
        ("pattern=zigzag", "bad_value name=pattern"),
        ("pattern=hot", "hot_set_missing"),
        ("working_set_bytes=64M", "memory_too_small needed_bytes=67108864"),
        ("seed=99999999999999999999", "bad_value name=seed"),
    ],
)
async def test_what_it_cannot_do_it_says(start_machine: StartMachine, text: str, said: str) -> None:
    """And stands still: a guest that does less than it was told would spoil whatever is measured on it."""
    machine = await start_machine(_Raw(text=text), memory_bytes=32 * MIB, ready=False)

    with pytest.raises(GuestError, match=said):
        await machine.serial.wait_ready(timeout_s=5)
    assert machine.serial.heartbeat.beat_count == 0


class _Raw(Workload, frozen=True, kw_only=True):
    """Parameters that `Workload` itself would refuse."""

    text: str

    def fw_cfg_argument(self) -> str:
        return f"name=opt/livemig,string={self.text}"


@pytest.mark.qemu
async def test_short_forms_and_defaults_do(start_machine: StartMachine) -> None:
    """Parameters typed by hand: units of 1024, any order, a trailing separator."""
    machine = await start_machine(_Raw(text="dirty_rate_bytes_s=2M:working_set_bytes=512K:"), memory_bytes=32 * MIB)

    assert machine.serial.ready is not None
    assert machine.serial.ready.fill_bytes == 512 * 1024


def test_what_does_not_fit_is_refused_without_starting(folder: Path) -> None:
    """The Python side knows the size that the guest needs."""
    with pytest.raises(PlanError, match="can't hold"):
        Machine(
            MachineSettings(memory_bytes=16 * MIB, workload=Workload(fill_bytes=64 * MIB)),
            folder=folder,
        )
