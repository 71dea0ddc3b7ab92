"""``livemig demo``: the whole job on the built-in guest, two QEMUs on this machine, every page checked on arrival."""

from __future__ import annotations

import asyncio
import tempfile
from functools import partial
from pathlib import Path

import click
import msgspec

from livemig.cli.screens import Screen, screen_for
from livemig.cli.show import Show
from livemig.core.errors import LivemigError
from livemig.core.event import Ended, Event
from livemig.core.outcome import Outcome
from livemig.core.plan import Plan
from livemig.core.report import Report
from livemig.core.units import format_duration, format_rate, format_size
from livemig.engine.migration import Migration, new_id
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.serial_lines import Verdict
from livemig.lab.workload import PAGE_BYTES, Workload, usable_bytes

BEATING_BEFORE_S = 1.0
MEMORY_LEAST_BYTES, MEMORY_MOST_BYTES = 16 * 2**20, 3 * 2**30
DIRTY_RATE_MOST_BYTES_S = 2.0**38
MEMORY_DAMAGED = 1


class GuestChecked(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="guest-checked"):
    """What the guest and its user saw of the move.

    Attributes:
        page_count: Pages that the guest checked after it arrived.
        bad_count: Those that were not as it had written them; none, if all is well.
        beat_count: Beats heard on the serial line.
        blackout_s: The longest silence between two beats since just before the move.
        blackout_in_switchover: Whether that silence was the switchover's; else it fell into the copy.
        problems: What contradicts one guest that goes on: a beat twice, a reset.
    """

    page_count: int
    bad_count: int
    beat_count: int
    blackout_s: float
    blackout_in_switchover: bool
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Whether nothing was lost and the guest stayed one."""
        return self.bad_count == 0 and not self.problems


class _HoldsEnd:
    """A screen whose closing event waits until the guest has been checked, since it must be the last."""

    def __init__(self, screen: Screen) -> None:
        self.ended: Ended | None = None
        self.begin, self.say, self.end, self.refuse = screen.begin, screen.say, screen.end, screen.refuse
        self.close, self._show = screen.close, screen.show

    def show(self, event: Event) -> None:
        """Shows an event, or keeps it when it is the closing one."""
        if isinstance(event, Ended):
            self.ended = event
        else:
            self._show(event)

    def finish(self, report: Report, checked: GuestChecked | None, *, as_json: bool) -> None:
        """Shows how the guest was found, and the closing event or lines."""
        if as_json:
            if checked is not None:
                print(msgspec.json.encode(checked).decode(), flush=True)
            if self.ended is not None:
                self._show(self.ended)
            return
        self.end(report)
        for line in () if checked is None else _checked_lines(checked):
            self.say(line)


def run_demo(
    *,
    plan: Plan,
    trace_path: Path | None,
    as_json: bool,
    memory: float,
    working_set: float,
    dirty_rate: float,
    accelerator: str,
) -> int:
    """Runs the demo and returns the exit code.

    Raises:
        click.UsageError: When the guest can't be made like that.
    """
    settings = _settings(
        memory_bytes=int(memory),
        working_set_bytes=int(working_set),
        dirty_rate_bytes_s=dirty_rate,
        accelerator=accelerator,
    )
    return asyncio.run(_demo(settings, plan, trace_path, screen_for(as_json=as_json), as_json=as_json))


def _settings(
    *, memory_bytes: int, working_set_bytes: int, dirty_rate_bytes_s: float, accelerator: str
) -> MachineSettings:
    """Says in the options' names what can't be; the workload would say it in its own."""
    least, most = MEMORY_LEAST_BYTES, MEMORY_MOST_BYTES
    if not least <= memory_bytes <= most:
        raise _refusal(
            f"--memory {format_size(memory_bytes)} is out of range: {format_size(least)} to {format_size(most)}"
        )
    room_bytes = usable_bytes(memory_bytes)
    if not PAGE_BYTES <= working_set_bytes <= room_bytes:
        raise _refusal(
            f"--working-set {format_size(working_set_bytes)} does not fit: with --memory {format_size(memory_bytes)} "
            f"give {format_size(PAGE_BYTES)} to {room_bytes // 2**20} MiB"
        )
    if dirty_rate_bytes_s > DIRTY_RATE_MOST_BYTES_S:
        raise _refusal(
            f"--dirty-rate {format_rate(dirty_rate_bytes_s)} is more than any guest can: give up to "
            f"{format_rate(DIRTY_RATE_MOST_BYTES_S)}"
        )
    workload = Workload(
        working_set_bytes=working_set_bytes,
        dirty_rate_bytes_s=dirty_rate_bytes_s,
        fill_bytes=min(room_bytes, max(working_set_bytes, memory_bytes * 3 // 4)),
    )
    return MachineSettings(workload=workload, memory_bytes=memory_bytes, accelerator=accelerator)


def _refusal(reason: str) -> click.UsageError:
    return click.UsageError(reason, ctx=click.get_current_context(silent=True))


async def _demo(
    settings: MachineSettings, plan: Plan, trace_path: Path | None, screen: Screen, *, as_json: bool
) -> int:
    holding = _HoldsEnd(screen)
    show = Show(holding)
    run_id = new_id()
    async with show:
        try:
            report, checked = await _moved(show, settings, plan, trace_path, run_id)
        except asyncio.CancelledError as error:
            if show.cancel_reason is None:
                raise
            code = show.refuse(run_id, LivemigError(str(error)))
        except Exception as error:  # noqa: BLE001  # the last line and the exit code are owed whatever happens
            code = show.refuse(run_id, error)
        else:
            code = show.end(report, partial(holding.finish, report, checked, as_json=as_json))
            if checked is not None and not checked.good:
                code = code or MEMORY_DAMAGED
    return show.leave(code)


async def _moved(
    show: Show, settings: MachineSettings, plan: Plan, trace_path: Path | None, run_id: str
) -> tuple[Report, GuestChecked | None]:
    """Starts both QEMUs, moves the guest, has it check itself, and ends both."""
    with tempfile.TemporaryDirectory(prefix="livemig-demo-") as folder:
        heartbeat = Heartbeat()
        source = Machine(settings, folder=Path(folder), name="source", heartbeat=heartbeat)
        waiting = msgspec.structs.replace(settings, incoming="defer", paused=True)
        destination = Machine(waiting, folder=Path(folder), name="destination", heartbeat=heartbeat)
        show.say(_introduction(settings))
        async with source, destination:
            await source.serial.wait_ready()
            await asyncio.sleep(BEATING_BEFORE_S)
            heartbeat.restart()
            migration = Migration(
                plan,
                source=str(source.qmp_path),
                destination=str(destination.qmp_path),
                run_id=run_id,
                trace_path=trace_path,
            )
            report = await show.run(migration, plan)
            return report, await _check(report, source, destination, heartbeat)


async def _check(report: Report, source: Machine, destination: Machine, heartbeat: Heartbeat) -> GuestChecked | None:
    """Has the guest check all of its memory, where it runs."""
    if report.outcome not in (Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED):
        return None
    machine = destination if report.outcome is Outcome.COMPLETED else source
    gap = heartbeat.longest_gap
    verdict: Verdict = await machine.serial.ask_verdict()
    return GuestChecked(
        page_count=verdict.page_count,
        bad_count=verdict.bad_count + verdict.fault_count,
        beat_count=heartbeat.beat_count,
        blackout_s=gap.duration_s if gap is not None else 0.0,
        blackout_in_switchover=gap is not None and gap.from_line != gap.to_line,
        problems=tuple(heartbeat.problems),
    )


def _introduction(settings: MachineSettings) -> str:
    workload = settings.workload
    return (
        f"a guest of {format_size(settings.memory_bytes)} ({settings.accelerator}) rewrites "
        f"{format_size(workload.working_set_bytes)} at {format_rate(workload.dirty_rate_bytes_s)} and beats every "
        f"{format_duration(workload.heartbeat_interval_s)}"
    )


def _checked_lines(checked: GuestChecked) -> list[str]:
    state = "as the guest wrote them" if checked.bad_count == 0 else f"of which {checked.bad_count} are BAD"
    where = "in the switchover" if checked.blackout_in_switchover else "during the copy"
    return [
        f"memory: {checked.page_count} pages checked, {state}",
        f"blackout {format_duration(checked.blackout_s)}: the longest silence in {checked.beat_count} beats, {where}",
        *(f"PROBLEM: {problem}" for problem in checked.problems),
    ]
