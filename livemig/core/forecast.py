"""From D(T), a link and a plan to what is to be expected: quantiles of time, downtime and bytes, and will it converge.

Particles are rolled through QEMU's scan (`livemig.core.scan`); the randomness comes from a generator that is passed in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livemig.core.calibration import Calibration, stretched
from livemig.core.dirty_curve import CurveTable
from livemig.core.foreseen_probe import Foreseen
from livemig.core.pace import Pace
from livemig.core.plan import Plan, Prefer
from livemig.core.prediction import Forecast, Interval
from livemig.core.quantiles import middle, quantiles
from livemig.core.scan import (
    CAPPED_SLOT_S,
    FREE_SLOT_S,
    PAGE_SENT_BYTES,
    SEGMENT_COUNT,
    SLOT_LATE_S,
    ZERO_SCAN_S,
    ZERO_SENT_BYTES,
    Course,
    Particles,
    roll,
    sync,
)
from livemig.core.settings import guard_bytes_s
from livemig.core.switchover import FRESH_RATIO, much_is_fresh

Array = NDArray[np.float64]

PARTICLE_COUNT = 64
QUANTILES = (0.05, 0.5, 0.95)
HORIZON_COPIES = 20.0
"""Without a deadline: a guest that has not converged after so many times the first copy is not going to."""
HORIZON_LEAST_S = 20.0
GUARD_S = 0.206
"""Until more goes out than the guard of the first slot allows (see `livemig.core.policy`): QEMU counts that slot when
it ends, livemig reads it and lifts the guard, and the migration thread sleeps till the next slot's end all the same."""
GUARD_LATE_PARTICLES = 16
"""Of so many one is a slot later: livemig was slow to read."""
GUARD_SENT_PAGES = 128
"""What goes out in that time: a buffer a slot."""
UNSURE_SLOTS, UNSURE_SLOTS_STOPPED = 0.5, 0.05
"""QEMU looks once a slot, and nothing tells when exactly: no interval is narrower, nor that of what is sent."""
UNSURE_SENT_SLOTS_STOPPED = 0.4
"""What of its last slot QEMU had sent when it stopped the guest is not told: half the errors are under 0.1 of a slot, a
tenth above 0.54."""
UNSURE_DOWNTIME_S = 0.001
FIXED_GIVEN_DEVIATION = 0.5
"""Of the logarithm of the fixed part that the user gives."""
OVERHEAD_BYTES = 120_000
"""Device state, block names and the rest of the stream, of the built-in guest; a share of a percent of most."""


class Expectations(NamedTuple):
    """All that a forecast rests on; the arrays are one value a particle, shape (M,).

    Attributes:
        curves: How the guest dirties memory.
        running_bytes_s: Throughput while the guest runs.
        switchover_bytes_s: Throughput of the last step.
        fresh_bytes_s: The same of pages that were never sent before.
        fixed_s: The fixed part of the downtime.
        limit_s: The user's limit.
        reserved_s: What the policy takes off it for the fixed part.
        cap_bytes_s: What the copy is held to; None is no cap.
        deadline_s: The deadline; None is none.
        pace: How the guest's pace wavers.
        foreseen: What tells when the policy lifts the cap for a slot; None where it never does.
    """

    curves: CurveTable
    running_bytes_s: Array
    switchover_bytes_s: Array
    fresh_bytes_s: Array
    fixed_s: Array
    limit_s: float
    reserved_s: float
    cap_bytes_s: float | None
    deadline_s: float | None
    pace: Pace
    foreseen: Foreseen | None = None

    @property
    def capped(self) -> bool:
        """Whether the copy runs under a cap, so that QEMU looks once a slot."""
        return self.cap_bytes_s is not None


class Reached(NamedTuple):
    """What became of the particles, one value each, shape (M,)."""

    converged: NDArray[np.bool_]
    total_s: Array
    downtime_s: Array
    sent_bytes: Array


