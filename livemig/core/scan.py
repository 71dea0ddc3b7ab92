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

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

SEGMENT_COUNT = 32
PAGE_SENT_BYTES = 4096 + 8
"""A page and its header."""
ZERO_SENT_BYTES = 9
CAPPED_SLOT_S = 0.1
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
        used_pages: What of the slot's quota is used, in pages that are sent whole, shape (M,).
        sent_bytes: Sent so far, shape (M,).
        guest_time_s: The guest's own time, which its phases stretch, shape (M,).
        cleaned_s: Guest time since which each segment's pages count as clean, shape (M, G).
        known_pages: Pages of each segment that QEMU knows to be dirty, shape (M, G).
        page_costs: What one of them costs of the quota, shape (M, G); less than 1 where many are zero.
        synced_s: Guest time of the last sync, shape (M,).
        position: The segment that the scan is in, as a real number in [0, G), shape (M,).
    """

    slot_s: Array
    used_pages: Array
    sent_bytes: Array
    guest_time_s: Array
    cleaned_s: Array
    known_pages: Array
    page_costs: Array
    synced_s: Array
    position: Array


class Course(NamedTuple):
    """What the particles are under, constant while they roll.

    Attributes:
        curves: How the guest of each particle dirties memory.
        running_bytes_s: Throughput while the guest runs, shape (M,).
        burst_bytes_s: What the link can do, shape (M,).
        limit_s: What QEMU's threshold allows the last step, the fixed part taken off.
        slot_s: How often QEMU looks.
        phase_deviation: Standard deviation of the logarithm of the guest's pace.
        phase_time_s: How long a phase lasts.
        horizon_s: When to give up.
        counted_s: When QEMU has counted the first slot that was not the guard's, shape (M,): before, its threshold is
            next to nothing, for it is that slot's throughput times the limit.
    """

    curves: CurveTable
    running_bytes_s: Array
    burst_bytes_s: Array
    limit_s: float
    slot_s: float
    phase_deviation: float
    phase_time_s: float
    horizon_s: float
    counted_s: Array


class Rolled(NamedTuple):
    """Where the particles came to; each of shape (M,).

    Attributes:
        converged: Whether QEMU switched over within the horizon.
        time_s: When: seconds since ``migrate``; the horizon where it did not.
        left_pages: What is to be sent while the guest stands still.
        sent_bytes: What was sent before.
        sync_count: Bitmap syncs on the way.
    """

    converged: Flags
    time_s: Array
    left_pages: Array
    sent_bytes: Array
    sync_count: Array


def roll(start: Particles, course: Course, generator: np.random.Generator) -> Rolled:
    """Rolls the particles on from just after a sync until each has switched over, or was given up."""
    state = start
    count = len(start.slot_s)
    quota_pages = course.running_bytes_s * course.slot_s / PAGE_SENT_BYTES
    burst_pages_s = course.burst_bytes_s / PAGE_SENT_BYTES
    counted_pages = course.running_bytes_s * course.limit_s / PAGE_SENT_BYTES
    pace = course.phase_deviation * generator.standard_normal(count)
    going = np.ones(count, dtype=bool)
    converged = np.zeros(count, dtype=bool)
    syncs = np.zeros(count)
    for _ in range(SYNCS_MOST):
        now_s = state.slot_s + state.used_pages / burst_pages_s
        left_pages = state.known_pages.sum(axis=1)
        counted = now_s > course.counted_s - 1e-9
        threshold_pages = np.where(counted, counted_pages, np.minimum(counted_pages, GUARD_THRESHOLD_PAGES))
        done = going & (left_pages < threshold_pages)
        converged |= done
        going &= ~done & (now_s < course.horizon_s)
        if not going.any():
            break
        slots, spent, used = _until_look(state, left_pages - threshold_pages, quota_pages)
        slots, spent = np.where(going, slots, 0.0), np.where(going, spent, 0.0)
        used = np.where(going, used, state.used_pages)
        slot_s = state.slot_s + slots * course.slot_s
        passed_s = np.where(going, slot_s + used / burst_pages_s + SYNC_S - now_s, 0.0)
        pace = _next_pace(pace, passed_s, course, generator)
        state = _walk(state, spent)._replace(
            slot_s=slot_s,
            used_pages=used,
            guest_time_s=state.guest_time_s + passed_s * np.exp(pace - course.phase_deviation**2 / 2),
            sent_bytes=state.sent_bytes + spent * PAGE_SENT_BYTES,
        )
        state = sync(state, course.curves, going)
        syncs += going
    left_pages = (state.known_pages * state.page_costs).sum(axis=1)
    now_s = state.slot_s + state.used_pages / burst_pages_s
    return Rolled(converged, np.minimum(now_s, course.horizon_s), left_pages, state.sent_bytes, syncs)


def _until_look(state: Particles, above_pages: Array, quota_pages: Array) -> tuple[Array, Array, Array]:
    """Returns the slots that end, the quota spent, and what of the last slot's is used, when QEMU next syncs.

    That is at the first slot's begin at which what is left is below the threshold, or at once when nothing is left.
    """
    known, costs = _in_order(state)
    pages_before = np.cumsum(known, axis=1) - known
    shares = np.clip((above_pages[:, None] - pages_before) / np.maximum(known, 1e-12), 0.0, 1.0)
    needed = (shares * known * costs).sum(axis=1)
    whole = (known * costs).sum(axis=1)
    unused = quota_pages - state.used_pages
    slots = np.maximum(np.ceil((needed - unused) / quota_pages - 1e-9), 0.0)
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


def _in_order(state: Particles) -> tuple[Array, Array]:
    """What is known, and what it costs, in the order in which the scan comes to it."""
    rows, order = _order(state)
    return state.known_pages[rows, order], state.page_costs[rows, order]


def _order(state: Particles) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    count, segments = state.known_pages.shape
    whole = np.floor(state.position).astype(np.intp)
    return np.arange(count)[:, None], (whole[:, None] + np.arange(segments)) % segments


def _walk(state: Particles, spent: Array) -> Particles:
    """Spends so much quota on each particle's pages, on from where its scan is; a segment may be sent in part."""
    rows, order = _order(state)
    known, costs = _in_order(state)
    cost = known * costs
    before = np.cumsum(cost, axis=1) - cost
    share = np.clip((spent[:, None] - before) / np.maximum(cost, 1e-12), 0.0, 1.0)
    share = np.where((cost <= 1e-9) & (before <= spent[:, None]), 1.0, share)
    left, cleaned, dearer = np.empty_like(known), np.empty_like(known), np.empty_like(known)
    left[rows, order] = known * (1.0 - share)
    # A segment sent in part is a mix of two ages: the mean age keeps D, which is nearly linear over so short a time.
    aged = state.cleaned_s[rows, order]
    cleaned[rows, order] = aged + share * (state.synced_s[:, None] - aged)
    dearer[rows, order] = costs + share * (1.0 - costs)  # what is dirtied again is no zero page
    position = (state.position + share.sum(axis=1)) % known.shape[1]
    return state._replace(known_pages=left, cleaned_s=cleaned, page_costs=dearer, position=position)


def _next_pace(pace: Array, passed_s: Array, course: Course, generator: np.random.Generator) -> Array:
    """The logarithm of the guest's pace a while later: an Ornstein-Uhlenbeck process."""
    kept = np.exp(-passed_s / course.phase_time_s)
    fresh = generator.standard_normal(len(pace))
    return np.asarray(kept * pace + course.phase_deviation * np.sqrt(1.0 - kept**2) * fresh, dtype=float)
