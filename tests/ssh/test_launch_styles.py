"""Destinations launched on another host from sources whose command lines are written in many ways."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from livemig.engine.host_pool import HostPool
from livemig.engine.launch_plan import LaunchOptions, LaunchPlan, plan_launch
from livemig.engine.side import Side
from livemig.lab.two_hosts import TwoHosts
from livemig.qemu.address import Address
from tests.launch.conftest import Bench, assert_waits
from tests.launch.test_styles import STYLES, assert_same_machine

pytestmark = pytest.mark.qemu

CHOSEN = (
    "bare",
    "defaults",
    "double dashes",
    "JSON devices",
    "two disks",
    "nodes upon nodes",
    "overrides",
    "memory backend",
    "NUMA",
    "-cpu max",
    "fw_cfg and smbios",
    "user network",
)
"""Those whose own files and sockets do not stand in the other's way in a folder that both hosts share."""


class HostBench(Bench):
    """Sources on host A, destinations on host B, their images in the folder that both share."""

    def __init__(self, lab: TwoHosts, hosts: HostPool) -> None:
        super().__init__(lab.a.shared_folder)
        self._lab, self._hosts = lab, hosts

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


@pytest.fixture
async def bench(lab: TwoHosts) -> AsyncIterator[HostBench]:
    """Starts and launches QEMUs, and ends them."""
    async with HostPool() as hosts:
        made = HostBench(lab, hosts)
        try:
            yield made
        finally:
            await made.close()


@pytest.mark.parametrize("style", CHOSEN)
async def test_a_destination_is_launched_there_from(style: str, bench: HostBench, lab: TwoHosts) -> None:
    for name in ("a.img", "b,b.img"):
        (bench.folder / name).write_bytes(bytes(2**20))
    source = await bench.source(*STYLES[style], prefix=lab.a.argv(), cwd="/")
    launched = await bench.launch(source)
    await assert_waits(launched)
    await assert_same_machine(source, launched)