def before_start(expected: Expectations, touched_pages: Array, page_count: float) -> Particles:
    """Returns the particles before the first copy.

    Args:
        expected: What they are under.
        touched_pages: What of each segment was ever touched, in the order of addresses, shape (G,).
        page_count: All pages.
    """
    count = len(expected.running_bytes_s)
    each = page_count / SEGMENT_COUNT
    touched = np.clip(touched_pages / each, 0.0, 1.0)
    costs = np.tile(touched + (1.0 - touched) * ZERO_SENT_BYTES / PAGE_SENT_BYTES, (count, 1))
    guarded = guard_bytes_s(round(page_count * 4096)) is not None
    late = np.arange(count) % GUARD_LATE_PARTICLES == GUARD_LATE_PARTICLES // 2
    guard_s = np.where(late, GUARD_S + CAPPED_SLOT_S, GUARD_S) if guarded else np.zeros(count)
    return Particles(
        slot_s=guard_s,
        short_s=_first_slot_short_s(expected) if guarded else np.zeros(count),
        used_pages=np.full(count, -float(GUARD_SENT_PAGES) if guarded else 0.0),
        used_s=np.zeros(count),
        sent_bytes=np.full(count, OVERHEAD_BYTES),
        guest_time_s=guard_s,
        cleaned_s=np.zeros((count, SEGMENT_COUNT)),
        known_pages=np.full((count, SEGMENT_COUNT), each),
        page_costs=costs,
        fresh_pages=np.tile(touched * each, (count, 1)),
        synced_s=np.zeros(count),
        position=np.zeros(count),
    )


def _first_slot_short_s(expected: Expectations) -> Array:
    """The guard's last slot has a whole quota when the guard is lifted and ends with its burst, being long over."""
    if not expected.capped:
        return np.zeros(len(expected.running_bytes_s))
    burst_bytes_s = np.maximum(expected.fresh_bytes_s, expected.running_bytes_s)
    return np.asarray(CAPPED_SLOT_S * (1.0 - expected.running_bytes_s / burst_bytes_s), dtype=float)


