"""Keeps what one migration has shown so far, and forecasts the rest of it. Decides nothing, and knows no clock.

`livemig.core.outlook` feeds it and says when a forecast is due; the mathematics is in `forecast`, `scan`, `dirty_curve`
and `link`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import inf
from typing import Self

import numpy as np
from numpy.typing import NDArray

from livemig.core.calibration import calibrate, kind_of
from livemig.core.dirty_curve import CurveTable, fit_curves, normal_strata
from livemig.core.dirty_sample import DirtySample
from livemig.core.fixed_part import fixed_part
from livemig.core.forecast import (
    GUARD_S,
    PARTICLE_COUNT,
    Expectations,
    Reached,
    after_sync,
    before_start,
    fixed_parts,
    reach,
    sent_since,
    stopped,
    summarise,
)
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.foreseen_probe import Foreseen
from livemig.core.link import Link
from livemig.core.observation import Observation
from livemig.core.pace import TIME_UNKNOWN_S, Pace, pace_of, wavering
from livemig.core.past import PastMigration
from livemig.core.plan import Plan
from livemig.core.prediction import Forecast
from livemig.core.probe_slot import CAP_EXCESS_RATIO, most_carried_bytes_s, needed_most_bytes_s
from livemig.core.quantiles import middle, quantiles
from livemig.core.rounds import Round, dirtied_bytes
from livemig.core.scan import CAPPED_SLOT_S, OVERSHOOT_PAGES, PAGE_SENT_BYTES, SEGMENT_COUNT, Particles
from livemig.core.slots import CAP_SHARE

Array = NDArray[np.float64]

PAGE_BYTES = 4096
CURVE_COUNT = 32
PHASE_DEVIATION_SAMPLED = 0.03
PHASE_DEVIATION_UNKNOWN = 0.25
PHASE_PRIOR_COUNT = 4
"""How many rounds' residuals the prior of the phases weighs."""
ROUND_DEVIATION = 0.01
"""Relative, of a round's newly dirtied pages: some are sent between the sync and the look at it."""
PAST_CURVES_COUNT = 5
"""So many of the guest's own last migrations are a prior of how it dirties memory."""
EMPTIED_PAGES = 512.0
"""With so few left over at a sync the scan had come to its end: some are sent between the sync and the look at it."""
EMPTIED_WITHIN_S = 0.06
"""So soon after a look no slot begins that had begun before it, and QEMU stopped for nothing was left to send."""
HUGE_PAGES = 512
"""Pages in one of 2 MiB."""
SLOT_AFTER_S = 0.35
"""Slots before are the guard's, or held some of it."""
REFIT_ROUNDS, REFIT_RATIO = 8, 1.25
"""The curve that rounds are compared with is fitted anew after each of the first ones, then when there are so many
times as many: a fit takes some milliseconds, and a long migration has hundreds of rounds."""


