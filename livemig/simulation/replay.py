"""Runs a recorded trace through policy and forecast again and compares what they say. Pure: records to comparison."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from livemig.core.errors import TraceError
from livemig.core.event import Forecasted
from livemig.core.inputs import Prepared
from livemig.core.outlook import Due, Outlook
from livemig.core.policy import Decision, Policy
from livemig.core.prediction import Forecast, Interval
from livemig.core.trace import (
    DecisionRecord,
    EventRecord,
    InputRecord,
    TraceHeader,
    TraceRecord,
    worth_recording,
)

FORECAST_TOLERANCE = 1e-6
"""Relative: another processor or numpy adds in another order."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that came out otherwise than recorded.

    Attributes:
        input_number: The input it answers, counted from 1.
        recorded: What the trace holds; None where it holds no decision.
        replayed: What the policy decides now; None where it decides nothing.
    """

    input_number: int
    recorded: Decision | None
    replayed: Decision | None


class ForecastDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A forecast that came out otherwise than recorded.

    Attributes:
        at: When it was made, in the forecast's own words.
        recorded: What the trace holds.
        replayed: What is forecast now; None where nothing is.
    """

    at: str
    recorded: Forecast
    replayed: Forecast | None


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found.

    Attributes:
        header: The trace's header.
        input_count: How many inputs were stepped through.
        decisions: The decisions now, each with the number of its input.
        differences: Where they differ from the trace; empty when it is reproduced.
        forecasts: The forecasts now.
        forecast_differences: Where those differ from the trace. What the trace does not hold is not held against them:
            a simulated run makes no forecasts, and one that ended in the switchover none at the commit.
    """

    header: TraceHeader
    input_count: int
    decisions: tuple[tuple[int, Decision], ...]
    differences: tuple[Difference, ...]
    forecasts: tuple[Forecast, ...]
    forecast_differences: tuple[ForecastDifference, ...]

    @property
    def reproduced(self) -> bool:
        """Whether everything came out as recorded."""
        return not (self.differences or self.forecast_differences)


def replay(records: Iterable[TraceRecord]) -> Replay:
    """Steps the policy and the forecast through a trace's inputs.

    Where the two QEMUs did not come together and another way was tried, the trace holds an attempt after the other:
    each has a policy of its own.

    Raises:
        TraceError: When there is no header or no input in it.
    """
    header: TraceHeader | None = None
    policy: Policy | None = None
    outlook: Outlook | None = None
    forecasts: list[Forecast] = []
    forecasts_now: list[Forecast] = []
    input_count = 0
    recorded: dict[int, Decision] = {}
    replayed: dict[int, Decision] = {}
    for record in records:
        match record:
            case TraceHeader():
                header, policy, outlook = record, Policy(record.plan), Outlook(record.plan)
            case InputRecord() if header is not None and policy is not None and outlook is not None:
                if isinstance(record.input, Prepared) and input_count:
                    forecasts_now += outlook.forecasts
                    policy, outlook = Policy(header.plan), Outlook(header.plan)
                input_count += 1
                decision = policy.step(record.input)
                if worth_recording(decision):
                    replayed[input_count] = decision
                _forecast(outlook, outlook.step(record.input).due)
            case DecisionRecord():
                recorded[input_count] = record.decision
            case EventRecord(event=Forecasted(forecast=forecast)):
                forecasts.append(forecast)
            case _:
                pass
    if header is None or outlook is None or input_count == 0:
        raise TraceError("the trace holds no input: the run ended before it began", line_number=1)
    differences = tuple(
        Difference(input_number=number, recorded=recorded.get(number), replayed=replayed.get(number))
        for number in sorted(recorded.keys() | replayed.keys())
        if recorded.get(number) != replayed.get(number)
    )
    _forecast(outlook, outlook.commit())
    forecasts_now += outlook.forecasts
    return Replay(
        header=header,
        input_count=input_count,
        decisions=tuple(sorted(replayed.items())),
        differences=differences,
        forecasts=tuple(forecasts_now),
        forecast_differences=_forecast_differences(forecasts, forecasts_now),
    )


def _forecast(outlook: Outlook, due: Due | None) -> None:
    if due is not None:
        outlook.take(due, due.compute())


def _forecast_differences(recorded: list[Forecast], replayed: list[Forecast]) -> tuple[ForecastDifference, ...]:
    now = _numbered(replayed)
    return tuple(
        ForecastDifference(at=before.at, recorded=before, replayed=now.get(key))
        for key, before in _numbered(recorded).items()
        if not _same(before, now.get(key))
    )


def _numbered(forecasts: list[Forecast]) -> dict[tuple[str, int], Forecast]:
    """By when each was made, and in which attempt: each begins anew."""
    found: dict[tuple[str, int], Forecast] = {}
    for forecast in forecasts:
        count = sum(at == forecast.at for at, _ in found)
        found[forecast.at, count] = forecast
    return found


def _same(one: Forecast, other: Forecast | None) -> bool:
    return other is not None and all(_close(a, b) for a, b in zip(_figures(one), _figures(other), strict=True))


def _figures(forecast: Forecast) -> tuple[Interval | None, ...]:
    probabilities = (forecast.converges, forecast.keeps_limit, forecast.time_s)
    return (probabilities, forecast.total_s, forecast.downtime_s, forecast.sent_bytes)


def _close(one: Interval | None, other: Interval | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(math.isclose(a, b, rel_tol=FORECAST_TOLERANCE, abs_tol=1e-9) for a, b in zip(one, other, strict=True))
