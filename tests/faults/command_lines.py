"""Command lines of livemig's and the system's: started, waited for within a bound, killed for good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Ended:
    """A command that ran to its end."""

    code: int
    lines: list[dict[str, Any]]
    errors: str
    duration_s: float

    @property
    def last(self) -> dict[str, Any]:
        """The closing object; empty when there is none."""
        return self.lines[-1] if self.lines else {}


async def finished(process: asyncio.subprocess.Process, bound_s: float) -> Ended:
    """Waits for a command line's end, its engine's too."""
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(bound_s):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        raise AssertionError(f"a command did not end within {bound_s} s") from None
    lines = []
    for line in output.splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return Ended(process.returncode or 0, lines, errors.decode(), time.monotonic() - began_s)


def kill(*pids: int) -> None:
    """Kills processes, and returns when they run no more."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in pids:
        while _runs(pid):
            time.sleep(0.001)


def _runs(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


async def run(*argv: str) -> None:
    """Runs a command that must not fail."""
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0, argv
