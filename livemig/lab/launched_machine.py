"""A QEMU with the built-in guest that livemig launched itself, seen as `livemig.lab.machine.Machine` shows its own.

Starts nothing: names the place, and takes hold of what is there once livemig has launched it.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from livemig.core.errors import GuestError, LivemigError
from livemig.hosts.local import LocalProcess
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.serial import SerialLine
from livemig.qemu.monitor import Monitor

END_BOUND_S = 5.0


class LaunchedMachine:
    """A place where livemig is to launch a QEMU; `attach` once it has. What it was is ended by `stop`.

    Attributes:
        name: Of the machine, its socket and its serial line.
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
        """QEMU's process id.

        Raises:
            GuestError: Before `attach`.
        """
        return self._attached.pid

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
        """Takes hold of the process, and connects its serial line.

        Raises:
            GuestError: When it can't be seen.
            LivemigError: When it does not answer at its second monitor.
        """
        async with await Monitor.connect(str(self.spare_qmp_path), name="lab") as monitor:
            cpus = await monitor.execute("query-cpus-fast")
        self._process = LocalProcess.of_thread(cpus[0]["thread-id"])
        if self._process is None:
            raise GuestError(f"{self.name}: the QEMU that was launched can't be seen")
        await self.serial.connect()

    async def attach_if_there(self) -> None:
        """The same, for a QEMU that a failure may have ended already."""
        with contextlib.suppress(LivemigError):
            await self.attach()

    async def wait_ended(self, *, timeout_s: float) -> None:
        """Waits until QEMU ends by itself.

        Raises:
            GuestError: When it does not within the bound.
        """
        if not await self._attached.wait_gone(timeout_s):
            raise GuestError(f"{self.name}: QEMU still runs after {timeout_s} s")

    async def stop(self) -> None:
        """Ends it for certain; does nothing when it has ended."""
        if self._process is not None:
            self._process.kill()
            gone = await self._process.wait_gone(END_BOUND_S)
            self._process.close()
            self._process = None
            if not gone:
                raise GuestError(f"{self.name}: QEMU does not end")
        await self.serial.close()

    @property
    def _attached(self) -> LocalProcess:
        if self._process is None:
            raise GuestError(f"{self.name}: nothing was launched yet")
        return self._process

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())
