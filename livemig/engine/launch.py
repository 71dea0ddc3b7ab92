"""Launches the destination as `livemig.engine.launch_plan` says.

After a failure what was launched is gone again, with all its files; otherwise it outlives livemig.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import msgspec

from livemig.core.errors import ConnectError, LaunchError, LivemigError
from livemig.core.status import RunState
from livemig.engine.launch_plan import MARKER, LaunchPlan, listened_at, remove_folder
from livemig.hosts.confinement import not_taken_over
from livemig.hosts.local import LocalProcess
from livemig.hosts.process import read_process
from livemig.hosts.start import StartedProcess, start
from livemig.qemu.address import Address
from livemig.qemu.command_line import (
    redacted_text,
)
from livemig.qemu.monitor import Monitor

ANSWER_BOUND_S = 60.0
"""How long a QEMU may take to answer: one that preallocates a large memory takes its time."""
STDERR_QUOTED_BYTES = 2000


class Launched:
    """A QEMU that livemig launched, waiting for the guest. It goes on when livemig ends.

    Attributes:
        plan: What it was launched by; its warnings now also name what it could not take over from the source.
    """

    def __init__(self, plan: LaunchPlan, started: StartedProcess) -> None:
        """Takes hold of it."""
        self.plan = plan
        self._started = started

    @property
    def process(self) -> LocalProcess:
        """Its process."""
        return self._started.process

    @property
    def address(self) -> Address:
        """Its monitor's address."""
        return Address(path=str(self.plan.qmp_path))

    @property
    def stderr(self) -> str:
        """The end of what it wrote, without secrets: the true reason of most failures."""
        return _quoted(self.plan)

    async def end(self) -> bool:
        """Kills it and removes all its files; returns whether it is gone. For refusals and failures only."""
        gone = await self._started.kill()
        if gone:
            _remove_files(self.plan)
        self._started.close()
        return gone

    def close(self) -> None:
        """Lets go of it: it is the guest's QEMU now."""
        self._started.close()


async def launch(plan: LaunchPlan, *, timeout_s: float = ANSWER_BOUND_S) -> Launched:
    """Starts the QEMU and returns once its monitor answers and it waits for the guest.

    Raises:
        LaunchError: When it ends at once, does not answer within the bound, or can't be started. Nothing is left of it.
    """
    _make_folder(plan)
    try:
        started = start(plan.program, stderr_path=plan.stderr_path)
    except OSError as error:
        _remove_files(plan)
        raise LaunchError(
            f"the destination can't be started: {error}", command=plan.command, exit_code=None, stderr=""
        ) from error
    launched = Launched(plan, started)
    try:
        await _wait_ready(launched, started, timeout_s)
    except BaseException:
        await asyncio.shield(launched.end())
        raise
    launched.plan = msgspec.structs.replace(plan, warnings=(*plan.warnings, *_not_taken_over(plan, launched.process)))
    return launched


def _not_taken_over(plan: LaunchPlan, process: LocalProcess) -> tuple[str, ...]:
    """What of the source's surroundings the kernel did not grant, seen at the running process."""
    if plan.source_pid is None:
        return ()
    try:
        wanted, found = (read_process(pid).surroundings for pid in (plan.source_pid, process.pid))
    except OSError:
        return ()
    names = {
        "cpus": "processors (affinity)",
        "nice": "nice value",
        "scheduling": "scheduling class",
        "oom_score_adj": "oom_score_adj",
    }
    differing = tuple(text for name, text in names.items() if getattr(wanted, name) != getattr(found, name))
    return not_taken_over(plan.source_pid, process.pid, differing)


def _make_folder(plan: LaunchPlan) -> None:
    try:
        remove_folder(plan.folder)
        plan.folder.mkdir(mode=0o700)
        (plan.folder / MARKER).touch()
        plan.stderr_path.touch(mode=0o600)
        if plan.owner[0] != os.geteuid():
            for path in (plan.folder, plan.stderr_path):
                os.chown(path, *plan.owner)
    except OSError as error:
        _remove_files(plan)
        raise LaunchError(
            f"no folder for the destination: {error}", command=plan.command, exit_code=None, stderr=""
        ) from error


def _remove_files(plan: LaunchPlan) -> None:
    remove_folder(plan.folder)
    with contextlib.suppress(OSError):
        if plan.qmp_path.is_socket() and not listened_at(plan.qmp_path):
            plan.qmp_path.unlink()


async def _wait_ready(launched: Launched, started: StartedProcess, timeout_s: float) -> None:
    answering = asyncio.create_task(_ask_state(launched.address, timeout_s))
    ended = asyncio.create_task(started.wait_ended(timeout_s + 1))
    try:
        await asyncio.wait((answering, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and answering.exception() is not None:
            await asyncio.wait((ended,), timeout=0.2)  # its last words come with its end
        if ended.done():
            raise _error(launched, f"the destination ended at once with code {started.exit_code}", started.exit_code)
        state = answering.result()
    except (ConnectError, TimeoutError) as error:
        raise _error(launched, f"the destination does not answer within {timeout_s:g} s ({error})") from error
    except LivemigError as error:
        if isinstance(error, LaunchError):
            raise
        raise _error(launched, f"the destination does not answer as a QEMU does ({error})") from error
    finally:
        await _cancelled(answering, ended)
    if state is not RunState.INMIGRATE:
        raise _error(launched, f"the destination is {state}, not waiting for a migration")


async def _ask_state(address: Address, timeout_s: float) -> RunState:
    monitor = await Monitor.connect(address, name="destination", timeout_s=timeout_s, starting=True)
    try:
        return await monitor.query_status()
    finally:
        await monitor.close()


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _error(launched: Launched, message: str, exit_code: int | None = None) -> LaunchError:
    words = launched.stderr
    text = f"{message}; it wrote: {words}" if words else f"{message}; it wrote nothing"
    return LaunchError(text, command=launched.plan.command, exit_code=exit_code, stderr=words)


def _quoted(plan: LaunchPlan) -> str:
    try:
        written = plan.stderr_path.read_bytes()
    except OSError:
        return ""
    text = redacted_text(written.decode("utf-8", "replace"), plan.secrets).strip()
    return text[-STDERR_QUOTED_BYTES:]
