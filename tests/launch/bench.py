"""QEMUs started in many ways, and destinations launched from them; each ended whatever a test does, by its own pid."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from livemig.core.errors import ConnectError
from livemig.core.status import RunState
from livemig.engine.launch import Launched, launch
from livemig.engine.launch_plan import LaunchOptions, LaunchPlan, plan_launch
from livemig.engine.side import Side, SideName
from livemig.hosts.local import LocalProcess
from livemig.hosts.local_host import LocalHost
from livemig.qemu.address import Address
from livemig.qemu.monitor import Monitor

QEMU = "qemu-system-x86_64"


class Bench:
    """Sources started by a command line, and what is launched from them.

    Attributes:
        folder: Where sockets and files go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[LocalProcess] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._launched: list[Launched] = []
        self._sides: list[Side] = []

    async def source(
        self, *arguments: str, prefix: Sequence[str] = (), binary: str = QEMU, qmp: str = "a.qmp", **options: Any
    ) -> Side:
        """Starts a QEMU that has no guest but a machine; `{folder}` in its arguments is the test's folder.

        `{own}` is its own folder.
        """
        path = self.own_folder / qmp
        places = {"{folder}": str(self.folder), "{own}": str(self.own_folder)}
        line = [_placed(each, places) for each in (*prefix, binary, *arguments)]
        if not any(qmp in each for each in line):
            line += ["-qmp", f"unix:{path},server=on,wait=off"]
        with (self.folder / "a.stderr").open("wb") as errors:
            child = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                **{"cwd": self.folder, **options},
            )
        self._children.append(child)
        for _ in range(500):
            if self._seen_from_here(path).exists():
                break
            await asyncio.sleep(0.02)
        try:
            side = await self._side(path, "source", launched=False)
        except ConnectError as error:
            raise AssertionError((self.folder / "a.stderr").read_text()) from error
        if side.process is not None:
            self._processes.append(LocalProcess(side.process.pid))
        self._sides.append(side)
        return side

    @property
    def own_folder(self) -> Path:
        """Where sources find what no other host shares: their sockets, and what QEMU writes."""
        return self.folder

    def _seen_from_here(self, path: Path) -> Path:
        return path

    async def _side(self, path: Path, name: SideName, *, launched: bool) -> Side:
        return await Side.connect(name, Address(path=str(path)))

    async def plan(self, source: Side, qmp: str = "b.qmp", **options: Any) -> LaunchPlan:
        """Plans the launch of its destination."""
        return await plan_launch(
            source, LocalHost(), Address(path=str(self.folder / qmp)), LaunchOptions.parse(**options)
        )

    async def launch(self, source: Side, qmp: str = "b.qmp", **options: Any) -> Launched:
        """Launches its destination."""
        return await self.launch_planned(await self.plan(source, qmp, **options))

    async def launch_planned(self, plan: LaunchPlan) -> Launched:
        """Launches what was planned."""
        launched = await launch(plan, timeout_s=20)
        await launched.release_folder()
        self._launched.append(launched)
        return launched

    async def end(self, launched: Launched) -> None:
        """Ends a destination: its place is free again."""
        assert await launched.end()
        self._launched.remove(launched)

    def open_to_all(self) -> None:
        """Lets any user write into its folders."""
        for folder in (self.folder, self._seen_from_here(self.own_folder)):
            folder.chmod(0o777)

    async def connect(self, qmp: str, name: SideName = "source") -> Side:
        """Connects, as the one side or the other, to a QEMU that runs already where destinations do."""
        side = await self._side(self.folder / qmp, name, launched=True)
        self._sides.append(side)
        return side

    async def close_monitors(self, qmp: str) -> None:
        """Lets others connect to a QEMU."""
        for side in [each for each in self._sides if each.address.path == str(self.folder / qmp)]:
            await side.close()
            self._sides.remove(side)

    def adopt(self, pid: int) -> LocalProcess:
        """Takes on a QEMU that somebody else started."""
        process = LocalProcess(pid)
        self._processes.append(process)
        return process

    async def close(self) -> None:
        """Ends all of them."""
        while self._sides:
            await self._sides.pop().close()
        while self._launched:
            await self._launched.pop().end()
        while self._processes:
            process = self._processes.pop()
            process.kill()
            await process.wait_gone(5)
            process.close()
        while self._children:
            child = self._children.pop()
            child.kill()
            child.wait()


def _placed(text: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        text = text.replace(name, place)
    return text


async def run_state(path: Path) -> RunState:
    """Asks the QEMU behind a socket."""
    async with await Monitor.connect(Address(path=str(path))) as monitor:
        return await monitor.query_status()


async def assert_waits(launched: Launched) -> None:
    """It waits for a guest, and says so at both of its monitors."""
    assert not await launched.process.is_gone()
    assert await run_state(launched.plan.qmp_path) is RunState.INMIGRATE
    assert await run_state(launched.plan.spare_path) is RunState.INMIGRATE


def need_root() -> None:
    """A test that needs root fails with its name without it."""
    assert os.geteuid() == 0, "this test needs root"
