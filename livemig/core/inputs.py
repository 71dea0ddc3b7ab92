"""What `Policy.step` is told, one frozen object each, every one with its time. Pure data.

Times are seconds since the ``migrate`` command on the engine's monotonic clock; what came before is negative.
"""

from __future__ import annotations

import msgspec

from livemig.core.foreknowledge import Foreknowledge
from livemig.core.observation import Observation
from livemig.core.plan import PlanChange
from livemig.core.status import MigrationStatus, RunState


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag="prepared"):
    """Both sides are ready and ``migrate`` comes next: the policy's first settings are asked for."""

    time_s: float
    memory_bytes: int
    """The guest's memory, as ``query-memory-size-summary`` gives it."""
    known: Foreknowledge = Foreknowledge()
    """What is known of the guest and the link beforehand."""
    takes_switchover_bandwidth: bool = False
    """Whether the source has ``avail-switchover-bandwidth``: not 7.2."""


class Observed(msgspec.Struct, frozen=True, kw_only=True, tag="observed"):
    """A ``query-migrate`` reply of the source."""

    time_s: float
    observation: Observation


class StatusSeen(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """A MIGRATION event of the source."""

    time_s: float
    status: MigrationStatus


class SourceStopped(msgspec.Struct, frozen=True, kw_only=True, tag="source-stopped"):
    """The source's STOP event: the guest stands still."""

    time_s: float


class SourceResumed(msgspec.Struct, frozen=True, kw_only=True, tag="source-resumed"):
    """The source's RESUME event: the guest runs at the source again."""

    time_s: float


class RunStateSeen(msgspec.Struct, frozen=True, kw_only=True, tag="run-state"):
    """The source's run state, asked for after its STOP: QEMU's own switchover or somebody's ``stop``?"""

    time_s: float
    run_state: RunState


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick"):
    """Time passed and nothing came."""

    time_s: float


class Tuned(msgspec.Struct, frozen=True, kw_only=True, tag="tuned"):
    """The user changed the plan."""

    time_s: float
    change: PlanChange


class CancelRequested(msgspec.Struct, frozen=True, kw_only=True, tag="cancel-requested"):
    """Somebody wants the guest to stay at the source."""

    time_s: float
    reason: str


class PeerLost(msgspec.Struct, frozen=True, kw_only=True, tag="peer-lost"):
    """The monitor of one side ended."""

    time_s: float
    side: str
    """``source`` or ``destination``."""


class ActionRefused(msgspec.Struct, frozen=True, kw_only=True, tag="action-refused"):
    """QEMU did not take an action: it refused, or gave no answer within the bound."""

    time_s: float
    action: str
    reason: str


Input = (
    Prepared
    | Observed
    | StatusSeen
    | SourceStopped
    | SourceResumed
    | RunStateSeen
    | Tick
    | Tuned
    | CancelRequested
    | PeerLost
    | ActionRefused
)
