"""``livemig demo``: the whole job on the built-in guest, two QEMUs on this machine, every page checked on arrival."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import msgspec

from livemig.cli.exit_code import INTERRUPTED, exit_code
from livemig.cli.run import REFUSED, Screen, Show, minding_signals, screen_for
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
from livemig.lab.workload import Workload

BEATING_BEFORE_S = 1.0
MEMORY_LOST = 1


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
        self.begin, self.refuse, self._show = screen.begin, screen.refuse, screen.show

    def show(self, event: Event) -> None:
        """Shows an event, or keeps it when it is the closing one."""
        if isinstance(event, Ended):
            self.ended = event
        else:
            self._show(event)

    def end(self, report: Report) -> None:
        """Shown later, by the demo."""


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
    """Runs the demo and returns the exit code."""
    screen = screen_for(as_json=as_json)
    try:
        workload = Workload(
            working_set_bytes=int(working_set),
            dirty_rate_bytes_s=dirty_rate,
            fill_bytes=int(max(working_set, memory * 0.75)),
        )
        settings = MachineSettings(workload=workload, memory_bytes=int(memory), accelerator=accelerator)
        return asyncio.run(_demo(settings, plan, trace_path, screen, as_json=as_json))
    except LivemigError as error:
        screen.refuse("", str(error))
        return REFUSED


async def _demo(
    settings: MachineSettings, plan: Plan, trace_path: Path | None, screen: Screen, *, as_json: bool
) -> int:
    holding = _HoldsEnd(screen)
    show = Show(holding)
    run_id = new_id()
    try:
        with minding_signals(show), tempfile.TemporaryDirectory(prefix="livemig-demo-") as folder:
            heartbeat = Heartbeat()
            source = Machine(settings, folder=Path(folder), name="source", heartbeat=heartbeat)
            waiting = msgspec.structs.replace(settings, incoming="defer", paused=True)
            destination = Machine(waiting, folder=Path(folder), name="destination", heartbeat=heartbeat)
            async with source, destination:
                await source.serial.wait_ready()
                if not as_json:
                    print(_introduction(settings), flush=True)
                await asyncio.sleep(BEATING_BEFORE_S)
                heartbeat.restart()
                migration = Migration(
                    plan,
                    source=str(source.qmp_path),
                    destination=str(destination.qmp_path),
                    run_id=run_id,
                    trace_path=trace_path,
                )
                report = await show.run(migration)
                checked = await _check(report, source, destination, heartbeat)
    except asyncio.CancelledError:
        if not show.interrupted:
            raise
        screen.refuse(run_id, "interrupted before the guest was moved")
        return INTERRUPTED
    _show_end(screen, holding.ended, report, checked, as_json=as_json)
    code = exit_code(report.outcome, interrupted=show.interrupted)
    return code if checked is None or checked.good else code or MEMORY_LOST


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


def _show_end(
    screen: Screen, ended: Ended | None, report: Report, checked: GuestChecked | None, *, as_json: bool
) -> None:
    if as_json:
        if checked is not None:
            print(msgspec.json.encode(checked).decode())
        if ended is not None:
            screen.show(ended)
        return
    screen.end(report)
    if checked is not None:
        for line in _checked_lines(checked):
            print(line)


def _checked_lines(checked: GuestChecked) -> list[str]:
    state = "as the guest wrote them" if checked.bad_count == 0 else f"of which {checked.bad_count} are BAD"
    where = "in the switchover" if checked.blackout_in_switchover else "during the copy"
    return [
        f"memory: {checked.page_count} pages checked, {state}",
        f"blackout {format_duration(checked.blackout_s)}: the longest silence in {checked.beat_count} beats, {where}",
        *(f"PROBLEM: {problem}" for problem in checked.problems),
    ]
