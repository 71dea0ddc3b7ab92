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

FORECAST_PERIOD_S, FORECAST_PERIOD_SHARE = 1.0, 1 / 3
"""A full forecast takes tens of milliseconds of a processor: at most one in this time, and in a long migration at most
one in this share of the time since ``migrate``. What is shown between them is brought up to date from the last one."""


class Due:
    """A forecast that is due; computing it may take a while, and later inputs change nothing about it.

    Attributes:
        at: What it is as of, such as ``round 1``.
        time_s: When, in seconds since ``migrate``.
    """

    def __init__(self, forecaster: Forecaster, at: str, time_s: float) -> None:
        self.at, self.time_s = at, time_s
        self.forecaster = forecaster.snapshot()

    def compute(self) -> Forecast:
        """Returns the forecast; may be called in any thread."""
        return self.forecaster.forecast(self.at, self.time_s)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What an input showed.

    Attributes:
        finished: The round that it ended, or None.
        due: The forecast that is due, or None. What it said is given back with `Outlook.take`.
    """

    finished: Round | None = None
    due: Due | None = None


class Outlook:
    """Steps through one migration beside the policy. Deterministic: the same inputs give the same forecasts.

    Attributes:
        rounds: The passes that ended.
        forecasts: What was given back so far, in order.
    """

    def __init__(self, plan: Plan) -> None:
        self.rounds: list[Round] = []
        self.forecasts: list[Forecast] = []
        self._plan = plan
        self._tracker = RoundTracker()
        self._forecaster: Forecaster | None = None
        self._latest: Due | None = None
        self._stopped_s: float | None = None
        self._due_s = 0.0

    @property
    def round_number(self) -> int:
        """The pass under way, from 1."""
        return self._tracker.round_number

    def note_sync(self, count: int) -> None:
        """Takes a sync that was announced; its observation may come later, or, at the end, never."""
        self._tracker.note_sync(count)

    def step(self, item: Input) -> Seen:
        """Takes one input; returns the round that it ended and the forecast that is due."""
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
        return None if self._latest is None else self._latest.forecaster.left_s(time_s)

    def take(self, due: Due, forecast: Forecast) -> None:
        """Takes what was computed."""
        self._latest = due
        self.forecasts.append(forecast)

    def commit(self) -> Due | None:
        """Returns the forecast that is due as of the source's STOP, once; None when it never stopped.

        Asked for only once the guest runs again: what nobody can act on need not lengthen the downtime.
        """
        if self._forecaster is None or self._stopped_s is None:
            return None
        stopped_s, self._stopped_s = self._stopped_s, None
        return Due(self._forecaster, "commit", stopped_s)

    def _prepared(self, item: Prepared) -> Seen:
        from livemig.core.forecaster import Forecaster

        self._forecaster = Forecaster.knowing(self._plan, item.memory_bytes, item.known)
        return Seen(due=Due(self._forecaster, "start", item.time_s))

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
        period_s = max(FORECAST_PERIOD_S, FORECAST_PERIOD_SHARE * item.time_s)
        if len(self.rounds) > 1 and item.time_s - self._due_s < period_s:
            return Seen(finished=finished)
        self._due_s = item.time_s
        return Seen(finished=finished, due=Due(self._forecaster, f"round {finished.number}", item.time_s))

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
