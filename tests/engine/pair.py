"""Two QEMUs on this machine, one with the built-in guest and one that waits: what engine tests move it between."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

import livemig
from livemig.core.errors import LivemigError
from livemig.core.event import DestinationLaunched, Event
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Workload
from livemig.qemu.monitor import Monitor

MiB = 2**20
LOADED = Workload(working_set_bytes=24 * MiB, dirty_rate_bytes_s=40 * MiB, fill_bytes=64 * MiB)
IDLE = Workload(working_set_bytes=1 * MiB, dirty_rate_bytes_s=0)
HOT = Workload(working_set_bytes=48 * MiB, dirty_rate_bytes_s=2000 * MiB)
"""Dirties its working set far faster than any cap below lets it be sent."""
QUICK = livemig.Plan(probation_s=0.1)


class Pair:
    """A source with a guest and a destination that waits.

    Attributes:
        source: The machine whose guest is to move.
        destination: The machine that waits.
        heartbeat: What is heard of the guest on both serial lines.
    """

    def __init__(self, folder: Path, *, launching: bool = False) -> None:
        """Starts nothing.

        Args:
            folder: Where sockets and files go.
            launching: Whether no destination waits, so that livemig launches each.
        """
        self.folder = folder
        self.launching = launching
        self.heartbeat = Heartbeat()
        self.source: Machine | LaunchedMachine
        self.destination: Machine | LaunchedMachine
        self._count = 0
        self._stack = AsyncExitStack()
        self._settings = MachineSettings()
        self._before: dict[str, Any] = {}

    async def start(
        self,
        workload: Workload = LOADED,
        *,
        memory_bytes: int = 128 * MiB,
        accelerator: str = "tcg",
        source_arguments: tuple[str, ...] = (),
        destination_arguments: tuple[str, ...] = (),
        destination_paused: bool = True,
        incoming: str = "defer",
    ) -> None:
        """Starts both; returns once the guest works and beats."""
        self._settings = MachineSettings(
            workload=workload, memory_bytes=memory_bytes, accelerator=accelerator, extra_arguments=source_arguments
        )
        self.source = await self._machine(self._settings)
        await self.source.serial.wait_ready()
        self.destination = await self.waiting(
            paused=destination_paused, incoming=incoming, extra_arguments=destination_arguments
        )
        before = await migration_settings(self.source)
        other = before if self.launching else await migration_settings(self.destination)
        self._before = {"source": before, "destination": other}

    async def waiting(self, **changes: Any) -> Machine | LaunchedMachine:
        """Starts a QEMU that waits for the guest, or names the place where one is to be launched."""
        if self.launching:
            self._count += 1
            machine = LaunchedMachine(folder=self.folder, name=f"qemu{self._count}", heartbeat=self.heartbeat)
            return await self._stack.enter_async_context(machine)
        settings = {"incoming": "defer", "paused": True, **changes}
        return await self._machine(msgspec.structs.replace(self._settings, **settings))

    async def swap(self) -> None:
        """Makes the destination the source, and starts a new one that waits."""
        self.source = self.destination
        self.destination = await self.waiting()

    async def stop(self) -> None:
        """Ends all machines."""
        await self._stack.aclose()

    @property
    def shared_folder(self) -> Path:
        """Where both sides find the same files, under the same path."""
        return self.folder

    @property
    def source_address(self) -> str:
        """Where livemig finds the source."""
        return str(self.source.qmp_path)

    @property
    def destination_address(self) -> str:
        """Where livemig finds, or launches, the destination."""
        return str(self.destination.qmp_path)

    async def migrate(
        self, plan: livemig.Plan = QUICK, *, trace_path: Path | None = None, on_event: Any = None
    ) -> tuple[livemig.Report, list[Event]]:
        """Moves the guest through the library; `on_event(migration, event)` may act on each event."""
        seen: list[Event] = []
        async with livemig.migrate(
            plan, source=self.source_address, destination=self.destination_address, trace_path=trace_path
        ) as migration:
            async for event in migration:
                seen.append(event)
                if isinstance(event, DestinationLaunched):
                    await self.attach(expected=False)
                if on_event is not None:
                    on_event(migration, event)
        return migration.report, seen

    async def attach(self, *, expected: bool = True) -> None:
        """Takes hold of a destination that livemig has launched; in a run that fails at once it may be gone again."""
        assert isinstance(self.destination, LaunchedMachine)
        await (self.destination.attach() if expected else self.destination.attach_if_there())

    async def run(self, *options: str, **process_options: Any) -> tuple[int, list[dict[str, Any]], str]:
        """Moves the guest through the command line with ``--json``: exit code, lines, stderr."""
        process = await self.spawn_run(*options, **process_options)
        output, errors = await process.communicate()
        lines = [json.loads(line) for line in output.splitlines()]
        return process.returncode or 0, lines, errors.decode()

    async def spawn_run(self, *options: str, **process_options: Any) -> asyncio.subprocess.Process:
        """Starts ``livemig run --json``."""
        addresses = ("--src-qmp", self.source_address, "--dst-qmp", self.destination_address)
        return await spawn_livemig("run", "--json", *addresses, *options, **process_options)

    async def run_states(self) -> dict[str, str]:
        """Asks both by their second sockets; ``gone`` for a QEMU that has ended."""
        return {"source": await run_state(self.source), "destination": await run_state(self.destination)}

    async def assert_runs_only(self, side: str, state: str = "running") -> None:
        """Sees that the guest runs on one side alone, that its memory is right and its beats go on there."""
        states = await self.run_states()
        other = "destination" if side == "source" else "source"
        assert states[side] == state, states
        assert states[other] not in ("running", "suspended"), states
        if state == "running":
            machine: Machine | LaunchedMachine = getattr(self, side)
            beats = self.heartbeat.beat_count
            verdict = await machine.serial.ask_verdict()
            assert verdict.good, verdict
            await asyncio.sleep(0.05)
            assert self.heartbeat.beat_count > beats
        assert self.heartbeat.problems == [], self.heartbeat.problems
        gone: Machine | LaunchedMachine = getattr(self, other)
        if isinstance(gone, LaunchedMachine) and states[other] == "gone":
            assert gone.left_behind == []

    async def assert_settings_restored(self, *sides: str) -> None:
        """Sees that capabilities and parameters are what they were before."""
        for side in sides:
            assert await migration_settings(getattr(self, side)) == self._before[side], side

    async def _machine(self, settings: MachineSettings) -> Machine:
        self._count += 1
        machine = Machine(settings, folder=self.folder, name=f"qemu{self._count}", heartbeat=self.heartbeat)
        return await self._stack.enter_async_context(machine)


async def spawn_livemig(*arguments: str, **process_options: Any) -> asyncio.subprocess.Process:
    """Starts ``python -m livemig`` with its output piped."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "livemig",
        *arguments,
        **{
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
            "preexec_fn": mind_signals,
            **process_options,
        },
    )


def mind_signals() -> None:
    """Undoes what the tests may have been started with: under nohup, SIGHUP would be ignored, and rightly so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


async def livemig_output(*arguments: str) -> tuple[int, str, str]:
    """Runs ``python -m livemig`` to its end: exit code, stdout, stderr."""
    process = await spawn_livemig(*arguments)
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def run_state(machine: Machine | LaunchedMachine) -> str:
    """Asks a QEMU's run state by its second socket; ``gone`` when it has ended."""
    if machine.exit_code is not None:
        return "gone"
    try:
        async with await Monitor.connect(str(machine.spare_qmp_path), name="test") as monitor:
            return str(await monitor.query_status())
    except LivemigError:
        await asyncio.sleep(0.1)
        if machine.exit_code is not None:
            return "gone"
        raise


async def migration_settings(machine: Machine | LaunchedMachine) -> dict[str, Any]:
    """Reads a QEMU's migration capabilities and parameters."""
    async with await Monitor.connect(str(machine.spare_qmp_path), name="test") as monitor:
        capabilities = await monitor.execute("query-migrate-capabilities")
        return {
            "capabilities": {one["capability"]: one["state"] for one in capabilities},
            "parameters": await monitor.execute("query-migrate-parameters"),
        }
