"""``python -m bench forecastcost``: what a forecast costs in processor time and memory, and an update between. No QEMU.

Processor time, for a forecast waits for nothing; what a busy machine adds is not its doing.
"""

from __future__ import annotations

import time
import tracemalloc
from functools import partial
from math import expm1
from pathlib import Path

import click
import msgspec
import numpy as np

from bench.options import MIB, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, present
from bench.runner import run_benchmark
from livemig.core.dirty_sample import DirtySample
from livemig.core.forecaster import Forecaster
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.observation import Observation
from livemig.core.past import PastMigration
from livemig.core.plan import Plan
from livemig.core.rounds import Round
from livemig.core.status import MigrationStatus
from livemig.engine.history import MATCHES_MOST
from livemig.engine.sampling import sampling_periods

FULL_LIMIT_S = 0.02
UPDATE_LIMIT_S = 0.0003
MEMORY_LIMIT_BYTES = MIB
MEMORY_BYTES = 512 * MIB
ROUND_COUNT = 30
UPDATES = 200
PLAN = Plan(bandwidth_bytes_s=100.0 * MIB, downtime_limit_s=0.3, deadline_s=60.0)
RATES_MIB_S = (5.0, 30.0, 80.0, 98.0, 150.0)
"""Of the guests: from one that converges at once to one that never does."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One migration's forecasts.

    Attributes:
        start_s: The full forecast before it.
        round_s: The full forecast after its last round.
        update_s: Taking a reply of QEMU's, and the time left.
        memory_bytes: What it all holds at the end, by Python's own count.
    """

    start_s: float
    round_s: float
    update_s: float
    memory_bytes: int


@click.command(short_help="What a forecast costs: time and memory.")
@count_option(30, "migrations")
@shared_options
def forecastcost(*, count: int, qemu: str, as_json: bool, output: Path | None) -> None:
    """Forecast migrations of guests from quiet to hopeless, with 15 s of samples, a full history and 30 rounds.

    To reach: a full forecast 20 ms, an update 0.3 ms (medians), 1 MiB for each migration.
    """
    run_benchmark(
        "forecastcost",
        {"count": count},
        measure=partial(_measure, count),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(count: int, samples: list[Cost]) -> None:
    _one(0, RATES_MIB_S[0])  # numpy's first calls load more of it
    with Progress("migrations", count) as progress:
        for number in range(count):
            samples.append(_one(number, RATES_MIB_S[number % len(RATES_MIB_S)]))
            progress.step()


def _one(number: int, rate_mib_s: float) -> Cost:
    forecaster, start_s, round_s, update_s = _forecast(number, rate_mib_s)
    del forecaster
    tracemalloc.start()
    before_bytes = tracemalloc.get_traced_memory()[0]
    forecaster, *_ = _forecast(number, rate_mib_s)
    memory_bytes = tracemalloc.get_traced_memory()[0] - before_bytes
    tracemalloc.stop()
    del forecaster
    return Cost(start_s=start_s, round_s=round_s, update_s=update_s, memory_bytes=memory_bytes)


def _forecast(number: int, rate_mib_s: float) -> tuple[Forecaster, float, float, float]:
    forecaster = Forecaster.knowing(PLAN, MEMORY_BYTES, _known(number, rate_mib_s))
    began_s = time.process_time()
    forecaster.forecast("start", 0.0)
    start_s = time.process_time() - began_s
    for index in range(ROUND_COUNT):
        forecaster.observe(index + 1.0, _observation(index + 1.0))
        forecaster.round_completed(_round(index, rate_mib_s))
    began_s = time.process_time()
    forecaster.forecast(f"round {ROUND_COUNT}", ROUND_COUNT + 1.0)
    round_s = time.process_time() - began_s
    began_s = time.process_time()
    for index in range(UPDATES):
        forecaster.observe(ROUND_COUNT + 1.0, _observation(ROUND_COUNT + 1.0 + index * 0.2))
        forecaster.left_s(ROUND_COUNT + 1.0 + index * 0.2)
    return forecaster, start_s, round_s, (time.process_time() - began_s) / UPDATES


def _known(number: int, rate_mib_s: float) -> Foreknowledge:
    chance = np.random.default_rng(number)
    samples = []
    for period_s in sampling_periods(15.0):
        pages = _dirtied_pages(rate_mib_s, period_s)
        samples.append(
            DirtySample(
                periods_s=(period_s,),
                weights=(1.0,),
                dirtied_pages=pages * float(np.exp(0.05 * chance.standard_normal())),
                deviation_pages=0.05 * pages + 5.0,
            )
        )
    past = tuple(
        PastMigration(
            guest=f"{one}",
            hosts="",
            ended_at="",
            completed=True,
            memory_bytes=MEMORY_BYTES,
            bandwidth_bytes_s=PLAN.bandwidth_bytes_s,
            downtime_limit_s=0.3,
            rest_bytes=one * MIB,
            downtime_s=0.005 + one * 0.001,
            fresh_bytes_s=90.0 * MIB,
        )
        for one in range(MATCHES_MOST)
    )
    return Foreknowledge(
        samples=tuple(samples), touched_shares=(1.0,) * 20 + (0.0,) * 12, past=past, same_host=True, seed=number
    )


def _dirtied_pages(rate_mib_s: float, period_s: float) -> float:
    """Random writes to 200 MiB."""
    return -200.0 * 256 * expm1(-rate_mib_s * period_s / 200.0)


def _observation(time_s: float) -> Observation:
    return Observation(
        time_s=time_s,
        status=MigrationStatus.ACTIVE,
        total_bytes=MEMORY_BYTES,
        sent_bytes=int(time_s * 100 * MIB),
        remaining_bytes=60 * MIB,
        throughput_bytes_s=(100.0 + time_s % 0.9) * MIB,
        normal_pages=int(time_s * 25600),
        zero_pages=1000,
    )


def _round(index: int, rate_mib_s: float) -> Round:
    fresh_bytes = int(_dirtied_pages(rate_mib_s, 1.0) * 4096)
    return Round(
        number=index + 1,
        start_s=float(index),
        duration_s=1.0,
        sent_bytes=100 * MIB,
        newly_dirtied_bytes=fresh_bytes,
        remaining_bytes=fresh_bytes + 10 * MIB,
        throughput_bytes_s=100.0 * MIB,
    )


def _conclude(samples: list[Cost]) -> Conclusion:
    start = Figure.of("start_s", "full forecast, before the start", (one.start_s for one in samples))
    later = Figure.of("round_s", f"full forecast, after {ROUND_COUNT} rounds", (one.round_s for one in samples))
    update = Figure.of("update_s", "update between", (one.update_s for one in samples))
    memory = Figure.of("memory_bytes", "memory of one migration's", (one.memory_bytes for one in samples))
    return Conclusion(
        figures=present(start, later, update, memory),
        targets=(
            *Target.of(start, "median", FULL_LIMIT_S),
            *Target.of(later, "median", FULL_LIMIT_S),
            *Target.of(update, "median", UPDATE_LIMIT_S),
            *Target.of(memory, "maximum", MEMORY_LIMIT_BYTES),
        ),
        samples=tuple(samples),
    )
