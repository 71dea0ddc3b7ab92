"""One trial: a guest moves between two real QEMUs by the command line, and something goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from livemig.cli.recover import recovered_line
from livemig.core.errors import GuestError, LivemigError
from livemig.core.evidence import Side
from livemig.engine.recovery import recover
from livemig.hosts import local
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Workload
from tests.engine.pair import MiB, Pair, mind_signals, run_state
from tests.faults.command_lines import Ended, finished, kill, run
from tests.faults.relay import LinkRelay, QmpRelay
from tests.faults.scenario import Fault, Scenario

GUEST = Workload(working_set_bytes=6 * MiB, dirty_rate_bytes_s=15 * MiB, fill_bytes=20 * MiB)
MEMORY_BYTES = 64 * MiB
RUN_BOUND_S = 90.0
RECOVERY_BOUND_S = 60.0
JOURNAL_DISK_BYTES = 2**20
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
"""The kernel's own: the pid that it gave out last. Only root may write it."""
SAME_PID_TRIES = 50
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Trial:
    """A trial under way, and what came of it.

    Attributes:
        scenario: What is to go wrong.
        pair: The two machines.
        struck: What went wrong in truth, in order.
        run: How the command line ended.
        recoveries: How each `recover` ended.
    """

    scenario: Scenario
    folder: Path
    pair: Pair = field(init=False)
    struck: list[str] = field(default_factory=list)
    run: Ended | None = None
    recoveries: list[Ended] = field(default_factory=list)
    ran_at_destination: bool = False
    source_completed: bool = False
    cont_passed: bool = False
    both_completed: bool = False
    stranger: Machine | None = None
    others: list[asyncio.subprocess.Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pair = Pair(self.folder, launching=self.scenario.launching)
        self.state = self.folder / "state"
        self.temporary = self.folder / "tmp"
        self._process: asyncio.subprocess.Process | None = None
        self._waiting = list(self.scenario.faults)
        self._completed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._healing: list[Callable[[], None]] = []
        self._engine_pid: int | None = None
        self._stack = contextlib.AsyncExitStack()
        self._journal_disk = any(fault.kind == "disk full" for fault in self.scenario.faults) and os.geteuid() == 0

    @property
    def environment(self) -> dict[str, str]:
        """Of the command lines of this trial."""
        return {
            **os.environ,
            "XDG_STATE_HOME": str(self.state),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
        }

    async def play(self) -> None:
        """Moves the guest, lets it go wrong, and has recovery finish what is left."""
        await self._set_up()
        self._process = await self.livemig(*self._run_arguments())
        for fault in tuple(self._waiting):
            if fault.point.endswith(" s"):
                self._waiting.remove(fault)
                self._later(fault, float(fault.point[:-2]))
        self.run = await finished(self._process, RUN_BOUND_S)
        if self.scenario.early_recovery:
            self.recoveries.append(await self.recover())
        await self._quiet()
        self.heal()
        await self._engine_gone()
        await self._settle_down()
        for _ in range(2 if self.scenario.seed % 4 == 0 else 1):
            self.recoveries.append(await self.recover())

    async def livemig(self, *arguments: str) -> asyncio.subprocess.Process:
        """Starts a command line."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.engine",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
            cwd=ROOT,
            preexec_fn=mind_signals,
            limit=2**22,
        )

    async def recover(self, run_id: str | None = None, fence: Side | None = None) -> Ended:
        """Has recovery finish what is left: by the command line in some trials, in this process in the others."""
        if self.scenario.seed % 5 == 0:
            options = [] if run_id is None else [run_id]
            options += [] if fence is None else ["--fence-confirmed", str(fence)]
            return await finished(await self.livemig("recover", "--json", *options), RECOVERY_BOUND_S)
        began_s = time.monotonic()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(self.state))
            patch.setattr(local, "holds_other_end", lambda *_: True)
            try:
                async with asyncio.timeout(RECOVERY_BOUND_S):
                    found = await recover(run_id, fence_confirmed=fence)
            except LivemigError as error:
                return Ended(2, [], str(error), time.monotonic() - began_s)
        lines = [json.loads(msgspec.json.encode(recovered_line(one))) for one in found]
        open_still = any(one.ending.left or one.ending.outcome == "unknown" for one in found)
        return Ended(4 if open_still else 0, lines, "", time.monotonic() - began_s)

    def heal(self) -> None:
        """Mends what can be mended: what was stopped goes on, ways are open again, the disk has room."""
        for mend in self._healing:
            with contextlib.suppress(OSError):
                mend()
        self._healing.clear()
        for relay in (self.source_relay, self.destination_relay, self.link):
            if relay is not None:
                relay.heal()

    async def states(self) -> dict[str, str]:
        """What both QEMUs say, ``gone`` where one has ended."""
        found = {}
        for name, machine in (("source", self.pair.source), ("destination", self.pair.destination)):
            try:
                found[name] = await run_state(machine)
            except LivemigError as error:
                found[name] = f"unreadable: {error}"
        return found

    async def close(self) -> None:
        """Ends everything."""
        self.heal()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self.others:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for pid in self.engines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._stack.aclose()
        if self.stranger is not None:
            await self.stranger.stop()
        await self.pair.stop()
        for pid in self._qemus():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._journal_disk:
            await run("umount", "-l", str(self.state))

    def engines(self) -> list[int]:
        """The livemig processes of this trial, by their environment."""
        wanted, found = f"XDG_STATE_HOME={self.state}".encode(), []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    wanted in (entry / "environ").read_bytes()
                    and b"tests.faults.engine" in (entry / "cmdline").read_bytes()
                ):
                    found.append(int(entry.name))
        return found

    def _qemus(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if b"qemu-system" in line and os.fsencode(f"{self.folder}/") in line:
                    found.append(int(entry.name))
        return found

    async def _set_up(self) -> None:
        for folder in (self.state, self.temporary):
            folder.mkdir()
        if self._journal_disk:
            await run("mount", "-t", "tmpfs", "-o", f"size={JOURNAL_DISK_BYTES},mode=0700", "none", str(self.state))
        await self.pair.start(GUEST, memory_bytes=MEMORY_BYTES)
        if self.scenario.launching:
            self._spawn(self._listen())
        self.source_relay: QmpRelay = await self._relay("source")
        self.destination_relay: QmpRelay | None = None
        self.link: LinkRelay | None = None
        if not self.scenario.launching:
            self.destination_relay = await self._relay("destination")
            self.link = await self._stack.enter_async_context(LinkRelay(self.folder / "link"))
            self.source_relay.rewrite = self.link.redirect

    async def _listen(self) -> None:
        """Hears a launched destination's guest from the start."""
        machine = self.pair.destination
        while not machine.serial.path.exists():
            await asyncio.sleep(0.01)
        with contextlib.suppress(GuestError, OSError):
            await machine.serial.connect()

    async def _relay(self, name: str) -> QmpRelay:
        machine: Machine | LaunchedMachine = getattr(self.pair, name)
        relay = QmpRelay(
            self.folder / f"{name}.relay", machine.qmp_path, lambda point: self._reached(f"{name} {point}")
        )
        return await self._stack.enter_async_context(relay)

    def _run_arguments(self) -> list[str]:
        destination = self.pair.destination.qmp_path
        if self.destination_relay is not None:
            destination = self.destination_relay.path
        arguments = ["run", "--json", "--src-qmp", str(self.source_relay.path), "--dst-qmp", str(destination)]
        arguments += ["--probation", "150ms", "--downtime-limit", "200ms"]
        if self.scenario.bandwidth is not None:
            arguments += ["--bandwidth", self.scenario.bandwidth]
        return arguments

    def _reached(self, point: str) -> None:
        """Takes note of the truth, and strikes if it is time."""
        match point:
            case "source <MIGRATION:completed":
                self.source_completed = True
            case "destination <RESUME":
                self.ran_at_destination = True
            case "destination >cont":
                self.cont_passed = True
            case _:
                pass
        completed = {"source <MIGRATION:completed", "destination <MIGRATION:completed"}
        self._completed |= completed & {point}
        self.both_completed = self._completed == completed
        for fault in tuple(self._waiting):
            if fault.point == point:
                self._waiting.remove(fault)
                if fault.after_s:
                    self._later(fault, fault.after_s)
                else:
                    self._strike(fault)

    def _later(self, fault: Fault, delay_s: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(delay_s)
            self._strike(fault)

        self._spawn(wait())

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _strike(self, fault: Fault) -> None:
        """Does harm; what is killed is dead when this returns, so that the moment is exact."""
        assert self._process is not None
        if self._process.returncode is not None:
            return
        self.struck.append(str(fault))
        what, _, side = fault.kind.partition(" of ")
        relay = {"source": self.source_relay, "destination": self.destination_relay}.get(side)
        match what:
            case "kill engine":
                kill(*self._engine())
            case "kill parent":
                kill(self._process.pid)
            case "kill both":
                kill(self._process.pid, *self._engine())
            case "kill source":
                kill(self.pair.source.pid)
            case "kill destination":
                kill(self.pair.destination.pid)
            case "stop source":
                self._stop(fault, self.pair.source.pid)
            case "stop destination":
                self._stop(fault, self.pair.destination.pid)
            case "stop engine":
                for pid in self._engine():
                    self._stop(fault, pid)
            case "cut link" if self.link is not None:
                self.link.cut()
            case "hole link" if self.link is not None:
                self.link.hole()
            case "cut qmp" if relay is not None:
                relay.cut()
            case "hole qmp" if relay is not None:
                relay.hole()
            case "delay qmp" if relay is not None:
                relay.delay_s = 0.02 + 0.4 * fault.number
            case "lose event" if relay is not None:
                relay.lose_events += 1 + int(fault.number * 2)
            case "double event" if relay is not None:
                relay.double_events += 1 + int(fault.number * 20)
            case "clock" if relay is not None:
                relay.clock_shift_s = 7200 * (fault.number - 0.5)
            case "cancel":
                self._spawn(self._cancel())
            case "second livemig":
                self._spawn(self._second())
            case "power off" | "reset":
                letter = b"p" if what == "power off" else b"r"
                for machine in (self.pair.source, self.pair.destination):
                    with contextlib.suppress(Exception):
                        machine.serial.send(letter)
            case "disk full" if self._journal_disk:
                self._fill()
            case "stranger at destination":
                self._spawn(self._strange(self.pair.destination))
            case "stranger at source":
                self._spawn(self._strange(self.pair.source))
            case "stranger with its pid at destination":
                self._spawn(self._strange(self.pair.destination, same_pid=True))
            case "stranger with its pid at source":
                self._spawn(self._strange(self.pair.source, same_pid=True))
            case _ if fault.kind.startswith("error from"):
                side = fault.kind.rpartition(" ")[2]
                wrong = self.source_relay if side == "source" else self.destination_relay
                if wrong is not None:
                    wrong.refuse += 1 + int(fault.number * 2)
            case "clock of source jumps" | "clock of destination jumps":
                pass
            case _:
                self.struck[-1] += " (in vain)"

    def _engine(self) -> list[int]:
        assert self._process is not None
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError):
            return [int(pid) for pid in path.read_text().split()]
        return []

    def _stop(self, fault: Fault, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)

            def go_on() -> None:
                os.kill(pid, signal.SIGCONT)

            self._healing.append(go_on)
            asyncio.get_running_loop().call_later(fault.duration_s, self._quietly, go_on)

    def _quietly(self, action: Callable[[], None]) -> None:
        if action in self._healing:
            self._healing.remove(action)
            with contextlib.suppress(OSError):
                action()

    def _fill(self) -> None:
        path = self.state / "ballast"
        with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
            while True:
                file.write(b"x")
        self._healing.append(lambda: path.unlink(missing_ok=True))

    async def _cancel(self) -> None:
        process = await self.livemig("status", "--json")
        found = await finished(process, RECOVERY_BOUND_S)
        for line in found.lines:
            await finished(await self.livemig("cancel", line["id"]), RECOVERY_BOUND_S)

    async def _second(self) -> None:
        """Another livemig wants the same guest, by the QEMU's other monitor; if it is let, it gives up at once."""
        arguments = ["run", "--json", "--src-qmp", str(self.pair.source.spare_qmp_path)]
        arguments += ["--dst-qmp", str(self.folder / "nobody.qmp"), "--deadline", "10ms"]
        process = await self.livemig(*arguments)
        self.others.append(process)
        found = await finished(process, RUN_BOUND_S)
        self.struck.append(f"the second ended with {found.code}: {found.errors.strip()[-200:]}")
        self.second = found

    async def _strange(self, machine: Machine | LaunchedMachine, *, same_pid: bool = False) -> None:
        """That QEMU dies, and another one, with a guest of its own, takes its place at the same socket.

        With the same pid it may be too: the kernel gives out the next free one, and it can be told where to begin.
        """
        pid = machine.pid
        kill(pid)
        if not isinstance(machine, Machine):
            return
        await machine.stop()
        settings = MachineSettings(workload=Workload(working_set_bytes=MiB), memory_bytes=32 * MiB)
        name = machine.qmp_path.name.removesuffix(".qmp")
        for _ in range(SAME_PID_TRIES if same_pid else 1):
            self.stranger = Machine(settings, folder=self.folder, name=name)
            if same_pid:
                LAST_PID.write_text(str(pid - 1))
            await self.stranger.start()
            if not same_pid or self.stranger.pid == pid:
                return
            await self.stranger.stop()  # somebody else on this machine was quicker
        raise AssertionError(f"a new process never got the pid {pid}")

    async def _quiet(self) -> None:
        """Waits for what still is to strike or to end."""
        tasks = [task for task in self._tasks if not task.done() and "_listen" not in repr(task)]
        if tasks:
            await asyncio.wait(tasks, timeout=RUN_BOUND_S)

    async def _engine_gone(self) -> None:
        """An engine whose command line was killed goes on for a while."""
        end_s = time.monotonic() + RUN_BOUND_S
        while self.engines():
            if time.monotonic() > end_s:
                raise AssertionError("an engine did not end")
            await asyncio.sleep(0.05)

    async def _settle_down(self) -> None:
        """What was stopped a moment ago has to answer again first; a process that was killed has to be gone."""
        for machine in (self.pair.source, self.pair.destination):
            for _ in range(100):
                with contextlib.suppress(LivemigError):
                    await run_state(machine)
                    break
                await asyncio.sleep(0.1)
