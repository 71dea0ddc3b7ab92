"""A process of a host reached over SSH: told by pid and start time, looked at in the very command that acts."""

from __future__ import annotations

import asyncio
import contextlib
import time

from livemig.core.errors import HostError
from livemig.hosts.local import start_ticks_in
from livemig.hosts.ssh.link import Link

POLL_S = 0.05
END_BOUND_S = 15.0
"""With time to log in again, on a host that is slow."""
_ENDED_STATES = ("Z", "X")


class RemoteProcess:
    """A process of a host, known by pid and start time.

    Attributes:
        pid: Its process id there.
        start_ticks: When it started, in clock ticks since the host's boot.
    """

    def __init__(self, link: Link, boot_id: str, pid: int, start_ticks: int, owner: tuple[int, int]) -> None:
        """Takes note of it."""
        self.pid = pid
        self.start_ticks = start_ticks
        self._link, self._boot_id, self._owner = link, boot_id, owner

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group it acted as when it was first looked at."""
        return self._owner

    async def is_gone(self) -> bool:
        """Whether it is proven to have ended; False when its host does not say."""
        try:
            answer = await self._link.run(
                f"{_same_boot(self._boot_id)}\ncat /proc/{self.pid}/stat 2>/dev/null || echo gone"
            )
        except HostError:
            return False
        return self._means_gone(answer.text)

    async def end(self, timeout_s: float) -> bool:
        """Kills it and waits; returns whether it is proven gone within the bound.

        A host that is out of reach is asked again: its connection may be back in a moment.
        """
        script = (
            f"{_same_boot(self._boot_id)}\n"
            f"stat=$(cat /proc/{self.pid}/stat 2>/dev/null) || {{ echo gone; exit 0; }}\n"
            "rest=${stat##*) }\nset -- $rest\n"
            f'[ "${{20}}" = {self.start_ticks} ] || {{ echo gone; exit 0; }}\n'
            f"kill -9 {self.pid} && echo killed"
        )
        end_s = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(HostError):
                await self._link.run(script)
            if await self.is_gone():
                return True
            if time.monotonic() >= end_s:
                return False
            await asyncio.sleep(POLL_S)

    async def wait_gone(self, timeout_s: float) -> bool:
        """Waits until it has ended; returns whether it is proven to have within the bound."""
        end_s = time.monotonic() + timeout_s
        while not await self.is_gone():
            if time.monotonic() >= end_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def close(self) -> None:
        """Holds nothing."""

    def _means_gone(self, stat: str) -> bool:
        if stat == "gone":
            return True
        try:
            state = stat.rpartition(")")[2].split()[0]
            return state in _ENDED_STATES or start_ticks_in(stat) != self.start_ticks
        except (IndexError, ValueError):
            return False  # another boot, or no answer that makes sense


class RemoteProgram:
    """A program that livemig started on a host.

    Attributes:
        process: Its process.
        exit_code: None: the shell that could say is not waited for.
    """

    exit_code: int | None = None

    def __init__(self, process: RemoteProcess) -> None:
        """Takes hold of it."""
        self.process = process

    async def wait_ended(self, timeout_s: float) -> bool:
        """Waits until it has ended; returns whether it has within the bound."""
        return await self.process.wait_gone(timeout_s)

    async def kill(self) -> bool:
        """Kills it and waits; returns whether it is gone."""
        return await self.process.end(END_BOUND_S)

    def close(self) -> None:
        """Holds nothing."""


def _same_boot(boot_id: str) -> str:
    """A pid of another boot, or of another machine behind the same name, is nobody's."""
    return (
        f'read -r boot </proc/sys/kernel/random/boot_id && [ "$boot" = {boot_id} ] || {{ echo another boot; exit 3; }}'
    )
