"""What a QEMU says of itself, and what run state and migration status mean together on each side.

Folds the many pairs into the few states that the outcome table tells apart. Decides nothing:
`livemig.core.outcome` does.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from livemig.core.status import MigrationStatus, RunState


class Absence(StrEnum):
    """Why a QEMU gives no run state."""

    GONE = "gone"
    """Its process has ended; that is proven."""
    UNREACHABLE = "unreachable"
    """Its monitor is silent or the connection is lost; the process may well live."""


class Reading(msgspec.Struct, frozen=True):
    """What one side said when it was asked last.

    Attributes:
        state: Its run state, or why there is none.
        migration: Its migration status; None when it can't be read.
    """

    state: RunState | Absence
    migration: MigrationStatus | None = None


LIVE = frozenset({RunState.RUNNING, RunState.SUSPENDED})
"""Run states of a guest that lives: a suspended one may wake at any moment."""
_STOPPED = frozenset({RunState.PAUSED, RunState.FINISH_MIGRATE, RunState.POSTMIGRATE})
_TROUBLED = frozenset(
    {
        RunState.IO_ERROR,
        RunState.WATCHDOG,
        RunState.GUEST_PANICKED,
        RunState.INTERNAL_ERROR,
        RunState.DEBUG,
    }
)
"""The guest got into these by itself or by its owner: not livemig's to continue."""
_UNDER_WAY = frozenset(
    {
        MigrationStatus.SETUP,
        MigrationStatus.WAIT_UNPLUG,
        MigrationStatus.ACTIVE,
        MigrationStatus.PRE_SWITCHOVER,
        MigrationStatus.DEVICE,
    }
)
_POSTCOPY = frozenset(
    {
        MigrationStatus.POSTCOPY_DEVICE,
        MigrationStatus.POSTCOPY_ACTIVE,
        MigrationStatus.POSTCOPY_PAUSED,
        MigrationStatus.POSTCOPY_RECOVER_SETUP,
        MigrationStatus.POSTCOPY_RECOVER,
    }
)
_UNREAD = frozenset({MigrationStatus.UNKNOWN, MigrationStatus.COLO, None})
"""Statuses that livemig does not know, never asks for, or could not read."""


class SourceState(StrEnum):
    """What the outcome table tells apart at the source."""

    GONE = "gone"
    UNREACHABLE = "unreachable"
    MOVING = "moving"
    """Its migration can be cancelled without a second thought: before STOP, or waiting in pre-switchover."""
    SWITCHING = "switching"
    """The guest stands still and the rest goes over."""
    ENDING = "ending"
    """Cancelling or failing."""
    POSTCOPY = "postcopy"
    RUNS = "runs"
    """The guest lives here, and no migration is under way."""
    REVIVED = "revived"
    """The guest lives here although the migration completed: somebody continued it since."""
    COMPLETED = "completed"
    """Everything was handed over and the guest stands still."""
    UNDONE = "undone"
    """The migration failed or was cancelled, and the guest has not been set running again."""
    STANDS = "stands"
    """The guest stands still by its own or its owner's doing; that is how it stays."""
    OFF = "off"
    """The guest shut itself down and QEMU stayed."""
    UNCLEAR = "unclear"
    """A state that livemig does not know, or that makes no sense here: keep observing."""


class DestinationState(StrEnum):
    """What the outcome table tells apart at the destination."""

    GONE = "gone"
    UNREACHABLE = "unreachable"
    LISTENING = "listening"
    """Nothing was received yet."""
    LOADING = "loading"
    """Incomplete, and may yet become complete."""
    FAILED = "failed"
    """Incomplete for good."""
    READY = "ready"
    """Holds the complete guest, which stands still."""
    HALTED = "halted"
    """Holds the complete guest, which stands still by its own doing: an error, a panic."""
    OFF = "off"
    """The guest shut itself down and QEMU stayed."""
    RUNS = "runs"
    """The guest lives here."""
    POSTCOPY = "postcopy"
    UNCLEAR = "unclear"
    """A state that livemig does not know, or that makes no sense here: keep observing."""


def source_state(reading: Reading, *, live_before: bool) -> SourceState:
    """What the source's run state and migration status mean together.

    Args:
        reading: What the source said.
        live_before: Whether the guest lived before the migration.
    """
    state, status = reading.state, reading.migration
    if isinstance(state, Absence):
        return SourceState(state.value)
    off = state is RunState.SHUTDOWN and live_before
    known = state in LIVE | _STOPPED | _TROUBLED or state in (RunState.PRELAUNCH, RunState.SHUTDOWN)
    if not known or status in _UNREAD:
        return SourceState.UNCLEAR
    if status in _POSTCOPY:
        return SourceState.POSTCOPY
    if status in (MigrationStatus.CANCELLING, MigrationStatus.FAILING):
        return SourceState.ENDING
    if status in _UNDER_WAY:
        return _source_under_way(state, status)
    if off:
        return SourceState.OFF
    if status is MigrationStatus.COMPLETED:
        return _source_completed(state)
    if state in LIVE:
        return SourceState.RUNS
    stopped_by_qemu = state in _STOPPED and status is not MigrationStatus.NONE
    return SourceState.UNDONE if stopped_by_qemu else SourceState.STANDS


def _source_under_way(state: RunState, status: MigrationStatus | None) -> SourceState:
    if status is MigrationStatus.PRE_SWITCHOVER:
        return SourceState.MOVING
    if status is MigrationStatus.DEVICE or state in (RunState.FINISH_MIGRATE, RunState.POSTMIGRATE):
        return SourceState.SWITCHING
    return SourceState.MOVING


def _source_completed(state: RunState) -> SourceState:
    if state in LIVE:
        return SourceState.REVIVED
    return SourceState.UNCLEAR if state in _TROUBLED else SourceState.COMPLETED


def destination_state(reading: Reading, *, live_before: bool) -> DestinationState:
    """What the destination's run state and migration status mean together.

    Args:
        reading: What the destination said.
        live_before: Whether the guest lived before the migration.
    """
    state, status = reading.state, reading.migration
    if isinstance(state, Absence):
        return DestinationState(state.value)
    if status in _POSTCOPY and (state in LIVE | _STOPPED or state is RunState.INMIGRATE):
        return DestinationState.POSTCOPY
    if state is RunState.INMIGRATE:
        return _destination_incoming(status)
    if status is not MigrationStatus.COMPLETED:
        return DestinationState.UNCLEAR
    if state in LIVE:
        return DestinationState.RUNS
    if state in _TROUBLED:
        return DestinationState.HALTED
    if state is RunState.SHUTDOWN and live_before:
        return DestinationState.OFF
    waits = state in (RunState.PAUSED, RunState.PRELAUNCH, RunState.POSTMIGRATE, RunState.SHUTDOWN)
    return DestinationState.READY if waits else DestinationState.UNCLEAR


def _destination_incoming(status: MigrationStatus | None) -> DestinationState:
    if status in (MigrationStatus.NONE, MigrationStatus.SETUP):
        return DestinationState.LISTENING
    if status is MigrationStatus.ACTIVE:
        return DestinationState.LOADING
    if status in (MigrationStatus.FAILING, MigrationStatus.FAILED):
        return DestinationState.FAILED
    return DestinationState.UNCLEAR
