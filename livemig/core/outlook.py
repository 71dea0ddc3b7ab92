"""Follows a migration by what the policy is told and says when to forecast: at the start, after rounds, at the commit.

Cuts the observations into rounds on the way. Decides nothing, and computes nothing itself: `livemig.core.forecaster`
does, which is loaded with numpy only when a migration begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.errors import PlanError
from livemig.core.inputs import Input, Observed, Prepared, RunStateSeen, SourceResumed, SourceStopped, Tuned
from livemig.core.observation import Observation
from livemig.core.plan import Plan
from livemig.core.policy import STOPPED_BY_QEMU
from livemig.core.prediction import Forecast
from livemig.core.rounds import Round, RoundTracker
from livemig.core.status import MigrationStatus

if TYPE_CHECKING:
    from livemig.core.forecaster import Forecaster

FORECAST_PERIOD_S = 1.0
"""A full forecast takes some milliseconds in which nothing else is done: at most one in this time."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an input showed.

    Attributes:
        finished: The round that it ended, or None.
        forecast: The forecast that was due, or None.
    """

    finished: Round | None = None
    forecast: Forecast | None = None


class Outlook:
    """Steps through one migration beside the policy. Deterministic: the same inputs give the same forecasts.

    Attributes:
        rounds: The passes that ended.
        forecasts: What was said so far, in order.
    """

    def __init__(self, plan: Plan) -> None:
        self.rounds: list[Round] = []
        self.forecasts: list[Forecast] = []
        self._plan = plan
        self._tracker = RoundTracker()
        self._forecaster: Forecaster | None = None
        self._stopped_s: float | None = None
        self._forecast_s = 0.0

    @property
    def round_number(self) -> int:
        """The pass under way, from 1."""
        return self._tracker.round_number

    def note_sync(self, count: int) -> None:
        """Takes a sync that was announced; its observation may come later, or, at the end, never."""
        self._tracker.note_sync(count)

    def step(self, item: Input) -> Seen:
        """Takes one input; returns the round that it ended and the forecast that was due."""
        match item:
            case Prepared():
                return self._prepared(item)
            case Observed():
                return self._observed(item)
            case Tuned():
                return self._tuned(item)
            case SourceStopped():
                self._stopped_s = item.time_s
            case SourceResumed():
                self._stopped_s = None
            case RunStateSeen() if item.run_state not in STOPPED_BY_QEMU:
                self._stopped_s = None
            case _:
                pass
        return Seen()

    @property
    def samples(self) -> tuple[DirtySample, ...]:
        """What is known of how the guest dirties memory."""
        return () if self._forecaster is None else self._forecaster.samples

    @property
    def throughput_bytes_s(self) -> float | None:
        """What the link carried at least, so far; None before the first slot."""
        return None if self._forecaster is None else self._forecaster.safe_bytes_s

    def left_s(self, time_s: float) -> tuple[float, float] | None:
        """Returns the time left as a range in seconds, the 5 % and 95 % quantiles; None when nothing is known."""
        if self._forecaster is None:
            return None
        return self._forecaster.left_s(time_s)

    def commit(self) -> Forecast | None:
        """Returns the forecast as of the source's STOP, once; None when it never stopped.

        Asked for only once the guest runs again: what nobody can act on need not lengthen the downtime.
        """
        if self._forecaster is None or self._stopped_s is None:
            return None
        stopped_s, self._stopped_s = self._stopped_s, None
        return self._forecast("commit", stopped_s)

    def _prepared(self, item: Prepared) -> Seen:
        from livemig.core.forecaster import Forecaster

        self._forecaster = Forecaster.knowing(self._plan, item.memory_bytes, item.known)
        return Seen(forecast=self._forecast("start", item.time_s))

    def _observed(self, item: Observed) -> Seen:
        observation = item.observation
        if not self._counts(observation) or self._forecaster is None:
            return Seen()
        self._forecaster.observe(item.time_s, observation)
        finished = self._tracker.observe(observation)
        if finished is None:
            return Seen()
        self.rounds.append(finished)
        self._forecaster.round_completed(finished)
        if len(self.rounds) > 1 and item.time_s - self._forecast_s < FORECAST_PERIOD_S:
            return Seen(finished=finished)
        return Seen(finished=finished, forecast=self._forecast(f"round {finished.number}", item.time_s))

    def _counts(self, observation: Observation) -> bool:
        """What goes over in the switchover is no round."""
        return observation.status is MigrationStatus.ACTIVE and self._stopped_s is None

    def _tuned(self, item: Tuned) -> Seen:
        try:
            self._plan = item.change.applied_to(self._plan)
        except PlanError:
            return Seen()  # the policy says so
        if self._forecaster is not None:
            self._forecaster.tuned(self._plan)
        return Seen()

    def _forecast(self, at: str, time_s: float) -> Forecast:
        assert self._forecaster is not None  # noqa: S101  # the callers ask
        forecast = self._forecaster.forecast(at, time_s)
        self.forecasts.append(forecast)
        self._forecast_s = time_s
        return forecast
