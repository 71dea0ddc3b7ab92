"""A plan is checked once, where it is made: each refusal names the thing and the remedy."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.errors import LivemigError, PlanError
from livemig.core.plan import AtDeadline, Plan, PlanChange

REFUSED: dict[str, dict[str, Any]] = {
    "downtime limit 0 us is out of range: give 1.0 ms to 2000 s": {"downtime_limit_s": 0.0},
    "downtime limit 900 us is out of range: give 1.0 ms to 2000 s": {"downtime_limit_s": 0.0009},
    "downtime limit 33 min 20 s is out of range: give 1.0 ms to 2000 s": {"downtime_limit_s": 2000.1},
    "downtime limit -1.00 s is out of range": {"downtime_limit_s": -1.0},
    "downtime limit nan s is out of range": {"downtime_limit_s": math.nan},
    "downtime limit inf s is out of range": {"downtime_limit_s": math.inf},
    "bandwidth 976.6 KiB/s is too low: QEMU does not hold to less than about 1.3 MB/s; give at least 1MB/s": {
        "bandwidth_bytes_s": 999_999.0
    },
    "bandwidth 0 B/s is too low": {"bandwidth_bytes_s": 0.0},
    "bandwidth -1.0 MiB/s is too low": {"bandwidth_bytes_s": -(2.0**20)},
    "bandwidth nan TiB/s is too low": {"bandwidth_bytes_s": math.nan},
    "an infinite bandwidth is no cap: leave it out": {"bandwidth_bytes_s": math.inf},
    "a deadline of 0 us makes no sense: give the time within which the guest must have moved, such as 5min": {
        "deadline_s": 0.0
    },
    "a deadline of -5.00 s makes no sense": {"deadline_s": -5.0},
    "a deadline of nan s makes no sense": {"deadline_s": math.nan},
    "a deadline of inf s makes no sense": {"deadline_s": math.inf},
    "at-deadline pause needs a deadline: give one, such as --deadline 5min": {"at_deadline": AtDeadline.PAUSE},
    "probation -1.00 s is out of range: give 0s to 1h": {"probation_s": -1.0},
    "probation 60 min 1 s is out of range: give 0s to 1h": {"probation_s": 3601.0},
    "probation nan s is out of range": {"probation_s": math.nan},
    "the fixed part of the downtime must be 0 or more, in seconds": {"fixed_downtime_s": -0.001},
    "the fixed part of the downtime must be 0 or": {"fixed_downtime_s": math.nan},
}
TAKEN: list[dict[str, Any]] = [
    {},
    {"downtime_limit_s": 0.001},
    {"downtime_limit_s": 2000.0},
    {"bandwidth_bytes_s": 1e6},
    {"bandwidth_bytes_s": 1e15},
    {"deadline_s": 1e-9},
    {"deadline_s": 60.0, "at_deadline": AtDeadline.PAUSE},
    {"probation_s": 0.0},
    {"probation_s": 3600.0},
    {"fixed_downtime_s": 0.0},
    {"fixed_downtime_s": 1999.0},
]


@pytest.mark.parametrize("message", REFUSED)
def test_nonsense_is_refused_with_the_remedy(message):
    """Each refusal is one line with the value as the user knows it and what would do instead."""
    with pytest.raises(PlanError) as caught:
        Plan(**REFUSED[message])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", TAKEN, ids=str)
def test_the_boundaries_themselves_are_taken(values):
    """What lies on a boundary is in range."""
    plan = Plan(**values)
    assert {name: getattr(plan, name) for name in values} == values


def test_a_plan_error_is_both_a_livemig_error_and_a_value_error():
    """One root for who catches all of livemig's, the standard one for who validates."""
    assert issubclass(PlanError, LivemigError)
    assert issubclass(PlanError, ValueError)


def test_a_plan_can_not_be_changed_behind_the_policys_back():
    """It is frozen, hashable, and knows no other fields."""
    plan = Plan()
    for field in ("downtime_limit_s", "no_such_field"):
        with pytest.raises(AttributeError):
            setattr(plan, field, 5.0)
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"downtime_limit": 1}', type=Plan)
    assert len({plan, Plan()}) == 1


def test_a_change_changes_what_it_names_and_nothing_else():
    """What is left out stays as it was."""
    plan = Plan(downtime_limit_s=0.2, bandwidth_bytes_s=5e6, deadline_s=10.0, keep_source=True, probation_s=1.0)
    changed = PlanChange(deadline_s=20.0, at_deadline=AtDeadline.PAUSE).applied_to(plan)
    assert changed == msgspec.structs.replace(plan, deadline_s=20.0, at_deadline=AtDeadline.PAUSE)
    assert PlanChange(downtime_limit_s=0.5, bandwidth_bytes_s=7e6).applied_to(plan) == msgspec.structs.replace(
        plan, downtime_limit_s=0.5, bandwidth_bytes_s=7e6
    )
    assert PlanChange().applied_to(plan) == plan


@pytest.mark.parametrize("values", [{"downtime_limit_s": 0.0}, {"bandwidth_bytes_s": 1.0}, {"deadline_s": 0.0}])
def test_a_zero_in_a_change_is_a_value_not_nothing(values):
    """0 is refused as in a plan, never taken for "left out"."""
    with pytest.raises(PlanError):
        PlanChange(**values).applied_to(Plan(deadline_s=5.0))


def test_a_change_is_checked_together_with_the_plan():
    """Whether `pause` makes sense depends on the plan's deadline."""
    change = PlanChange(at_deadline=AtDeadline.PAUSE)
    with pytest.raises(PlanError, match="needs a deadline"):
        change.applied_to(Plan())
    assert change.applied_to(Plan(deadline_s=5.0)).at_deadline is AtDeadline.PAUSE


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "downtime_limit_s": st.floats(),
            "bandwidth_bytes_s": st.none() | st.floats(),
            "deadline_s": st.none() | st.floats(),
            "at_deadline": st.sampled_from(AtDeadline),
            "probation_s": st.floats(),
            "fixed_downtime_s": st.none() | st.floats(),
        },
    )
)
@settings(max_examples=60, deadline=None)
def test_any_numbers_make_a_sound_plan_or_a_plan_error(values):
    """No number at all gets past the checks or breaks them; what passes survives JSON unchanged."""
    try:
        plan = Plan(**values)
    except PlanError:
        return
    assert 0.001 <= plan.downtime_limit_s <= 2000
    assert plan.bandwidth_bytes_s is None or 1e6 <= plan.bandwidth_bytes_s < math.inf
    assert plan.deadline_s is None or 0 < plan.deadline_s < math.inf
    assert plan == msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
