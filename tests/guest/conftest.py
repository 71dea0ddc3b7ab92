"""Machines with the built-in guest, each ended whatever a test does."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livemig.lab.heartbeat import Heartbeat
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Workload

MIB = 2**20
EVERY_ACCELERATOR = [
    pytest.param("tcg", marks=pytest.mark.qemu, id="tcg"),
    pytest.param("kvm", marks=[pytest.mark.qemu, pytest.mark.kvm], id="kvm"),
]

StartMachine = Callable[..., Awaitable[Machine]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets, wherever pytest keeps its own."""
    with tempfile.TemporaryDirectory(prefix="guest-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
async def start_machine(folder: Path) -> AsyncIterator[StartMachine]:
    """Starts machines, by default waits until the workload runs, and ends them behind the test."""
    machines: list[Machine] = []

    async def start(
        workload: Workload,
        *,
        name: str | None = None,
        heartbeat: Heartbeat | None = None,
        ready: bool = True,
        **settings: Any,
    ) -> Machine:
        machine = Machine(
            MachineSettings(workload=workload, **settings),
            folder=folder,
            name=name or f"guest{len(machines)}",
            heartbeat=heartbeat,
        )
        machines.append(machine)
        await machine.start()
        if ready:
            await machine.serial.wait_ready()
        return machine

    yield start
    await asyncio.gather(*(machine.stop() for machine in machines))
