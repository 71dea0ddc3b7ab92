"""From D(T), a link and a plan to what is to be expected: quantiles of time, downtime and bytes, and will it converge.

Particles are rolled through QEMU's scan (`livemig.core.scan`); the randomness comes from a generator that is passed in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livemig.core.calibration import Calibration, stretched
from livemig.core.dirty_curve import CurveTable
from livemig.core.plan import Plan
from livemig.core.prediction import Forecast, Interval
from livemig.core.scan import (
    CAPPED_SLOT_S,
    FREE_SLOT_S,
    PAGE_SENT_BYTES,
    SEGMENT_COUNT,
    ZERO_SENT_BYTES,
    Course,
    Particles,
    roll,
    sync,
)

Array = NDArray[np.float64]

PARTICLE_COUNT = 64
QUANTILES = (0.05, 0.5, 0.95)
HORIZON_COPIES = 20.0
"""Without a deadline: a guest that has not converged after so many times the first copy is not going to."""
HORIZON_LEAST_S = 20.0
GUARD_S = 0.1
"""Until livemig lets go of its guard of the first slot (see `livemig.core.policy`): one slot, now and then two."""
GUARD_SENT_BYTES = 200_000
"""What goes out in that time."""
ZERO_SCAN_S = 0.3e-6
"""To find that a page is zero, and that it was never touched."""
FIXED_PRIOR_S, FIXED_PRIOR_DEVIATION = 0.005, 0.5
"""Of the fixed part's logarithm, where nothing was measured: ``python -m bench switchover``."""
OVERHEAD_BYTES = 120_000
"""Device state, block names and the rest of the stream, of the built-in guest; a share of a percent of most."""
PHASE_TIME_S = 5.0


class Expectations(NamedTuple):
    """All that a forecast rests on; the arrays are one value a particle, shape (M,).

    Attributes:
        curves: How the guest dirties memory.
        running_bytes_s: Throughput while the guest runs.
        switchover_bytes_s: Throughput of the last step.
        fixed_s: The fixed part of the downtime.
        limit_s: The user's limit.
        reserved_s: What the policy takes off it for the fixed part.
        capped: Whether the copy runs under a cap, so that QEMU looks once a slot.
        deadline_s: The deadline; None is none.
        phase_deviation: Of the logarithm of the guest's pace.
    """

    curves: CurveTable
    running_bytes_s: Array
    switchover_bytes_s: Array
    fixed_s: Array
    limit_s: float
    reserved_s: float
    capped: bool
    deadline_s: float | None
    phase_deviation: float


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
    guard_s = np.where(np.arange(count) % 8 == 0, 2 * GUARD_S, GUARD_S)
    guard_s = guard_s + ZERO_SCAN_S * max(page_count - float(touched_pages.sum()), 0.0)
    return Particles(
        slot_s=guard_s,
        used_pages=np.zeros(count),
        sent_bytes=np.full(count, OVERHEAD_BYTES + GUARD_SENT_BYTES),
        guest_time_s=guard_s,
        cleaned_s=np.zeros((count, SEGMENT_COUNT)),
        known_pages=np.full((count, SEGMENT_COUNT), each),
        page_costs=costs,
        synced_s=np.zeros(count),
        position=np.zeros(count),
    )


