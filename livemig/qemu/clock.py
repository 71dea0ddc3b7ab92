"""How QEMU's wall clock relates to the monotonic one, from events and round trips. Reads no clock."""

from collections import deque

WINDOW_S = 60.0
"""Age up to which an event counts: two hosts' clocks drift apart, 50 ppm in 60 s being 3 ms."""


class ClockOffset:
    """Keeps the least (arrival - timestamp) over recent events and the least round trip of commands.

    An event can't arrive before it happened, so the least difference is the offset of the clocks plus the
    shortest way from QEMU to here, which is about half of the shortest round trip.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._differences: deque[tuple[float, float]] = deque()
        self._least_round_trip_s: float | None = None

    def add_event(self, *, arrival_s: float, timestamp_s: float) -> None:
        """Takes an event: when it arrived (monotonic), and when it happened by QEMU's wall clock."""
        difference_s = arrival_s - timestamp_s
        while self._differences and self._differences[-1][1] >= difference_s:
            self._differences.pop()
        self._differences.append((arrival_s, difference_s))
        while self._differences[0][0] < arrival_s - self._window_s:
            self._differences.popleft()

    def add_round_trip(self, round_trip_s: float) -> None:
        """Takes the time from a command's sending to its reply's arrival."""
        if self._least_round_trip_s is None or round_trip_s < self._least_round_trip_s:
            self._least_round_trip_s = round_trip_s

    @property
    def least_round_trip_s(self) -> float | None:
        """The shortest round trip so far in seconds, or None before the first."""
        return self._least_round_trip_s

    @property
    def offset_s(self) -> float | None:
        """What to add to QEMU's timestamps to get monotonic time in seconds; None before the first event."""
        if not self._differences:
            return None
        return self._differences[0][1] - (self._least_round_trip_s or 0.0) / 2

    @property
    def uncertainty_s(self) -> float | None:
        """Half of the least round trip: the offset's greatest error, if one event came without delay."""
        if not self._differences or self._least_round_trip_s is None:
            return None
        return self._least_round_trip_s / 2

    def to_monotonic_s(self, timestamp_s: float) -> float | None:
        """Turns a timestamp of QEMU's into the engine's monotonic time, or None before the first event."""
        return None if self.offset_s is None else timestamp_s + self.offset_s