def after_sync(
    expected: Expectations,
    *,
    time_s: float,
    since_sync_s: float,
    sent_bytes: float,
    left_pages: float,
    fresh_pages: float,
    used_bytes: float,
    scanned_pages: float,
    touched_pages: Array,
    page_count: float,
    first: bool,
) -> Particles:
    """Returns the particles right after a sync that was seen.

    Args:
        expected: What they are under.
        time_s: When, in seconds since ``migrate``.
        since_sync_s: How long the round had taken that it ended.
        sent_bytes: Sent so far.
        left_pages: What the sync left to send.
        fresh_pages: What of that it found; the rest had been left over, and is next in the scan's way.
        used_bytes: What of the slot's quota had gone out when it came.
        scanned_pages: How many zero pages the scan had come by in that slot.
        touched_pages: See `before_start`.
        page_count: All pages.
        first: Whether it ended the first copy: then what was left over lies at the end of memory.
    """
    count = len(expected.running_bytes_s)
    old_pages = max(left_pages - fresh_pages, 0.0)
    costs = np.ones(SEGMENT_COUNT)
    known = np.full(SEGMENT_COUNT, fresh_pages / SEGMENT_COUNT)
    each = page_count / SEGMENT_COUNT
    position = 0.0
    unsent = np.zeros(SEGMENT_COUNT)
    if old_pages > 0 and first:
        tail = np.clip((old_pages - each * np.arange(SEGMENT_COUNT)[::-1]) / each, 0.0, 1.0)
        costs = np.where(tail > 0, np.clip(touched_pages / each, ZERO_SENT_BYTES / PAGE_SENT_BYTES, 1.0), 1.0)
        known += tail * each
        unsent = tail * np.clip(touched_pages, 0.0, each)
        position = float(SEGMENT_COUNT - np.ceil(old_pages / each - 1e-9)) % SEGMENT_COUNT
    elif old_pages > 0:
        known[: SEGMENT_COUNT // 4] += old_pages / (SEGMENT_COUNT // 4)
    used_s = used_bytes / np.maximum(expected.switchover_bytes_s, expected.running_bytes_s)
    used_s = used_s + scanned_pages * ZERO_SCAN_S
    return Particles(
        slot_s=time_s - used_s,
        short_s=np.zeros(count),
        used_pages=np.full(count, used_bytes / PAGE_SENT_BYTES),
        used_s=used_s,
        sent_bytes=np.full(count, sent_bytes),
        guest_time_s=np.full(count, time_s),
        cleaned_s=np.full((count, SEGMENT_COUNT), time_s - since_sync_s),
        known_pages=np.tile(known, (count, 1)),
        page_costs=np.tile(costs, (count, 1)),
        fresh_pages=np.tile(unsent, (count, 1)),
        synced_s=np.full(count, time_s),
        position=np.full(count, position),
    )


def reach(start: Particles, expected: Expectations, generator: np.random.Generator, *, begins: bool) -> Reached:
    """Rolls the particles to their switchover and through it; `begins` when they have not sent anything yet."""
    if expected.deadline_s is None:
        copy_s = (start.known_pages * start.page_costs).sum(axis=1) * PAGE_SENT_BYTES / expected.running_bytes_s
        horizon_s = max(HORIZON_COPIES * middle(copy_s), HORIZON_LEAST_S) + float(np.max(start.slot_s))
    else:
        horizon_s = expected.deadline_s
    counted_s = start.slot_s + CAPPED_SLOT_S - start.short_s if begins else np.zeros(len(start.slot_s))
    course = _course(expected, horizon_s, counted_s)
    course = course._replace(looked=not begins)
    most_bytes_s = max(float(expected.running_bytes_s.max()), expected.cap_bytes_s or 0.0)
    if begins and much_is_fresh(course.limit_s, most_bytes_s, float(start.known_pages[0].sum()) * 4096):
        course = course._replace(copying_ratio=FRESH_RATIO)
    rolled = roll(start, course, generator)
    rest_bytes = rolled.left_pages * PAGE_SENT_BYTES
    downtime_s = _last_step_s(expected, rolled.left_pages, rolled.fresh_pages)
    return Reached(rolled.converged, rolled.time_s + downtime_s, downtime_s, rolled.sent_bytes + rest_bytes)


def sent_since(expected: Expectations, seen_s: float, time_s: float) -> Array:
    """Returns the pages sent from a look at the counters to a slot's begin, which QEMU's own look at them comes with.

    Under a cap each slot's quota goes out at its begin, in one burst, and what was seen after it had all of it.
    """
    if not expected.capped:
        return expected.running_bytes_s * max(time_s - seen_s, 0.0) / PAGE_SENT_BYTES
    quota_pages = expected.running_bytes_s * CAPPED_SLOT_S / PAGE_SENT_BYTES
    burst_s = (
        CAPPED_SLOT_S * expected.running_bytes_s / np.maximum(expected.switchover_bytes_s, expected.running_bytes_s)
    )
    period_s = CAPPED_SLOT_S + SLOT_LATE_S
    ages_s = period_s * np.arange(1.0, np.ceil(max(time_s - seen_s, 0.0) / period_s) + 2.0)
    begins_s = time_s - ages_s[:, None]
    shares = np.clip((begins_s + burst_s - seen_s) / np.maximum(burst_s, 1e-6), 0.0, 1.0)
    return np.asarray(quota_pages * shares.sum(axis=0), dtype=float)


def stopped(
    expected: Expectations, *, time_s: float, sent_bytes: float, left_pages: Array, fresh_pages: Array
) -> Reached:
    """What becomes of the particles once the guest stands still, with so much left in each, and so much never sent."""
    downtime_s = _last_step_s(expected, left_pages, fresh_pages)
    all_bytes = sent_bytes + left_pages * PAGE_SENT_BYTES
    return Reached(np.ones(len(left_pages), dtype=bool), time_s + downtime_s, downtime_s, all_bytes)


def _last_step_s(expected: Expectations, left_pages: Array, fresh_pages: Array) -> Array:
    """How long the guest stands still."""
    fresh = np.minimum(fresh_pages, left_pages)
    sending_s = (left_pages - fresh) / expected.switchover_bytes_s + fresh / expected.fresh_bytes_s
    return np.asarray(sending_s * PAGE_SENT_BYTES + expected.fixed_s, dtype=float)


def summarise(
    reached: Reached,
    calibration: Calibration,
    plan: Plan,
    *,
    at: str,
    time_s: float,
    sent_bytes: float,
    basis: str,
    quota_bytes: float | None,
) -> Forecast:
    """Puts the particles into figures; intervals are those of the particles that converged, widened by experience."""
    which = reached.converged
    first_crossing = plan.prefer is Prefer.DOWNTIME and at != "commit"
    converges = float(np.mean(which))
    if not which.any():
        return Forecast(
            at=at,
            time_s=time_s,
            converges=0.0,
            keeps_limit=0.0,
            total_s=None,
            downtime_s=None,
            sent_bytes=None,
            basis=basis,
            first_crossing=first_crossing,
        )
    unsure_slots, unsure_sent_slots = (
        (UNSURE_SLOTS_STOPPED, UNSURE_SENT_SLOTS_STOPPED) if at == "commit" else (UNSURE_SLOTS, UNSURE_SLOTS)
    )
    slot_s = 0.0 if quota_bytes is None else CAPPED_SLOT_S
    total_s = stretched(
        _interval(reached.total_s[which]),
        calibration.total,
        least=unsure_slots * slot_s,
        offset=max(time_s, 0.0),
    )
    downtime_s = stretched(_interval(reached.downtime_s[which]), calibration.downtime, least=UNSURE_DOWNTIME_S)
    all_bytes = stretched(
        _interval(reached.sent_bytes[which]),
        calibration.sent,
        least=unsure_sent_slots * (quota_bytes or 0.0),
        offset=sent_bytes,
    )
    return Forecast(
        at=at,
        time_s=time_s,
        converges=converges,
        keeps_limit=float(np.mean(reached.downtime_s[which] <= plan.downtime_limit_s)),
        total_s=_until(total_s, plan.deadline_s),
        downtime_s=downtime_s,
        sent_bytes=all_bytes,
        basis=basis,
        first_crossing=first_crossing,
        widened=(calibration.total, calibration.downtime, calibration.sent),
    )


def fixed_parts(given_s: float, normal: Array) -> Array:
    """Returns the fixed part of the downtime for each standard normal number, around the one given."""
    return np.asarray(max(given_s, 1e-4) * np.exp(FIXED_GIVEN_DEVIATION * normal), dtype=float)


def _course(expected: Expectations, horizon_s: float, counted_s: Array) -> Course:
    return Course(
        curves=expected.curves,
        running_bytes_s=expected.running_bytes_s,
        burst_bytes_s=np.maximum(expected.switchover_bytes_s, expected.running_bytes_s),
        fresh_bytes_s=expected.fresh_bytes_s,
        limit_s=max(expected.limit_s - expected.reserved_s, 0.001),
        slot_s=CAPPED_SLOT_S if expected.capped else FREE_SLOT_S,
        pace=expected.pace,
        horizon_s=horizon_s,
        counted_s=counted_s,
        foreseen=expected.foreseen,
    )


def _interval(values: Array) -> Interval:
    least, median, most = quantiles(values, QUANTILES)
    return least, median, most


def _until(interval: Interval, deadline_s: float | None) -> Interval:
    """What converges does so by the deadline, however wide experience makes the interval."""
    if deadline_s is None:
        return interval
    least, median, most = interval
    return least, median, max(min(most, deadline_s), median)


__all__ = [
    "Expectations",
    "Reached",
    "after_sync",
    "before_start",
    "fixed_parts",
    "reach",
    "sent_since",
    "stopped",
    "summarise",
    "sync",
]
