"""Fakes and real QEMUs, always ended and reaped."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from .fake_qemu import FakeQemu, Faults

QEMU = "qemu-system-x86_64"


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    """A socket's path, short enough for the kernel."""
    path = tmp_path / "qmp"
    assert len(str(path)) < 100
    return path


@pytest.fixture
async def fake(socket_path: Path) -> AsyncIterator[FakeQemu]:
    async with FakeQemu(socket_path, paused=True, faults=Faults()) as qemu:
        yield qemu


@asynccontextmanager
async def real_qemu(path: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A real QEMU without a guest's program, paused; killed and reaped at the end."""
    if shutil.which(QEMU) is None:
        pytest.fail(f"{QEMU} is not installed")
    process = await asyncio.create_subprocess_exec(
        QEMU,
        *("-machine", "pc", "-m", "16", "-nodefaults", "-display", "none", "-S"),
        *("-qmp", f"unix:{path},server=on,wait=off"),
        *arguments,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.qemu)])
async def qemu_path(request: pytest.FixtureRequest, socket_path: Path) -> AsyncIterator[Path]:
    """The socket of a paused QEMU, fake and real."""
    if request.param == "fake":
        async with FakeQemu(socket_path, paused=True):
            yield socket_path
    else:
        async with real_qemu(socket_path):
            yield socket_path


@pytest.fixture(autouse=True)
async def no_task_left_behind() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)
    ours: list[Any] = [task for task in asyncio.all_tasks() if "QMP" in task.get_name()]
    assert ours == []


Condition = Callable[[], bool]


async def until(condition: Condition, timeout_s: float = 5.0) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
