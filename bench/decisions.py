"""``python -m bench decisions``: how long livemig takes to decide, input by input, on simulated migrations."""

from __future__ import annotations

import time
from functools import partial
from itertools import count as counting
from pathlib import Path

import click
import msgspec

from bench.options import shared_options
from bench.population import CLASSES, DEVELOPMENT_SEEDS, draw
from bench.result import Conclusion, Figure, Target, Total, present
from bench.runner import run_benchmark
from livemig.core.inputs import Input, Observed
from livemig.core.plan import Plan, Prefer
from livemig.core.policy import Decision, Policy
from livemig.simulation.simulate import simulate

MEDIAN_LIMIT_S, P99_LIMIT_S = 0.005, 0.020


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One decision.

    Attributes:
        decision_s: How long it took.
        observed: Whether it answered a reply of QEMU's, and not a tick or an event.
    """

    decision_s: float
    observed: bool


class _Timed:
    """livemig's policy with a stop watch."""

    def __init__(self, plan: Plan, samples: list[Taken]) -> None:
        self._policy, self._samples = Policy(plan), samples

    def step(self, seen: Input) -> Decision:
        begun_s = time.perf_counter()
        decision = self._policy.step(seen)
        taken_s = time.perf_counter() - begun_s
        self._samples.append(Taken(decision_s=taken_s, observed=isinstance(seen, Observed)))
        return decision


@click.command(short_help="How long a decision takes.")
@click.option(
    "--count", type=click.IntRange(min=1000), default=5000, show_default=True, help="How many replies of QEMU's."
)
@shared_options
def decisions(*, count: int, qemu: str, as_json: bool, output: Path | None) -> None:
    """Time each decision of ``--prefer downtime``, which computes most, over simulated guests of all classes.

    To reach: 5 ms at the median and 20 ms at the 99th percentile, of the decisions on what QEMU replied.
    """
    run_benchmark(
        "decisions",
        {"count": count},
        measure=partial(_measure, count),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(count: int, samples: list[Taken]) -> None:
    for seed in counting(DEVELOPMENT_SEEDS.start):
        for kind in CLASSES:
            case = draw(kind, seed)
            plan = msgspec.structs.replace(case.plan, prefer=Prefer.DOWNTIME)
            simulate(case.setting, plan, _Timed(plan, samples), seed=seed)
            if sum(one.observed for one in samples) >= count:
                return


def _conclude(samples: list[Taken]) -> Conclusion:
    observed = Figure.of("decision_s", "a decision on a reply", (one.decision_s for one in samples if one.observed))
    others = Figure.of(
        "other_s", "a decision on anything else", (one.decision_s for one in samples if not one.observed)
    )
    return Conclusion(
        figures=present(observed, others),
        totals=(Total("decision_count", "decisions", len(samples)),),
        targets=(
            *Target.of(observed, "median", MEDIAN_LIMIT_S),
            *Target.of(observed, "p99", P99_LIMIT_S),
        ),
    )
