"""A guest on one host of the lab and a destination on the other, as the engine's tests take a pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.serial import SerialLine
from livemig.lab.two_hosts import Host, TwoHosts
from livemig.lab.two_hosts.qemu import qemu_in
from tests.engine.pair import Pair

LAUNCHED = "qemu1"
"""Between hosts what is launched keeps the source's paths."""


class HostPair(Pair):
    """A source on host A; on the other a QEMU that waits, or a place where livemig launches one."""

    def __init__(self, lab: TwoHosts, *, launching: bool = True) -> None:
        super().__init__(lab.a.private_folder_outside, launching=launching)
        self._lab = lab

    @property
    def shared_folder(self) -> Path:
        """The one of the lab."""
        return self._lab.a.shared_folder

    @property
    def source_address(self) -> str:
        """By SSH."""
        return self._address(self.source)

    @property
    def destination_address(self) -> str:
        """By SSH too."""
        return self._address(self.destination)

    async def waiting(self, **changes: Any) -> Machine | LaunchedMachine:
        """Starts a QEMU that waits on the host where the source is not, or names the place there."""
        other = self._lab.b if self._host_of(self.source).name == self._lab.a.name else self._lab.a
        if not self.launching:
            settings = {"incoming": "defer", "paused": True, **changes}
            return await self._machine_on(other, msgspec.structs.replace(self._settings, **settings))
        assert changes.get("incoming", "defer") == "defer", "what livemig launches always waits so"
        self._count += 1
        folder = other.private_folder_outside
        machine = LaunchedMachine(folder=folder, name=LAUNCHED, heartbeat=self.heartbeat)
        name = f"qemu{self._count} on {other.name}"
        machine.serial = SerialLine(folder / f"{LAUNCHED}.serial", name=name, heartbeat=self.heartbeat)
        return await self._stack.enter_async_context(machine)

    async def _machine(self, settings: MachineSettings) -> Machine:
        return await self._machine_on(self._lab.a, settings)

    async def _machine_on(self, host: Host, settings: MachineSettings) -> Machine:
        self._count += 1
        machine = Machine(
            msgspec.structs.replace(settings, binary=qemu_in(host)),
            folder=host.private_folder_outside,
            name=f"qemu{self._count}",
            heartbeat=self.heartbeat,
        )
        return await self._stack.enter_async_context(machine)

    def _host_of(self, machine: Machine | LaunchedMachine) -> Host:
        return next(
            host for host in (self._lab.a, self._lab.b) if machine.qmp_path.is_relative_to(host.private_folder_outside)
        )

    def _address(self, machine: Machine | LaunchedMachine) -> str:
        host = self._host_of(machine)
        return f"ssh://{host.name}{host.private_folder}/{machine.qmp_path.name}"
