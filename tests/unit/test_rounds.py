"""Rounds are cut at bitmap syncs, and what the guest dirtied is learned at the teeth of `remaining`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.observation import Observation
from livemig.core.rounds import Round, RoundTracker
from livemig.core.status import MigrationStatus

PAGE = 4096


def at(time_s: float, *, count: int | None, sent: int = 0, left: int | None = 0, zero: int = 0, **more) -> Observation:
    """A poll: pages sent and left, and the syncs so far. A zero page goes as its header, here of no size."""
    return Observation(
        time_s=time_s,
        status=MigrationStatus.ACTIVE,
        dirty_sync_count=count,
        sent_bytes=sent * PAGE,
        normal_pages=sent,
        zero_pages=zero,
        page_size_bytes=PAGE,
        remaining_bytes=None if left is None else left * PAGE,
        **more,
    )


def rounds_of(*observations: Observation) -> list[Round]:
    """The rounds that a tracker finds in these polls."""
    tracker = RoundTracker()
    found = [tracker.observe(one) for one in observations]
    return [one for one in found if one is not None]


def test_a_round_is_what_lies_between_two_syncs():
    """1000 pages in 2 s, and the sync at its end finds 300 dirtied, with 100 of the old ones left."""
    (only,) = rounds_of(
        at(0.5, count=1, sent=0, left=1000),
        at(1.5, count=1, sent=500, left=500),
        at(2.5, count=2, sent=900, left=400),
    )
    assert only == Round(
        number=1,
        start_s=0.5,
        duration_s=2.0,
        sent_bytes=900 * PAGE,
        newly_dirtied_bytes=300 * PAGE,
        remaining_bytes=400 * PAGE,
        throughput_bytes_s=450 * PAGE,
    )


def test_rounds_follow_one_another():
    """Each begins where the one before ended."""
    first, second = rounds_of(
        at(0.0, count=1, left=1000),
        at(1.0, count=2, sent=1000, left=200),
        at(1.2, count=2, sent=1100, left=100),
        at(1.4, count=3, sent=1200, left=50),
    )
    assert (first.number, first.newly_dirtied_bytes) == (1, 200 * PAGE)
    assert (second.number, second.start_s, second.sent_bytes) == (2, 1.0, 200 * PAGE)
    assert second.newly_dirtied_bytes == 50 * PAGE
    assert second.duration_s == pytest.approx(0.4)


def test_zero_pages_count_as_sent():
    """They cost nothing on the wire, but they are no longer left."""
    (only,) = rounds_of(at(0.0, count=1, left=1000), at(1.0, count=2, sent=100, zero=900, left=70))
    assert only.newly_dirtied_bytes == 70 * PAGE


@given(
    before=st.integers(0, 1000),
    sent_before=st.integers(0, 1000),
    dirtied=st.integers(0, 1000),
    sent_after=st.integers(0, 2000),
)
def test_it_does_not_matter_how_late_the_poll_is(before, sent_before, dirtied, sent_after):
    """What was sent between the sync and the poll cancels out, even when it is more than had been left."""
    sent_before, sent_after = min(sent_before, before), min(sent_after, before - min(sent_before, before) + dirtied)
    (only,) = rounds_of(
        at(0.0, count=1, left=before),
        at(1.0, count=2, sent=sent_before + sent_after, left=before - sent_before + dirtied - sent_after),
    )
    assert only.newly_dirtied_bytes == dirtied * PAGE


def test_what_can_not_be_is_none():
    """Counters that were not read at one moment may give less than nothing: then nothing is claimed."""
    (only,) = rounds_of(at(0.0, count=1, left=1000), at(1.0, count=2, sent=100, left=800))
    assert only.newly_dirtied_bytes == 0


def test_dirty_pages_rate_is_never_used():
    """A hot set reads as exactly the send rate there."""
    polls = [at(0.0, count=1, left=1000, dirty_rate_pages_s=10), at(1.0, count=2, sent=1000, dirty_rate_pages_s=10**6)]
    (only,) = rounds_of(*polls)
    assert only.newly_dirtied_bytes == 0


def test_a_late_first_poll_takes_qemus_own_count():
    """What the first poll finds under way is no first copy, however much a busy machine has missed before it."""
    tracker = RoundTracker()
    polls = (at(0.0, count=3, left=1000), at(1.0, count=4, sent=1000, left=10), at(1.1, count=5, sent=1010))
    assert tracker.observe(polls[0]) is None
    assert tracker.round_number == 3
    assert [one.number for one in map(tracker.observe, polls[1:]) if one is not None] == [3, 4]
    assert tracker.round_number == 5


def test_an_announcement_and_a_poll_give_one_number():
    """Whichever comes first: 11.1 announces the second sync as its first."""
    for announced_first in (False, True):
        tracker = RoundTracker()
        if announced_first:
            tracker.note_sync(3)
        tracker.observe(at(0.0, count=3, left=1000))
        tracker.note_sync(3)
        assert tracker.round_number == 3


def test_a_missed_boundary_gives_one_round_for_two():
    """Two syncs between two polls can't be told apart; the numbers go on right."""
    tracker = RoundTracker()
    polls = (
        at(0.0, count=1, left=1000),
        at(2.0, count=3, sent=1000, left=40),
        at(3.0, count=4, sent=1040, left=5),
    )
    found = [one for one in map(tracker.observe, polls) if one is not None]
    assert [one.number for one in found] == [1, 3]
    assert [one.sent_bytes for one in found] == [1000 * PAGE, 40 * PAGE]
    assert tracker.round_number == 4


