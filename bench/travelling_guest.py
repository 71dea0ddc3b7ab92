"""One built-in guest that moves from QEMU to QEMU, each time to a fresh one: what benchmarks measure with."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

import livemig
from livemig.core.errors import GuestError
from livemig.core.event import DestinationLaunched
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.serial_lines import Beat

_BEAT_BOUND_S = 10.0
_READY_BOUND_S = 120.0
_QUIT_BOUND_S = 5.0


class TravellingGuest:
    """A guest and the QEMU that it runs in. Use it as an async context manager; no QEMU is left behind.

    Attributes:
        machine: Where the guest runs now.
        heartbeat: What is heard of it, over all its QEMUs.
    """

    def __init__(self, settings: MachineSettings, folder: Path, *, launching: bool = False) -> None:
        """Starts nothing.

        Args:
            settings: What its QEMUs are made of.
            folder: Where their sockets go.
            launching: Whether no QEMU waits for it, so that livemig launches each.

        Raises:
            PlanError: When the memory can't hold the workload.
        """
        self.heartbeat = Heartbeat()
        self._migrate = livemig.migrate  # loads the engine now, not while the first guest moves
        self._settings, self._folder = settings, folder
        self._started_count = 0
        self._launching = launching
        self._waiting: Machine | LaunchedMachine | None = None
        first = self._machine(settings)
        self.machine: Machine | LaunchedMachine = first
        self._first = first

    async def __aenter__(self) -> Self:
        """Starts the guest, and returns once it works and beats.

        Raises:
            GuestError: When it can't be started.
        """
        try:
            await self._first.start()
            await self.machine.serial.wait_ready(timeout_s=_READY_BOUND_S)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stop()

    async def open_destination(self) -> Machine | LaunchedMachine:
        """Starts a QEMU that waits for the guest, or names a place for one; ends one that waited in vain."""
        if self._waiting is not None:
            await self._waiting.stop()
        if self._launching:
            self._waiting = LaunchedMachine(folder=self._folder, name=self._next_name(), heartbeat=self.heartbeat)
            return self._waiting
        waiting = self._machine(msgspec.structs.replace(self._settings, incoming="defer", paused=True))
        self._waiting = waiting
        await waiting.start()
        return waiting

    async def time_qemu_start_s(self) -> float:
        """Returns what a QEMU that waits takes until it can be talked to: started here, and ended again."""
        machine = self._machine(msgspec.structs.replace(self._settings, incoming="defer", paused=True))
        started_s = time.monotonic()
        async with machine:
            return time.monotonic() - started_s

    async def move(self, plan: livemig.Plan) -> livemig.Report:
        """Moves the guest to the QEMU that waits, through the library; `arrived` is to follow.

        Raises:
            GuestError: When it did not arrive.
            LivemigError: When the migration was refused.
        """
        source, destination = self.machine, self._destination()
        self.heartbeat.restart()
        async with self._migrate(plan, source=str(source.qmp_path), destination=str(destination.qmp_path)) as migration:
            async for event in migration:
                if isinstance(event, DestinationLaunched) and isinstance(destination, LaunchedMachine):
                    await destination.attach()
        if migration.report.outcome is not livemig.Outcome.COMPLETED:
            raise GuestError(f"the guest did not arrive: {migration.report.reason}")
        return migration.report

    async def arrived(self, *, source_quits: bool = True) -> None:
        """Takes the guest to run where it was moved to: hears it beat there, and ends the QEMU that it left.

        Args:
            source_quits: Whether that QEMU was told to quit; a source that was kept was not.

        Raises:
            GuestError: When it does not beat.
        """
        left, self.machine, self._waiting = self.machine, self._destination(), None
        try:
            if self.heartbeat.line != self.machine.name:
                await self.machine.serial.next(Beat, timeout_s=_BEAT_BOUND_S)
        finally:
            if source_quits:
                await _let_go(left)
            await left.stop()

    def _destination(self) -> Machine | LaunchedMachine:
        if self._waiting is None:
            raise GuestError("no QEMU waits for the guest")
        return self._waiting

    def _machine(self, settings: MachineSettings) -> Machine:
        return Machine(settings, folder=self._folder, name=self._next_name(), heartbeat=self.heartbeat)

    def _next_name(self) -> str:
        self._started_count += 1
        return f"guest{self._started_count}"

    async def _stop(self) -> None:
        for machine in (self.machine, self._waiting):
            if machine is not None:
                await machine.stop()


async def _let_go(machine: Machine | LaunchedMachine) -> None:
    """Waits for a QEMU that was told to quit: to signal one that just ended confuses asyncio's account of it."""
    with contextlib.suppress(GuestError):
        await machine.wait_ended(timeout_s=_QUIT_BOUND_S)
