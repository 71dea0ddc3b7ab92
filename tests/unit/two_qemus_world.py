"""The truth of two QEMUs and the mind of an engine as plain data, and where the truth would be violated; no moves."""

from __future__ import annotations

from typing import NamedTuple

from livemig.core.evidence import Evidence
from livemig.core.outcome import Step, Verdict
from livemig.core.readings import Reading
from livemig.core.status import MigrationStatus, RunState

Steps = frozenset[Step]


class Broken(AssertionError):
    """The table let something happen that must never happen."""


class World(NamedTuple):
    """The truth of both sides, and the engine's mind."""

    # The source: process up, dead (and provably so), or its whole host dead (nobody can tell).
    source: str = "up"
    source_runs: bool = True
    source_status: MigrationStatus = MigrationStatus.ACTIVE
    source_contact: bool = True
    source_sticks: bool = False
    """Does not resume by itself, and refuses ``cont`` as long as the destination's process holds the disks."""
    source_ran_on: bool = False
    """Since its STOP: what the destination received is older than the disks."""
    # The destination.
    destination: str = "up"
    destination_runs: bool = False
    destination_status: MigrationStatus = MigrationStatus.ACTIVE
    destination_contact: bool = True
    destination_refuses: bool = False
    destination_ran: bool = False
    # Between and around them.
    link: str = "ok"
    """``ok``, ``cut`` (both notice), ``black`` (silent)."""
    all_sent: bool = False
    guest_off: bool = False
    faults_left: int = 1
    # The engine.
    at: str = "watch"
    half_read: MigrationStatus | RunState | None = None
    """The first of the two answers that make a reading."""
    last_source: Reading | None = None
    last_destination: Reading | None = None
    evidence: Evidence = Evidence()
    spent: Steps = frozenset()
    follows_source: bool = True
    follows_destination: bool = True
    only_cont: bool = False
    """The one ``cont`` ever sent to the destination is this process's, and its events were followed since."""
    intent_journalled: bool = True
    completion_journalled: bool = False
    blind: bool = False
    """Something was lost that the engine needed to know: contact, its memory, a command."""
    returned: bool = False
    """A person has had recovery run again, once contact was back."""
    verdict: Verdict | None = None


def gave_up(now: World) -> bool:
    """Whether the source failed or was cancelled: from there what it sent is never continued."""
    return now.source_status in (MigrationStatus.FAILED, MigrationStatus.CANCELLED)


def runs_at_source(now: World) -> World:
    """The guest runs at the source from here."""
    if now.destination_ran:
        raise Broken("the source runs on with a memory older than the disks")
    if now.destination_runs:
        raise Broken("two guests run")
    return now._replace(source_runs=True, source_ran_on=True)


def runs_at_destination(now: World) -> World:
    """The guest runs at the destination from here."""
    if now.source_runs:
        raise Broken("two guests run")
    if now.source_ran_on:
        raise Broken("the destination runs with a memory older than the disks")
    return now._replace(destination_runs=True, destination_ran=True)
