"""Whether it is one guest that beats, and how long it was silent."""

from hypothesis import given
from hypothesis import strategies as st

from livemig.lab.heartbeat import Heartbeat
from livemig.lab.serial_lines import Banner, Beat

BOOT = Banner(version=1, at_boot=True, ram_bytes=1, usable_bytes=1, page_base=1, table_base=1, sum_base=1, tsc_hz=1)
ASKED = Banner(version=1, at_boot=False, ram_bytes=1, usable_bytes=1, page_base=1, table_base=1, sum_base=1, tsc_hz=1)


def _heard(*beats: tuple[str, int]) -> Heartbeat:
    heartbeat = Heartbeat()
    for number, (line, counter) in enumerate(beats):
        heartbeat.hear(line, number * 0.01, Beat(counter))
    return heartbeat


def test_rising_counters_on_one_line_are_one_guest() -> None:
    """Also when beats are missing between them."""
    heartbeat = _heard(("a", 1), ("a", 2), ("a", 5))

    assert heartbeat.problems == []
    assert (heartbeat.beat_count, heartbeat.missed_count, heartbeat.line) == (3, 2, "a")


def test_the_longest_silence_is_found_and_can_be_begun_anew() -> None:
    """The gap names its ends and lines; `restart` forgets it."""
    heartbeat = Heartbeat()
    for arrival_s, counter, line in ((0.0, 1, "a"), (0.01, 2, "a"), (0.31, 3, "b"), (0.32, 4, "b")):
        heartbeat.hear(line, arrival_s, Beat(counter))
    assert heartbeat.longest_gap is not None
    gap = heartbeat.longest_gap
    assert (gap.start_s, gap.end_s, gap.from_line, gap.to_line) == (0.01, 0.31, "a", "b")
    assert abs(heartbeat.longest_gap_s - 0.3) < 1e-9

    heartbeat.restart()
    heartbeat.hear("b", 0.34, Beat(5))

    assert abs(heartbeat.longest_gap_s - 0.02) < 1e-9
    assert abs(heartbeat.silence_s(0.44) - 0.1) < 1e-9


@given(first=st.integers(1, 1000), before=st.integers(1, 20), after=st.integers(1, 20), data=st.data())
def test_a_move_is_one_guest_in_whatever_order_its_beats_are_read(
    first: int, before: int, after: int, data: st.DataObject
) -> None:
    """Each line is read in its order, the two of them in any."""
    source = [("source", first + i) for i in range(before)]
    destination = [("destination", first + before + i) for i in range(after)]
    heartbeat = Heartbeat()
    heartbeat.hear("source", 0.0, Beat(first))
    source.pop(0)
    while source or destination:
        from_source = bool(source) and (not destination or data.draw(st.booleans()))
        line, counter = (source if from_source else destination).pop(0)
        heartbeat.hear(line, 1.0, Beat(counter))

    assert heartbeat.problems == []
    assert heartbeat.line == "destination"
    assert heartbeat.missed_count == 0


def test_two_running_guests_are_noticed() -> None:
    """Both go on counting from the same state."""
    assert _heard(("a", 1), ("a", 2), ("b", 3), ("a", 3)).problems
    assert _heard(("a", 1), ("a", 2), ("b", 3), ("a", 4)).problems


def test_a_guest_that_falls_back_is_noticed() -> None:
    """A destination that began from an older state repeats counters."""
    assert _heard(("a", 1), ("a", 2), ("b", 2)).problems
    assert _heard(("a", 1), ("a", 2), ("a", 2)).problems
    assert _heard(("a", 5), ("a", 4)).problems


def test_a_reset_is_noticed_and_counting_begins_anew() -> None:
    """A banner at boot behind beats is one; an answer to a question is none."""
    heartbeat = _heard(("a", 1), ("a", 2))
    heartbeat.hear("a", 1.0, ASKED)
    assert heartbeat.problems == []

    heartbeat.hear("a", 2.0, BOOT)
    heartbeat.hear("a", 2.1, Beat(1))

    assert heartbeat.reset_count == 1
    assert len(heartbeat.problems) == 1


def test_memory_stays_bounded() -> None:
    """A guest that beats for days, or one that repeats itself for ever, keeps little."""
    heartbeat = _heard(*[("a", 1)] * 30_000)

    assert len(heartbeat.recent) <= 20_000
    assert len(heartbeat.problems) <= 50
