"""Progress as shown to the user: never back, never done before it is done."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.observation import Observation
from livemig.core.progress import PROGRESS_BEFORE_END, Progress
from livemig.core.status import MigrationStatus


def left(remaining_bytes: int | None, total_bytes: int | None = 1000, time_s: float = 0.0) -> Observation:
    """A poll with so much left."""
    return Observation(
        time_s=time_s, status=MigrationStatus.ACTIVE, remaining_bytes=remaining_bytes, total_bytes=total_bytes
    )


def test_it_follows_what_is_in_step():
    """The share of memory that the destination has as it is now."""
    progress = Progress()
    assert [progress.after(left(remaining)) for remaining in (1000, 750, 400)] == [0.0, 0.25, 0.6]


def test_it_never_goes_back():
    """The saw-tooth of `remaining` is not shown as progress lost."""
    progress = Progress()
    assert [progress.after(left(remaining)) for remaining in (200, 900, 300, 100)] == [0.8, 0.8, 0.8, 0.9]


def test_nothing_left_is_not_the_end():
    """0 remaining before a sync is not yet done."""
    assert Progress().after(left(0)) == PROGRESS_BEFORE_END


def test_it_follows_the_time_left_where_that_is_forecast():
    """By the middle of the range; a later forecast of a longer way takes nothing back."""
    progress = Progress()
    assert progress.after(left(900, time_s=1.0), (2.0, 4.0)) == 0.25
    assert progress.after(left(100, time_s=2.0), (1.0, 3.0)) == 0.5
    assert progress.after(left(100, time_s=3.0), (5.0, 13.0)) == 0.5
    assert progress.after(left(100, time_s=4.0), (0.0, 0.0)) == PROGRESS_BEFORE_END


def test_no_counters_are_no_progress():
    """In `setup` there is nothing to count; a total of 0 divides nothing."""
    progress = Progress()
    assert progress.after(left(None)) == progress.after(left(0, None)) == progress.after(left(0, 0)) == 0.0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.none() | st.integers(0, 2**45), st.none() | st.integers(0, 2**40), st.floats(-1, 1e6))),
    st.none() | st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)),
)
def test_whatever_qemu_says_it_is_a_share_that_never_shrinks(counters, left_s):
    """Also when more is left than there is memory, and whatever is forecast."""
    progress = Progress()
    shares = [progress.after(left(*one), left_s) for one in counters]
    assert shares == sorted(shares)
    assert all(0 <= share <= PROGRESS_BEFORE_END for share in shares)
