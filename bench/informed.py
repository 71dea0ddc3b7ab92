"""What a rule could reach that knows the guest and its link, but not what comes: how much of a regret is luck. Pure.

It knows the guest and its link, where both are when the first copy has ended, and all that is certain of what comes. It
plays other futures from there, with limits that stay and limits that rise to the user's, and takes what most often
comes within so many times the best of a future. What the guest's own future makes of that is its result. No rule that
runs beside a real QEMU knows so much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, log

import msgspec
import numpy as np

from livemig.core.inputs import Prepared
from livemig.core.observation import Observation
from livemig.core.plan import DOWNTIME_LIMIT_LEAST_S, Plan
from livemig.core.rule import Wanted
from livemig.core.switchover import first_crossing

FUTURES = 12
LIMIT_COUNT, LIMIT_RATIO = 12, 0.7
"""It tries so many limits, each this share of the one before, from the user's down."""
RESERVE_S = 0.6
"""Before the deadline the user's own limit is taken, whatever it held out for."""


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """What is held out for: from one limit after the first copy, to another shortly before the deadline.

    Attributes:
        from_s: The downtime limit that QEMU has first.
        to_s: What it has risen to when the user's own limit is taken.
    """

    from_s: float
    to_s: float


class Follows:
    """A rule that goes one way, whatever it sees."""

    def __init__(self, way: Way) -> None:
        self._way, self._plan = way, Plan()
        self._copied_s: float | None = None

    def begin(self, plan: Plan, seen: Prepared) -> Wanted:
        """Takes limit and deadline."""
        self._plan = plan
        return self.passed(seen.time_s)

    def observe(self, observation: Observation) -> Wanted:
        """Looks when the first copy has ended."""
        if self._copied_s is None and (observation.dirty_sync_count or 0) > 1:
            self._copied_s = observation.time_s
        return self.passed(observation.time_s)

    def passed(self, time_s: float) -> Wanted:
        """Goes on along the way."""
        user_s = first_crossing(self._plan).downtime_limit_s
        end_s = (self._plan.deadline_s or 0.0) - RESERVE_S
        if time_s >= end_s:
            return Wanted(downtime_limit_s=user_s)
        gone = 0.0
        if self._copied_s is not None:
            gone = (time_s - self._copied_s) / max(end_s - self._copied_s, 1e-9)
        limit_s = exp((1.0 - gone) * log(self._way.from_s) + gone * log(self._way.to_s))
        return Wanted(downtime_limit_s=max(min(limit_s, user_s), DOWNTIME_LIMIT_LEAST_S))

    def tuned(self, plan: Plan, time_s: float) -> Wanted:
        """Takes a changed plan."""
        self._plan = plan
        return self.passed(time_s)


def ways(plan: Plan) -> list[Way]:
    """Limits that stay, and limits that rise to the user's."""
    user_s = first_crossing(plan).downtime_limit_s
    limits = [max(user_s * LIMIT_RATIO**at, DOWNTIME_LIMIT_LEAST_S) for at in range(LIMIT_COUNT)]
    return [Way(from_s=each, to_s=each) for each in limits] + [Way(from_s=each, to_s=user_s) for each in limits[1:]]


def most_often_near(downtimes_s: np.ndarray, most_ratio: float) -> int:
    """Which way is most often within so many times the best of a future; of equals, the one with the least regret.

    Args:
        downtimes_s: By future and way; infinite where the guest did not move as asked.
        most_ratio: How near to the best is near.
    """
    best_s = downtimes_s.min(axis=1, keepdims=True)
    movable = np.isfinite(best_s[:, 0])
    if not movable.any():
        return 0
    regrets = downtimes_s[movable] / best_s[movable]
    near = (regrets <= most_ratio).mean(axis=0)
    middling = np.log(np.minimum(regrets, 1e3)).mean(axis=0)
    return int(np.lexsort((middling, -near))[0])


def best_way(plan: Plan, play: Callable[[Way, int], float], seeds: Sequence[int], most_ratio: float) -> Way:
    """The way that other futures speak for.

    Args:
        plan: What the user asks.
        play: The downtime that a way brings in the future with a seed; infinite where it does not move it as asked.
        seeds: The futures.
        most_ratio: How near to the best of a future is near.
    """
    tried = ways(plan)
    played = np.array([[play(way, seed) for way in tried] for seed in seeds])
    return tried[most_often_near(played, most_ratio)]
