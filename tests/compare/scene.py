"""Two QEMUs to be compared: started as a test says, asked, and migrated by QEMU alone or by livemig."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

import livemig
from livemig.core.errors import ConnectError, LivemigError
from livemig.core.finding import Finding, Severity
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Workload
from livemig.qemu.compare import compare
from livemig.qemu.inventory import Inventory
from livemig.qemu.inventory_query import take_inventories, take_inventory
from livemig.qemu.monitor import Monitor

MiB = 2**20
SETTINGS = MachineSettings(memory_bytes=64 * MiB, workload=Workload(working_set_bytes=1 * MiB, dirty_rate_bytes_s=0))


class Verdict(msgspec.Struct, frozen=True):
    """What QEMU makes of a migration that nobody compared for.

    Attributes:
        status: The source's migration status at its end.
        destination: The destination's run state, or ``gone``.
        stderr: What the destination wrote.
    """

    status: str
    destination: str
    stderr: str


class Scene:
    """Starts QEMUs in a folder and ends them for certain."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source: Machine
        self.destination: Machine
        self._heartbeat = Heartbeat()
        self._count = 0
        self._stack = AsyncExitStack()

    async def start_source(self, *arguments: str, **changes: Any) -> None:
        """Starts the QEMU whose guest is to move."""
        self.source = await self._machine(arguments, changes)

    async def start_destination(self, *arguments: str, **changes: Any) -> None:
        """Starts the QEMU that waits."""
        self.destination = await self._machine(arguments, {"incoming": "defer", "paused": True, **changes})

    async def stop(self) -> None:
        """Ends all."""
        await self._stack.aclose()

    async def inventories(self) -> tuple[Inventory, Inventory]:
        """Takes both."""
        async with await connected(self.source) as source, await connected(self.destination) as destination:
            return await take_inventories(source, destination)

    async def source_inventory(self) -> Inventory:
        """Takes the source's alone."""
        async with await connected(self.source) as source:
            return await take_inventory(source)

    async def findings(self) -> tuple[Finding, ...]:
        """Compares both."""
        return compare(*await self.inventories())

    async def refusals(self) -> list[Finding]:
        """Compares both; what forbids the migration."""
        return [one for one in await self.findings() if one.severity is Severity.REFUSAL]

    async def execute(self, machine: Machine, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """One QMP command."""
        async with await connected(machine) as monitor:
            return await monitor.execute(command, arguments)

    async def migrate_by_qemu(self) -> Verdict:
        """Migrates as QEMU would by itself: nothing compared, return path on."""
        uri = f"unix:{self.folder}/channel{self._count}"
        capabilities = {"capabilities": [{"capability": "return-path", "state": True}]}
        async with await connected(self.source) as source, await connected(self.destination) as destination:
            for monitor in (source, destination):
                await monitor.execute("migrate-set-capabilities", capabilities)
            await destination.execute("migrate-incoming", {"uri": uri})
            await source.execute("migrate", {"uri": uri})
            status = ""
            async with asyncio.timeout(20):
                while status not in ("completed", "failed"):
                    await asyncio.sleep(0.02)
                    status = (await source.execute("query-migrate")).get("status", "")
        return Verdict(status, await self._destination_state(), self.destination.stderr)

    async def migrate_by_livemig(self) -> livemig.Report:
        """Migrates through the library, which leaves the guest running at the destination."""
        async with livemig.migrate(
            livemig.Plan(probation_s=0.1),
            source=str(self.source.qmp_path),
            destination=str(self.destination.qmp_path),
        ) as migration:
            async for _ in migration:
                pass
        return migration.report

    def swap(self) -> None:
        """Makes the destination the source."""
        self.source = self.destination

    async def _destination_state(self) -> str:
        try:
            async with asyncio.timeout(5):
                while self.destination.exit_code is None:
                    state = (await self.execute(self.destination, "query-status"))["status"]
                    if state != "inmigrate":
                        return str(state)
                    await asyncio.sleep(0.02)
        except (LivemigError, TimeoutError):
            await self.destination.wait_ended(timeout_s=5)
        return "gone"

    async def _machine(self, arguments: tuple[str, ...], changes: dict[str, Any]) -> Machine:
        self._count += 1
        settings = msgspec.structs.replace(SETTINGS, extra_arguments=arguments, **changes)
        machine = Machine(settings, folder=self.folder, name=f"q{self._count}", heartbeat=self._heartbeat)
        return await self._stack.enter_async_context(machine)


async def connected(machine: Machine) -> Monitor:
    """Opens a machine's second QMP socket."""
    try:
        return await Monitor.connect(str(machine.spare_qmp_path), name=machine.name, starting=True)
    except ConnectError as error:
        error.add_note(machine.stderr)
        raise
