"""The phases of a migration, and which status of the source leads where.

Statuses come by polls and events, so some may be skipped. Decides nothing: `livemig.core.policy` and
`livemig.core.outcome` do.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from livemig.core.errors import PolicyError
from livemig.core.status import MigrationStatus

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(StrEnum):
    """Where a migration stands, by the source's word."""

    SETUP = "setup"
    PRECOPY = "precopy"
    SWITCHOVER = "switchover"
    POSTCOPY = "postcopy"
    CANCELLING = "cancelling"
    FAILING = "failing"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def terminal(self) -> bool:
        """Whether QEMU is done with this migration: the status changes no more."""
        return self in (Phase.COMPLETED, Phase.CANCELLED, Phase.FAILED)


_CONNECTING = (MigrationStatus.SETUP, MigrationStatus.WAIT_UNPLUG)
_SWITCHING = (MigrationStatus.PRE_SWITCHOVER, MigrationStatus.DEVICE)
_POSTCOPY = (
    MigrationStatus.POSTCOPY_DEVICE,
    MigrationStatus.POSTCOPY_ACTIVE,
    MigrationStatus.POSTCOPY_PAUSED,
    MigrationStatus.POSTCOPY_RECOVER_SETUP,
    MigrationStatus.POSTCOPY_RECOVER,
)
_UNREAD = (MigrationStatus.UNKNOWN, MigrationStatus.COLO)
"""Statuses that livemig does not know or never asks for: stay where we are and keep observing."""

_ENDS: Mapping[Phase, tuple[MigrationStatus, ...]] = {
    Phase.CANCELLING: (MigrationStatus.CANCELLING,),
    Phase.FAILING: (MigrationStatus.FAILING,),
    Phase.COMPLETED: (MigrationStatus.COMPLETED,),
    Phase.CANCELLED: (MigrationStatus.CANCELLED,),
    Phase.FAILED: (MigrationStatus.FAILED,),
}

_LEADS_TO: Mapping[Phase, Mapping[Phase, tuple[MigrationStatus, ...]]] = {
    Phase.SETUP: {
        Phase.SETUP: (MigrationStatus.NONE, *_CONNECTING),
        Phase.PRECOPY: (MigrationStatus.ACTIVE,),
        Phase.SWITCHOVER: _SWITCHING,
        Phase.POSTCOPY: _POSTCOPY,
        **_ENDS,
    },
    Phase.PRECOPY: {
        Phase.PRECOPY: (MigrationStatus.ACTIVE,),
        Phase.SWITCHOVER: _SWITCHING,
        Phase.POSTCOPY: _POSTCOPY,
        **_ENDS,
    },
    # 7.2 has no `device` without pause-before-switchover: from STOP to `completed` it still says `active`.
    Phase.SWITCHOVER: {
        Phase.SWITCHOVER: (MigrationStatus.ACTIVE, *_SWITCHING),
        Phase.POSTCOPY: _POSTCOPY,
        **_ENDS,
    },
    Phase.POSTCOPY: {Phase.POSTCOPY: _POSTCOPY, **_ENDS},
    # The phase may begin when the cancel is sent: QEMU may take it later, or too late, or refuse it.
    Phase.CANCELLING: {
        **_ENDS,
        Phase.CANCELLING: (MigrationStatus.CANCELLING, *_CONNECTING, MigrationStatus.ACTIVE, *_SWITCHING),
        Phase.POSTCOPY: _POSTCOPY,
    },
    Phase.FAILING: {
        Phase.FAILING: (MigrationStatus.FAILING,),
        Phase.POSTCOPY: _POSTCOPY,
        Phase.CANCELLING: (MigrationStatus.CANCELLING,),
        Phase.CANCELLED: (MigrationStatus.CANCELLED,),
        Phase.FAILED: (MigrationStatus.FAILED,),
    },
    Phase.COMPLETED: {Phase.COMPLETED: (MigrationStatus.COMPLETED,)},
    Phase.CANCELLED: {Phase.CANCELLED: (MigrationStatus.CANCELLED,)},
    Phase.FAILED: {Phase.FAILED: (MigrationStatus.FAILED,)},
}


def _table(phase: Phase) -> Mapping[MigrationStatus, Phase]:
    leads = {status: after for after, statuses in _LEADS_TO[phase].items() for status in statuses}
    return MappingProxyType(leads | dict.fromkeys(_UNREAD, phase))


TRANSITIONS: Mapping[Phase, Mapping[MigrationStatus, Phase]] = MappingProxyType(
    {phase: _table(phase) for phase in Phase}
)
"""For each phase, where each status of the source leads. A missing one can't be reached from there."""


def next_phase(phase: Phase, status: MigrationStatus) -> Phase:
    """Where the source's status leads from a phase.

    Raises:
        PolicyError: When QEMU can't go there: a bug of ours, or a newer QEMU. Settle the migration then.
    """
    after = TRANSITIONS[phase].get(status)
    if after is None:
        raise PolicyError(f"QEMU says {status}, which can't follow {phase}", phase=phase.value, status=status.value)
    return after
