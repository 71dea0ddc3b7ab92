"""Finishes or undoes what a run that was cut off has left, by the outcome table and what the journal kept.

Reads both QEMUs, and acts until one of them has the guest and nothing of the run is left. A run whose engine lives is
never touched: that engine is to be asked. Can be repeated, at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from livemig.core import event as events
from livemig.core.errors import ControlError, JournalError
from livemig.core.evidence import Side
from livemig.core.outcome import Outcome, RunningOn, Verdict
from livemig.engine.claim import now_text
from livemig.engine.journal import Journal
from livemig.engine.recovery_run import RecoveryRun
from livemig.engine.run_files import RunFiles, is_driven, is_id, remove_dead
from livemig.engine.run_journal import RunJournal
from livemig.engine.run_record import Ending, RunRecord


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What recovery found of one run, and what it did.

    Attributes:
        id: The run's id.
        ending: How the run ended, by what is known now.
        known: What each side said last, and what the journal says, one line each.
        steps: What was done, or with `dry_run` what would be done next, one line each.
        advice: What a person has to look at or to say; empty when nobody has to.
        dry_run: Whether nothing was done.
        was_settled: Whether it had ended before, so that there was nothing to do.
    """

    id: str
    ending: Ending
    known: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    dry_run: bool = False
    was_settled: bool = False


async def recover(
    run_id: str | None = None,
    *,
    dry_run: bool = False,
    fence_confirmed: Side | None = None,
    tell: Callable[[events.Event], None] | None = None,
) -> tuple[Recovered, ...]:
    """Finishes or undoes a run that was cut off, or all of them.

    Args:
        run_id: The run's id; None takes every run that did not end and that nobody drives.
        dry_run: Only say what would be done.
        fence_confirmed: The side that a person vouches is dead: of the destination, that its QEMU runs nowhere; of the
            source, that it does not run and did not run on after it was stopped to be handed over.
        tell: Told each step before it is taken.

    Returns:
        One for each run, in the order they began.

    Raises:
        ControlError: When a living engine drives the run: ask that one. Nothing was touched.
        JournalError: When the journal can't be read or written, or knows no such run. Nothing was touched.
    """
    found = []
    for record in await asyncio.to_thread(_wanted, run_id):
        if record.settled:
            assert record.ending is not None  # noqa: S101  # that is what settled means
            found.append(Recovered(id=record.id, ending=record.ending, was_settled=True, dry_run=dry_run))
        else:
            found.append(await _recover_one(record.id, dry_run=dry_run, fence_confirmed=fence_confirmed, tell=tell))
    if not dry_run:
        await asyncio.to_thread(_remove_dead_files)
    return tuple(found)


def _remove_dead_files() -> None:
    """Of runs that had ended, but for that; where an old record can't be read, not this time."""
    with contextlib.suppress(JournalError):
        journal = Journal.open_to_read()
        if journal is None:
            return
        try:
            settled = {record.id: record.settled for record in journal.records()}
        finally:
            journal.close()
        remove_dead(settled.get)


def _wanted(run_id: str | None) -> list[RunRecord]:
    journal = Journal.open_to_read()
    try:
        if run_id is None:
            records = [] if journal is None else journal.records(unsettled=True)
            return [record for record in records if not is_driven(record.id)]
        record = journal.record(run_id) if journal is not None and is_id(run_id) else None
    finally:
        if journal is not None:
            journal.close()
    if record is None:
        raise JournalError(f"no run {run_id!r} was begun by this user on this host: see `livemig status`", path="")
    return [record]


async def _recover_one(
    run_id: str,
    *,
    dry_run: bool,
    fence_confirmed: Side | None,
    tell: Callable[[events.Event], None] | None,
) -> Recovered:
    try:
        files = await asyncio.to_thread(lambda: RunFiles.hold(run_id, reserve=False))
    except ControlError as error:
        raise ControlError(
            f"run {run_id} is being driven, by its engine or by another `livemig recover`: `livemig status {run_id}` "
            f"asks it, `livemig cancel {run_id}` has it give up",
            run_id=run_id,
        ) from error
    journal = RunJournal()
    try:
        record = await asyncio.to_thread(_read_again, run_id)
        await journal.take_over(files, record)
        run = RecoveryRun(journal, record, fence_confirmed, tell or (lambda _event: None))
        async with run:
            return await (_foretold(run) if dry_run else _done(run))
    finally:
        await journal.close()
        files.close()


def _read_again(run_id: str) -> RunRecord:
    """Reads the record once nobody else writes it."""
    return _wanted(run_id)[0]


async def _foretold(run: RecoveryRun) -> Recovered:
    if run.record.ended and run.record.ending is not None:
        steps = tuple(f"take back what is left: {line}" for line in run.record.ending.left)
        return Recovered(id=run.record.id, ending=run.record.ending, steps=steps, dry_run=True)
    verdict = await run.look()
    steps = () if verdict.settled else (f"{verdict.step}: {verdict.reason}",)
    return _told(run, verdict, steps=steps, dry_run=True)


async def _done(run: RecoveryRun) -> Recovered:
    verdict = await run.settle()
    found = _told(run, verdict, steps=tuple(run.steps), dry_run=False)
    await run.journal.end(found.ending)
    if run.journal.failure is not None:
        warnings = (*found.ending.warnings, run.journal.failure)
        found = msgspec.structs.replace(found, ending=msgspec.structs.replace(found.ending, warnings=warnings))
    return found


def _told(run: RecoveryRun, verdict: Verdict, *, steps: tuple[str, ...], dry_run: bool) -> Recovered:
    outcome = verdict.outcome or Outcome.UNKNOWN
    before = run.record.ending
    ending = Ending(
        ended_at=now_text() if before is None else before.ended_at,
        outcome=outcome,
        running_on=verdict.running_on or RunningOn.UNKNOWN,
        guest_state=run.guest_state(verdict),
        reason="; ".join((verdict.reason, *run.refusals(verdict))),
        warnings=(*run.warnings, *run.left),
        recovered=True,
        left=tuple(run.left),
    )
    return Recovered(
        id=run.record.id,
        ending=ending,
        known=run.known(),
        steps=steps,
        advice=run.advice(verdict),
        dry_run=dry_run,
    )