def after_sync(
    expected: Expectations,
    *,
    time_s: float,
    since_sync_s: float,
    sent_bytes: float,
    left_pages: float,
    fresh_pages: float,
    used_bytes: float,
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
    if old_pages > 0 and first:
        tail = np.clip((old_pages - each * np.arange(SEGMENT_COUNT)[::-1]) / each, 0.0, 1.0)
        costs = np.where(tail > 0, np.clip(touched_pages / each, ZERO_SENT_BYTES / PAGE_SENT_BYTES, 1.0), 1.0)
        known += tail * each
        position = float(SEGMENT_COUNT - np.ceil(old_pages / each - 1e-9)) % SEGMENT_COUNT
    elif old_pages > 0:
        known[: SEGMENT_COUNT // 4] += old_pages / (SEGMENT_COUNT // 4)
    return Particles(
        slot_s=time_s - used_bytes / np.maximum(expected.switchover_bytes_s, expected.running_bytes_s),
        used_pages=np.full(count, used_bytes / PAGE_SENT_BYTES),
        sent_bytes=np.full(count, sent_bytes),
        guest_time_s=np.full(count, time_s),
        cleaned_s=np.full((count, SEGMENT_COUNT), time_s - since_sync_s),
        known_pages=np.tile(known, (count, 1)),
        page_costs=np.tile(costs, (count, 1)),
        synced_s=np.full(count, time_s),
        position=np.full(count, position),
    )


def reach(start: Particles, expected: Expectations, generator: np.random.Generator, *, begins: bool) -> Reached:
    """Rolls the particles to their switchover and through it; `begins` when they have not sent anything yet."""
    if expected.deadline_s is None:
        copy_s = (start.known_pages * start.page_costs).sum(axis=1) * PAGE_SENT_BYTES / expected.running_bytes_s
        horizon_s = max(HORIZON_COPIES * float(np.median(copy_s)), HORIZON_LEAST_S) + float(np.max(start.slot_s))
    else:
        horizon_s = expected.deadline_s
    counted_s = start.slot_s + CAPPED_SLOT_S if begins else np.zeros(len(start.slot_s))
    rolled = roll(start, _course(expected, horizon_s, counted_s), generator)
    rest_bytes = rolled.left_pages * PAGE_SENT_BYTES
    downtime_s = rest_bytes / expected.switchover_bytes_s + expected.fixed_s
    return Reached(rolled.converged, rolled.time_s + downtime_s, downtime_s, rolled.sent_bytes + rest_bytes)


def stopped(expected: Expectations, *, time_s: float, sent_bytes: float, left_pages: Array) -> Reached:
    """What becomes of the particles once the guest stands still, with so much left in each."""
    rest_bytes = left_pages * PAGE_SENT_BYTES
    downtime_s = rest_bytes / expected.switchover_bytes_s + expected.fixed_s
    return Reached(np.ones(len(rest_bytes), dtype=bool), time_s + downtime_s, downtime_s, sent_bytes + rest_bytes)


def summarise(
    reached: Reached,
    calibration: Calibration,
    plan: Plan,
    *,
    at: str,
    time_s: float,
    sent_bytes: float,
    basis: str,
) -> Forecast:
    """Puts the particles into figures; intervals are those of the particles that converged, widened by experience."""
    which = reached.converged
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
        )
    left_s = _interval(reached.total_s[which] - max(time_s, 0.0))
    more_bytes = _interval(reached.sent_bytes[which] - sent_bytes)
    downtime_s = stretched(_interval(reached.downtime_s[which]), calibration.downtime)
    return Forecast(
        at=at,
        time_s=time_s,
        converges=converges,
        keeps_limit=float(np.mean(reached.downtime_s[which] <= plan.downtime_limit_s)),
        total_s=_until(_plus(stretched(left_s, calibration.total), max(time_s, 0.0)), plan.deadline_s),
        downtime_s=downtime_s,
        sent_bytes=_plus(stretched(more_bytes, calibration.sent), sent_bytes),
        basis=basis,
    )


def fixed_parts(measured_s: list[float], given_s: float | None, normal: Array) -> Array:
    """Returns the fixed part of the downtime for each standard normal number: as measured, else the prior."""
    if len(measured_s) >= 3:
        logs = np.log(np.maximum(measured_s, 1e-4))
        return np.asarray(np.exp(np.median(logs) + max(float(np.std(logs)), 0.1) * normal), dtype=float)
    middle_s = FIXED_PRIOR_S if given_s is None else max(given_s, 1e-4)
    return np.asarray(middle_s * np.exp(FIXED_PRIOR_DEVIATION * normal), dtype=float)


def _course(expected: Expectations, horizon_s: float, counted_s: Array) -> Course:
    return Course(
        curves=expected.curves,
        running_bytes_s=expected.running_bytes_s,
        burst_bytes_s=np.maximum(expected.switchover_bytes_s, expected.running_bytes_s),
        limit_s=max(expected.limit_s - expected.reserved_s, 0.001),
        slot_s=CAPPED_SLOT_S if expected.capped else FREE_SLOT_S,
        phase_deviation=expected.phase_deviation,
        phase_time_s=PHASE_TIME_S,
        horizon_s=horizon_s,
        counted_s=counted_s,
    )


def _interval(values: Array) -> Interval:
    least, middle, most = (float(value) for value in np.quantile(values, QUANTILES))
    return least, middle, most


def _until(interval: Interval, deadline_s: float | None) -> Interval:
    """What converges does so by the deadline, however wide experience makes the interval."""
    if deadline_s is None:
        return interval
    least, middle, most = interval
    return least, middle, max(min(most, deadline_s), middle)


def _plus(interval: Interval, offset: float) -> Interval:
    least, middle, most = interval
    return least + offset, middle + offset, most + offset


__all__ = [
    "Expectations",
    "Reached",
    "after_sync",
    "before_start",
    "fixed_parts",
    "reach",
    "stopped",
    "summarise",
    "sync",
]
