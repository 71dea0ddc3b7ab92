"""Launches the destination as `livemig.engine.launch_plan` says.

After a failure what was launched is gone again, with all its files; otherwise it outlives livemig.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from livemig.core.errors import ConnectError, HostError, LaunchError, LivemigError, RefusedError
from livemig.core.status import RunState
from livemig.engine.launch_plan import LaunchPlan
from livemig.hosts.confinement import not_taken_over
from livemig.hosts.host import Host, HostProcess, StartedProgram
from livemig.qemu.address import Address
from livemig.qemu.command_line import redacted_text
from livemig.qemu.monitor import Monitor

ANSWER_BOUND_S = 60.0
"""How long a QEMU may take to answer: one that preallocates a large memory takes its time."""
STDERR_READ_BYTES = 65536
STDERR_QUOTED_BYTES = 2000


class Launched:
    """A QEMU that livemig launched, waiting for the guest. It goes on when livemig ends.

    Attributes:
        plan: What it was launched by; its warnings now also name what it could not take over from the source.
        started: The program that was started.
    """

    def __init__(self, plan: LaunchPlan, started: StartedProgram, run_id: str = "") -> None:
        """Takes hold of it."""
        self.plan = plan
        self._run_id = run_id
        self.started = started

    @property
    def process(self) -> HostProcess:
        """Its process."""
        return self.started.process

    @property
    def address(self) -> Address:
        """Its monitor's address."""
        return self.plan.address

    async def read_stderr(self) -> str:
        """Returns the end of what it wrote, without secrets: the true reason of most failures."""
        return await _read_stderr(self.plan)

    async def end(self) -> bool:
        """Kills it and removes all its files; returns whether it is gone. For refusals and failures only."""
        gone = await self.started.kill()
        if gone:
            await _remove_files(self.plan, self._run_id)
        self.started.close()
        return gone

    async def end_or_say(self) -> list[str]:
        """The same; returns what may be left of it, one line each. Raises nothing of the host's."""
        try:
            gone, reason = await self.end(), "its end could not be seen"
        except HostError as error:
            gone, reason = False, str(error)
        return [] if gone else [_may_be_left(self.plan, self._run_id, reason)]

    async def release_folder(self) -> None:
        """Lets other livemigs look for a QEMU at its address again: it is locked by now. Raises nothing."""
        await self.plan.host.release_launch_folder(self.plan.folder)

    def close(self) -> None:
        """Lets go of it: it is the guest's QEMU now."""
        self.started.close()


async def launch(
    plan: LaunchPlan,
    *,
    run_id: str = "",
    timeout_s: float = ANSWER_BOUND_S,
    on_started: Callable[[Host, HostProcess], Awaitable[None]] | None = None,
    left: list[str] | None = None,
) -> Launched:
    """Starts the QEMU and returns once its monitor answers and it waits for the guest.

    Args:
        plan: What is to be launched, and how.
        run_id: The run that it is for.
        timeout_s: How long it may take to answer.
        on_started: Told of its process as soon as there is one; what that raises ends it.
        left: Is added what could not be taken back after a failure, one line each.

    Raises:
        RefusedError: When another livemig launches at the same path. Nothing was touched.
        LaunchError: When it ends at once, does not answer within the bound, or can't be started. Nothing is left
            of it, but for what `left` says.
    """
    launched = await _begun(plan, run_id, left)
    try:
        if on_started is not None:
            await on_started(plan.host, launched.process)
        await _wait_ready(launched, timeout_s)
        lost = await _not_taken_over(plan, launched)
    except BaseException:
        found = await asyncio.shield(launched.end_or_say())
        if left is not None:
            left += found
        raise
    launched.plan = msgspec.structs.replace(plan, warnings=(*plan.warnings, *lost))
    return launched


async def _begun(plan: LaunchPlan, run_id: str, left: list[str] | None) -> Launched:
    """Makes the folder and starts the QEMU. A cancel waits for both: what a host was told it does, heard or not."""
    beginning = asyncio.ensure_future(_begin(plan, run_id))
    try:
        return await asyncio.shield(beginning)
    except asyncio.CancelledError:
        found = await asyncio.shield(_taken_back(beginning, plan, run_id))
        if left is not None:
            left += found
        raise


async def _taken_back(beginning: asyncio.Future[Launched], plan: LaunchPlan, run_id: str) -> list[str]:
    """Ends what was begun once it has; returns what may be left of it, one line each."""
    try:
        launched = await beginning
    except HostError as error:
        return [_may_be_left(plan, run_id, str(error))]
    except LivemigError:
        return []  # it was taken back, and nobody waits for the reason any more
    return await launched.end_or_say()


