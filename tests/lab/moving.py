"""Moves the Linux guest between the lab's hosts, as often as a test wants."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import msgspec
import pytest

import livemig
from livemig.core.event import Event
from livemig.core.report import Report
from livemig.lab.linux.guest import LinuxGuest, LinuxSettings, faults
from livemig.lab.linux.image import linux_image
from livemig.lab.linux.records import journal_sequences
from livemig.lab.two_hosts import TwoHosts

BEAT_BOUND_S = 20.0
"""It beats once a second, and on a busy machine some seconds pass before it has come to it."""
DISK_BYTES = 2 * 2**20
RECENT_BLOCKS = 400
"""Of the 512 that fit on the disk: the guest writes on while the image is read."""


class Travels:
    """The Linux guest on the lab, at first on host A. Ends with its block, wherever the guest is by then.

    Attributes:
        guest: Where it is now.
        reports: Of every move.
        events: Of the last move.
        moved: When each move began and ended, monotonic.
    """

    def __init__(self, lab: TwoHosts, settings: LinuxSettings | None = None, *, over_ssh: bool = False) -> None:
        """Over SSH and TLS to a destination that livemig launches, or by paths that every process here sees."""
        self.lab = lab
        self.over_ssh = over_ssh
        self.settings = settings or LinuxSettings()
        self.image = linux_image()
        self.guest = LinuxGuest(lab.a, self.image, self.settings)
        self.reports: list[Report] = []
        self.events: list[Event] = []
        self.moved: list[tuple[float, float]] = []
        self._stack = AsyncExitStack()

    def elsewhere(self) -> LinuxGuest:
        """The guest as it will be on the other host."""
        other = self.lab.b if self.guest.host.name == "A" else self.lab.a
        return LinuxGuest(other, self.image, self.settings, incoming=True)

    async def waiting(self) -> LinuxGuest:
        """Starts a QEMU on the other host, which waits for the guest."""
        return await self._stack.enter_async_context(self.elsewhere())

    def _at(self, guest: LinuxGuest) -> str:
        return f"ssh://{guest.host.name}{guest.qmp_path}" if self.over_ssh else str(guest.qmp_path_outside)

    async def move(
        self,
        *,
        plan: livemig.Plan | None = None,
        settle_s: float = 0.3,
        on_event: Callable[[Event], None] | None = None,
        waiting: LinuxGuest | None = None,
    ) -> Report:
        """Moves the guest to the other host and returns the report; `on_event` may act on each event."""
        waiting = waiting or (self.elsewhere() if self.over_ssh else await self.waiting())
        begun_s = time.monotonic()
        plan = plan or livemig.Plan(downtime_limit_s=0.5, probation_s=0.3)
        if self.over_ssh:
            plan = msgspec.structs.replace(plan, migrate_address=waiting.host.data_address)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(self.lab.home_folder))
            async with livemig.migrate(plan, source=self._at(self.guest), destination=self._at(waiting)) as migration:
                self.events = []
                async for event in migration:
                    self.events.append(event)
                    if on_event is not None:
                        on_event(event)
        report = migration.report
        self.reports.append(report)
        self.moved.append((begun_s, time.monotonic()))
        await asyncio.sleep(settle_s)
        if report.running_on == "destination":
            self.guest = waiting
        else:
            await waiting.stop()
        return report

    def check_journal(self, acknowledged: int) -> None:
        """Every block that the guest said is on its disk is there."""
        assert self.settings.disk is not None
        there = journal_sequences(self.settings.disk.read_bytes())
        missing = set(range(max(1, acknowledged - RECENT_BLOCKS), acknowledged + 1)) - there
        assert not missing, f"of {acknowledged} acknowledged blocks {sorted(missing)[:10]} are not on the disk"

    async def check_guest(self) -> None:
        """The guest beats where it is now, and found nothing wrong with its memory, its disk or what it received."""
        async with asyncio.timeout(BEAT_BOUND_S):
            while not (beats := self._beats()):
                await asyncio.sleep(0.05)
        assert faults(self.guest.serial) == []
        assert beats[-1].rstrip().endswith(" faults 0"), beats[-1]

    def _beats(self) -> list[str]:
        return [line for line in self.guest.serial.split("\n")[:-1] if line.startswith("beat ")]

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.guest)
        try:
            await self.guest.wait_ready()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def with_disk(lab: TwoHosts, settings: LinuxSettings | None = None) -> LinuxSettings:
    """Settings with an empty disk on the folder that both hosts share."""
    disk = Path(lab.a.shared_folder, "disk.img")
    disk.write_bytes(bytes(DISK_BYTES))
    return msgspec.structs.replace(settings or LinuxSettings(), disk=disk)
