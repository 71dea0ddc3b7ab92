"""QEMU's migration bitmap and its scan for pages to send, on a simulated guest's memory.

``migration/ram.c``: a sync takes over the dirty log; pages are sent in order of address, round and round from where the
last one was; whoever keeps the log forgets a page when QEMU syncs (TCG) or just before the page's chunk is sent (KVM).
Knows neither caps nor when to sync: `livemig.simulation.source_qemu` does.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from livemig.simulation.guest_memory import Flags, GuestMemory
from livemig.simulation.workloads import PAGE_BYTES, Accelerator, SimulatedGuest

NORMAL_SENT_BYTES = PAGE_BYTES + 8
ZERO_SENT_BYTES = 9
FLUSH_NORMAL_PAGES = 32
"""A page and its header are two entries of the 64 that QEMU's buffer holds before it writes them out."""
FLUSH_HEADER_BYTES = 32768
"""Headers, and zero pages with them, are gathered in a buffer of this size."""
CLEAR_CHUNK_BYTES = 2**30
"""``x-clear-bitmap-shift`` is 18 unless somebody sets it: 2^18 pages."""

Counts = NDArray[np.int64]


class RamScan:
    """The pages that are still to send, and what sending them takes.

    Attributes:
        bitmap: For each piece of memory, whether it is to be sent.
        arrived: For each, whether it was ever sent whole.
        remaining_count: Pieces that are to be sent.
        normal_count: Pieces that were sent whole, so far.
        zero_count: Pieces that were found to be zero, so far.
        newly_dirty_count: What all syncs have added to the bitmap.
    """

    def __init__(self, guest: SimulatedGuest, memory: GuestMemory) -> None:
        self._memory = memory
        self._per_piece = guest.page_bytes // PAGE_BYTES
        self._late = guest.accelerator is Accelerator.KVM
        self._chunk_pieces = CLEAR_CHUNK_BYTES // guest.page_bytes
        self.bitmap: Flags = np.ones(memory.page_count, dtype=np.bool_)
        self.arrived: Flags = np.zeros(memory.page_count, dtype=np.bool_)
        self.remaining_count = memory.page_count
        self.normal_count = self.zero_count = self.newly_dirty_count = 0
        self._position = 0
        self._known: Flags = np.zeros(0, dtype=np.bool_)
        self._uncleared: set[int] = set()
        self._queue_from_here()

    @property
    def remaining_bytes(self) -> int:
        """What ``query-migrate`` calls remaining."""
        return self.remaining_count * self._per_piece * PAGE_BYTES

    @property
    def normal_pages(self) -> int:
        """Pages of 4096 bytes sent whole."""
        return self.normal_count * self._per_piece

    @property
    def zero_pages(self) -> int:
        """Zero pages of 4096 bytes."""
        return self.zero_count * self._per_piece

    @property
    def newly_dirty_pages(self) -> int:
        """Pages of 4096 bytes that were clean in the bitmap and became dirty, over all syncs."""
        return self.newly_dirty_count * self._per_piece

    @property
    def sent_bytes(self) -> int:
        """What the pages so far took on the wire."""
        return (self.normal_count * NORMAL_SENT_BYTES + self.zero_count * ZERO_SENT_BYTES) * self._per_piece

    def sync(self, time_s: float) -> None:
        """Takes what the log holds at a moment over into the bitmap."""
        self._memory.advance(time_s)
        log = self._memory.log
        before = self.remaining_count
        self.bitmap |= log
        self.remaining_count = int(np.count_nonzero(self.bitmap))
        self.newly_dirty_count += self.remaining_count - before
        if self._late:
            self._known = log.copy()
            self._uncleared = set(range(-(-self._memory.page_count // self._chunk_pieces)))
        else:
            log[:] = False
        self._queue_from_here()

    def prepare(self, time_s: float) -> int:
        """Gets the next pages ready and returns how many can be sent before this is to be called again."""
        if self._memory.gains_content:
            self._memory.advance(time_s)
            self._weigh()
        if not self._late or self._cursor == len(self._queue):
            return self.remaining_count
        chunk = int(self._queue[self._cursor]) // self._chunk_pieces
        if chunk in self._uncleared:
            self._uncleared.discard(chunk)
            self._memory.advance(time_s)
            self._memory.forget(self._known, chunk * self._chunk_pieces, (chunk + 1) * self._chunk_pieces)
        return self._left_in_chunk(chunk)

    def duration_s(self, count: int, normal_s: float, fresh_s: float, zero_s: float) -> float:
        """Returns how long the next pieces take, by what a page of each kind takes."""
        at = self._cursor + count
        normal = int(self._normal[at]) - int(self._normal[self._cursor])
        fresh = int(self._fresh[at]) - int(self._fresh[self._cursor])
        return self._per_piece * (normal * normal_s + fresh * fresh_s + (count - normal) * zero_s)

    def count_within(self, span_s: float, normal_s: float, fresh_s: float, zero_s: float) -> int:
        """Returns how many of the next pieces can be sent within a time."""
        return (
            bisect_right(
                range(self.remaining_count + 1),
                span_s,
                key=lambda count: self.duration_s(count, normal_s, fresh_s, zero_s),
            )
            - 1
        )

    def next_bytes(self, count: int) -> int:
        """Returns what the next pieces take on the wire."""
        normal = int(self._normal[self._cursor + count]) - int(self._normal[self._cursor])
        return (normal * NORMAL_SENT_BYTES + (count - normal) * ZERO_SENT_BYTES) * self._per_piece

    def count_over(self, size_bytes: int, *, flushed: bool) -> int:
        """Returns how many of the next pieces it takes until more than so much was put, or flushed, if there are."""
        count = bisect_right(range(self.remaining_count), size_bytes, key=self.next_bytes)
        if not flushed or count >= self.remaining_count:
            return count
        return bisect_left(range(self.remaining_count), self._flushes(max(0, count - 1)) + 1, key=self._flushes)

    def take(self, count: int) -> None:
        """Sends the next pieces."""
        sent = self._queue[self._cursor : self._cursor + count]
        normal = int(self._normal[self._cursor + count]) - int(self._normal[self._cursor])
        self.bitmap[sent] = False
        self.arrived[sent[self._memory.has_content[sent]]] = True
        self.normal_count += normal
        self.zero_count += count - normal
        self.remaining_count -= count
        self._cursor += count
        if count:
            self._position = int(sent[-1]) + 1

    def flushed_bytes(self, first_normal_count: int, first_zero_count: int) -> int:
        """Returns what of the pages since those counts has left QEMU's buffer, of whole buffers of normal pages."""
        normal = self.normal_count - first_normal_count
        zero_bytes = (self.zero_count - first_zero_count) * ZERO_SENT_BYTES * self._per_piece
        whole = normal * self._per_piece // FLUSH_NORMAL_PAGES * FLUSH_NORMAL_PAGES
        return whole * NORMAL_SENT_BYTES + (
            zero_bytes if whole else zero_bytes // FLUSH_HEADER_BYTES * FLUSH_HEADER_BYTES
        )

    def _flushes(self, count: int) -> int:
        normal = int(self._normal[self._cursor + count]) - int(self._normal[self._cursor])
        by_pages = normal * self._per_piece // FLUSH_NORMAL_PAGES
        return by_pages + (count - normal) * ZERO_SENT_BYTES * self._per_piece // FLUSH_HEADER_BYTES

    def _left_in_chunk(self, chunk: int) -> int:
        """The queue goes up through the memory, once from where the scan stood and once from the beginning."""
        ahead = self._queue[self._cursor : self._wrap] if self._cursor < self._wrap else self._queue[self._cursor :]
        return int(np.searchsorted(ahead, (chunk + 1) * self._chunk_pieces))

    def _queue_from_here(self) -> None:
        dirty = np.flatnonzero(self.bitmap)
        here = int(np.searchsorted(dirty, self._position))
        self._queue: Counts = np.concatenate([dirty[here:], dirty[:here]])
        self._wrap = len(dirty) - here
        self._cursor = 0
        self._weigh()

    def _weigh(self) -> None:
        normal = self._memory.has_content[self._queue]
        fresh = normal & ~self.arrived[self._queue]
        self._normal = np.concatenate([[0], np.cumsum(normal)])
        self._fresh = np.concatenate([[0], np.cumsum(fresh)])