def _may_be_left(plan: LaunchPlan, run_id: str, reason: str) -> str:
    return f"what was launched at {plan.address} may still be there ({reason}): `livemig recover {run_id}`"


async def _begin(plan: LaunchPlan, run_id: str) -> Launched:
    await _make_folder(plan, run_id)
    try:
        started = await plan.host.start(plan.program, plan.stderr_path)
    except OSError as error:
        failure = await _error(plan, f"the destination can't be started: {error}")
        await _remove_files(plan, run_id)
        raise failure from error
    return Launched(plan, started, run_id)


async def _not_taken_over(plan: LaunchPlan, launched: Launched) -> tuple[str, ...]:
    """What of the source's surroundings the kernel did not grant, seen at the running process."""
    if plan.source_pid is None:
        return ()
    pid = launched.process.pid
    source_host = plan.source_host
    try:
        wanted = (await source_host.read_process(plan.source_pid)).surroundings
        found = (await plan.host.read_process(pid)).surroundings
    except OSError:
        return ()
    names = {
        "nice": "nice value",
        "scheduling": "scheduling class",
        "oom_score_adj": "oom_score_adj",
    }
    if source_host.is_local and plan.host.is_local:
        names["cpus"] = "processors (affinity)"
    else:  # whose processors have other numbers, and whose shell may lack what sets these
        names |= {"umask": "umask", "limits": "limits (ulimit)"}
    differing = tuple(text for name, text in names.items() if getattr(wanted, name) != getattr(found, name))
    return not_taken_over(await source_host.confinement(plan.source_pid), await plan.host.confinement(pid), differing)


async def _make_folder(plan: LaunchPlan, run_id: str) -> None:
    try:
        await plan.host.make_launch_folder(plan.folder, plan.owner, run_id)
    except FileExistsError as error:
        raise RefusedError((str(error),)) from error
    except OSError as error:
        raise LaunchError(
            f"no folder for the destination: {error}", command=plan.command, exit_code=None, stderr=""
        ) from error


async def _remove_files(plan: LaunchPlan, run_id: str) -> None:
    await plan.host.remove_launch_folder(plan.folder, run_id)
    await plan.host.remove_dead_socket(plan.qmp_path)


async def _wait_ready(launched: Launched, timeout_s: float) -> None:
    answering = asyncio.create_task(_ask_state(launched, timeout_s))
    ended = asyncio.create_task(launched.started.wait_ended(timeout_s + 1))
    try:
        await asyncio.wait((answering, ended), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and answering.exception() is not None:
            await asyncio.wait((ended,), timeout=0.2)  # its last words come with its end
        if ended.done():
            exit_code = launched.started.exit_code
            code = "" if exit_code is None else f" with code {exit_code}"
            raise await _error(launched.plan, f"the destination ended at once{code}", exit_code)
        state = answering.result()
    except (ConnectError, TimeoutError) as error:
        raise await _error(
            launched.plan, f"the destination does not answer within {timeout_s:g} s ({error})"
        ) from error
    except LivemigError as error:
        if isinstance(error, LaunchError):
            raise
        raise await _error(launched.plan, f"the destination does not answer as a QEMU does ({error})") from error
    finally:
        await _cancelled(answering, ended)
    if state is not RunState.INMIGRATE:
        raise await _error(launched.plan, f"the destination is {state}, not waiting for a migration")


async def _ask_state(launched: Launched, timeout_s: float) -> RunState:
    way = launched.plan.host.way_to(str(launched.plan.qmp_path))
    monitor = await Monitor.connect(launched.address, name="destination", timeout_s=timeout_s, starting=True, way=way)
    try:
        return await monitor.query_status()
    finally:
        await monitor.close()


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _read_stderr(plan: LaunchPlan) -> str:
    written = await plan.host.read_end(plan.stderr_path, STDERR_READ_BYTES)
    return redacted_text(written, plan.secrets).strip()[-STDERR_QUOTED_BYTES:]


async def _error(plan: LaunchPlan, message: str, exit_code: int | None = None) -> LaunchError:
    words = await _read_stderr(plan)
    text = f"{message}; it wrote: {words}" if words else f"{message}; it wrote nothing"
    return LaunchError(text, command=plan.command, exit_code=exit_code, stderr=words)
