"""What another rule would have done on a recorded migration: when it would have let QEMU fire. Pure.

A trace holds what the recorded rule led to: until another one would have fired, that is the truth or near it (rounds
are as long as the threshold lets them be); beyond the recorded switchover nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from livemig.core.action import SetDowntimeLimit, SetSwitchoverBandwidth
from livemig.core.errors import TraceError
from livemig.core.inputs import Observed, Prepared, SourceStopped
from livemig.core.observation import Observation
from livemig.core.plan import Plan, Prefer
from livemig.core.policy import Decision, Policy
from livemig.core.rule import Rule
from livemig.core.trace import InputRecord, TraceHeader, TraceRecord, worth_recording
from livemig.simulation.rivals import RIVALS, rival

OWN = tuple(prefer.value for prefer in Prefer)
POLICIES = (*OWN, *RIVALS)
"""What ``--policy`` takes: livemig's preferences, and the rules of others."""


class Otherwise(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule would have done.

    Attributes:
        header: The trace's header.
        policy: The rule's name.
        input_count: How many inputs it was told.
        decisions: Its decisions, each with the number of its input, up to where it fires.
        fires_s: When QEMU would have found that what is left fits, in seconds since ``migrate``; None: not by then.
        left_bytes: What would have been left to send.
        expected_downtime_s: How long that would have taken at the last slot's rate, the fixed part included.
        recorded_s: When the guest was stopped in truth; None when it was not.
    """

    header: TraceHeader
    policy: str
    input_count: int
    decisions: tuple[tuple[int, Decision], ...]
    fires_s: float | None
    left_bytes: int | None
    expected_downtime_s: float | None
    recorded_s: float | None


def otherwise(records: Iterable[TraceRecord], name: str) -> Otherwise:
    """Tells a rule what the trace's rule was told, until it fires; of several attempts to connect, in the last.

    Raises:
        PlanError: When there is no rule of that name.
        TraceError: When there is no input in the trace.
    """
    header: TraceHeader | None = None
    told: _Told | None = None
    recorded_s: float | None = None
    for record in records:
        if isinstance(record, TraceHeader):
            header = record
            told = _Told(*_policy(record.plan, name))
        elif isinstance(record, InputRecord) and told is not None and header is not None:
            if isinstance(record.input, Prepared) and told.count:
                told = _Told(*_policy(header.plan, name), before_count=told.count)
            told.tell(record)
            if isinstance(record.input, SourceStopped) and recorded_s is None:
                recorded_s = record.input.time_s
    if header is None or told is None or not told.count:
        raise TraceError("the trace holds no input: the run ended before it began", line_number=1)
    fired = told.fired
    return Otherwise(
        header=header,
        policy=name,
        input_count=told.count,
        decisions=tuple(told.decisions),
        fires_s=None if fired is None else fired.time_s,
        left_bytes=None if fired is None else fired.remaining_bytes,
        expected_downtime_s=None if fired is None else told.expected_downtime_s(fired),
        recorded_s=recorded_s,
    )


def _policy(plan: Plan, name: str) -> tuple[Plan, Rule | None]:
    if name in OWN:
        return msgspec.structs.replace(plan, prefer=Prefer(name)), None
    return plan, rival(name)


class _Told:
    """A policy that is told inputs until what is left after a sync fits into its threshold."""

    def __init__(self, plan: Plan, rule: Rule | None, *, before_count: int = 0) -> None:
        self.count = before_count
        self.decisions: list[tuple[int, Decision]] = []
        self.fired: Observation | None = None
        self._policy = Policy(plan, rule)
        self._limit_s: float | None = None
        self._switchover_bytes_s: float | None = None
        self._syncs = 0
        self._over = False

    def tell(self, record: InputRecord) -> None:
        """Takes one input; nothing any more once it fired, or the guest stood still."""
        self.count += 1
        self._over = self._over or isinstance(record.input, SourceStopped)
        if self.fired is not None or self._over:
            return
        if isinstance(record.input, Observed):
            self._look(record.input.observation)
        if self.fired is not None:
            return
        decision = self._policy.step(record.input)
        if worth_recording(decision):
            self.decisions.append((self.count, decision))
        for action in decision.actions:
            if isinstance(action, SetDowntimeLimit):
                self._limit_s = action.downtime_limit_s
            elif isinstance(action, SetSwitchoverBandwidth):
                self._switchover_bytes_s = action.bandwidth_bytes_s

    def expected_downtime_s(self, fired: Observation) -> float:
        """How long the rest would have taken."""
        return (fired.remaining_bytes or 0) / (fired.throughput_bytes_s or 1.0) + self._policy.fixed_downtime_s

    def _look(self, observation: Observation) -> None:
        """QEMU looks at its threshold after a sync, by the bandwidth of the last slot or the one that it was told."""
        syncs, self._syncs = self._syncs, observation.dirty_sync_count or 0
        bytes_s = self._switchover_bytes_s or observation.throughput_bytes_s
        if self._syncs <= max(syncs, 1) or self._limit_s is None or not bytes_s or observation.remaining_bytes is None:
            return
        if observation.remaining_bytes <= bytes_s * self._limit_s:
            self.fired = observation
