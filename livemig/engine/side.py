"""One side of a migration, the source or the destination: its monitor, its process, what is known of its guest.

Joins `livemig.qemu` and `livemig.hosts`; decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Literal

import msgspec

from livemig.core.errors import CommandError, LivemigError, MonitorTimeout, ReplyError
from livemig.core.observation import Observation
from livemig.core.status import RunState
from livemig.hosts.host import Host, HostProcess
from livemig.hosts.local_host import LocalHost
from livemig.qemu.address import Address
from livemig.qemu.capabilities import MigrationSettings
from livemig.qemu.dial import Way
from livemig.qemu.monitor import Monitor

SideName = Literal["source", "destination"]

QUIT_BOUND_S = 5.0
REMOTE_QUIT_BOUND_S = 15.0
"""With time to log in again."""
DYING_BOUND_S = 0.5
"""How long a process may live on after its monitor closed: the kernel frees a guest's memory in between."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a QEMU says of itself before anything is done to it.

    Attributes:
        version: Such as ``10.0.2``.
        guest_name: ``-name``, or empty.
        run_state: Its run state.
        observation: Its ``query-migrate``.
        memory_bytes: The guest's memory, plugged memory included.
        vcpu_count: Its vCPUs.
        thread_ids: The host's thread ids of its vCPUs.
    """

    version: str
    guest_name: str
    run_state: RunState
    observation: Observation
    memory_bytes: int
    vcpu_count: int
    thread_ids: tuple[int, ...]


class Side:
    """A QEMU that takes part, with its monitor open.

    Attributes:
        name: ``source`` or ``destination``.
        address: Its monitor's address.
        monitor: Its monitor.
        settings: What livemig changed in it, to be put back.
        host: The machine it runs on.
        process: Its process, or None when it can't be seen.
        facts: What it said of itself at the start.
    """

    def __init__(
        self,
        name: SideName,
        address: Address,
        monitor: Monitor,
        facts: Facts,
        *,
        host: Host,
        process: HostProcess | None,
    ) -> None:
        self.name: SideName = name
        self.address = address
        self.monitor = monitor
        self.facts = facts
        self.settings = MigrationSettings(monitor)
        self.host = host
        self.process = process

    @classmethod
    async def connect(cls, name: SideName, address: Address, host: Host | None = None) -> Side:
        """Opens the monitor and asks for the facts; changes nothing.

        Args:
            name: Which side it is.
            address: Its monitor's address.
            host: The machine that the address is on, as `livemig.engine.host_pool` gives it; None is this one.

        Raises:
            ConnectError: When the monitor can't be reached, is busy, or is no QMP monitor.
            LivemigError: When it does not answer as a QEMU does.
        """
        host = LocalHost() if host is None else host
        monitor = await Monitor.connect(address, name=name, way=way_to(host, address))
        try:
            facts = await _ask_facts(monitor)
            process = await _process(host, address, monitor, facts)
            return cls(name, address, monitor, facts, host=host, process=process)
        except BaseException:
            await monitor.close()
            raise

    async def is_gone(self) -> bool:
        """Whether its process is proven to have ended."""
        return self.process is not None and await self.process.is_gone()

    async def has_died(self) -> bool:
        """As `is_gone`; where its monitor has closed, a process that is just ending gets a moment for it."""
        if await self.is_gone():
            return True
        return self.monitor.closed and self.process is not None and await self.process.wait_gone(DYING_BOUND_S)

    @property
    def may_return(self) -> bool:
        """Whether its monitor ended because the way to its host broke: QEMU goes on, and the way can be made again."""
        end = self.monitor.end
        return not self.host.is_local and end is not None and not end.orderly

    async def reconnect(self, timeout_s: float) -> None:
        """Opens the monitor again after its connection ended.

        Raises:
            ConnectError: When it can't be reached within the bound.
        """
        way = way_to(self.host, self.address)
        self.monitor = await Monitor.connect(
            self.address, name=self.name, timeout_s=timeout_s, silence_s=timeout_s, way=way
        )
        self.settings = MigrationSettings(self.monitor, self.settings.changes)

    async def end(self) -> bool:
        """Quits this QEMU, and kills it when it does not go; returns whether it is proven gone."""
        bound_s = QUIT_BOUND_S if self.host.is_local else REMOTE_QUIT_BOUND_S
        hangs = False
        try:
            if self.may_return:
                await self.reconnect(bound_s)
            await self.monitor.execute("quit", timeout_s=QUIT_BOUND_S)
        except MonitorTimeout:
            hangs = True  # its monitor is there and does not answer: it will not go by itself
        except LivemigError:
            pass
        if self.process is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.monitor.wait_closed(), QUIT_BOUND_S)
            return False
        return (not hangs and await self.process.wait_gone(bound_s)) or await self.process.end(bound_s)

    async def close(self) -> None:
        """Closes the monitor; the QEMU goes on as it is."""
        await self.monitor.close()
        if self.process is not None:
            self.process.close()


def way_to(host: Host, address: Address) -> Way | None:
    """Returns what opens connections to a monitor of a host; None where its address can simply be connected to."""
    return None if address.path is None else host.way_to(address.path)


async def _process(host: Host, address: Address, monitor: Monitor, facts: Facts) -> HostProcess | None:
    """The number of a thread of a QEMU that runs elsewhere would name a stranger on the host."""
    if not facts.thread_ids or not address.is_on_its_host:
        return None
    return await host.process_of_thread(facts.thread_ids[0], monitor.open_socket, address.path)


async def _ask_facts(monitor: Monitor) -> Facts:
    try:
        return await _read_facts(monitor)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ReplyError(f"{monitor.address}: what answers there is no QEMU that runs a machine", command="") from error


async def _read_facts(monitor: Monitor) -> Facts:
    version = await monitor.execute("query-version")
    name = await monitor.execute("query-name")
    memory = await _memory(monitor)
    cpus = await monitor.execute("query-cpus-fast")
    return Facts(
        version="{major}.{minor}.{micro}".format(**version["qemu"]),
        guest_name=name.get("name", ""),
        run_state=await monitor.query_status(),
        observation=await monitor.query_migrate(),
        memory_bytes=int(memory["base-memory"]) + int(memory.get("plugged-memory", 0)),
        vcpu_count=len(cpus),
        thread_ids=tuple(int(cpu["thread-id"]) for cpu in cpus if "thread-id" in cpu),
    )


async def _memory(monitor: Monitor) -> dict[str, Any]:
    try:
        reply: dict[str, Any] = await monitor.execute("query-memory-size-summary")
    except CommandError:
        return {"base-memory": 0}
    return reply
