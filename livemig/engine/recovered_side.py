"""A side of a run that another process began: the very QEMU that the journal knows, reached by any of its monitors.

A stranger at the same path, or with the same pid, is never taken for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from livemig.core.errors import ConnectError, LivemigError
from livemig.engine.host_pool import HostPool
from livemig.engine.identity import Absent, process_known_as
from livemig.engine.lock import lock_holder
from livemig.engine.run_record import SideRecord
from livemig.engine.side import Side, SideName, way_to
from livemig.hosts.host import Host, HostProcess
from livemig.hosts.local_host import LocalHost
from livemig.qemu.address import Address
from livemig.qemu.capabilities import MigrationSettings
from livemig.qemu.command_line import launch_folder
from livemig.qemu.monitor import Monitor

HOST_BOUND_S = 10.0
REMOTE_BOUND_S = 4.0
"""How long a monitor over SSH may take to greet, which nobody here hurries: a channel has to be opened first."""
SESSION_BOUND_S = 2.0
LAUNCH_SEEN_BOUND_S = 0.5
"""How long a process that was just started may take to become QEMU."""


class RecoveredSide(Side):
    """One side, connected as far as it can be.

    Attributes:
        host_reached: Whether its host is reached; else nothing is known or done there.
        why_away: Why it could not be reached last, or empty.
    """

    def __init__(self, name: SideName, record: SideRecord, run_id: str, *, unmarked: bool) -> None:
        """Connects nothing yet.

        Args:
            name: ``source`` or ``destination``.
            record: What the journal knows of it.
            run_id: The run's id, by which its lock is known.
            unmarked: Whether one whose process can't be seen may lack the lock: nothing was done to it then.
        """
        self.name = name
        self.address = Address.parse(record.address)
        self.monitor = Monitor.unconnected(self.address, name=name)
        self.settings = MigrationSettings(self.monitor)
        self.host: Host = LocalHost()
        self.process: HostProcess | None = None
        self.host_reached = False
        self.why_away = ""
        self._record, self._run_id, self._unmarked = record, run_id, unmarked
        self._known_gone = False

    async def reach(self, hosts: HostPool, *, launched: bool, timeout_s: float) -> None:
        """Reaches the host, finds the process and opens a monitor, as far as that can be. Raises nothing.

        Args:
            hosts: The hosts.
            launched: Whether livemig was to launch this QEMU.
            timeout_s: Bound on each monitor.
        """
        try:
            async with asyncio.timeout(HOST_BOUND_S):
                self.host = await hosts.host_of(self.address)
        except (ConnectError, TimeoutError) as error:
            self.why_away = str(error) or "its host does not answer"
            return
        self.host_reached = True
        with contextlib.suppress(LivemigError, OSError):
            await self._find_process()
            if launched:
                await self._find_launched()
        if not await self.is_gone():
            with contextlib.suppress(LivemigError):
                await self.reconnect(timeout_s)
            if self.monitor.closed and await self._ended_stale_session():
                with contextlib.suppress(LivemigError):
                    await self.reconnect(timeout_s)

    async def is_gone(self) -> bool:
        """Whether its process is proven to have ended."""
        return self._known_gone or await super().is_gone()

    def take_for_gone(self) -> None:
        """Leaves it out: nothing was begun with it."""
        self._known_gone = True

    async def reconnect(self, timeout_s: float) -> None:
        """Connects to the first of its monitors that answers.

        Raises:
            ConnectError: When none does within the bound, or what answers is another QEMU.
        """
        if not self.host_reached:
            raise ConnectError(self.why_away, address=self._record.address)
        timeout_s = timeout_s if self.host.is_local else max(timeout_s, REMOTE_BOUND_S)
        texts = dict.fromkeys((*self._record.other_addresses, self._record.address))
        reasons = []
        for address in map(Address.parse, reversed(texts)):
            try:
                self.monitor = await self._connected(address, timeout_s)
            except LivemigError as error:
                reasons.append(str(error))
                continue
            self.address, self.why_away = address, ""
            self.settings = MigrationSettings(self.monitor, self.settings.changes)
            return
        self.why_away = "; ".join(reasons)
        raise ConnectError(self.why_away, address=self._record.address)

    async def _ended_stale_session(self) -> bool:
        """Ends the run's own connections to the host, should its sshd not have noticed that livemig is dead.

        They hold the monitors that they were led to, and QEMU listens to one client each. Returns whether there were
        any.
        """
        if self._record.session is None:
            return False
        try:
            found = await process_known_as(self.host, self._record.session)
            return not isinstance(found, Absent) and await found.end(SESSION_BOUND_S)
        except (LivemigError, OSError):
            return False

    async def _find_process(self) -> None:
        if self._record.process is None:
            return
        found = await process_known_as(self.host, self._record.process)
        if isinstance(found, Absent):
            self._known_gone = found is Absent.GONE
        else:
            self.process = found

    async def _find_launched(self) -> None:
        """Finds the process of a QEMU that was being launched when the run was cut off, by the folder made for it."""
        folder = self._record.own_folder
        if self.process is not None or self._known_gone or self._record.process is not None or folder is None:
            return
        claim = await self.host.launch_claim(Path(folder))
        if claim is not None and claim.run_id not in (self._run_id, ""):
            self._known_gone = True  # the folder, and whatever runs in it, is another run's
            return
        end_s = time.monotonic() + LAUNCH_SEEN_BOUND_S
        while self.process is None and time.monotonic() < end_s:
            for pid, argv in await self.host.processes_with(folder):
                if self.process is None and _launched_into(argv) == folder:
                    self.process = await self.host.process_of_pid(pid)
            await asyncio.sleep(0.05)
        self._known_gone = self.process is None

    async def _connected(self, address: Address, timeout_s: float) -> Monitor:
        way = way_to(self.host, address)
        monitor = await Monitor.connect(address, name=self.name, timeout_s=timeout_s, silence_s=timeout_s, way=way)
        try:
            if not await self._is_the_one(monitor, address):
                raise ConnectError(f"{address}: another QEMU answers there", address=str(address))
        except BaseException:
            await monitor.close()
            raise
        return monitor

    async def _is_the_one(self, monitor: Monitor, address: Address) -> bool:
        """By its process where that can be seen, else by the lock that this run put into it."""
        if self.process is not None and address.is_on_its_host:
            cpus = await monitor.execute("query-cpus-fast")
            found = None
            with contextlib.suppress(LookupError, TypeError, OSError):
                thread_id = int(cpus[0]["thread-id"])
                found = await self.host.process_of_thread(thread_id, monitor.open_socket, address.path)
            if found is not None:
                found.close()
                return found.pid == self.process.pid
        holder = await lock_holder(monitor)
        return holder == self._run_id or (holder is None and self._unmarked)


def _launched_into(argv: tuple[str, ...]) -> str | None:
    try:
        return launch_folder(argv)
    except LivemigError:
        return None
