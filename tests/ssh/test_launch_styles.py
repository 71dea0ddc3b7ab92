"""Destinations launched on another host from sources whose command lines are written in many ways."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from livemig.engine.host_pool import HostPool
from livemig.lab.two_hosts import TwoHosts
from tests.launch.bench import assert_waits
from tests.launch.test_styles import STYLES, assert_same_machine
from tests.ssh.host_bench import HostBench

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
    source = await bench.source(*STYLES[style])
    launched = await bench.launch(source)
    await assert_waits(launched)
    await assert_same_machine(source, launched)
