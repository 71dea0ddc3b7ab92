"""``python -m livemig run`` as a process of its own, and what it costs: time, CPU, memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from livemig.core.errors import GuestError
from livemig.lab.machine import Machine

_POLL_S = 0.005
_CPU_CLOCK_OF_PROCESS = 2
"""The kernel's CPUCLOCK_SCHED: what ``clock_getcpuclockid`` asks for, and Python has no name of."""


def user_environment(folder: Path) -> dict[str, str]:
    """Returns the environment of a user's shell: without Python's own variables, and with compiled modules kept.

    A developer's or CI's shell may forbid to write compiled modules; each start would then compile livemig anew.

    Args:
        folder: Compiled modules are kept there, so that nothing is written into the tree.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def warm_up(folder: Path) -> None:
    """Has livemig compiled and read from disk once, by a run that is refused; as on any day but the first."""
    argv = [sys.executable, "-m", "livemig", "run", "--json", "--src-qmp", "/none/a", "--dst-qmp", "/none/b"]
    subprocess.run(argv, env=user_environment(folder), check=False, capture_output=True, stdin=subprocess.DEVNULL)


class LivemigRun:
    """A running ``livemig run --json``; use it as a context manager. It is killed when left early.

    Attributes:
        started_s: When it was started, monotonic.
        ended_s: When it had ended, monotonic; None before.
        cpu_s: The CPU time it took in all, in seconds; None before it ended.
        peak_memory_bytes: Its largest resident memory that was seen.
    """

    def __init__(self, source: Machine, destination: Machine, *options: str, folder: Path) -> None:
        """Starts it; what it prints goes to a file in the folder, which nobody needs to read meanwhile."""
        argv = [sys.executable, "-m", "livemig", "run", "--json"]
        argv += ["--src-qmp", str(source.qmp_path), "--dst-qmp", str(destination.qmp_path), *options]
        self.ended_s: float | None = None
        self.cpu_s: float | None = None
        self.peak_memory_bytes = 0
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def wait(self, *, sample_memory: bool = False) -> dict[str, Any]:
        """Waits for its end and returns its closing JSON object.

        Args:
            sample_memory: Look at its memory now and then; each look costs this process some CPU, not that one.

        Raises:
            GuestError: When it says nothing that can be read.
        """
        ended = asyncio.create_task(asyncio.to_thread(os.waitid, os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT))
        while not ended.done():
            if sample_memory:
                self.look_at_memory()
            await asyncio.wait([ended], timeout=0.1)
        self.ended_s = time.monotonic()
        self.cpu_s = self.cpu_so_far_s()
        self._process.wait()
        return self._closing_object()

    async def wait_line(self, event: str, *, timeout_s: float) -> None:
        """Waits until it has printed an event of a name.

        Raises:
            GuestError: When it does not within the bound, or ends before.
        """
        wanted = f'"event":"{event}"'.encode()
        end_s = time.monotonic() + timeout_s
        while wanted not in self._output_path.read_bytes():
            if time.monotonic() > end_s or self._ended():
                raise GuestError(f"livemig run printed no {event}: {self._quoted_output()}")
            await asyncio.sleep(_POLL_S)

    def cpu_so_far_s(self) -> float:
        """Returns the CPU time that it took so far, in seconds, to the nanosecond; also after its end.

        ``rusage`` is no substitute: where the kernel counts by ticks it is off by several per cent.
        """
        return time.clock_gettime((~self._process.pid << 3) | _CPU_CLOCK_OF_PROCESS)

    def look_at_memory(self) -> None:
        """Takes note of its largest resident memory so far; not ``rusage``, whose maximum counts the parent's in."""
        with contextlib.suppress(OSError, StopIteration):
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8", errors="replace")
            line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
            self.peak_memory_bytes = int(line.split()[1]) * 1024

    def _ended(self) -> bool:
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def _closing_object(self) -> dict[str, Any]:
        lines = self._output_path.read_bytes().splitlines()
        try:
            closing: dict[str, Any] = msgspec.json.decode(lines[-1])
        except (IndexError, msgspec.DecodeError) as error:
            raise GuestError(f"livemig run gave no closing object: {self._quoted_output()}") from error
        return closing

    def _quoted_output(self) -> str:
        return self._output_path.read_text(encoding="utf-8", errors="replace")[-500:].strip() or "it printed nothing"
