"""A guest on host A of the lab and a destination that livemig launches on host B, as the engine's tests take a pair."""

from __future__ import annotations

from typing import Any

import msgspec

from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.serial import SerialLine
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.two_hosts.qemu import qemu_in
from tests.engine.pair import Pair


class HostPair(Pair):
    """A source on one host; no QEMU waits on the other."""

    def __init__(self, lab: TwoHosts) -> None:
        super().__init__(lab.a.private_folder_outside, launching=True)
        self._lab = lab

    @property
    def source_address(self) -> str:
        """By SSH."""
        return f"ssh://A{self._lab.a.private_folder}/qemu1.qmp"

    @property
    def destination_address(self) -> str:
        """By SSH too, and by the same path there."""
        return f"ssh://B{self._lab.b.private_folder}/qemu1.qmp"

    async def waiting(self, **changes: Any) -> LaunchedMachine:
        """Names the place on the other host; between hosts a socket keeps its path, the serial line's too."""
        assert changes["incoming"] == "defer", "what livemig launches always waits so"
        folder = self._lab.b.private_folder_outside
        machine = LaunchedMachine(folder=folder, name="qemu1", heartbeat=self.heartbeat)
        machine.serial = SerialLine(folder / "qemu1.serial", name="qemu1 on B", heartbeat=self.heartbeat)
        return await self._stack.enter_async_context(machine)

    async def _machine(self, settings: MachineSettings) -> Machine:
        return await super()._machine(msgspec.structs.replace(settings, binary=qemu_in(self._lab.a)))
