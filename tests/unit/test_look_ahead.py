"""Forecasts are computed beside the loop: what comes meanwhile is taken at once, and changes nothing about them."""

from __future__ import annotations

import asyncio
import threading

from livemig.core.forecaster import Forecaster
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.inputs import Observed, Prepared, SourceStopped
from livemig.core.observation import Observation
from livemig.core.outlook import Due, Outlook
from livemig.core.plan import Plan
from livemig.core.prediction import Forecast
from livemig.core.status import MigrationStatus
from livemig.engine.look_ahead import LookAhead

MIB = 2**20
PLAN = Plan(bandwidth_bytes_s=100.0 * MIB, downtime_limit_s=0.3)
PREPARED = Prepared(time_s=0.0, memory_bytes=256 * MIB, known=Foreknowledge(), takes_switchover_bandwidth=True)
BOUND_S = 20.0


def observed(time_s: float, sync_count: int, remaining_mib: float, sent_mib: float) -> Observed:
    """A reply of a source in its copy."""
    observation = Observation(
        status=MigrationStatus.ACTIVE,
        time_s=time_s,
        remaining_bytes=int(remaining_mib * MIB),
        sent_bytes=int(sent_mib * MIB),
        dirty_sync_count=sync_count,
        throughput_bytes_s=100.0 * MIB,
    )
    return Observed(time_s=time_s, observation=observation)


INPUTS = [observed(0.5, 1, 200, 50), observed(2.5, 1, 10, 240), observed(2.6, 2, 60, 250)]


def begun(told: list[Forecast]) -> tuple[Outlook, LookAhead]:
    """A run that has begun, with its forecast of the start."""
    outlook = Outlook(PLAN)
    look_ahead = LookAhead(outlook, told.append)
    look_ahead.begin(PREPARED)
    return outlook, look_ahead


async def test_the_loop_goes_on_while_a_forecast_is_computed(monkeypatch):
    """Until it lets the computation go on, in this test."""
    told: list[Forecast] = []
    outlook, look_ahead = begun(told)
    let_go = threading.Event()
    compute = Due.compute

    def late(due: Due) -> Forecast:
        assert let_go.wait(BOUND_S)
        return compute(due)

    monkeypatch.setattr(Due, "compute", late)
    for item in INPUTS:
        look_ahead.take(item)
    look_ahead.take(SourceStopped(time_s=2.7))
    await asyncio.sleep(0)
    assert [one.at for one in told] == ["start"]
    assert len(outlook.rounds) == 1
    let_go.set()
    async with asyncio.timeout(BOUND_S):
        await look_ahead.commit()
    assert [one.at for one in told] == ["start", "round 1", "commit"] == [one.at for one in outlook.forecasts]


async def test_a_forecast_that_fails_costs_the_run_nothing(monkeypatch, caplog):
    """It is a bug, and logged as one; those after it come."""
    told: list[Forecast] = []
    _, look_ahead = begun(told)

    def broken(_due: Due) -> Forecast:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(Due, "compute", broken)
        for item in INPUTS:
            look_ahead.take(item)
        await look_ahead.finish()
    look_ahead.take(SourceStopped(time_s=2.7))
    await look_ahead.commit()
    assert [one.at for one in told] == ["start", "commit"]
    assert "no forecast at round 1" in caplog.text


def test_what_is_due_does_not_learn_what_comes_later():
    """A forecast of the first round is of what was known then, whenever it is computed."""
    forecaster = Forecaster.knowing(PLAN, 256 * MIB, Foreknowledge())
    at_once, later = Due(forecaster, "round 1", 1.0).compute(), Due(forecaster, "round 1", 1.0)
    for item in INPUTS:
        forecaster.observe(item.time_s, item.observation)
    outlook = Outlook(PLAN)
    outlook.step(PREPARED)
    finished = [seen for item in INPUTS if (seen := outlook.step(item).finished) is not None]
    forecaster.round_completed(finished[0])
    assert later.compute() == at_once != Due(forecaster, "round 1", 1.0).compute()
