"""The heartbeat as the host hears it: how long it was silent, and whether it is still one guest that beats.

Pure: arrival times are passed in. Takes the beats of several serial lines (source, then destination) and keeps
a bounded amount of them.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from livemig.lab.serial_lines import Banner, Beat, Record

__all__ = ["Gap", "Heartbeat"]

_RECENT_BEATS: Final = 20_000
_PROBLEMS_KEPT: Final = 50


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A time between two beats that followed one another.

    Attributes:
        start_s: Arrival of the one, in seconds of the monotonic clock.
        end_s: Arrival of the other.
        from_line: The serial line the one came on.
        to_line: The serial line the other came on.
    """

    start_s: float
    end_s: float
    from_line: str
    to_line: str

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return self.end_s - self.start_s


class _Line:
    """What is known of one serial line."""

    def __init__(self) -> None:
        self.last_counter: int | None = None
        self.end_counter: int | None = None
        """The first beat of the line that took over: every beat of this one must be below it."""


class Heartbeat:
    """Follows one guest's beats over the serial lines it is heard on.

    The guest is one as long as counters rise, and rise across lines too: each line's beats are all below the
    first beat of the line that took over from it, whatever order they arrive in. `problems` says where that was
    broken. Each line needs a name of its own: a guest that comes back to a host comes back on a new line.

    Attributes:
        line: The line that beats now, or None before the first beat.
        beat_count: Beats heard.
        missed_count: Counters left out: beats that were dropped unread or cut in two by a switchover.
        reset_count: Boots seen after beats.
        longest_gap: The longest time without a beat since the start or the last `restart`, or None.
        recent: The last beats, each (arrival in seconds of the monotonic clock, counter, line).
        problems: What contradicts one guest that goes on, one sentence each; the first ones, bounded.
    """

    def __init__(self) -> None:
        self.line: str | None = None
        self.beat_count = 0
        self.missed_count = 0
        self.reset_count = 0
        self.longest_gap: Gap | None = None
        self.recent: deque[tuple[float, int, str]] = deque(maxlen=_RECENT_BEATS)
        self.problems: list[str] = []
        self.last_counter = 0
        self.last_arrival_s: float | None = None
        self._last_line = ""
        self._lines: dict[str, _Line] = {}

    @property
    def longest_gap_s(self) -> float:
        """The longest time without a beat, in seconds; 0 before two beats were heard."""
        return self.longest_gap.duration_s if self.longest_gap else 0.0

    def silence_s(self, now_s: float) -> float:
        """Returns how long no beat has come, in seconds; infinite before the first."""
        return float("inf") if self.last_arrival_s is None else now_s - self.last_arrival_s

    def restart(self) -> None:
        """Begins the longest gap anew, with the last beat as its start."""
        self.longest_gap = None

    def hear(self, line: str, arrival_s: float, record: Record) -> None:
        """Takes a record of a serial line; all but beats and banners are ignored."""
        if isinstance(record, Beat):
            self._beat(line, arrival_s, record.counter)
        elif isinstance(record, Banner) and record.at_boot and self.beat_count:
            self.reset_count += 1
            self._problem(f"the guest booted again on {line} after beat {self.last_counter}")
            self._lines.clear()
            self.line = None
            self.last_counter = 0

    def _beat(self, line: str, arrival_s: float, counter: int) -> None:
        known = self._lines.setdefault(line, _Line())
        if known.last_counter is not None and counter <= known.last_counter:
            self._problem(f"beat {counter} on {line} came after {known.last_counter} there")
        known.last_counter = max(counter, known.last_counter or 0)
        self.beat_count += 1
        self.recent.append((arrival_s, counter, line))
        if line != self.line and not self._takes_over(line, known, counter):
            return
        if self.last_counter and counter > self.last_counter + 1:
            self.missed_count += counter - self.last_counter - 1
        self._measure(line, arrival_s)
        self.last_counter = max(self.last_counter, counter)

    def _takes_over(self, line: str, known: _Line, counter: int) -> bool:
        """Whether a beat on another line than the last one's means that the guest goes on there."""
        if known.end_counter is not None and counter < known.end_counter:
            # Read late: it was sent before the other line took over, and was counted as missed then.
            self.missed_count = max(0, self.missed_count - 1)
            return False
        if counter <= self.last_counter:
            self._problem(
                f"beat {counter} on {line}, but {self.last_counter} was heard on {self.line} before: two guests"
            )
            return False
        if known.end_counter is not None:
            self._problem(f"beat {counter} on {line} after {self.line} took over at {known.end_counter}: two guests")
        if self.line is not None:
            self._lines[self.line].end_counter = counter
        known.end_counter = None
        self.line = line
        return True

    def _measure(self, line: str, arrival_s: float) -> None:
        if self.last_arrival_s is not None:
            gap = Gap(start_s=self.last_arrival_s, end_s=arrival_s, from_line=self._last_line, to_line=line)
            if self.longest_gap is None or gap.duration_s > self.longest_gap.duration_s:
                self.longest_gap = gap
        self.last_arrival_s = arrival_s
        self._last_line = line

    def _problem(self, sentence: str) -> None:
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(sentence)
