"""The simulated guest dirties the pages that such a guest would: exactly for sweeps, in distribution for the others."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.errors import PlanError
from livemig.simulation.guest_memory import GuestMemory
from livemig.simulation.link import Link, LinkSetting, Outage
from livemig.simulation.wavering import Wavering
from livemig.simulation.workloads import (
    BuiltinPhase,
    Pattern,
    SimulatedGuest,
    Stage,
    Writes,
    builtin_guest,
)

PAGE = 4096
MIB = 2**20


def memory_of(*writes: Writes, memory_bytes: int = 32 * MIB, seed: int = 1, **stage: float) -> GuestMemory:
    """A guest that only writes, its log empty."""
    guest = SimulatedGuest(memory_bytes=memory_bytes, stages=(Stage(writes=writes, **stage),))
    memory = GuestMemory(guest, np.random.default_rng(seed))
    memory.log[:] = False
    return memory


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_dirties_each_page_once_a_round(steps, seed):
    """However the time is cut, from wherever it begins: so many pages in a row, and all after one round."""
    memory = memory_of(
        Writes(pattern=Pattern.SWEEP, start_bytes=MIB, size_bytes=8 * MIB, rate_bytes_s=4 * MIB), seed=seed
    )
    for step in range(steps):
        memory.advance((step + 1) / steps)
    assert abs(int(memory.log.sum()) - 1024) <= 1
    assert not memory.log[:256].any()
    assert not memory.log[256 + 2048 :].any()
    memory.advance(2.0)
    assert int(memory.log.sum()) == 2048


@pytest.mark.parametrize("writes_per_page", [0.05, 0.7, 1.9, 3.5])
@pytest.mark.parametrize("pattern", [Pattern.RANDOM, Pattern.ZIPF])
def test_random_writes_dirty_as_many_distinct_pages_as_poisson_says(pattern, writes_per_page):
    """Both ways of drawing, one by one and page by page, within five standard errors of 1 - exp(-rate)."""
    count, repeats = 2048, 60
    writes = Writes(
        pattern=pattern, size_bytes=count * PAGE, rate_bytes_s=writes_per_page * count * PAGE, skew_ratio=0.8
    )
    found = []
    for seed in range(repeats):
        memory = memory_of(writes, seed=seed)
        memory.advance(1.0)
        found.append(int(memory.log.sum()))
    liking = np.arange(1, count + 1) ** (-0.8 if pattern is Pattern.ZIPF else 0.0)
    touched = 1 - np.exp(-writes_per_page * count * liking / liking.sum())
    deviation = math.sqrt(float((touched * (1 - touched)).sum()))
    assert abs(np.mean(found) - touched.sum()) < 5 * deviation / math.sqrt(repeats)
    assert deviation * 0.6 < np.std(found) < deviation * 1.6


def test_a_time_cut_in_two_dirties_what_the_whole_does():
    """Advancing in many steps changes nothing in distribution."""
    writes = Writes(size_bytes=8 * MIB, rate_bytes_s=8 * MIB)
    whole, cut = [], []
    for seed in range(40):
        at_once, by_steps = memory_of(writes, seed=seed), memory_of(writes, seed=seed + 1000)
        at_once.advance(1.0)
        for step in range(50):
            by_steps.advance((step + 1) / 50)
        whole.append(int(at_once.log.sum()))
        cut.append(int(by_steps.log.sum()))
    assert abs(np.mean(whole) - np.mean(cut)) < 5 * math.sqrt((np.var(whole) + np.var(cut)) / 40)


def test_nothing_is_written_between_bursts():
    """Half a second of each: the sweep goes on where it was."""
    memory = memory_of(
        Writes(pattern=Pattern.SWEEP, size_bytes=16 * MIB, rate_bytes_s=4 * MIB),
        burst_period_s=1.0,
        burst_duty_percent=50,
        burst_offset_s=0.25,
    )
    memory.advance(0.25)
    assert abs(int(memory.log.sum()) - 256) <= 1
    memory.advance(0.75)
    assert abs(int(memory.log.sum()) - 256) <= 1
    memory.advance(1.75)
    assert abs(int(memory.log.sum()) - 768) <= 1


@given(
    period_s=st.floats(0.01, 10),
    duty_percent=st.floats(1, 100),
    cuts_s=st.lists(st.floats(0, 50), min_size=2, max_size=8),
)
def test_bursts_add_up(period_s, duty_percent, cuts_s):
    """The parts of a span have together the bursts of the whole, and never more than its length."""
    stage = Stage(burst_period_s=period_s, burst_duty_percent=duty_percent)
    cuts_s = sorted(cuts_s)
    parts_s = [stage.active_s(begin_s, end_s) for begin_s, end_s in pairwise(cuts_s)]
    assert sum(parts_s) == pytest.approx(stage.active_s(cuts_s[0], cuts_s[-1]), abs=1e-9)
    assert all(-1e-9 <= part_s <= cuts_s[-1] - cuts_s[0] + 1e-9 for part_s in parts_s)


def test_a_stage_takes_over_at_its_time():
    """Also when nobody looked at that moment."""
    first = Stage(writes=(Writes(pattern=Pattern.SWEEP, size_bytes=4 * MIB, rate_bytes_s=100 * MIB),))
    second = Stage(start_s=1.0, writes=(Writes(start_bytes=8 * MIB, size_bytes=4 * MIB, rate_bytes_s=100 * MIB),))
    guest = SimulatedGuest(memory_bytes=16 * MIB, stages=(first, second))
    memory = GuestMemory(guest, np.random.default_rng(1))
    memory.log[:] = False
    memory.advance(0.9)
    assert memory.log[:1024].all()
    assert not memory.log[1024:].any()
    memory.log[:] = False
    memory.advance(1.5)
    assert memory.log[:1024].all()
    assert memory.log[2048:3072].all()


def test_a_growing_guest_gains_content():
    """What is added is written to, so that it is no zero page any more; nothing beyond it."""
    writes = Writes(size_bytes=4 * MIB, rate_bytes_s=MIB, growth_bytes_s=2 * MIB, growth_most_bytes=12 * MIB)
    guest = SimulatedGuest(memory_bytes=32 * MIB, content_bytes=4 * MIB, stages=(Stage(writes=(writes,)),))
    memory = GuestMemory(guest, np.random.default_rng(1))
    memory.log[:] = False
    for step in range(20):
        memory.advance(step / 10)
    memory.advance(2.0)
    assert memory.gains_content
    assert int(memory.has_content.sum()) == 2048
    memory.advance(20.0)
    assert int(memory.has_content.sum()) == 3072


@settings(max_examples=30)
@given(asked_s=st.lists(st.floats(0, 200), min_size=1, max_size=10), seed=st.integers(0, 2**32 - 1))
def test_what_wavers_does_not_depend_on_who_asks(asked_s, seed):
    """Or two policies would not meet the same link."""
    one, other = Wavering(0.3, 1.0, np.random.default_rng(seed)), Wavering(0.3, 1.0, np.random.default_rng(seed))
    found = [one.ratio(time_s) for time_s in asked_s]
    assert found == [other.ratio(time_s) for time_s in sorted(asked_s)] or sorted(asked_s) != asked_s
    assert found == [other.ratio(time_s) for time_s in asked_s]


def test_what_wavers_is_one_on_average():
    """And has the deviation asked for."""
    ratios = [Wavering(0.6, 0.5, np.random.default_rng(seed)).ratio(3.0) for seed in range(2000)]
    assert abs(np.mean(ratios) - 1) < 5 * 0.66 / math.sqrt(2000)
    assert 0.55 < np.std(np.log(ratios)) < 0.65


def test_what_wavers_goes_on_from_where_it_is():
    """On a branch: the same before, near it soon after, and elsewhere in the end."""
    one, other = Wavering(0.3, 5.0, np.random.default_rng(1)), Wavering(0.3, 5.0, np.random.default_rng(1))
    one.ratio(9.0)
    other.branch(3.0, np.random.default_rng(2))
    assert [one.ratio(time_s) for time_s in (0.5, 2.9, 3.0)] == [other.ratio(time_s) for time_s in (0.5, 2.9, 3.0)]
    assert abs(math.log(one.ratio(3.03) / other.ratio(3.03))) < 0.1
    assert one.ratio(9.0) != other.ratio(9.0)
    assert abs(math.log(other.ratio(30.0))) < 2.0


def test_a_link_carries_less_in_an_outage():
    """And says until when."""
    link = Link(
        LinkSetting(rate_bytes_s=1e9, outages=(Outage(start_s=1.0, duration_s=0.5, left_percent=10),)),
        np.random.default_rng(1),
    )
    assert (link.rate_bytes_s(0.5), link.steady_until_s(0.5)) == (1e9, 1.0)
    assert (link.rate_bytes_s(1.0), link.steady_until_s(1.0)) == (1e8, 1.5)
    assert (link.rate_bytes_s(1.5), link.steady_until_s(1.5)) == (1e9, math.inf)


def test_the_builtin_guest_is_laid_out_as_it_is():
    """Its pages, the table with four bytes for each, and what it needs for itself."""
    phase = BuiltinPhase(
        pattern="hot",
        working_set_bytes=64 * MIB,
        dirty_rate_bytes_s=math.inf,
        hot_set_bytes=8 * MIB,
        hot_writes_percent=90,
        burst_period_s=1.0,
        burst_duty_percent=30,
    )
    guest = builtin_guest(phase, memory_bytes=128 * MIB, fill_bytes=96 * MIB)
    (stage,) = guest.stages
    hot, table, cold, _, own = stage.writes
    assert (stage.burst_period_s, stage.burst_duty_percent) == (1.0, 30)
    assert (hot.size_bytes, cold.size_bytes) == (8 * MIB, 56 * MIB)
    assert hot.end_bytes == cold.start_bytes
    assert hot.rate_bytes_s == pytest.approx(9 * cold.rate_bytes_s)
    assert (table.start_bytes, table.size_bytes) == (0x110000, 2 * PAGE)
    assert own.end_bytes <= 0x110000
    assert guest.content_start_bytes + guest.content_bytes == hot.start_bytes + 96 * MIB


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Writes(size_bytes=100),
        lambda: Writes(size_bytes=PAGE, rate_bytes_s=math.inf),
        lambda: Writes(size_bytes=PAGE, rate_bytes_s=-1),
        lambda: Writes(size_bytes=PAGE, skew_ratio=9),
        lambda: Writes(size_bytes=PAGE, pattern=Pattern.SWEEP, growth_bytes_s=1),
        lambda: Stage(burst_period_s=1, burst_duty_percent=0),
        lambda: SimulatedGuest(memory_bytes=MIB, page_bytes=5000),
        lambda: SimulatedGuest(memory_bytes=MIB + 1),
        lambda: SimulatedGuest(memory_bytes=MIB, stages=()),
        lambda: SimulatedGuest(memory_bytes=MIB, content_bytes=2 * MIB),
        lambda: SimulatedGuest(memory_bytes=MIB, stages=(Stage(writes=(Writes(size_bytes=2 * MIB),)),)),
        lambda: SimulatedGuest(memory_bytes=MIB, stages=(Stage(), Stage(start_s=2), Stage(start_s=1))),
        lambda: LinkSetting(rate_bytes_s=0),
        lambda: LinkSetting(noise_ratio=-1),
        lambda: builtin_guest(BuiltinPhase(pattern="zigzag"), memory_bytes=64 * MIB),
        lambda: builtin_guest(BuiltinPhase(working_set_bytes=64 * MIB), memory_bytes=32 * MIB),
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    """With one line."""
    with pytest.raises(PlanError) as refused:
        wrong()
    assert "\n" not in str(refused.value)
