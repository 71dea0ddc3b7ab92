"""``livemig status``, ``tune`` and ``cancel``: asks the engine of a run, or the journal where there is none."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import msgspec

from livemig.core.errors import ControlError, LivemigError, PlanError
from livemig.core.outcome import Outcome
from livemig.core.plan import PlanChange
from livemig.core.units import format_duration, format_rate, format_size
from livemig.engine.control import LiveStatus, Request, ask
from livemig.engine.journal import Journal
from livemig.engine.run_files import is_driven
from livemig.engine.run_record import Ending, RunRecord

CUT_OFF = 4


class _StatusLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="status"):
    """What ``--json`` prints of one run."""

    id: str
    state: str
    started_at: str
    source: str
    destination: str
    ending: Ending | None = None
    live: LiveStatus | None = None
    remedy: str = ""


def show_status(run_id: str | None, *, as_json: bool) -> int:
    """Shows one run, or all; returns the exit code.

    Raises:
        click.ClickException: When there is no such run, or the journal can't be read.
    """
    try:
        found = asyncio.run(_found(run_id))
    except LivemigError as error:
        raise click.ClickException(str(error)) from error
    for one in found:
        print(msgspec.json.encode(one).decode() if as_json else "\n".join(_lines(one, full=run_id is not None)))
    if not found and not as_json:
        print("no run was begun by this user on this host")
    return CUT_OFF if run_id is not None and found[0].state == "cut off" else 0


def send_tune(run_id: str, *, as_json: bool, **changes: Any) -> int:
    """Changes limits of a running migration; returns 0.

    Raises:
        click.ClickException: When it can't be asked, or refuses.
    """
    try:
        change = PlanChange(**changes)
    except PlanError as error:
        raise click.UsageError(str(error)) from error
    if change == PlanChange():
        raise click.UsageError(
            "nothing is to be changed: give --downtime-limit, --bandwidth, --deadline or --at-deadline"
        )
    return _sent(run_id, Request(do="tune", change=change), "changed", as_json=as_json)


def send_cancel(run_id: str, *, as_json: bool) -> int:
    """Asks a running migration to leave the guest at the source; returns 0.

    Raises:
        click.ClickException: When it can't be asked.
    """
    return _sent(run_id, Request(do="cancel"), "asked to cancel", as_json=as_json)


def _sent(run_id: str, request: Request, done: str, *, as_json: bool) -> int:
    try:
        live = asyncio.run(ask(run_id, request))
    except LivemigError as error:
        raise click.ClickException(str(error)) from error
    print(msgspec.json.encode(live).decode() if as_json else f"run {run_id}: {done}")
    return 0


async def _found(run_id: str | None) -> list[_StatusLine]:
    records = await asyncio.to_thread(_records, run_id)
    if run_id is not None and not records:
        raise ControlError(
            f"no run {run_id!r} was begun by this user on this host: see `livemig status`", run_id=run_id
        )
    return [await _status(record) for record in records]


def _records(run_id: str | None) -> list[RunRecord]:
    journal = Journal.open_to_read()
    if journal is None:
        return []
    try:
        if run_id is None:
            return journal.records()
        record = journal.record(run_id)
        return [] if record is None else [record]
    finally:
        journal.close()


async def _status(record: RunRecord) -> _StatusLine:
    live, state, remedy = None, "cut off", f"livemig recover {record.id}"
    if record.ending is not None:
        state = "ended"
        remedy = remedy if record.ending.outcome is Outcome.UNKNOWN else ""
    elif is_driven(record.id):
        state, remedy = "running", ""
        try:
            live = await ask(record.id, Request(do="status"))
        except ControlError as error:
            remedy = str(error)
    return _StatusLine(
        id=record.id,
        state=state,
        started_at=record.started_at,
        source=record.source.address,
        destination=record.destination.address,
        ending=record.ending,
        live=live,
        remedy=remedy,
    )


def _lines(status: _StatusLine, *, full: bool) -> list[str]:
    what = status.state
    if status.ending is not None:
        what = f"{status.ending.outcome}, the guest on {status.ending.running_on}"
    elif status.live is not None:
        what = status.live.doing
    elif status.state == "cut off":
        what = f"cut off, nobody drives it: `{status.remedy}`"
    head = f"{status.id}  {status.started_at[:19]}  {status.source} to {status.destination}: {what}"
    if not full:
        return [head]
    lines = [head]
    if status.live is not None:
        lines += _live_lines(status.live)
    if status.ending is not None:
        lines.append(f"  {status.ending.reason}")
        lines += [f"  warning: {text}" for text in status.ending.warnings]
    if status.remedy and status.state != "cut off":
        lines.append(f"  {status.remedy}")
    return lines


def _live_lines(live: LiveStatus) -> list[str]:
    limits = [f"downtime limit {format_duration(live.plan.downtime_limit_s)}"]
    if live.plan.bandwidth_bytes_s is not None:
        limits.append(f"bandwidth {format_rate(live.plan.bandwidth_bytes_s)}")
    if live.plan.deadline_s is not None:
        limits.append(f"deadline {format_duration(live.plan.deadline_s)}")
    lines = [f"  process {live.engine_pid}; {', '.join(limits)}"]
    if live.progress is not None and live.remaining_bytes is not None:
        figures = [f"{live.progress:.0%}", f"round {live.round_number}", f"{format_size(live.remaining_bytes)} left"]
        if live.expected_downtime_s is not None:
            figures.append(f"downtime now {format_duration(live.expected_downtime_s)}")
        if live.left_s is not None:
            figures.append(f"done in {format_duration(live.left_s[0])} to {format_duration(live.left_s[1])}")
        lines.append(f"  {', '.join(figures)}")
    return lines
