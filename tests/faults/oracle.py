"""Says whether a trial ended as it must: one guest, whole, in one place, nothing left; or a loss nobody could avert.

Looks at the truth alone: the QEMUs' own words, both serial lines, processes and files.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

from livemig.core.errors import GuestError, LivemigError
from livemig.core.evidence import Side
from livemig.lab.launched_machine import LaunchedMachine
from livemig.lab.machine import Machine
from livemig.qemu.monitor import Monitor
from tests.engine.pair import migration_settings
from tests.faults.command_lines import Ended
from tests.faults.trial import Trial

LIVE = ("running", "suspended")
PERSON = 4


class Wrong(AssertionError):
    """Something that must never be."""


async def judge(trial: Trial) -> str:
    """Returns how the trial ended, in a word or some.

    Raises:
        Wrong: When it ended as it must not.
    """
    found = await _person_helps(trial)
    states = await trial.states()
    kinds = {fault.rpartition(" at ")[0] for fault in trial.struck if "in vain" not in fault}
    told = f"{states}; run {_words(trial.run)}; recoveries {[_words(one) for one in trial.recoveries]}"
    running = [side for side, state in states.items() if state in LIVE]
    if len(running) == 2:
        raise Wrong(f"two guests run: {told}")
    if not {"reset", "power off"} & kinds and trial.pair.heartbeat.problems:
        raise Wrong(f"{trial.pair.heartbeat.problems}: {told}")
    _check_words(trial, told)
    if trial.stranger is not None:
        await _check_stranger(trial, told)
    ended = "power off" if "power off" in kinds and not running else found
    guest_lost = _may_be_lost(trial, kinds) or ended == "power off"
    if not running and not guest_lost:
        raise Wrong(f"nobody runs the guest: {told}")
    if running:
        await _check_guest(trial, running[0], told, reset="reset" in kinds)
    await _check_leftovers(trial, running, told, settled=found != "a person is needed")
    if running:
        return f"runs at the {running[0]}"
    return ended if ended != "settled" else "lost with its QEMU"


async def _person_helps(trial: Trial) -> str:
    """Where recovery asks a person, the trial knows the truth and says it, as a person who looked would."""
    last = trial.recoveries[-1]
    if last.code != PERSON:
        if last.code != 0:
            raise Wrong(f"recover ended with {last.code}: {last.errors}")
        return "settled"
    states = await trial.states()
    source_gone, destination_gone = states["source"] == "gone", states["destination"] == "gone"
    run_id = str(last.last.get("id"))
    source_ran_on = "source <RESUME" in trial.source_relay.log
    if source_gone and not destination_gone and trial.source_completed and not source_ran_on:
        again = await trial.recover(run_id, Side.SOURCE)
        if again.code != 0:
            raise Wrong(f"the source is vouched dead, and still: {again.lines} {again.errors}")
        trial.recoveries.append(again)
        return "settled with a person's word"
    if not source_gone and not destination_gone and trial.stranger is None:
        raise Wrong(f"a person is asked although both QEMUs answer: {states} {last.lines}")
    return "a person is needed"


def _may_be_lost(trial: Trial, kinds: set[str]) -> bool:
    """Whether a QEMU was killed that alone had the guest, or may have had it alone for all that could be known."""
    if kinds & {"kill source", "stranger at source", "stranger with its pid at source"}:
        return True  # looked at more closely where a person's word helps
    if kinds & {"stranger at destination", "stranger with its pid at destination"} and trial.both_completed:
        return True  # struck beside the relay: that its `cont` never arrived is more than livemig can know
    if "kill destination" not in kinds:
        return False
    if trial.ran_at_destination or trial.cont_passed:
        return True
    # Killed as its `completed` went by the relay: `cont` was on its way before anybody could know, and got no answer.
    ends = [trial.run, *trial.recoveries]
    return trial.both_completed and any("was told to continue" in one.last.get("reason", "") for one in ends if one)


def _check_words(trial: Trial, told: str) -> None:
    """Holds what was said last against itself: an end that is known is not taken back."""
    assert trial.run is not None
    ended = trial.run.last
    if trial.run.code < 0:
        return  # killed with its parent: nobody was there to say anything
    if ended.get("event") != "ended":
        raise Wrong(f"the last line is no end: {ended} {trial.run.errors}: {told}")
    codes = {"completed": 0, "failed": 1, "refused": 2, "cancelled": (3, 130), "unknown": 4, "guest_shut_down": 5}
    expected = codes[ended["outcome"]]
    if trial.run.code not in (expected if isinstance(expected, tuple) else (expected,)):
        raise Wrong(f"exit code {trial.run.code} for {ended['outcome']}: {told}")
    side = {"destination": "source", "source": "destination"}.get(ended["running_on"])
    if side is not None and trial.stranger is None:
        other = trial.pair.heartbeat.line
        machine = getattr(trial.pair, side)
        kinds = " ".join(trial.struck)
        if other == machine.name and "power" not in kinds and ended["outcome"] != "refused":
            raise Wrong(f"it was said to be at the {ended['running_on']}, and beats at the {side}: {told}")


async def _check_stranger(trial: Trial, told: str) -> None:
    assert trial.stranger is not None
    try:
        verdict = await trial.stranger.serial.ask_verdict(timeout_s=20)
    except GuestError as error:
        raise Wrong(f"a stranger was harmed ({error}): {told}") from error
    if trial.stranger.exit_code is not None or not verdict.good:
        raise Wrong(f"a stranger was harmed: {told}")
    async with await Monitor.connect(str(trial.stranger.spare_qmp_path), name="test") as monitor:
        if str(await monitor.query_status()) != "running":
            raise Wrong(f"a stranger was stopped: {told}")


async def _check_guest(trial: Trial, side: str, told: str, *, reset: bool) -> None:
    """Its memory is right and it goes on beating, there and nowhere else."""
    machine = getattr(trial.pair, side)
    if isinstance(machine, LaunchedMachine) and machine.exit_code is None and side == "destination":
        with contextlib.suppress(LivemigError):
            await machine.attach()
    heartbeat = trial.pair.heartbeat
    before = heartbeat.beat_count
    verdict = await machine.serial.ask_verdict()
    if not verdict.good:
        raise Wrong(f"its memory is wrong: {verdict}: {told}")
    for _ in range(200):
        if heartbeat.beat_count > before:
            break
        await asyncio.sleep(0.02)
    else:
        raise Wrong(f"it beats no more: {told}")
    if heartbeat.line != machine.name:
        raise Wrong(f"it runs at the {side} and beats at {heartbeat.line}: {told}")
    if heartbeat.problems and not reset:
        raise Wrong(f"{heartbeat.problems}: {told}")


async def _check_leftovers(trial: Trial, running: list[str], told: str, *, settled: bool) -> None:
    """No process, file, lock or changed setting remains."""
    left: list[str] = [f"process {pid}" for pid in trial.engines()]
    left += [str(path) for path in trial.temporary.glob("livemig-*") if settled]
    runs = trial.state / "livemig" / "runs"
    left += [str(path) for path in runs.glob("*")] if runs.exists() else []
    left += _unsettled(trial.state / "livemig" / "journal.sqlite") if settled else []
    for side in ("source", "destination"):
        machine = getattr(trial.pair, side)
        if machine.exit_code is not None or (trial.stranger is not None and side not in running):
            continue
        with contextlib.suppress(LivemigError):
            left += await _left_in(machine, side, trial, settings=side in running)
    gone = trial.pair.destination
    if isinstance(gone, LaunchedMachine) and settled and "destination" not in running:
        left += [str(path) for path in gone.left_behind]
    if left:
        raise Wrong(f"left behind: {left}: {told}")


async def _left_in(machine: Machine | LaunchedMachine, side: str, trial: Trial, *, settings: bool) -> list[str]:
    left = []
    path = str(machine.spare_qmp_path)
    async with await Monitor.connect(path, name="test") as monitor:
        objects = await monitor.execute("qom-list", {"path": "/objects"})
        left += [f"the lock in the {side}" for one in objects if one["name"] == "livemig"]
    if settings:
        found = await migration_settings(machine)
        before = trial.pair._before[side]
        left += [
            f"{kind} {name} of the {side} is {found[kind].get(name)!r}, was {value!r}"
            for kind in ("capabilities", "parameters")
            for name, value in before[kind].items()
            if found[kind].get(name) != value
        ]
    return left


def _unsettled(path: Path) -> list[str]:
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'run'").fetchone():
            return []  # made on a full disk: nothing was begun
        return [f"run {row[0]} in the journal" for row in connection.execute("SELECT id FROM run WHERE settled = 0")]


def _words(ended: Ended | None) -> str:
    if ended is None:
        return "did not end"
    last = ended.last
    told = f"{ended.code} {last.get('outcome')} on {last.get('running_on')} ({last.get('reason')})"
    return f"{told} {ended.errors.strip()[-300:]}"
