"""A QEMU that livemig launched, seen as the tests see one that they started: `livemig.lab.machine.Machine`'s face."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from livemig.hosts.local import LocalProcess
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.serial import SerialLine
from livemig.qemu.monitor import Monitor


class LaunchedMachine:
    """A place where livemig is to launch a QEMU; `attach` once it has.

    Attributes:
        qmp_path: Where its monitor is to be: what is given as the destination.
        spare_qmp_path: Where its second one will be.
        own_folder: What livemig makes for it, and removes after it.
        serial: Its serial line, connected by `attach`.
    """

    def __init__(self, *, folder: Path, name: str, heartbeat: Heartbeat) -> None:
        self.name = name
        self.qmp_path = folder / f"{name}.qmp"
        self.own_folder = folder / f"{name}.qmp.livemig"
        self.spare_qmp_path = self.own_folder / "spare.qmp"
        self.serial = SerialLine(self.own_folder / "serial0.sock", name=name, heartbeat=heartbeat)
        self._process: LocalProcess | None = None

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        assert self._process is not None, "it was not launched yet"
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 0 when it does not, or never did: what it ended with, nobody but its parent knows."""
        if self._process is None:
            return None if self.left_behind else 0
        return None if self._process.alive else 0

    @property
    def left_behind(self) -> list[Path]:
        """Its files that are there."""
        return [path for path in (self.qmp_path, self.own_folder) if path.exists()]

    async def attach(self) -> None:
        """Takes hold of the process, and connects its serial line."""
        async with await Monitor.connect(str(self.spare_qmp_path), name="test") as monitor:
            cpus = await monitor.execute("query-cpus-fast")
        self._process = LocalProcess.of_thread(cpus[0]["thread-id"])
        assert self._process is not None
        await self.serial.connect()

    async def stop(self) -> None:
        """Ends it for certain."""
        if self._process is not None:
            self._process.kill()
            assert await self._process.wait_gone(5)
            self._process.close()
            self._process = None
        await self.serial.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())
