"""A simulated guest's memory: which pages its writes have dirtied, as whoever keeps the dirty log sees it.

Knows nothing of QEMU's own bitmap, of sending or of time but what it is told. Sweeps are exact; of random writes the
number of distinct pages has the exact distribution. Deterministic by its generator.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from livemig.simulation.wavering import Wavering
from livemig.simulation.workloads import Pattern, SimulatedGuest, Stage, Writes

Flags = NDArray[np.bool_]

DRAWN_ONE_BY_ONE_MOST = 2
"""Writes per page of a region up to which each is drawn by itself; beyond, each page is drawn: cheaper, as exact."""


class GuestMemory:
    """Applies writes as time goes on.

    Attributes:
        page_count: Pieces of memory, each of the guest's ``page_bytes``.
        log: For each, whether it was written to since the log last forgot it.
        has_content: For each, whether it is more than zeros.
        time_s: Up to when the writes were applied, in seconds since ``migrate``.
        stands_still: Whether the guest was stopped: it writes nothing, whatever time goes by.
    """

    def __init__(self, guest: SimulatedGuest, generator: np.random.Generator) -> None:
        """Lets the guest be where it may be: bursts, sweeps and the liking of pages begin at random."""
        self.page_count = guest.memory_bytes // guest.page_bytes
        self.log: Flags = np.ones(self.page_count, dtype=np.bool_)
        self.has_content: Flags = np.zeros(self.page_count, dtype=np.bool_)
        first = guest.content_start_bytes // guest.page_bytes
        self.has_content[first : first + -(-guest.content_bytes // guest.page_bytes)] = True
        self.time_s = 0.0
        self.stands_still = False
        self._wavering = Wavering(guest.variation_ratio, guest.variation_s, generator.spawn(1)[0])
        self._stages = [_Running(stage, guest.page_bytes, generator) for stage in guest.stages]
        self._current = 0
        self._grows = any(writes.growth_bytes_s for stage in guest.stages for writes in stage.writes)
        self._gains_content = self._grows or not _all_content(guest)

    @property
    def gains_content(self) -> bool:
        """Whether zero pages may come to hold something, so that what is sent must be looked at anew."""
        return self._gains_content

    def branch(self, time_s: float, generator: np.random.Generator) -> None:
        """Has it write otherwise from a moment: as much and where it did, but by other draws."""
        self.advance(time_s)
        self._wavering.branch(time_s, generator.spawn(1)[0])
        for stage in self._stages:
            stage.branch(generator)

    def advance(self, time_s: float) -> None:
        """Applies what is written up to a moment. A moment that has passed changes nothing."""
        if self.stands_still:
            return
        while self._current + 1 < len(self._stages) and self._stages[self._current + 1].stage.start_s <= time_s:
            start_s = self._stages[self._current + 1].stage.start_s
            self._apply(start_s)
            self._current += 1
            self._stages[self._current].begin(start_s)
        self._apply(time_s)

    def forget(self, known: Flags, first: int = 0, last: int | None = None) -> None:
        """Makes the log of a range forget the pages that whoever reads it knows to be dirty.

        Args:
            known: For each page of memory, whether it is known.
            first: The first page of the range.
            last: The page after its last one, or None for the end of the memory.
        """
        part = slice(first, last)
        self.log[part] &= ~known[part]

    def _apply(self, time_s: float) -> None:
        from_s = self.time_s
        if time_s <= from_s:
            return
        self.time_s = time_s
        running = self._stages[self._current]
        active_s = running.active_s(from_s, time_s)
        running.write(self.log, from_s, time_s, active_s * self._wavering.mean_ratio(from_s, time_s))
        if self._gains_content:
            self.has_content |= self.log


def _all_content(guest: SimulatedGuest) -> bool:
    """Whether whatever is written to has content from the start."""
    first_bytes, end_bytes = guest.content_start_bytes, guest.content_start_bytes + guest.content_bytes
    return all(
        first_bytes <= writes.start_bytes and writes.end_bytes <= end_bytes
        for stage in guest.stages
        for writes in stage.writes
    )


class _Span(NamedTuple):
    """A span on the stage's own clock, and how long it is as the writes count it: bursts, wavering."""

    from_s: float
    to_s: float
    active_s: float


class _Writer(Protocol):
    generator: np.random.Generator

    def write(self, log: Flags, span: _Span) -> None: ...


class _Running:
    """A stage with the state of its writers."""

    def __init__(self, stage: Stage, page_bytes: int, generator: np.random.Generator) -> None:
        self.stage = stage
        anywhere_s = float(generator.uniform(0.0, stage.burst_period_s)) if stage.burst_period_s else 0.0
        self._offset_s = anywhere_s if stage.burst_offset_s is None else stage.burst_offset_s
        self._start_s = 0.0
        self._writers: list[_Writer] = [_writer(writes, page_bytes, generator) for writes in stage.writes]

    def begin(self, start_s: float) -> None:
        self._start_s = start_s

    def branch(self, generator: np.random.Generator) -> None:
        for writer in self._writers:
            writer.generator = generator

    def active_s(self, from_s: float, to_s: float) -> float:
        origin_s = self._start_s - self._offset_s
        return self.stage.active_s(from_s - origin_s, to_s - origin_s)

    def write(self, log: Flags, from_s: float, to_s: float, active_s: float) -> None:
        for writer in self._writers:
            writer.write(log, _Span(from_s - self._start_s, to_s - self._start_s, active_s))


