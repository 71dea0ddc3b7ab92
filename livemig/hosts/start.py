"""Starts a program of this machine that outlives livemig, in surroundings taken from another process.

The pid is the program's from the start: a small program of livemig's takes on the surroundings and becomes it. Where
systemd runs, it gets a scope of its own, so that it doesn't end with livemig's service or session.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import msgspec

from livemig.hosts.local import LocalProcess
from livemig.hosts.process import Surroundings, systemd_runs

_BECOME = Path(__file__).with_name("become.py")
_KILL_BOUND_S = 5.0


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What is to run.

    Attributes:
        executable: Path of the program's file.
        argv: Its command line, its name first.
        surroundings: What it runs in.
    """

    executable: str
    argv: tuple[str, ...]
    surroundings: Surroundings


class StartedProcess:
    """A process that livemig started; letting go of it leaves it running.

    Attributes:
        process: The process, held by pidfd.
        exit_code: What it ended with, negative for a signal; None while it runs.
    """

    def __init__(self, pid: int) -> None:
        """Takes hold of a child of livemig's that was not waited for yet, so that its pid can't be another's."""
        self.process = LocalProcess(pid)
        self.exit_code: int | None = None

    async def wait_ended(self, timeout_s: float) -> bool:
        """Waits until it has ended; returns whether it has within the bound."""
        if not await self.process.wait_gone(timeout_s):
            return False
        self._reap()
        return True

    async def kill(self) -> bool:
        """Kills it and waits; returns whether it is gone."""
        self.process.kill()
        return await self.wait_ended(_KILL_BOUND_S)

    def close(self) -> None:
        """Lets go of it."""
        self._reap()
        self.process.close()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.process.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)


def start(program: Program, *, stderr_path: Path) -> StartedProcess:
    """Starts a program; whether it could become it shows in its exit code and what it wrote.

    Its standard input and output are /dev/null, its standard error the file, which it appends to.

    Raises:
        OSError: When not even livemig's own part of it can be started.
    """
    surroundings = msgspec.to_builtins(program.surroundings)
    what = {**surroundings, "executable": program.executable, "argv": program.argv}
    told = os.memfd_create("livemig")
    written = os.open(stderr_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(os.dup(told), "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(what, file)
        os.lseek(told, 0, os.SEEK_SET)
        command = [*scope_prefix(), sys.executable, "-I", "-S", str(_BECOME)]
        pid = _spawn(command, told, written)
    finally:
        os.close(told)
        os.close(written)
    return StartedProcess(pid)


def scope_prefix() -> list[str]:
    """What puts a command into a systemd scope of its own without another pid; nothing where systemd doesn't run."""
    if not systemd_runs():
        return []
    tool = shutil.which("systemd-run")
    if tool is None or (os.geteuid() != 0 and "XDG_RUNTIME_DIR" not in os.environ):
        return []
    user = [] if os.geteuid() == 0 else ["--user"]
    return [tool, *user, "--scope", "--quiet", "--collect", "--"]


def _spawn(command: list[str], told: int, written: int) -> int:
    return os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, told, 0),
            (os.POSIX_SPAWN_DUP2, written, 1),
            (os.POSIX_SPAWN_DUP2, written, 2),
        ],
        setsid=True,
        setsigmask=(),
    )
