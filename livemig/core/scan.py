"""QEMU's pre-copy as many particles at once: which pages are sent when, which are dirty again, when it switches over.

The rules are those of migration/ram.c and migration.c. Memory is a ring of segments that the scan walks round; a page
that is sent is clean as of the last bitmap sync before, since the sync takes and clears the guest's dirty log. QEMU
looks whether what is known to be left is below its threshold (throughput of a slot times its limit), and only then
syncs; if the sync too finds less, it switches over. Under a cap each slot of 100 ms begins with a look, then its quota
goes out in one burst, at what the link can do, and the thread sleeps. Only when the burst finds nothing more to send
does it look at once: such a sync finds no more than was dirtied in the burst.

Holds no memory of the guest: D(T) stands for it. Not the page-level simulation, which is written apart from this.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livemig.core.dirty_curve import CurveTable
from livemig.core.foreseen_probe import REACTION_S, Foreseen, Probing
from livemig.core.pace import Pace, Walk
from livemig.core.probe_slot import SAFE_RATIO, SLOT_S

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

SEGMENT_COUNT = 32
PAGE_SENT_BYTES = 4096 + 8
"""A page and its header."""
ZERO_SENT_BYTES = 9
CAPPED_SLOT_S = 0.1
OVERSHOOT_PAGES = 13.0
"""What goes out beyond a slot's quota, for QEMU looks only now and then whether it is reached."""
ZERO_SCAN_S = 0.45e-6
"""To find that a page is zero, one that was never touched."""
SLOT_LATE_S = 0.0006
"""By so much a slot is longer than it should be: a timer of whole milliseconds, and the thread's waking up."""
FREE_SLOT_S = 0.05
"""Without a cap QEMU looks when an iteration ends: after 50 ms at most (MAX_WAIT in ram.c)."""
GUARD_THRESHOLD_PAGES = 100.0
"""The guard's throughput times a limit of some tenths of a second."""
SYNC_S = 0.0005
"""A sync itself, of a small guest."""
SYNCS_MOST = 160
"""A guest that has not converged after so many syncs is not going to."""


class Particles(NamedTuple):
    """Where a migration stands, in many ways that it may be; M particles.

    Attributes:
        slot_s: When the slot under way began, in seconds since ``migrate``, shape (M,).
        short_s: By how much the slot under way is shorter than others, shape (M,).
        used_pages: What of the slot's quota is used, in pages that are sent whole, shape (M,).
        used_s: How long that took, shape (M,).
        sent_bytes: Sent so far, shape (M,).
        guest_time_s: The guest's own time, which its phases stretch, shape (M,).
        cleaned_s: Guest time since which each segment's pages count as clean, shape (M, G).
        known_pages: Pages of each segment that QEMU knows to be dirty, shape (M, G).
        page_costs: What one of them costs of the quota, shape (M, G); less than 1 where many are zero.
        fresh_pages: How many of them were never sent before, in whole pages: the destination has yet to find memory for
            them, shape (M, G).
        synced_s: Guest time of the last sync, shape (M,).
        position: The segment that the scan is in, as a real number in [0, G), shape (M,).
    """

    slot_s: Array
    short_s: Array
    used_pages: Array
    used_s: Array
    sent_bytes: Array
    guest_time_s: Array
    cleaned_s: Array
    known_pages: Array
    page_costs: Array
    fresh_pages: Array
    synced_s: Array
    position: Array


class Course(NamedTuple):
    """What the particles are under, constant while they roll.

    Attributes:
        curves: How the guest of each particle dirties memory.
        running_bytes_s: Throughput while the guest runs, shape (M,).
        burst_bytes_s: What the link can do, shape (M,).
        fresh_bytes_s: What it can do with pages that the destination has no memory for yet, shape (M,).
        limit_s: What QEMU's threshold allows the last step, the fixed part taken off.
        slot_s: How often QEMU looks.
        pace: How the guest's pace wavers.
        horizon_s: When to give up.
        counted_s: When QEMU has counted the first slot that was not the guard's, shape (M,): before, its threshold is
            next to nothing, for it is that slot's throughput times the limit.
        foreseen: What tells when the cap is lifted for a slot; None where it never is.
        copying_ratio: What of the limit the policy uses until the first copy has ended; 1 after it.
        looked: Whether QEMU has looked at where they start, and went on.
    """

    curves: CurveTable
    running_bytes_s: Array
    burst_bytes_s: Array
    fresh_bytes_s: Array
    limit_s: float
    slot_s: float
    pace: Pace
    horizon_s: float
    counted_s: Array
    foreseen: Foreseen | None = None
    copying_ratio: float = 1.0
    looked: bool = False