class Forecaster:
    """What one migration has shown, and what is to be expected of it."""

    def __init__(
        self,
        plan: Plan,
        *,
        memory_bytes: int,
        touched_shares: Sequence[float] = (),
        samples: Sequence[DirtySample] = (),
        sampled_before_s: float | None = None,
        past: Sequence[PastMigration] = (),
        guest: str = "",
        hosts: str = "",
        same_host: bool = False,
        seed: int = 0,
    ) -> None:
        """Takes what is known before ``migrate``; all but the plan and the memory may be missing."""
        self._plan = plan
        self._page_count = max(memory_bytes / PAGE_BYTES, 1.0)
        self._touched_known = len(touched_shares) == SEGMENT_COUNT
        shares = np.array(touched_shares) if self._touched_known else np.ones(SEGMENT_COUNT)
        self._touched_pages = _written_pages(np.clip(shares, 0.0, 1.0) * self._page_count / SEGMENT_COUNT)
        self._samples = list(samples)
        self._sampled_count = len(samples)
        self._pace = _pace(samples, sampled_before_s)
        own = [one for one in past if one.guest == guest][:PAST_CURVES_COUNT]
        self._prior = [sample for one in own for sample in one.samples]
        self._past, self._hosts = tuple(past), hosts
        self._seed = seed
        self._same_host = same_host
        self._link = Link(plan.bandwidth_bytes_s, past, same_host=same_host)
        self._guarded_bytes = self._used_bytes = 0.0
        self._scanned_pages = 0
        self._slot_scanned_pages = 0.0
        self._residuals: list[float] = []
        self._compared: CurveTable | None = None
        self._compared_count = 0
        self._round: Round | None = None
        self._left_pages: list[float] = []
        self._passed_pages = 0.0
        self._probed = False
        self._observation: Observation | None = None
        self._total_s: tuple[float, ...] | None = None

    @classmethod
    def knowing(cls, plan: Plan, memory_bytes: int, known: Foreknowledge) -> Self:
        """Begins with all that was gathered beforehand."""
        return cls(
            plan,
            memory_bytes=memory_bytes,
            touched_shares=known.touched_shares,
            samples=known.samples,
            sampled_before_s=known.sampled_before_s,
            past=known.past,
            guest=known.guest,
            hosts=known.hosts,
            same_host=known.same_host,
            seed=known.seed,
        )

    @property
    def samples(self) -> tuple[DirtySample, ...]:
        """What is known of D(T): sampled before, and shown by the rounds; worth keeping for the next time."""
        return tuple(self._samples)

    @property
    def safe_bytes_s(self) -> float | None:
        """What the link carried at least; None before the first slot."""
        return self._link.safe_bytes_s

    def observe(self, time_s: float, observation: Observation) -> None:
        """Takes a reply of the source while its guest runs."""
        del time_s
        previous, self._observation = self._observation, observation
        if observation.time_s < GUARD_S:
            self._guarded_bytes = float(observation.sent_bytes or 0)
        self._scanned_pages = (observation.zero_pages or 0) - ((previous and previous.zero_pages) or 0)
        throughput_bytes_s = observation.throughput_bytes_s
        new = previous is None or throughput_bytes_s != previous.throughput_bytes_s
        if throughput_bytes_s and throughput_bytes_s > CAP_EXCESS_RATIO * (self._plan.bandwidth_bytes_s or inf):
            self._probed = True  # nothing else exceeds the cap so far
        elif throughput_bytes_s and new and observation.time_s > SLOT_AFTER_S:
            self._link.observe_slot(throughput_bytes_s, fresh=self._round is None)

    def round_completed(self, finished: Round) -> None:
        """Takes a pass that ended, and what the sync at its end found."""
        fresh_pages = finished.newly_dirtied_bytes / PAGE_BYTES
        old_pages = max(finished.remaining_bytes / PAGE_BYTES - fresh_pages, 0.0)
        period_s = finished.duration_s + (finished.start_s if finished.number == 1 else 0.0)
        if finished.number == 1 and not self._touched_known:
            sent_pages = min(finished.sent_bytes / PAGE_BYTES, self._page_count)
            self._touched_pages = np.full(SEGMENT_COUNT, max(sent_pages, 1.0) / SEGMENT_COUNT)
        before_pages = self._left_pages[-1] if self._left_pages else self._page_count
        dirtied_pages = dirtied_bytes(finished, before_pages * PAGE_BYTES) / PAGE_BYTES
        self._note_residual(period_s, dirtied_pages)
        self._samples.append(
            DirtySample(
                periods_s=(max(period_s, 1e-3),),
                weights=(1.0,),
                dirtied_pages=min(dirtied_pages, self._page_count),
                deviation_pages=ROUND_DEVIATION * dirtied_pages
                + 2.0
                + 0.2 * old_pages * min(1.0, dirtied_pages / self._page_count),
            )
        )
        self._passed_pages += max(before_pages - old_pages, 0.0) if self._left_pages else 0.0
        self._left_pages.append(finished.remaining_bytes / PAGE_BYTES)
        self._used_bytes = self._quota_used_bytes(finished, old_pages)
        emptied = self._plan.bandwidth_bytes_s is not None and old_pages <= EMPTIED_PAGES
        self._slot_scanned_pages = float(max(self._scanned_pages, 0)) if emptied else 0.0
        self._round = finished

    def _quota_used_bytes(self, finished: Round, old_pages: float) -> float:
        """What of the slot's quota had gone out at a sync: none where the sync came with the slot's begin.

        Otherwise the scan had found nothing more to send in the midst of a slot, and all slots before were full: those
        since the guard's.
        """
        cap_bytes_s = self._plan.bandwidth_bytes_s
        if cap_bytes_s is None or old_pages > EMPTIED_PAGES:
            return 0.0
        sent_bytes = float(max(finished.sent_bytes, 0))
        if finished.number == 1 and self._observation is not None:
            sent_bytes = max((self._observation.sent_bytes or 0.0) - self._guarded_bytes, 0.0)
        return (self._used_bytes + sent_bytes) % (cap_bytes_s * CAPPED_SLOT_S + OVERSHOOT_PAGES * PAGE_SENT_BYTES)

    def tuned(self, plan: Plan) -> None:
        """Takes a changed plan."""
        if plan.bandwidth_bytes_s != self._plan.bandwidth_bytes_s:
            self._link = Link(plan.bandwidth_bytes_s, self._past, same_host=self._same_host)
        self._plan = plan

    def snapshot(self) -> Self:
        """Returns one that knows the same and learns nothing more of what this one is told."""
        taken = copy.copy(self)
        vars(taken).update(
            _samples=list(self._samples),
            _residuals=list(self._residuals),
            _left_pages=list(self._left_pages),
            _link=self._link.snapshot(),
        )
        return taken

    def forecast(self, at: str, time_s: float) -> Forecast:
        """Says what is to be expected as of now: the same for the same history, whatever was asked before."""
        generator = np.random.default_rng((self._seed, len(self._samples), round(max(time_s, 0.0) * 1e6)))
        expected = self._expectations(generator)
        if at == "commit":
            reached = self._stopped(time_s, expected)
        else:
            reached = reach(self._start(expected), expected, generator, begins=self._round is None)
        going = reached.converged.sum() >= PARTICLE_COUNT / 2
        self._total_s = quantiles(reached.total_s[reached.converged], (0.05, 0.95)) if going else None
        return summarise(
            reached,
            calibrate(self._past, kind_of(at)),
            self._plan,
            at=at,
            time_s=time_s,
            sent_bytes=0.0 if self._observation is None else float(self._observation.sent_bytes or 0),
            basis=self._basis(),
            quota_bytes=None if self._plan.bandwidth_bytes_s is None else self._plan.bandwidth_bytes_s * CAPPED_SLOT_S,
        )

    def left_s(self, time_s: float) -> tuple[float, float] | None:
        """Returns the time left by the last forecast, its 5 % and 95 % quantiles; None when it would not converge."""
        if self._total_s is None:
            return None
        least_s, most_s = self._total_s
        return max(least_s - time_s, 0.0), max(most_s - time_s, 0.0)

    @property
    def reserved_s(self) -> float:
        """What of the limit is taken as fixed, as the policy does."""
        return fixed_part(self._plan, self._past, self._hosts).value_s

    def _expectations(self, generator: np.random.Generator) -> Expectations:
        normal = normal_strata(generator, PARTICLE_COUNT, 3)
        curves = fit_curves(
            wavering(self._samples, self._pace),
            self._page_count,
            count=CURVE_COUNT,
            generator=generator,
            prior=self._prior,
        ).repeated(PARTICLE_COUNT // CURVE_COUNT)
        running_bytes_s = self._link.running_bytes_s(normal[:, 0])
        given_s = self._plan.fixed_downtime_s
        return Expectations(
            curves=curves,
            running_bytes_s=running_bytes_s,
            switchover_bytes_s=self._link.switchover_bytes_s(running_bytes_s, normal[:, 1]),
            fresh_bytes_s=self._link.fresh_bytes_s(running_bytes_s, normal[:, 1]),
            fixed_s=self._link.fixed_s(normal[:, 2]) if given_s is None else fixed_parts(given_s, normal[:, 2]),
            limit_s=self._plan.downtime_limit_s,
            reserved_s=self.reserved_s,
            cap_bytes_s=self._plan.bandwidth_bytes_s,
            deadline_s=self._plan.deadline_s,
            pace=self._pace._replace(deviation=self._phase_deviation()),
            foreseen=self._foreseen(running_bytes_s),
        )

    def _foreseen(self, running_bytes_s: Array) -> Foreseen | None:
        """What the policy will lift the cap by, for a slot; None where it did, or never would."""
        cap_bytes_s = self._plan.bandwidth_bytes_s
        known_bytes_s = most_carried_bytes_s(self._past, self._hosts)
        if cap_bytes_s is None or self._probed or not known_bytes_s:
            return None
        return Foreseen(
            needed_most_pages_s=needed_most_bytes_s(known_bytes_s) / PAGE_SENT_BYTES,
            held=running_bytes_s >= CAP_SHARE * cap_bytes_s,
            left_pages=tuple(self._left_pages),
            passed_pages=self._passed_pages,
            first_pages=self._left_pages[0] if self._left_pages else 0.0,
        )

    def _start(self, expected: Expectations) -> Particles:
        finished, observation = self._round, self._observation
        if finished is None:
            return before_start(expected, self._touched_pages, self._page_count)
        return after_sync(
            expected,
            time_s=finished.start_s + finished.duration_s,
            since_sync_s=finished.duration_s,
            sent_bytes=0.0 if observation is None else float(observation.sent_bytes or 0),
            left_pages=finished.remaining_bytes / PAGE_BYTES,
            fresh_pages=finished.newly_dirtied_bytes / PAGE_BYTES,
            used_bytes=self._used_bytes,
            scanned_pages=self._slot_scanned_pages,
            touched_pages=self._touched_pages,
            page_count=self._page_count,
            first=finished.number == 1,
        )

    def _stopped(self, time_s: float, expected: Expectations) -> Reached:
        """At the source's STOP: what the last look left, less what was sent since, and what the last sync found."""
        observation, finished = self._observation, self._round
        limit_s = max(expected.limit_s - expected.reserved_s, 0.001)
        threshold_pages = expected.running_bytes_s * limit_s / PAGE_SENT_BYTES
        if observation is None or observation.remaining_bytes is None:
            left_pages = threshold_pages / 2
            return stopped(expected, time_s=time_s, sent_bytes=0.0, left_pages=left_pages, fresh_pages=left_pages)
        synced_s = 0.0 if finished is None else finished.start_s + finished.duration_s
        known_pages = observation.remaining_bytes / PAGE_BYTES
        if finished is None:  # in the first copy what was never touched is left to be scanned, too, but not to be sent
            known_pages = min(known_pages, max(self._touched_pages.sum() - (observation.normal_pages or 0), 0.0))
        sent_pages = np.minimum(sent_since(expected, observation.time_s, time_s), known_pages)
        left_pages = observation.remaining_bytes / PAGE_BYTES - sent_pages
        if self._is_all_sent(middle(left_pages - threshold_pages), known_pages, time_s):
            sent_pages = np.full(PARTICLE_COUNT, known_pages)
        old_pages = np.minimum(known_pages - sent_pages, threshold_pages)
        period_s = np.full((PARTICLE_COUNT, 1), max(time_s - synced_s, 1e-3))
        fresh_pages = expected.curves.dirtied_pages(period_s)[:, 0]
        left_pages = np.minimum(old_pages + fresh_pages * (1.0 - old_pages / self._page_count), threshold_pages)
        sent_bytes = float(observation.sent_bytes or 0) + middle(sent_pages) * PAGE_SENT_BYTES
        never_pages = old_pages if finished is None else np.zeros(PARTICLE_COUNT)
        return stopped(expected, time_s=time_s, sent_bytes=sent_bytes, left_pages=left_pages, fresh_pages=never_pages)

    def _is_all_sent(self, above_pages: float, known_pages: float, time_s: float) -> bool:
        """Whether QEMU came to the end of what was left in the midst of a slot: with so much left it would not stop.

        Zero pages count as left until the scan has come by; those of the first copy it comes by in no time.
        """
        observation = self._observation
        if above_pages <= 0 or observation is None or self._plan.bandwidth_bytes_s is None:
            return False
        quota_pages = self._plan.bandwidth_bytes_s * CAPPED_SLOT_S / PAGE_SENT_BYTES
        same_slot = time_s - observation.time_s < EMPTIED_WITHIN_S and known_pages <= quota_pages
        return self._round is None or same_slot

    def _note_residual(self, period_s: float, dirtied_pages: float) -> None:
        if not self._samples and not self._prior:
            return
        round_count = len(self._samples) - self._sampled_count
        if self._compared is None or round_count <= REFIT_ROUNDS or round_count >= REFIT_RATIO * self._compared_count:
            generator = np.random.default_rng(self._seed)
            self._compared_count = round_count
            self._compared = fit_curves(
                wavering(self._samples, self._pace), self._page_count, count=1, generator=generator, prior=self._prior
            )
        predicted_pages = float(self._compared.dirtied_pages(np.array([[period_s]]))[0, 0])
        if predicted_pages > 16 and dirtied_pages > 16:
            self._residuals.append(float(np.clip(np.log(dirtied_pages / predicted_pages), -1.5, 1.5)))

    def _phase_deviation(self) -> float:
        prior = self._pace.deviation
        count = len(self._residuals)
        squares = sum(residual**2 for residual in self._residuals)
        return float(np.sqrt((PHASE_PRIOR_COUNT * prior**2 + squares) / (PHASE_PRIOR_COUNT + count)))

    def _basis(self) -> str:
        parts = []
        if self._sampled_count:
            parts.append(f"{self._sampled_count} samples")
        if self._past:
            parts.append(f"{len(self._past)} earlier migrations")
        rounds = len(self._samples) - self._sampled_count
        if rounds:
            parts.append(f"{rounds} round{'s' * (rounds != 1)}")
        if not self._touched_known and self._round is None:
            parts.append("all memory taken as touched")
        if not self._link.known:
            parts.append("a link that nothing is known of")
        return ", ".join(parts) or "next to nothing"


def _written_pages(touched_pages: Array) -> Array:
    """What of each segment that is there was written to: the kernel gives memory in huge pages where it can.

    Where all is in huge pages, the last of a stretch is there though only a part was needed: half, in the mean.
    """
    if (touched_pages % HUGE_PAGES).any():
        return touched_pages
    ends = (touched_pages > 0) & (np.append(touched_pages[1:], np.inf) == 0)
    return np.asarray(np.maximum(touched_pages - np.where(ends, HUGE_PAGES / 2, 0.0), 0.0), dtype=float)


def _pace(samples: Sequence[DirtySample], sampled_before_s: float | None) -> Pace:
    """How the guest's pace wavers by the samples, or may."""
    if not samples:
        return Pace(PHASE_DEVIATION_UNKNOWN, TIME_UNKNOWN_S)
    found = pace_of(samples, sampled_before_s) or Pace(PHASE_DEVIATION_SAMPLED, TIME_UNKNOWN_S)
    return found._replace(deviation=max(found.deviation, PHASE_DEVIATION_SAMPLED))
