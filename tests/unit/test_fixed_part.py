"""How much of the limit is kept for the fixed part of the downtime: what was given, learned, or the prior."""

from __future__ import annotations

import msgspec
import pytest

from livemig.core.action import SetDowntimeLimit
from livemig.core.fixed_part import ENOUGH_COUNT, MARGIN_RATIO, RECENT_COUNT, fixed_part
from livemig.core.forecaster import Forecaster
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.inputs import Prepared, Tuned
from livemig.core.past import PastMigration
from livemig.core.plan import Plan, PlanChange
from livemig.core.policy import Policy
from livemig.core.switchover import FIXED_DOWNTIME_PRIOR_S
from tests.unit.test_history import record

HERE, ELSEWHERE = "a to b", "a to c"


def earlier(*found: float | None, hosts: str = HERE) -> tuple[PastMigration, ...]:
    """Migrations that showed these fixed parts, newest first."""
    return tuple(msgspec.structs.replace(record(hosts=hosts), fixed_downtime_s=one) for one in found)


@pytest.mark.parametrize(
    "past",
    [
        (),
        earlier(None, None),
        earlier(*[0.004] * (ENOUGH_COUNT - 1)),
        earlier(*[0.004] * 10, hosts=ELSEWHERE),
        earlier(0.2, hosts=ELSEWHERE),
    ],
)
def test_too_few_or_others_teach_nothing(past):
    """The prior stays, and says so."""
    found = fixed_part(Plan(), past, HERE)
    assert (found.value_s, found.measured, str(found)) == (FIXED_DOWNTIME_PRIOR_S, False, "12.0 ms, prior")


def test_enough_of_them_bring_it_below_the_prior():
    """The largest, and something more: it has to hold for the next one too."""
    found = fixed_part(Plan(), earlier(0.004, None, 0.006, 0.003, 0.004, 0.004), HERE)
    assert found.value_s == pytest.approx(0.006 * MARGIN_RATIO)
    assert found.measured
    assert "5 between these hosts" in found.origin


def test_one_that_was_larger_than_the_prior_counts_at_once():
    """Also of a mere one."""
    assert fixed_part(Plan(), earlier(0.03), HERE).value_s == pytest.approx(0.03 * MARGIN_RATIO)
    assert fixed_part(Plan(), earlier(0.004, 0.03, 0.004), HERE).value_s == pytest.approx(0.03 * MARGIN_RATIO)


def test_a_host_that_was_busy_once_does_not_forbid_tight_limits():
    """One freak among enough others is left out; two are none; and what is long ago counts no more."""
    usual = [0.004] * ENOUGH_COUNT
    assert fixed_part(Plan(), earlier(*usual, 0.4), HERE).value_s == pytest.approx(0.004 * MARGIN_RATIO)
    assert fixed_part(Plan(), earlier(*usual, 0.4, 0.3), HERE).value_s == pytest.approx(0.4 * MARGIN_RATIO)
    ended_otherwise = [None] * RECENT_COUNT
    assert not fixed_part(Plan(), earlier(*ended_otherwise, 0.4), HERE).measured


def test_what_the_plan_gives_goes_before():
    assert fixed_part(Plan(fixed_downtime_s=0.001), earlier(0.03), HERE).value_s == 0.001


def test_the_policy_keeps_it_says_so_and_keeps_it_when_tuned():
    """QEMU gets the limit less what was learned; the plan is still what the user asked."""
    known = Foreknowledge(hosts=HERE, past=earlier(*[0.004] * 6))
    policy = Policy(Plan(downtime_limit_s=0.1))
    decision = policy.step(Prepared(time_s=0.0, memory_bytes=2**28, known=known))
    kept_s = 0.004 * MARGIN_RATIO
    assert decision.actions[0] == SetDowntimeLimit(downtime_limit_s=0.1 - kept_s)
    assert "the fixed part is a quarter over the most of 6 between these hosts" in decision.reason
    assert policy.fixed_downtime_s == kept_s
    (limit,) = policy.step(Tuned(time_s=1.0, change=PlanChange(downtime_limit_s=0.2))).actions
    assert limit == SetDowntimeLimit(downtime_limit_s=0.2 - kept_s)
    assert policy.plan == Plan(downtime_limit_s=0.2)


def test_the_forecast_follows_the_policy_and_keeps_its_own():
    """The threshold is reckoned as the policy does; what the last step takes is still fitted from all that is known."""
    past = earlier(*[0.008] * 6)
    forecasters = [
        Forecaster.knowing(Plan(), 2**28, Foreknowledge(hosts=hosts, past=past, same_host=True)) for hosts in ("", HERE)
    ]
    assert [one.reserved_s for one in forecasters] == [FIXED_DOWNTIME_PRIOR_S, 0.008 * MARGIN_RATIO]
    before, after = (one.forecast("start", 0.0) for one in forecasters)
    assert before.downtime_s is not None
    assert after.downtime_s is not None
    assert after.downtime_s[0] == pytest.approx(before.downtime_s[0], rel=0.2)
