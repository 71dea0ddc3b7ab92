"""QEMU's pre-copy as many particles at once: which pages are sent when, which are dirty again, when it switches over.

The rules are those of migration/ram.c and migration.c. Memory is a ring of segments that the scan walks round; a page
that is sent is clean as of the last bitmap sync before, since the sync takes and clears the guest's dirty log. A sync
comes when what is known to be left falls below the threshold: throughput of a slot times QEMU's limit. If the sync
then finds less than the threshold, QEMU switches over. Under a cap it looks once a slot of 100 ms.

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
SYNCS_MOST = 160
"""A guest that has not converged after so many syncs is not going to."""


class Particles(NamedTuple):
    """Where a migration stands, in many ways that it may be; M particles.

    Attributes:
        time_s: Seconds since ``migrate``, shape (M,).
        sent_bytes: Sent so far, shape (M,).
        guest_time_s: The guest's own time, which its phases stretch, shape (M,).
        cleaned_s: Guest time since which each segment's pages count as clean, shape (M, G).
        known_pages: Pages of each segment that QEMU knows to be dirty, shape (M, G).
        synced_s: Guest time of the last sync, shape (M,).
        position: The segment that the scan is in, as a real number in [0, G), shape (M,).
    """

    time_s: Array
    sent_bytes: Array
    guest_time_s: Array
    cleaned_s: Array
    known_pages: Array
    synced_s: Array
    position: Array


class Course(NamedTuple):
    """What the particles are under, constant while they roll; each of shape (M,).

    Attributes:
        curves: How the guest of each particle dirties memory.
        running_bytes_s: Throughput while the guest runs.
        limit_s: What QEMU's threshold allows the last step, the fixed part taken off.
        slot_s: How often QEMU looks.
        phase_deviation: Standard deviation of the logarithm of the guest's pace.
        phase_time_s: How long a phase lasts.
        horizon_s: When to give up.
    """

    curves: CurveTable
    running_bytes_s: Array
    limit_s: float
    slot_s: float
    phase_deviation: float
    phase_time_s: float
    horizon_s: float


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
    count = len(start.time_s)
    slot_pages = course.running_bytes_s * course.slot_s / PAGE_SENT_BYTES
    threshold_pages = course.running_bytes_s * course.limit_s / PAGE_SENT_BYTES
    pace = course.phase_deviation * generator.standard_normal(count)
    going = np.ones(count, dtype=bool)
    converged = np.zeros(count, dtype=bool)
    syncs = np.zeros(count)
    for _ in range(SYNCS_MOST):
        left = state.known_pages.sum(axis=1)
        done = going & (left < threshold_pages)
        converged |= done
        going &= ~done & (state.time_s < course.horizon_s)
        if not going.any():
            break
        slots = np.maximum(np.ceil((left - threshold_pages) / slot_pages + 1e-9), 1.0)
        budget = np.where(going, np.minimum(slots * slot_pages, left), 0.0)
        duration_s = np.where(
            going, np.maximum(budget / slot_pages, 1.0 if course.slot_s == CAPPED_SLOT_S else 0.02), 0.0
        )
        duration_s *= course.slot_s
        pace = _next_pace(pace, duration_s, course, generator)
        state = _walk(state, budget)
        state = state._replace(
            time_s=state.time_s + duration_s,
            guest_time_s=state.guest_time_s + duration_s * np.exp(pace - course.phase_deviation**2 / 2),
            sent_bytes=state.sent_bytes + budget * PAGE_SENT_BYTES,
        )
        state = sync(state, course.curves, going)
        syncs += going
    left = state.known_pages.sum(axis=1)
    return Rolled(converged, np.minimum(state.time_s, course.horizon_s), left, state.sent_bytes, syncs)


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


def _walk(state: Particles, budget: Array) -> Particles:
    """Sends so many pages of each particle, on from where its scan is; a segment may be sent in part."""
    count, segments = state.known_pages.shape
    whole = np.floor(state.position).astype(np.intp)
    order = (whole[:, None] + np.arange(segments)) % segments
    rows = np.arange(count)[:, None]
    known = state.known_pages[rows, order]
    before = np.cumsum(known, axis=1) - known
    share = np.clip((budget[:, None] - before) / np.maximum(known, 1e-12), 0.0, 1.0)
    share = np.where((known <= 0.0) & (before <= budget[:, None]), 1.0, share)
    left, cleaned = np.empty_like(known), np.empty_like(known)
    left[rows, order] = known * (1.0 - share)
    # A segment sent in part is a mix of two ages: the mean age keeps D, which is nearly linear over so short a time.
    aged = state.cleaned_s[rows, order]
    cleaned[rows, order] = aged + share * (state.synced_s[:, None] - aged)
    position = (state.position + share.sum(axis=1)) % segments
    return state._replace(known_pages=left, cleaned_s=cleaned, position=position)


def _next_pace(pace: Array, duration_s: Array, course: Course, generator: np.random.Generator) -> Array:
    """The logarithm of the guest's pace a while later: an Ornstein-Uhlenbeck process."""
    kept = np.exp(-duration_s / course.phase_time_s)
    fresh = generator.standard_normal(len(pace))
    return np.asarray(kept * pace + course.phase_deviation * np.sqrt(1.0 - kept**2) * fresh, dtype=float)
