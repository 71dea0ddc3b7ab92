"""Sources on one host and destinations on the other, as the tests of launching take a bench."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from livemig.engine.host_pool import HostPool
from livemig.engine.launch_plan import LaunchOptions, LaunchPlan, plan_launch
from livemig.engine.side import Side, SideName
from livemig.lab.two_hosts import TwoHosts
from livemig.qemu.address import Address
from tests.lab.fixtures import reachable_lab
from tests.launch.bench import Bench


@asynccontextmanager
async def host_bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HostBench]:
    """Makes the lab, and a bench of it; whatever was started on it is ended."""
    async with reachable_lab(monkeypatch) as lab, HostPool() as hosts:
        made = HostBench(lab, hosts)
        try:
            yield made
        finally:
            await made.close()


class HostBench(Bench):
    """Sources on host A, destinations on host B, their images in the folder that both share."""

    def __init__(self, lab: TwoHosts, hosts: HostPool) -> None:
        super().__init__(lab.a.shared_folder)
        self._lab, self._hosts = lab, hosts

    async def source(self, *arguments: str, prefix: Sequence[str] = (), **options: Any) -> Side:
        """Starts a QEMU on host A, in a folder that both hosts have."""
        begun_in = ("env", f"--chdir={options.pop('cwd', self.folder)}")
        return await super().source(*arguments, prefix=(*self._lab.a.argv(), *begun_in, *prefix), cwd="/", **options)

    async def plan(self, source: Side, qmp: str = "b.qmp", **options: Any) -> LaunchPlan:
        """Plans the launch of its destination on the host where the source is not."""
        other = "A" if source.address.login is not None and source.address.login.host == "B" else "B"
        address = Address.parse(f"ssh://{other}{self.folder}/{qmp}")
        host = await self._hosts.host_of(address)
        return await plan_launch(source, host, address, LaunchOptions.parse(**options))

    @property
    def own_folder(self) -> Path:
        """Host A's; host B has another at the same path."""
        return self._lab.a.private_folder

    def _seen_from_here(self, path: Path) -> Path:
        return self._lab.a.private_folder_outside / path.relative_to(self.own_folder)

    def open_to_all(self) -> None:
        """Lets any user write into its folders, and into host B's own."""
        super().open_to_all()
        self._lab.b.private_folder_outside.chmod(0o777)

    async def _side(self, path: Path, name: SideName, *, launched: bool) -> Side:
        address = Address.parse(f"ssh://{'B' if launched else 'A'}{path}")
        return await Side.connect(name, address, await self._hosts.host_of(address))
