"""``python -m livemig run`` as a process of its own, and what it costs: time, CPU, memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from livemig.core.errors import GuestError
from livemig.hosts.local import LocalProcess
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine

_POLL_S = 0.01
_TAIL_BYTES = 8192
_PATHS = ("PYTHONPATH", "PYTHONHOME")
_CPU_CLOCK_OF_PROCESS = 2
"""The kernel's CPUCLOCK_SCHED: what ``clock_getcpuclockid`` asks for, and Python has no name of."""


def user_environment(folder: Path) -> dict[str, str]:
    """Returns the environment of a user's shell: without Python's own settings, and with compiled modules kept.

    A developer's or CI's shell may forbid to write compiled modules; each start would then compile livemig anew. What
    livemig learned on this machine before is not taken: with a history it lets a slot go without the cap, say.

    Args:
        folder: Compiled modules and what livemig keeps go there, so that nothing is written into the tree.
    """
    kept = {name: value for name, value in os.environ.items() if name in _PATHS or not name.startswith("PYTHON")}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "XDG_STATE_HOME": str(folder / "state")}


def warm_up(folder: Path) -> None:
    """Has livemig compiled and read from disk once, by a run that is refused; as on any day but the first."""
    for arguments in (("--help",), ("run", "--json", "--src-qmp", "/none/a", "--dst-qmp", "/none/b")):
        argv = (sys.executable, "-m", "livemig", *arguments)
        subprocess.run(argv, env=user_environment(folder), check=False, capture_output=True, stdin=subprocess.DEVNULL)


def _cpu_s(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK_OF_PROCESS)


def _held_bytes(pid: int) -> int:
    """A process's share of the memory it has: what it alone has, and its part of what it shares."""
    with contextlib.suppress(OSError, StopIteration):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8", errors="replace")
        return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1]) * 1024
    return 0


class LivemigRun:
    """A running ``livemig run --json``; use it as a context manager. It is killed when left early.

    Attributes:
        started_s: When it was started, monotonic.
        ended_s: When it had ended, monotonic; None before.
        cpu_s: The CPU time it took in all, in seconds, but for the last hundredth of its engine; None before it ended.
        peak_memory_bytes: The most memory that it was seen to hold, its engine with its parent.
    """

    def __init__(
        self, source: Machine | LaunchedMachine, destination: Machine | LaunchedMachine, *options: str, folder: Path
    ) -> None:
        """Starts it; what it prints goes to a file in the folder, which nobody needs to read meanwhile."""
        argv = [sys.executable, "-m", "livemig", "run", "--json"]
        argv += ["--src-qmp", str(source.qmp_path), "--dst-qmp", str(destination.qmp_path), *options]
        self.ended_s: float | None = None
        self.cpu_s: float | None = None
        self.peak_memory_bytes = 0
        self._engine_cpu_s = 0.0
        self._output_path = folder / "run.jsonl"
        environment = user_environment(folder)
        with self._output_path.open("wb") as output:
            self.started_s = time.monotonic()
            self._process = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the benchmark to answer
            )

        self._held = LocalProcess(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._held.close()

    async def wait(self, *, timeout_s: float) -> dict[str, Any]:
        """Waits for its end and returns its closing JSON object.

        Raises:
            GuestError: When it does not end within the bound, or says nothing that can be read.
        """
        end_s = time.monotonic() + timeout_s
        while not await self._held.wait_gone(_POLL_S):
            self.cpu_so_far_s()  # the engine's can't be asked for once it has ended
            if time.monotonic() > end_s:
                raise GuestError(f"livemig run did not end within {timeout_s:g} s: {self._quoted_output()}")
        self.ended_s = time.monotonic()
        self.cpu_s = self.cpu_so_far_s()
        self._process.wait()
        return self._closing_object()

    async def wait_printed(self, event: str, *, timeout_s: float) -> None:
        """Waits until an event of a name is among the last lines that it has printed; looks at its memory meanwhile.

        Raises:
            GuestError: When it is not within the bound, or livemig ends before.
        """
        wanted = f'"event":"{event}"'.encode()
        end_s = time.monotonic() + timeout_s
        while wanted not in self._tail():
            self._look_at_memory()
            if time.monotonic() > end_s or not self._held.alive:
                raise GuestError(f"livemig run printed no {event}: {self._quoted_output()}")
            await asyncio.sleep(_POLL_S)

    @property
    def run_id(self) -> str:
        """The run's id, which it prints first.

        Raises:
            GuestError: When it has printed nothing yet.
        """
        try:
            first: dict[str, Any] = msgspec.json.decode(self._output_path.read_bytes().splitlines()[0])
        except (IndexError, msgspec.DecodeError) as error:
            raise GuestError(f"livemig run gave no id: {self._quoted_output()}") from error
        return str(first["id"])

    def kill_engine(self) -> None:
        """Kills the child that does the work: its parent recovers."""
        for pid in self._engines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kills it and its engine, the parent first, and waits for their end: nobody recovers."""
        engines = self._engines()
        self._process.kill()
        for pid in engines:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def cpu_so_far_s(self) -> float:
        """Returns the CPU time that it took so far, in seconds, to the nanosecond; also after its end.

        ``rusage`` is no substitute: where the kernel counts by ticks it is off by several per cent.
        """
        for pid in self._engines():
            with contextlib.suppress(OSError):
                self._engine_cpu_s = _cpu_s(pid)
        return _cpu_s(self._process.pid) + self._engine_cpu_s

    def _engines(self) -> list[int]:
        """The child that does the work, while it lives."""
        with contextlib.suppress(OSError):
            path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            return [int(pid) for pid in path.read_text(encoding="ascii").split()]
        return []

    def _look_at_memory(self) -> None:
        """Takes note of the most memory that both processes have held so far; what they share counts once."""
        held_bytes = sum(_held_bytes(pid) for pid in (self._process.pid, *self._engines()))
        self.peak_memory_bytes = max(self.peak_memory_bytes, held_bytes)

    def _tail(self) -> bytes:
        with self._output_path.open("rb") as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return output.read()

    def _closing_object(self) -> dict[str, Any]:
        lines = self._output_path.read_bytes().splitlines()
        try:
            closing: dict[str, Any] = msgspec.json.decode(lines[-1])
        except (IndexError, msgspec.DecodeError) as error:
            raise GuestError(f"livemig run gave no closing object: {self._quoted_output()}") from error
        return closing

    def _quoted_output(self) -> str:
        return self._output_path.read_text(encoding="utf-8", errors="replace")[-500:].strip() or "it printed nothing"