class Rolled(NamedTuple):
    """Where the particles came to; each of shape (M,).

    Attributes:
        converged: Whether QEMU switched over within the horizon.
        time_s: When: seconds since ``migrate``; the horizon where it did not.
        left_pages: What is to be sent while the guest stands still.
        fresh_pages: What of that was never sent before.
        sent_bytes: What was sent before.
        sync_count: Bitmap syncs on the way.
    """

    converged: Flags
    time_s: Array
    left_pages: Array
    fresh_pages: Array
    sent_bytes: Array
    sync_count: Array


def roll(start: Particles, course: Course, generator: np.random.Generator) -> Rolled:
    """Rolls the particles on from just after a sync until each has switched over, or was given up."""
    state = start
    count = len(start.slot_s)
    slots = _Slots(course)
    slot = slots.at(state)
    walk = Walk(course.pace, state.slot_s + state.used_s, generator)
    going = np.ones(count, dtype=bool)
    converged = np.zeros(count, dtype=bool)
    syncs = np.zeros(count)
    for number in range(SYNCS_MOST):
        now_s = state.slot_s + state.used_s
        left_pages = state.known_pages.sum(axis=1)
        done = going & (left_pages < slot.threshold_pages) & (number > 0 or not course.looked)
        converged |= done
        going &= ~done & (now_s < course.horizon_s)
        if not going.any():
            break
        ahead = _ahead(state)
        ended, spent, used = _until_look(state, ahead, left_pages, slot)
        ended, spent = np.where(going, ended, 0.0), np.where(going, spent, 0.0)
        used = np.where(going, used, state.used_pages)
        walked, scanned = _walk(state, ahead, spent)
        spent_s = _sending_s(spent, state.fresh_pages.sum(axis=1) - walked.fresh_pages.sum(axis=1), course)
        spent_s = spent_s + scanned * ZERO_SCAN_S
        in_slot_s = spent_s * np.clip(used / np.maximum(spent, 1e-9), 0.0, 1.0)
        used_s = np.where(ended > 0, in_slot_s, state.used_s + spent_s)
        slots_s = ended * (slot.length_s + SLOT_LATE_S) - np.where(ended > 0, state.short_s, 0.0)
        slot_s = state.slot_s + np.maximum(slots_s, np.where(ended > 0, state.used_s + spent_s - used_s, 0.0))
        passed_s = np.where(going, slot_s + used_s + SYNC_S - now_s, 0.0)
        state = walked._replace(
            slot_s=slot_s,
            short_s=np.where(ended > 0, 0.0, state.short_s),
            used_pages=used,
            used_s=used_s,
            guest_time_s=state.guest_time_s + walk.passed(passed_s),
            sent_bytes=state.sent_bytes + spent * PAGE_SENT_BYTES,
        )
        steady, slot = slot.steady, slots.at(state)
        looks = going & (steady | (state.known_pages.sum(axis=1) < slot.threshold_pages))
        state = sync(state, course.curves, looks)
        syncs += looks
        state, slot = slots.synced(state, spent, looks, slot)
    left_pages = (state.known_pages * state.page_costs).sum(axis=1)
    now_s = np.minimum(state.slot_s + state.used_s, course.horizon_s)
    return Rolled(converged, now_s, left_pages, state.fresh_pages.sum(axis=1), state.sent_bytes, syncs)


class _Slot(NamedTuple):
    """What the slot under way is; each of shape (M,).

    Attributes:
        length_s: How long it is.
        quota_pages: What goes out in it at most.
        threshold_pages: With less left than that QEMU syncs, and switches over.
        steady: Whether the next slots are alike, so that many can be taken at once.
    """

    length_s: Array
    quota_pages: Array
    threshold_pages: Array
    steady: Flags


