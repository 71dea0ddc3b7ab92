"""A policy that is told what an engine would tell it, for tests to play with; holds no test."""

from __future__ import annotations

from typing import Any

from livemig.core.action import Action, SetDowntimeLimit
from livemig.core.inputs import (
    Input,
    Observed,
    Prepared,
    SourceStopped,
    StatusSeen,
)
from livemig.core.observation import Observation
from livemig.core.phases import Phase
from livemig.core.plan import AtDeadline, Plan
from livemig.core.policy import (
    Decision,
    Policy,
)
from livemig.core.status import MigrationStatus
from livemig.core.switchover import FIXED_DOWNTIME_PRIOR_S

MiB = 2**20
PLAN = Plan(downtime_limit_s=0.3)
LATE = Plan(downtime_limit_s=0.3, deadline_s=10, at_deadline=AtDeadline.CANCEL)
LATE_PAUSE = Plan(downtime_limit_s=0.3, deadline_s=10, at_deadline=AtDeadline.PAUSE)
LIMIT = SetDowntimeLimit(downtime_limit_s=0.3 - FIXED_DOWNTIME_PRIOR_S)
LIFTED = SetDowntimeLimit(downtime_limit_s=2000.0)
STOP_BOUND_S = 3 * 0.3 + 1


def seen(time_s: float, status: str = "active", **counters: Any) -> Observed:
    """What a poll brings; the counters differ from poll to poll unless they are given."""
    given = {"sent_bytes": int(time_s * 40 * MiB), "remaining_bytes": 64 * MiB, "dirty_sync_count": 1, **counters}
    return Observed(
        time_s=time_s,
        observation=Observation(time_s=time_s, status=MigrationStatus(status), status_text=status, **given),
    )


def said(time_s: float, status: str) -> StatusSeen:
    """QEMU's MIGRATION event."""
    return StatusSeen(time_s=time_s, status=MigrationStatus(status))


class Play:
    """A policy and what it was told so far: call it with inputs, read what the last made it do."""

    def __init__(self, plan: Plan = PLAN) -> None:
        self.policy = Policy(plan)
        self.decisions: list[Decision] = []

    def __call__(self, *told: Input) -> tuple[Action, ...]:
        self.decisions += [self.policy.step(one) for one in told]
        return self.decisions[-1].actions

    @property
    def actions(self) -> list[Action]:
        return [action for decision in self.decisions for action in decision.actions]

    @property
    def reason(self) -> str:
        return self.decisions[-1].reason


def precopy(plan: Plan = PLAN) -> Play:
    """A guest that moves: its first slot was counted at 0.2 s, the first without the guard at 0.4 s."""
    play = Play(plan)
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB), said(0.01, "setup"), said(0.02, "active"))
    play(seen(0.2, throughput_bytes_s=40.0 * MiB), seen(0.4, throughput_bytes_s=40.0 * MiB))
    return play


def stopped(plan: Plan = PLAN, at_s: float = 5.0) -> Play:
    """A guest that stands still for the switchover since `at_s`."""
    play = precopy(plan)
    play(seen(at_s, throughput_bytes_s=40.0 * MiB), SourceStopped(time_s=at_s), said(at_s, "device"))
    return play


WAYS = {
    Phase.SETUP: ["setup"],
    Phase.PRECOPY: ["setup", "active"],
    Phase.SWITCHOVER: ["setup", "active", "device"],
    Phase.POSTCOPY: ["setup", "active", "device", "postcopy-active"],
    Phase.CANCELLING: ["setup", "active", "cancelling"],
    Phase.FAILING: ["setup", "active", "failing"],
    Phase.COMPLETED: ["setup", "active", "device", "completed"],
    Phase.CANCELLED: ["setup", "active", "cancelling", "cancelled"],
    Phase.FAILED: ["setup", "active", "failed"],
}


def in_phase(phase: Phase, plan: Plan = PLAN) -> Play:
    """A migration in a phase since 0.1 s, as QEMU's events lead there."""
    play = Play(plan)
    play(Prepared(time_s=0.0, memory_bytes=256 * MiB))
    for status in WAYS[phase]:
        play(said(0.1, status))
    assert play.policy.phase is phase
    return play
