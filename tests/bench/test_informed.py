"""What a rule could reach that knows all but what comes: it chooses as it says, and can fail."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from bench.contest import CLAIRVOYANT, INFORMED, OURS, Contest, Ended
from bench.informed import Follows, Way, best_way, most_often_near, ways
from bench.policies import informed_words
from livemig.core.inputs import Prepared
from livemig.core.observation import Observation
from livemig.core.plan import DOWNTIME_LIMIT_LEAST_S, Plan
from livemig.core.status import MigrationStatus
from livemig.core.switchover import first_crossing

PLAN = Plan(downtime_limit_s=0.2, deadline_s=10.0)


def ended(downtime_s: float | None) -> Ended:
    """One that moved as asked, or did not."""
    kept = downtime_s is not None
    return Ended(completed=kept, total_s=5.0, beyond_s=2.0, downtime_s=downtime_s, sent_bytes=1, kept=kept)


def sample(ours_s: float | None, informed_s: float | None = None, *, asked: bool = True) -> Contest:
    """A guest whose clairvoyant has 10 ms."""
    found = {OURS[1]: ended(ours_s), CLAIRVOYANT: ended(0.010)}
    if asked:
        found[INFORMED] = ended(informed_s)
    return Contest(kind="random", seed=1, memory_bytes=1, limit_s=0.2, deadline_s=10.0, ended=found)


def test_it_takes_what_is_near_the_best_most_often():
    """Not what is best on average, nor what is best once; what moves no guest is no future's best."""
    downtimes_s = np.array([[0.010, 0.012, 0.100], [0.010, 0.012, 0.100], [inf, 0.012, 0.010], [inf, inf, inf]])
    assert most_often_near(downtimes_s, 1.3) == 1
    assert most_often_near(downtimes_s, 1.1) == 0
    assert most_often_near(np.full((2, 3), inf), 1.3) == 0


def test_of_equals_it_takes_the_one_with_the_least_regret():
    """Both are near in each future."""
    assert most_often_near(np.array([[0.0120, 0.0110, 0.010], [0.0121, 0.0110, 0.090]]), 1.3) == 1


def test_the_futures_are_asked_and_no_other():
    """It goes the way that they speak for."""
    wanted = ways(PLAN)[3]
    seen = set()

    def play(way: Way, future: int) -> float:
        seen.add(future)
        return 0.010 if way == wanted else 0.050

    assert best_way(PLAN, play, range(4), 1.3) == wanted
    assert seen == set(range(4))


def test_no_way_is_above_the_users_limit():
    """Nor ends without it: before the deadline the limit itself is taken."""
    user_s = first_crossing(PLAN).downtime_limit_s
    copied = Observation(time_s=2.0, status=MigrationStatus.ACTIVE, dirty_sync_count=2)
    for way in ways(PLAN):
        rule = Follows(way)
        begun = rule.begin(PLAN, Prepared(time_s=0.0, memory_bytes=2**30, takes_switchover_bandwidth=False))
        assert begun.downtime_limit_s == pytest.approx(way.from_s)
        wanted = [rule.observe(copied), *(rule.passed(float(time_s)) for time_s in np.arange(2.1, 9.3, 0.1))]
        limits_s = [each.downtime_limit_s for each in wanted]
        assert (np.diff(limits_s) >= -1e-9).all()
        assert all(DOWNTIME_LIMIT_LEAST_S <= limit_s <= user_s * (1 + 1e-9) for limit_s in limits_s)
        assert rule.passed(9.5).downtime_limit_s == user_s


def test_what_it_says_is_what_was_found():
    """It stands in only where it is better, and what it could not move counts as livemig's."""
    guests = [sample(0.010, asked=False)] * 6 + [sample(0.020, 0.011), sample(0.020, 0.030), sample(0.020, None)]
    guests += [sample(None, 0.011), sample(None, None), sample(None, asked=False)]
    words = informed_words(guests)
    assert "of 3 guests with a regret above 1.3 it brings 1 below" in words
    assert f"{100 * 7 / 9:.1f} % within 1.3" in words
    assert "p95 2.00" in words
    assert "of 3 that livemig downtime missed it moves 1 as asked" in words