def _writer(writes: Writes, page_bytes: int, generator: np.random.Generator) -> _Writer:
    if writes.pattern is Pattern.SWEEP:
        return _Sweep(writes, page_bytes, generator)
    if writes.pattern is Pattern.ZIPF:
        return _Zipf(writes, page_bytes, generator)
    if writes.growth_bytes_s:
        return _Growing(writes, page_bytes, generator)
    return _Random(writes, page_bytes, generator)


class _Region:
    def __init__(self, writes: Writes, page_bytes: int, generator: np.random.Generator) -> None:
        self.first = writes.start_bytes // page_bytes
        self.count = max(1, -(-(writes.start_bytes + writes.size_bytes) // page_bytes) - self.first)
        self.writes_s = writes.rate_bytes_s / page_bytes
        self.generator = generator

    def view(self, log: Flags) -> Flags:
        return log[self.first : self.first + self.count]


class _Sweep(_Region):
    """Pages one after the other, where it is at the start being anywhere."""

    def __init__(self, writes: Writes, page_bytes: int, generator: np.random.Generator) -> None:
        super().__init__(writes, page_bytes, generator)
        self._pages_s = writes.rate_bytes_s / page_bytes
        self._position_pages = float(generator.uniform(0.0, self.count))

    def write(self, log: Flags, span: _Span) -> None:
        """Marks what the sweep went over; the page it is in the middle of counts when it was entered."""
        view = self.view(log)
        begin_pages, distance_pages = self._position_pages, self._pages_s * span.active_s
        if distance_pages <= 0:
            return
        self._position_pages = (begin_pages + distance_pages) % self.count
        if distance_pages >= self.count:
            view[:] = True
            return
        first, last = int(np.ceil(begin_pages)), int(np.ceil(begin_pages + distance_pages))
        view[first : min(last, self.count)] = True
        if last > self.count:
            view[: last - self.count] = True


class _Random(_Region):
    def write(self, log: Flags, span: _Span) -> None:
        expected = self.writes_s * span.active_s
        if expected > DRAWN_ONE_BY_ONE_MOST * self.count:
            untouched = np.exp(-expected / self.count)
            self.view(log)[:] |= self.generator.random(self.count) >= untouched
            return
        write_count = int(self.generator.poisson(expected))
        self.view(log)[self.generator.integers(self.count, size=write_count)] = True


class _Zipf(_Region):
    """Pages of which some are liked much better than others, scattered over the region."""

    def __init__(self, writes: Writes, page_bytes: int, generator: np.random.Generator) -> None:
        super().__init__(writes, page_bytes, generator)
        liking = np.arange(1, self.count + 1, dtype=np.float64) ** -writes.skew_ratio
        shares = generator.permutation(liking / liking.sum())
        self._writes_s = shares * self.writes_s
        self._sums = np.cumsum(shares)

    def write(self, log: Flags, span: _Span) -> None:
        expected = self.writes_s * span.active_s
        if expected * 8 > self.count:  # a search costs some eight times a draw
            self.view(log)[:] |= self.generator.random(self.count) >= np.exp(-self._writes_s * span.active_s)
            return
        draws = self.generator.random(int(self.generator.poisson(expected)))
        self.view(log)[np.minimum(np.searchsorted(self._sums, draws), self.count - 1)] = True


class _Growing(_Region):
    """A region that grows: each write goes to any page of it as it is at that moment; what is added is written to."""

    def __init__(self, writes: Writes, page_bytes: int, generator: np.random.Generator) -> None:
        super().__init__(writes, page_bytes, generator)
        self._begin_pages = self.count
        self._most_pages = max(self.count, writes.growth_most_bytes // page_bytes)
        self._growth_pages_s = writes.growth_bytes_s / page_bytes

    def write(self, log: Flags, span: _Span) -> None:
        region = log[self.first : self.first + self._most_pages]
        write_count = int(self.generator.poisson(self.writes_s * span.active_s))
        at_s = self.generator.uniform(span.from_s, span.to_s, size=write_count)
        region[(self.generator.random(write_count) * self._size_pages(at_s)).astype(np.int64)] = True
        grown = self._size_pages(np.array([span.from_s, span.to_s])).astype(np.int64)
        region[grown[0] : grown[1]] = True

    def _size_pages(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.minimum(self._begin_pages + self._growth_pages_s * time_s, float(self._most_pages))
