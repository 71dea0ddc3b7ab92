"""Sources on one host and destinations on the other, as the tests of launching take a bench."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from livemig.engine.host_pool import HostPool
from livemig.engine.launch_plan import LaunchOptions, LaunchPlan, plan_launch
from livemig.engine.side import Side
from livemig.lab.two_hosts import TwoHosts
from livemig.qemu.address import Address
from tests.launch.bench import Bench


class HostBench(Bench):
    """Sources on host A, destinations on host B, their images in the folder that both share."""

    def __init__(self, lab: TwoHosts, hosts: HostPool) -> None:
        super().__init__(lab.a.shared_folder)
        self._lab, self._hosts = lab, hosts

    async def source(self, *arguments: str, prefix: Sequence[str] = (), **options: Any) -> Side:
        """Starts a QEMU on host A; what runs there begins in ``/``."""
        return await super().source(*arguments, prefix=(*self._lab.a.argv(), *prefix), **{"cwd": "/", **options})

    async def plan(self, source: Side, qmp: str = "b.qmp", **options: Any) -> LaunchPlan:
        """Plans the launch of its destination on the other host."""
        address = Address.parse(f"ssh://B{self.folder}/{qmp}")
        host = await self._hosts.host_of(address)
        return await plan_launch(source, host, address, LaunchOptions.parse(**options))

    def _monitor_path(self, qmp: str) -> Path:
        return self._lab.a.private_folder / qmp

    def _seen_from_here(self, path: Path) -> Path:
        return self._lab.a.private_folder_outside / path.name

    async def _side(self, path: Path) -> Side:
        address = Address.parse(f"ssh://A{path}")
        return await Side.connect("source", address, await self._hosts.host_of(address))
