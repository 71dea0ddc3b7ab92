"""After both sides have completed: continue the guest at the destination, announce it, watch it, retire the source.

Only ever called with `completed` read from both sides themselves. What does not go straight here goes to
`livemig.engine.settle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from math import isfinite

import msgspec

from livemig.core.errors import CommandError, LivemigError
from livemig.core.observation import Observation
from livemig.core.report import Downtime
from livemig.core.status import RunState
from livemig.engine.handover import announce
from livemig.engine.side import Side, SideName
from livemig.engine.watch import Watch
from livemig.qemu.event_stream import MonitorEvent
from livemig.qemu.monitor import Monitor

CONTINUE_BOUND_S = 5.0
RESUME_EVENT_BOUND_S = 1.0
FINAL_FIGURES_BOUND_S = 2.0


class Continued(msgspec.Struct, frozen=True, kw_only=True):
    """What came of ``cont`` at the destination.

    Attributes:
        run_state: The destination's run state after it; None when it could not be read.
        refused: QEMU answered with an error, and its run state then was not a running one: it did not run.
        refusal: What QEMU answered then, or empty.
        ordered_s: When ``cont`` was sent, monotonic.
        resume: The RESUME event, or None.
    """

    run_state: RunState | None
    refused: bool
    refusal: str = ""
    ordered_s: float
    resume: MonitorEvent | None

    @property
    def runs(self) -> bool:
        """Whether the guest is proven to run (or to sleep, as it did before) at the destination."""
        return self.resume is not None or self.run_state in (RunState.RUNNING, RunState.SUSPENDED)


async def continue_destination(destination: Side, watch: Watch) -> Continued:
    """Sends ``cont``, the announcement right behind it, and sees what became of it.

    Raises nothing: what is not known is said so. Should ``cont`` be refused, QEMU keeps the announcement back.
    """
    ordered_s = time.monotonic()
    refused, refusal = False, ""
    continuing = asyncio.create_task(destination.monitor.execute("cont", timeout_s=CONTINUE_BOUND_S))
    announcing = asyncio.create_task(announce(destination))
    try:
        await continuing
    except CommandError as error:
        refused, refusal = True, str(error)
    except LivemigError:
        pass  # fate unknown: the run state tells, or nothing does
    resumed: tuple[SideName, str] = ("destination", "RESUME")
    if not refused:
        await watch.wait_until(lambda: resumed in watch.latest or "destination" in watch.lost, RESUME_EVENT_BOUND_S)
    resume = watch.latest.get(resumed)
    run_state = RunState.RUNNING if resume is not None else await run_state_of(destination)
    await announcing
    not_running = run_state is not None and run_state not in (
        RunState.RUNNING,
        RunState.SUSPENDED,
        RunState.UNKNOWN,
    )
    return Continued(
        run_state=run_state, refused=refused and not_running, refusal=refusal, ordered_s=ordered_s, resume=resume
    )


async def run_state_of(side: Side) -> RunState | None:
    """Returns the side's run state, or None when it does not answer within the bound."""
    try:
        return await side.monitor.query_status()
    except LivemigError:
        return None


def measured_downtime(
    source: Side, destination: Side, stopped: MonitorEvent, completed_s: float, continued: Continued
) -> Downtime | None:
    """Measures STOP to RESUME from the events' own timestamps; None when RESUME was not seen.

    When both QEMUs run on this machine they read one clock. Else each timestamp is brought to the monotonic clock
    first (`livemig.qemu.clock`).
    """
    resume = continued.resume
    if resume is None:
        return None
    by_arrival_s = resume.arrival_s - stopped.arrival_s
    total_s, uncertainty_s = by_arrival_s, by_arrival_s
    if not isfinite(resume.timestamp_s - stopped.timestamp_s):
        pass  # a QEMU that can't tell the time
    elif _one_clock(source, destination):
        total_s, uncertainty_s = resume.timestamp_s - stopped.timestamp_s, 0.0
    else:
        clocks = (source.monitor.clock, destination.monitor.clock)
        stop_s, resume_s = (
            clocks[0].to_monotonic_s(stopped.timestamp_s),
            clocks[1].to_monotonic_s(resume.timestamp_s),
        )
        if stop_s is not None and resume_s is not None:
            total_s = resume_s - stop_s
            uncertainty_s = sum(clock.uncertainty_s or 0.0 for clock in clocks)
    if not 0 <= total_s <= by_arrival_s + 1.0:  # somebody set a clock meanwhile
        total_s, uncertainty_s = by_arrival_s, by_arrival_s
    transfer_s = completed_s - stopped.arrival_s
    controller_s = continued.ordered_s - completed_s
    return Downtime(
        total_s=total_s,
        clock_uncertainty_s=uncertainty_s,
        transfer_s=transfer_s,
        controller_s=controller_s,
        resume_s=total_s - transfer_s - controller_s,
    )


def _one_clock(source: Side, destination: Side) -> bool:
    """Whether both QEMUs read the clock of one kernel."""
    seen = source.process is not None and destination.process is not None
    return seen and source.host.identity.shares_kernel(destination.host.identity)


async def final_figures(monitor: Monitor) -> Observation | None:
    """Asks the source for its last figures; 7.2 sets them only after it has said ``completed``."""
    observation = None
    with contextlib.suppress(LivemigError, TimeoutError):
        async with asyncio.timeout(FINAL_FIGURES_BOUND_S):
            while (await monitor.query_status()) is RunState.FINISH_MIGRATE:  # noqa: ASYNC110  no event tells
                await asyncio.sleep(0.005)
            observation = await monitor.query_migrate()
    return observation


async def probation(watch: Watch, since_s: float, duration_s: float, *, cut_short: Callable[[], bool]) -> str | None:
    """Watches the destination, since ``completed`` does not prove that a guest lives; returns what went wrong there."""
    names = {
        "RESET": "the guest reset itself",
        "GUEST_PANICKED": "the guest panicked",
        "GUEST_CRASHLOADED": "the guest's crash kernel took over",
        "SHUTDOWN": "the guest shut down",
        "WATCHDOG": "the guest's watchdog fired",
        "BLOCK_IO_ERROR": "a disk of the guest failed",
    }

    end_s = since_s + duration_s

    def trouble() -> str | None:
        if cut_short() and time.monotonic() < end_s:
            return "the probation was cut short"
        for name, text in names.items():
            event = watch.latest.get(("destination", name))
            if event is not None and event.arrival_s >= since_s:
                return f"{text} {event.arrival_s - since_s:.1f} s after it arrived"
        return "the destination's monitor ended" if "destination" in watch.lost else None

    await watch.wait_until(lambda: trouble() is not None, end_s - time.monotonic())
    return trouble()