class _Slots:
    """What slots are, one after the other, by QEMU's rules and by what the policy tells QEMU meanwhile."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._capped_pages = course.running_bytes_s * course.slot_s / PAGE_SENT_BYTES + OVERSHOOT_PAGES
        pages_s = self._capped_pages / course.slot_s
        self._free_pages_s = course.burst_bytes_s / PAGE_SENT_BYTES
        self._allowed_pages = pages_s * course.limit_s
        self._copying_pages = course.copying_ratio * self._allowed_pages
        self._copying = np.asarray(course.copying_ratio < 1.0)
        self._probing = course.foreseen and Probing(course.foreseen, course.curves, pages_s, course.limit_s)

    def at(self, state: Particles) -> _Slot:
        """Returns the one that a look comes with, or in which it comes."""
        course, probing = self._course, self._probing
        now_s = state.slot_s + state.used_s
        counted = now_s > course.counted_s - 1e-9
        threshold_pages = np.where(self._copying, self._copying_pages, self._allowed_pages)
        threshold_pages = np.where(counted, threshold_pages, np.minimum(threshold_pages, GUARD_THRESHOLD_PAGES))
        length_s = np.full(len(now_s), course.slot_s)
        if probing is None or not probing.lifted.any():
            return _Slot(length_s, self._capped_pages, threshold_pages, counted)
        shown = now_s - probing.lifted_s >= SLOT_S
        probed_pages = SAFE_RATIO * np.where(shown, self._free_pages_s * course.limit_s, self._allowed_pages)
        return _Slot(
            np.where(probing.lifted, FREE_SLOT_S, length_s),
            np.where(probing.lifted, self._free_pages_s * FREE_SLOT_S, self._capped_pages),
            np.where(probing.lifted, probed_pages, threshold_pages),
            counted & ~probing.lifted,
        )

    def synced(self, state: Particles, sent_pages: Array, which: Flags, slot: _Slot) -> tuple[Particles, _Slot]:
        """Takes that some have synced: the first copy may have ended, and the policy may lift the cap.

        What it tells QEMU after the first copy holds from the next slot on: QEMU reckons its threshold at a slot's end.
        """
        slot = slot._replace(steady=slot.steady & ~(self._copying & which))
        self._copying = self._copying & ~which
        if self._probing is None:
            return state, slot
        self._probing.walked(sent_pages)
        now_s = state.slot_s + state.used_s
        back = self._probing.passed(now_s)
        begins = self._probing.synced(which, state.known_pages.sum(axis=1))
        new = begins | back
        if not new.any():
            return state, slot
        burst_s = (self._capped_pages - state.used_pages) / self._free_pages_s
        asleep_s = np.maximum(self._course.slot_s + SLOT_LATE_S - state.used_s, 0.0)
        waits_s = np.where(begins & (burst_s < REACTION_S), asleep_s, 0.0)
        self._probing.lift(begins, now_s + waits_s)
        state = state._replace(
            slot_s=np.where(new, now_s + waits_s, state.slot_s),
            short_s=np.where(new, 0.0, state.short_s),
            used_pages=np.where(new, 0.0, state.used_pages),
            used_s=np.where(new, 0.0, state.used_s),
            guest_time_s=state.guest_time_s + waits_s,
        )
        return state, self.at(state)


def _sending_s(spent: Array, fresh: Array, course: Course) -> Array:
    """How long it takes to send so many pages in a burst, of which so many are fresh."""
    fresh_s = fresh * PAGE_SENT_BYTES / course.fresh_bytes_s
    return np.asarray(fresh_s + np.maximum(spent - fresh, 0.0) * PAGE_SENT_BYTES / course.burst_bytes_s, dtype=float)


def _until_look(state: Particles, ahead: _Ahead, left_pages: Array, slot: _Slot) -> tuple[Array, Array, Array]:
    """Returns the slots that end, the quota spent, and what of the last slot's is used, when QEMU next looks.

    That is at the first slot's begin at which what is left is below the threshold, or at once when nothing is left; at
    the next slot's begin where the next slots are not alike.
    """
    quota_pages, above_pages = slot.quota_pages, left_pages - slot.threshold_pages
    known, costs = ahead.known_pages, ahead.page_costs
    pages_before = known.cumsum(axis=1) - known
    shares = _within_1((above_pages[:, None] - pages_before) / np.maximum(known, 1e-12))
    needed = (shares * known * costs).sum(axis=1)
    whole = (known * costs).sum(axis=1)
    unused = quota_pages - state.used_pages
    slots = np.where(slot.steady, np.maximum(np.ceil((needed - unused) / quota_pages - 1e-9), 0.0), 0.0)
    spent = unused + slots * quota_pages
    empties = whole <= spent
    slots_emptied = np.maximum(np.ceil((whole - unused) / quota_pages - 1e-9), 0.0)
    used_emptied = np.where(
        slots_emptied > 0, whole - unused - (slots_emptied - 1) * quota_pages, state.used_pages + whole
    )
    return (
        np.where(empties, slots_emptied, slots + 1.0),
        np.where(empties, whole, spent),
        np.where(empties, used_emptied, 0.0),
    )


def sync(state: Particles, curves: CurveTable, which: Flags) -> Particles:
    """Takes the guest's dirty log: each segment's pages that were dirtied since they were clean are known now."""
    segments = state.known_pages.shape[1]
    ages_s = state.guest_time_s[:, None] - state.cleaned_s
    dirtied = curves.dirtied_pages(ages_s) / segments
    known = np.maximum(state.known_pages, dirtied)
    return state._replace(
        known_pages=np.where(which[:, None], known, state.known_pages),
        synced_s=np.where(which, state.guest_time_s, state.synced_s),
    )


class _Ahead(NamedTuple):
    """What the scan comes to, in the order in which it does.

    Attributes:
        known_pages: Known to be dirty, shape (M, G).
        page_costs: What one of them costs, shape (M, G).
        ranks: Where each segment is in that order, as an index of the flat arrays, shape (M, G).
    """

    known_pages: Array
    page_costs: Array
    ranks: NDArray[np.intp]


def _ahead(state: Particles) -> _Ahead:
    count, segments = state.known_pages.shape
    rows = (np.arange(count) * segments)[:, None]
    whole = np.floor(state.position).astype(np.intp)[:, None]
    order = rows + (whole + np.arange(segments)) % segments
    ranks = rows + (np.arange(segments) - whole) % segments
    return _Ahead(state.known_pages.take(order), state.page_costs.take(order), ranks)


def _walk(state: Particles, ahead: _Ahead, spent: Array) -> tuple[Particles, Array]:
    """Spends so much quota on each particle's pages, on from where its scan is; a segment may be sent in part.

    Returns:
        The particles, and how many zero pages the scan came by.
    """
    known, costs = ahead.known_pages, ahead.page_costs
    cost = known * costs
    before = cost.cumsum(axis=1) - cost
    share = _within_1((spent[:, None] - before) / np.maximum(cost, 1e-12))
    share = np.where((cost <= 1e-9) & (before <= spent[:, None]), 1.0, share)
    position = (state.position + share.sum(axis=1)) % known.shape[1]
    scanned = (share * known * (1.0 - costs)).sum(axis=1)
    share = share.take(ahead.ranks)  # from here on in the order of addresses
    left_share = 1.0 - share
    walked = state._replace(
        known_pages=state.known_pages * left_share,
        # A segment sent in part is a mix of two ages: their mean keeps D, which is nearly linear over so short a time.
        cleaned_s=state.cleaned_s + share * (state.synced_s[:, None] - state.cleaned_s),
        page_costs=state.page_costs + share * (1.0 - state.page_costs),  # what is dirtied again is no zero page
        fresh_pages=state.fresh_pages * left_share,
        position=position,
    )
    return walked, scanned


def _within_1(shares: Array) -> Array:
    """As `np.clip` does, which takes longer for so few."""
    return np.minimum(np.maximum(shares, 0.0), 1.0)
