"""A guest on host A of the lab, and host B where livemig launches its destination: what these tests move it between."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import livemig
from livemig.core.event import DestinationLaunched, Event
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.serial import SerialLine
from livemig.lab.two_hosts import Host, Namespace, TwoHosts
from livemig.lab.two_hosts.namespaces import run as run_command
from livemig.lab.two_hosts.qemu import qemu_in
from livemig.lab.workload import Workload
from tests.engine.pair import IDLE, MiB, run_state, spawn_livemig

QUICK = livemig.Plan(probation_s=0.1, downtime_limit_s=1.0, keep_trying=True)


class Between:
    """Two hosts, a guest on the first.

    Attributes:
        lab: The hosts.
        source: The machine whose guest is to move.
        destination: The place where livemig launches the other.
        heartbeat: What is heard of the guest on both serial lines.
    """

    def __init__(self, lab: TwoHosts) -> None:
        self.lab = lab
        self.heartbeat = Heartbeat()
        self.source: Machine
        self.destination = self._place(lab.b)
        self._stack = AsyncExitStack()
        self._run_ids: list[str] = []

    async def start(
        self, workload: Workload = IDLE, *arguments: str, memory_bytes: int = 128 * MiB, accelerator: str = "tcg"
    ) -> None:
        """Starts the source; returns once the guest works and beats."""
        host = self.lab.a
        settings = MachineSettings(
            workload=workload,
            memory_bytes=memory_bytes,
            accelerator=accelerator,
            binary=qemu_in(host),
            extra_arguments=arguments,
        )
        machine = Machine(settings, folder=host.private_folder_outside, name="vm", heartbeat=self.heartbeat)
        self.source = await self._stack.enter_async_context(machine)
        await self.source.serial.wait_ready()

    async def put_over(self, host: Host, path: str, text: str, *, mode: int = 0o644) -> None:
        """Has a host, and nobody else, see another file at a path, for as long as the lab is up."""
        made = self.lab.folder / f"{host.name}{path.replace('/', '-')}"
        made.write_text(text)
        made.chmod(mode)
        await run_command(*host.argv("mount", "--bind", str(made), path))

    async def give_own_kernel(self, host: Host) -> None:
        """Has a host look like another machine: numbers of devices and inodes prove nothing there any more."""
        await self.put_over(host, "/proc/sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")
        await self.put_over(host, "/etc/machine-id", f"{uuid.uuid4().hex}\n")

    def address(self, host: Host, name: str | None = None) -> str:
        """The address of the guest's monitor at a host."""
        return f"ssh://{name or host.name}{host.private_folder}/vm.qmp"

    async def migrate(
        self,
        plan: livemig.Plan = QUICK,
        *,
        on_event: Any = None,
        trace_path: Path | None = None,
        source: str = "",
        destination: str = "",
    ) -> tuple[livemig.Report, list[Event]]:
        """Moves the guest through the library; `on_event(migration, event)` may act on each event."""
        seen: list[Event] = []
        migrating = livemig.migrate(
            plan,
            source=source or self.address(self.lab.a),
            destination=destination or self.address(self.lab.b),
            trace_path=trace_path,
        )
        self._run_ids.append(migrating.id)
        async with migrating as migration:
            async for event in migration:
                seen.append(event)
                if isinstance(event, DestinationLaunched):
                    await self.destination.stop()
                    self.destination = self._place(self.lab.b)
                    await self.destination.attach_if_there()
                if on_event is not None:
                    on_event(migration, event)
        return migration.report, seen

    async def run(
        self, *options: str, verb: str = "run", source: str = "", destination: str = "", host: Namespace | None = None
    ) -> tuple[int, list[dict[str, Any]], str]:
        """Runs the command line with ``--json``, on this machine or in a namespace: exit code, lines, stderr."""
        addresses = (
            "--src-qmp",
            source or self.address(self.lab.a),
            "--dst-qmp",
            destination or self.address(self.lab.b),
        )
        environment = {**os.environ, "HOME": str(self.lab.home_folder)}
        arguments = (verb, "--json", *addresses, *options)
        if host is None:
            process = await spawn_livemig(*arguments, env=environment)
        else:
            command = host.argv("env", f"PYTHONPATH={Path.cwd()}", sys.executable, "-m", "livemig", *arguments)
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        output, errors = await process.communicate()
        lines = [json.loads(line) for line in output.splitlines()]
        self._run_ids += [line["id"] for line in lines if "id" in line]
        return process.returncode or 0, lines, errors.decode()

    async def assert_arrived(self) -> None:
        """The guest runs at the destination alone, its memory as it wrote it, and goes on beating."""
        if not self.destination.left_behind or self.destination.exit_code is None:
            await self._attach()
        assert await run_state(self.source) == "gone"
        assert await run_state(self.destination) == "running"
        verdict = await self.destination.serial.ask_verdict()
        assert verdict.good, verdict
        assert self.heartbeat.problems == []
        assert self.leftovers() == []

    async def assert_stayed(self) -> None:
        """The guest runs at the source as before; nothing of a destination is left on the other host."""
        assert await run_state(self.source) == "running"
        verdict = await self.source.serial.ask_verdict()
        assert verdict.good, verdict
        assert self.heartbeat.problems == []
        assert self.destination.left_behind == [], self.destination.left_behind
        assert self.leftovers() == []

    async def _attach(self) -> None:
        try:
            _ = self.destination.pid
        except livemig.LivemigError:
            await self.destination.attach()

    def leftovers(self) -> list[Path]:
        """Folders of keys and sockets of this guest's runs; both hosts see this machine's /tmp."""
        return [path for run_id in self._run_ids for path in Path("/tmp").glob(f"livemig-{run_id}*")]

    async def stop(self) -> None:
        """Ends all machines."""
        await self.destination.stop()
        await self._stack.aclose()

    def _place(self, host: Host) -> LaunchedMachine:
        """Between hosts a socket keeps its path: the serial line too."""
        place = LaunchedMachine(folder=host.private_folder_outside, name="vm", heartbeat=self.heartbeat)
        serial_path = host.private_folder_outside / "vm.serial"
        place.serial = SerialLine(serial_path, name=f"vm on {host.name}", heartbeat=self.heartbeat)
        return place