def test_an_announced_sync_counts_even_when_no_poll_sees_it():
    """MIGRATION_PASS may be all that is ever heard of the last round."""
    tracker = RoundTracker()
    assert tracker.round_number == 1
    tracker.note_sync(1)
    assert tracker.round_number == 1
    tracker.observe(at(0.0, count=1, left=10))
    tracker.note_sync(2)
    assert tracker.round_number == 2
    tracker.note_sync(1)
    assert tracker.round_number == 2


def test_without_the_first_and_the_last_event_the_rounds_are_the_same():
    """11.1 leaves those MIGRATION_PASS out: the polls alone must do."""
    announced, silent = RoundTracker(), RoundTracker()
    polls = [at(0.0, count=1, left=1000), at(1.0, count=2, sent=1000, left=10), at(1.5, count=3, sent=1010, left=2)]
    announced.note_sync(1)
    for number, poll in enumerate(polls, start=1):
        announced.note_sync(number)
        assert announced.observe(poll) == silent.observe(poll)
    assert announced.round_number == silent.round_number == 3


@pytest.mark.parametrize(
    "empty",
    [
        at(0.5, count=None),
        at(0.5, count=0),
        at(0.5, count=2, left=None),
        Observation(time_s=0.5, status=MigrationStatus.SETUP),
        Observation(time_s=0.5, status=MigrationStatus.ACTIVE, dirty_sync_count=2, remaining_bytes=5),
    ],
    ids=["no count", "count 0", "nothing left told", "setup", "nothing sent told"],
)
def test_a_poll_without_counters_is_passed_over(empty):
    """Whether it comes first or in between, it neither ends a round nor breaks the next."""
    polls = (at(0.0, count=1, left=1000), at(1.0, count=2, sent=1000, left=10))
    assert rounds_of(empty, *polls) == rounds_of(polls[0], empty, polls[1]) == rounds_of(*polls)


def test_two_polls_at_one_moment_divide_by_nothing():
    """The clock may not have moved between them."""
    (only,) = rounds_of(at(1.0, count=1, left=1000), at(1.0, count=2, sent=10, left=990))
    assert only.throughput_bytes_s > 0


counter = st.none() | st.integers(0, 2**40)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.none() | st.integers(0, 20), counter, counter, counter, counter), max_size=20))
def test_no_counters_break_it(polls):
    """Whatever a QEMU counts, backwards too, gives rounds of positive length or none."""
    tracker = RoundTracker()
    for time_s, (count, sent, left, normal, zero) in enumerate(polls):
        found = tracker.observe(
            Observation(
                time_s=float(time_s),
                status=MigrationStatus.ACTIVE,
                dirty_sync_count=count,
                sent_bytes=sent,
                remaining_bytes=left,
                normal_pages=normal,
                zero_pages=zero,
            )
        )
        if found is not None:
            assert found.duration_s > 0
            assert found.newly_dirtied_bytes >= 0
    assert tracker.round_number >= 1
