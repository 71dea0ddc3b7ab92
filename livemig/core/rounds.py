"""Cuts the source's counters into rounds: one pass over dirty memory each, and what the guest dirtied meanwhile.

``remaining`` is a saw-tooth, so rates are learned at its teeth: what it is right after a bitmap sync minus what it was
right before. ``dirty-pages-rate`` is never used: a hot set reads as exactly the send rate there.
"""

from __future__ import annotations

import msgspec

from livemig.core.observation import Observation


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One finished pass.

    Attributes:
        number: Counted from 1, the first full copy.
        start_s: When it began, in seconds since ``migrate``.
        duration_s: How long it took.
        sent_bytes: What went over the wire in it.
        newly_dirtied_bytes: What the sync at its end found dirtied: distinct pages, times the page size.
        remaining_bytes: What is left to send after that sync.
        throughput_bytes_s: ``sent_bytes`` over ``duration_s``.
    """

    number: int
    start_s: float
    duration_s: float
    sent_bytes: int
    newly_dirtied_bytes: int
    remaining_bytes: int
    throughput_bytes_s: float


MOST_OLD_SHARE = 0.5
"""What a round sent of what it began with stands for the rest, unless that is most of it: a hot set lies together."""


def dirtied_bytes(finished: Round, before_bytes: float) -> float:
    """What was dirtied in a round, had all of what was left before it been sent in it: the rest is no other.

    Args:
        finished: The round.
        before_bytes: What was left as it began; all memory before the first.
    """
    old_bytes = max(finished.remaining_bytes - finished.newly_dirtied_bytes, 0)
    old_share = old_bytes / max(before_bytes, 1.0)
    return finished.newly_dirtied_bytes / (1.0 - old_share if old_share < MOST_OLD_SHARE else 1.0)


class RoundTracker:
    """Turns observations into rounds.

    QEMU counts the syncs of each ``migrate`` anew, the one at its setup included: the count while a pass is under way
    is that pass's number, whichever of them is heard of first.
    """

    def __init__(self) -> None:
        self._previous: Observation | None = None
        self._start: Observation | None = None
        self.round_number = 1

    def note_sync(self, count: int) -> None:
        """Takes a sync that was announced; its observation may come later, or, at the end, never."""
        self.round_number = max(self.round_number, count)

    def observe(self, observation: Observation) -> Round | None:
        """Takes the next observation of the source; returns a round when a bitmap sync has ended one."""
        count, sent_bytes, remaining_bytes = (
            observation.dirty_sync_count,
            observation.sent_bytes,
            observation.remaining_bytes,
        )
        if not count or sent_bytes is None or remaining_bytes is None:
            return None
        previous, self._previous = self._previous, observation
        if previous is None or self._start is None:
            self._start = observation
            self.note_sync(count)
            return None
        if count == previous.dirty_sync_count:
            return None
        start, self._start = self._start, observation
        self.note_sync(count)
        duration_s = max(observation.time_s - start.time_s, 1e-6)
        round_sent_bytes = sent_bytes - (start.sent_bytes or 0)
        return Round(
            number=previous.dirty_sync_count or count,
            start_s=start.time_s,
            duration_s=duration_s,
            sent_bytes=round_sent_bytes,
            newly_dirtied_bytes=max(0, remaining_bytes - _remaining_before(previous, observation)),
            remaining_bytes=remaining_bytes,
            throughput_bytes_s=round_sent_bytes / duration_s,
        )


def _remaining_before(previous: Observation, observation: Observation) -> int:
    """What would be left without the sync: what was left at the previous observation less what was sent since.

    Below 0 when more was sent since the sync than had been left: that is among what the sync found, too.
    """
    sent_pages = _scanned_pages(observation) - _scanned_pages(previous)
    return (previous.remaining_bytes or 0) - sent_pages * (observation.page_size_bytes or 4096)


def _scanned_pages(observation: Observation) -> int:
    return (observation.normal_pages or 0) + (observation.zero_pages or 0)
