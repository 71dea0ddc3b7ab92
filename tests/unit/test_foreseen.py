"""What the policy will do, foreseen: the slot without the cap, and the part of the limit used in the first copy."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from livemig.core import forecast as forecast_module
from livemig.core.dirty_curve import fit_curve
from livemig.core.dirty_sample import DirtySample
from livemig.core.forecaster import HUGE_PAGES, Forecaster
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.outcome import Outcome
from livemig.core.pace import pace_of, wavering
from livemig.core.plan import Plan
from livemig.core.prediction import Forecast
from tests.unit.test_probe_slot import ELSEWHERE, FAST, PLAN, SLOW, moved
from tests.unit.test_switchover import LINK_BYTES_S, MiB

MEMORY = 512 * MiB
SHARES = (1.0,) * 24 + (0.0,) * 8


def sample(period_s: float, pages: float) -> DirtySample:
    """One measurement, as exact as they are."""
    deviation_pages = 0.02 * pages + 3
    return DirtySample(periods_s=(period_s,), weights=(1.0,), dirtied_pages=pages, deviation_pages=deviation_pages)


def hot() -> tuple[DirtySample, ...]:
    """What sampling shows of the guest that `moved` moves: 32 MiB at random, three times as fast as the link."""
    size_pages, rate_pages_s = 32 * MiB / 4096, 3 * LINK_BYTES_S / 4096
    periods_s = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    return tuple(sample(each, size_pages * -np.expm1(-each * rate_pages_s / size_pages)) for each in periods_s)


def at_start(known: Foreknowledge, plan: Plan = PLAN) -> Forecast:
    """The forecast of that guest."""
    known = msgspec.structs.replace(known, samples=hot(), touched_shares=SHARES)
    return Forecaster.knowing(plan, MEMORY, known).forecast("start", 0.0)


def test_the_slot_without_the_cap_is_foreseen():
    """Under the cap the guest never comes down to the limit; it moves once the cap is lifted, and when that is."""
    found, run = at_start(FAST), moved(FAST)
    assert run.outcome is Outcome.COMPLETED
    assert found.converges > 0.95
    assert found.total_s is not None
    assert found.total_s[1] == pytest.approx(run.total_s, rel=0.15)


@pytest.mark.parametrize("known", [SLOW, ELSEWHERE], ids=["slow", "another link"])
def test_it_is_foreseen_only_where_it_would_be_sent(known):
    """A link that was no faster, or of which nothing is known: the cap stays, and the guest."""
    assert moved(known).outcome is Outcome.CANCELLED
    assert at_start(known).converges < 0.05


def test_until_the_first_copy_has_ended_a_part_of_a_large_limit_is_used(monkeypatch):
    """The policy does so; a forecast that did not would see the guest moved before its first copy has ended."""
    plan = Plan(bandwidth_bytes_s=LINK_BYTES_S, downtime_limit_s=0.4 * MEMORY / LINK_BYTES_S)
    aware = at_start(FAST, plan)
    monkeypatch.setattr(forecast_module, "FRESH_RATIO", 1.0)
    unaware = at_start(FAST, plan)
    assert aware.total_s is not None
    assert unaware.total_s is not None
    assert aware.downtime_s is not None
    assert unaware.downtime_s is not None
    assert aware.downtime_s[1] < 0.8 * unaware.downtime_s[1]


def test_a_sample_that_met_a_pause_does_not_count_for_all():
    """A guest writes half of each two seconds: the few samples of 0.8 s may all meet the pause, and look exact."""
    rate_pages_s = 20_000.0
    short = [sample(each, rate_pages_s * each * on) for each in (0.05, 0.1, 0.2) for on in (0, 0, 0, 0, 1, 1, 1, 1) * 2]
    samples = [*short, sample(0.8, 40.0), sample(0.8, 900.0), sample(3.2, rate_pages_s * 1.6)]
    pace = pace_of(samples)
    assert pace is not None
    blind, seeing = (fit_curve(some, 200_000.0) for some in (samples, wavering(samples, pace)))
    assert blind.dirtied_pages(2.0) < 0.5 * rate_pages_s
    assert seeing.dirtied_pages(2.0) > 0.5 * rate_pages_s


def test_the_last_huge_page_of_a_stretch_is_taken_for_half_written():
    """Where the kernel gave memory in huge pages; elsewhere what is there was written."""
    pages = MEMORY / 4096
    known = Foreknowledge(samples=hot(), touched_shares=SHARES, same_host=True)
    plan = Plan(bandwidth_bytes_s=LINK_BYTES_S, downtime_limit_s=1.0)
    whole = Forecaster.knowing(plan, MEMORY, known).forecast("start", 0.0)
    small = tuple(share - 1 / pages if share else 0.0 for share in SHARES)
    split = Forecaster.knowing(plan, MEMORY, msgspec.structs.replace(known, touched_shares=small))
    other = split.forecast("start", 0.0)
    assert whole.sent_bytes is not None
    assert other.sent_bytes is not None
    assert other.sent_bytes[1] - whole.sent_bytes[1] == pytest.approx(HUGE_PAGES / 2 * 4096, rel=0.3)
