"""This machine under a QEMU: finds its process, tells for certain whether it lives, ends it.

Processes are held by pidfd, so a reused pid is never mistaken for the QEMU that was meant. Starts nothing.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from pathlib import Path

from livemig.hosts.peer import holds_other_end


class LocalProcess:
    """A process of this machine, held so that neither its end nor a reuse of its pid can be missed.

    Attributes:
        pid: Its process id.
        start_ticks: When it started, in clock ticks since the boot; 0 for one that has just ended.
    """

    def __init__(self, pid: int) -> None:
        """Takes hold of the process.

        Raises:
            ProcessLookupError: When there is none.
        """
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self.start_ticks = start_ticks_of(pid)

    @classmethod
    def of_thread(cls, thread_id: int, connection: socket.socket | None = None) -> LocalProcess | None:
        """Returns the process that a thread belongs to (QEMU's ``thread-id`` of a vCPU), or None when it can't be seen.

        It can't be seen when it has ended, runs on another machine, or in another pid namespace. There the number may
        be a stranger's here, even another guest's QEMU, who must not be taken for it: it would be killed in its place.

        Args:
            thread_id: As QEMU says it.
            connection: The connection on which it says so: the process has to hold its other end. None believes it.
        """
        held = None
        try:
            held = cls(_field(thread_id, "Tgid:", 0))
            if connection is None or holds_other_end(held.pid, connection):
                return held
        except (OSError, StopIteration):
            pass
        if held is not None:
            held.close()
        return None

    @property
    def alive(self) -> bool:
        """Whether it has not ended; a zombie has."""
        try:
            return not _ended(self._descriptor)
        except OSError:
            return False

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group it acts as (its effective ones; a process that dropped its rights hides behind root)."""
        return _field(self.pid, "Uid:", 1), _field(self.pid, "Gid:", 1)

    async def is_gone(self) -> bool:
        """Whether it is proven to have ended."""
        return not self.alive

    async def end(self, timeout_s: float) -> bool:
        """Kills it and waits; returns whether it is gone within the bound."""
        self.kill()
        return await self.wait_gone(timeout_s)

    def kill(self) -> None:
        """Sends SIGKILL; does nothing when it has ended."""
        try:
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return

    async def wait_gone(self, timeout_s: float) -> bool:
        """Waits until it has ended; returns whether it has within the bound."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        except TimeoutError:
            return not self.alive
        finally:
            loop.remove_reader(self._descriptor)
        return True

    def close(self) -> None:
        """Lets go of the process, which goes on as it was."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _ended(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def start_ticks_of(pid: int) -> int:
    """Returns when a process started, in clock ticks since the boot; 0 for one that has ended."""
    try:
        return start_ticks_in(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except (OSError, IndexError):
        return 0


def start_ticks_in(stat: str) -> int:
    """Reads the start time out of a process's ``stat``, whose second field may hold blanks and parentheses."""
    return int(stat.rpartition(")")[2].split()[19])


def _field(thread_id: int, name: str, index: int) -> int:
    status = Path(f"/proc/{thread_id}/status").read_text(encoding="utf-8", errors="replace")
    line = next(line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1 + index])
