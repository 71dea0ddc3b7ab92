"""livemig's own rule for the switchover: what may be left when QEMU fires. Pure; `livemig.core.policy` is around it.

It never lets QEMU fire at more than the user's limit less the fixed part of a switchover, at what the link will carry
with 99.5 %. That is told as a share of QEMU's own last slot, by ``downtime-limit`` alone: a bandwidth of ours would be
older than that slot, and would stay where it is while livemig stalls and the link slows. Within that,

- ``prefer time`` fires at the first crossing;
- ``prefer downtime`` holds out for a reservation value: next to nothing at first, since a calm moment or the trough of
  a period may come, then rising to the least that was left lately, and to the limit before the time is over.

Where by D(T), fitted to the rounds (`livemig.core.reach`), even a third of the guest's pace would leave more than QEMU
is allowed, it says that there is no hope, and what would do; without a deadline also where it has tried for long. Under
a cap one slot may go without it first (`livemig.core.probe_slot`), which shows what the last step has.
"""

from __future__ import annotations

from functools import lru_cache
from math import log
from typing import TYPE_CHECKING

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.inputs import Prepared
from livemig.core.observation import Observation
from livemig.core.plan import DOWNTIME_LIMIT_LEAST_S, Plan, Prefer
from livemig.core.probe_slot import SAFE_RATIO, ProbeSlot
from livemig.core.rounds import Round, RoundTracker, dirtied_bytes
from livemig.core.rule import Wanted
from livemig.core.slots import CAP_SHARE, Slots
from livemig.core.units import format_duration, format_rate

if TYPE_CHECKING:
    from livemig.core.reach import Reach

FIXED_DOWNTIME_PRIOR_S = 0.012
"""Downtime that no bandwidth shortens: the last sync, device state, loading, one ``cont``. Measured with
``python -m bench switchover`` on idle guests; taken until a report of this pair of QEMUs says better."""
PAGE_BYTES = 4096
ROUNDS_KEPT, LEFT_KEPT = 16, 600
ROUND_DEVIATION = 0.02
"""Relative, of a round's newly dirtied pages."""
FRESH_MOST_SHARE, FRESH_RATIO = 0.25, 0.7
"""Before the first copy has ended, a threshold of more than the one share of memory lets QEMU stop the guest with much
of what the destination never had. Such a page takes longer there than those that the slots were counted with: measured
1.4 times. So much of the limit is used then."""
FIT_PERIOD_S, HOPELESS_FIT_PERIOD_S = 0.5, 2.0
"""A fit takes some milliseconds: at most one in this time; and in that one where the last has shown no hope."""
DECAY_RATIO = 0.93
"""Rounds that leave less than this share of the round before are still on their way down."""
CHANGE_LEAST_RATIO = 0.05
"""A threshold that moves by less is not worth a command."""
MORE_LEAST_RATIO = 0.15
"""A link that proves steadier by less is not, either."""

LEAST_SHARE, LATELY_S = 1.05, 8.0
"""The reservation value rises to this share of the least that was left in so long a time."""
PATIENCE_SHARE = 0.75
"""In this share of the time there is; in what is left it goes on to the limit."""
RESERVE_SHARE, RESERVE_LEAST_S, RESERVE_MOST_SHARE = 0.15, 1.5, 0.3
"""What of the time after the first copy is kept for crossing the limit itself: a share, some time at least, and no more
than another share."""
RESERVE_NEAR_S, STEADY_RATIO = 0.3, 0.8
"""The least that is kept, and all where the last round left much less than the limit and the link is steady: the next
slot crosses it."""
HOLD_LEAST_S = 10.0
"""Without a deadline it holds out as long as the first copy took, and so long at least; and then as long once more for
the limit itself."""
TIGHT_RATIO, TIGHT_WAIT_S = 0.7, 4.0
"""What comes down no more and is above this share of the limit: holding out gains little and may miss the limit. The
nearer it is, the shorter a trough is waited for: so long for what leaves nothing."""
RISING_AFTER, RISING_RATE_S, RISING_SIGNIFICANCE = 5, 0.02, 2.5
"""So many rounds that show growth by so much a second, so clearly: it gets no better."""
RISING_WINDOW_S, RISING_SHARE = 4.0, 1.15
"""Over that window; then this share of what was left last is taken."""
SWINGING_RATIO = 2.0
"""What is more than so many times the least that was left lately may as well come down again."""
WORTH_RATIO = 0.5
"""It waits the whole of its patience for a gain of this share of the downtime; for less, in proportion."""

HOPELESS_PACE = 0.35
"""A guest may be calmer than it was by this much, and soon: only what is hopeless even then is called so."""
HOPELESS_AFTER_ROUNDS, WHOLE_PASS_SHARE = 2, 0.75
"""Judged once so much of what the first copy had left was sent: before, the scan has seen a part of memory alone."""
PROBED_AFTER_ROUNDS = 3
"""So many rounds that all left too much tell more than a model that says they would not."""
REMEDY_RATIO = 1.1
"""Over what the last passes left: rounds differ."""


def fixed_downtime_s(plan: Plan) -> float:
    """The part of the downtime taken as fixed, in seconds: measured for this pair, else the prior."""
    return FIXED_DOWNTIME_PRIOR_S if plan.fixed_downtime_s is None else plan.fixed_downtime_s


@lru_cache(maxsize=8)  # its words are asked for at each reply
def first_crossing(plan: Plan) -> Wanted:
    """What is wanted while nothing is known: the first crossing of the limit less the fixed part."""
    source = "prior" if plan.fixed_downtime_s is None else "measured"
    return Wanted(
        downtime_limit_s=max(DOWNTIME_LIMIT_LEAST_S, plan.downtime_limit_s - fixed_downtime_s(plan)),
        reason=f"switch over as soon as what is left fits into the limit of {format_duration(plan.downtime_limit_s)}"
        f" less {format_duration(fixed_downtime_s(plan))} fixed part ({source})",
    )


def much_is_fresh(limit_s: float, bytes_s: float, memory_bytes: float) -> bool:
    """Whether the threshold is a large share of memory, by the cap or what was sent last, whichever is more."""
    return limit_s * bytes_s > FRESH_MOST_SHARE * memory_bytes


class Switchover:
    """The rule of one migration; see `livemig.core.rule.Rule`."""

    def __init__(self) -> None:
        self._plan = Plan()
        self._page_count = 1.0
        self._tracker, self._slots = RoundTracker(), Slots()
        self._probe = ProbeSlot(Foreknowledge())
        self._samples: list[DirtySample] = []
        self._left_s: list[tuple[float, float]] = []
        self._left_bytes: list[int] = []
        self._copied_s: float | None = None
        self._remaining_bytes = 0
        self._first_remaining_bytes = self._passed_bytes = 0.0
        self._ratio = 1.0
        self._reach: Reach | None = None
        self._fitted_s = 0.0
        self._hopeless, self._tired = "", False
        self._trying_since_s = 0.0
        self._last = first_crossing(self._plan)

    def begin(self, plan: Plan, seen: Prepared) -> Wanted:
        """Takes what is known before ``migrate``."""
        self._plan = plan
        self._page_count = max(1.0, seen.memory_bytes / PAGE_BYTES)
        self._probe = ProbeSlot(seen.known)
        self._last = self._want(seen.time_s)
        return self._last

    def observe(self, observation: Observation) -> Wanted:
        """Takes a reply of the source while its guest runs and memory is copied."""
        self._probe.observe(observation, self._plan.bandwidth_bytes_s or 0.0)
        if not self._probe.disturbs(observation.time_s):
            self._slots.observe(observation)
        self._trust()
        finished = self._tracker.observe(observation)
        if finished is not None:
            self._round(finished)
            self._judge(observation.time_s)
        return self.passed(observation.time_s)

    def passed(self, time_s: float) -> Wanted:
        """Takes that time went by; what would change next to nothing stays as it is."""
        self._probe.passed(time_s)
        self._tire(time_s)
        wanted, last = self._want(time_s), self._last
        moved = abs(log(wanted.downtime_limit_s / last.downtime_limit_s)) > CHANGE_LEAST_RATIO
        told = wanted.hopeless, wanted.uncapped
        kept = not moved and told == (last.hopeless, last.uncapped)
        self._last = msgspec.structs.replace(last, remedy=wanted.remedy) if kept else wanted
        return self._last

    def tuned(self, plan: Plan, time_s: float) -> Wanted:
        """Takes a changed plan."""
        self._plan, self._hopeless, self._tired, self._trying_since_s = plan, "", False, time_s
        self._trust()
        self._last = self._want(time_s)
        return self._last

    def _round(self, finished: Round) -> None:
        end_s = finished.start_s + finished.duration_s
        before_bytes = self._remaining_bytes or self._page_count * PAGE_BYTES
        self._remaining_bytes = finished.remaining_bytes
        self._passed_bytes += before_bytes - max(finished.remaining_bytes - finished.newly_dirtied_bytes, 0)
        pages = dirtied_bytes(finished, before_bytes) / PAGE_BYTES
        self._samples.append(
            DirtySample(
                periods_s=(max(finished.duration_s, 1e-3),),
                weights=(1.0,),
                dirtied_pages=pages,
                deviation_pages=ROUND_DEVIATION * pages + 2.0,
            )
        )
        del self._samples[:-ROUNDS_KEPT]
        if self._copied_s is None:
            self._copied_s, self._first_remaining_bytes = end_s, finished.remaining_bytes
            self._passed_bytes = 0.0
        self._left_bytes = [*self._left_bytes[-HOPELESS_AFTER_ROUNDS:], finished.remaining_bytes]
        bytes_s = self._slots.middle_bytes_s
        if bytes_s:
            self._left_s.append((end_s, finished.remaining_bytes / bytes_s))
            del self._left_s[:-LEFT_KEPT]

    def _want(self, time_s: float) -> Wanted:
        limit_s, reason = self._allowed_s(), first_crossing(self._plan).reason
        if self._ratio < 1.0:
            reason += f", at {self._ratio:.0%} of what the link carried last: so much is sure"
        uncapped = self._probe.lifted and self._plan.bandwidth_bytes_s is not None
        if self._probe.disturbs(time_s):
            limit_s = max(SAFE_RATIO * limit_s, DOWNTIME_LIMIT_LEAST_S)
            reason += f", at {SAFE_RATIO:.0%} of what a slot without the cap carries"
            if uncapped:
                reason += "; it is lifted for one: under it the limit can't be kept, and the link has carried enough"
        elif self._plan.prefer is Prefer.DOWNTIME:
            reserved_s = self._reservation_s(time_s, limit_s)
            if reserved_s < limit_s:
                limit_s = reserved_s
                reason = f"hold out for what takes {format_duration(reserved_s)} to send"
        return Wanted(
            downtime_limit_s=limit_s,
            uncapped=uncapped,
            reason=reason,
            hopeless=self._hopeless,
            remedy=self._remedy(),
        )

    def _allowed_s(self) -> float:
        """The most that QEMU is allowed, in seconds of sending at its last slot's rate."""
        limit_s = first_crossing(self._plan).downtime_limit_s * self._ratio
        if self._copied_s is None:
            bytes_s = max(self._slots.middle_bytes_s or 0.0, self._plan.bandwidth_bytes_s or 0.0)
            limit_s *= FRESH_RATIO if much_is_fresh(limit_s, bytes_s, self._page_count * PAGE_BYTES) else 1.0
        return max(limit_s, DOWNTIME_LIMIT_LEAST_S)

    def _trust(self) -> None:
        """Looks what share of what the link carried last it carries with 99.5 %, for as long as the limit is.

        Less is heeded at once, more where it is worth a command: what is known of a link wavers, too.
        """
        ratio = self._slots.safe_ratio(self._plan.bandwidth_bytes_s, first_crossing(self._plan).downtime_limit_s)
        if not (1.0 - CHANGE_LEAST_RATIO) * self._ratio < ratio < (1.0 + MORE_LEAST_RATIO) * self._ratio:
            self._ratio = ratio

    def _reservation_s(self, time_s: float, limit_s: float) -> float:
        """What may be left, in seconds of sending, so that nothing better is to be expected in the time there is."""
        least_s = DOWNTIME_LIMIT_LEAST_S
        if self._copied_s is None or not self._left_s:
            return least_s
        copied_s, last_s = self._copied_s, self._left_s[-1][1]
        lately = [left_s for seen_s, left_s in self._left_s[-64:] if seen_s > time_s - LATELY_S]
        lowest_s = min(lately, default=last_s)
        end_s = self._end_s(copied_s, limit_s)
        if self._plan.patience_ratio is not None:
            end_s = min(end_s, copied_s + self._plan.patience_ratio * min(lowest_s, limit_s))
        if time_s >= end_s:
            return limit_s
        if self._rising(time_s):
            return min(limit_s, max(least_s, RISING_SHARE * last_s))  # the last round may have left nothing at all
        if last_s < SWINGING_RATIO * lowest_s and self._tight(time_s - copied_s, limit_s):
            return limit_s
        target_s = min(limit_s, max(least_s, LEAST_SHARE * lowest_s))
        fixed_s = fixed_downtime_s(self._plan)
        gain_ratio = 1.0 - (least_s + fixed_s) / (target_s + fixed_s)
        patience_s = PATIENCE_SHARE * (end_s - copied_s) * min(1.0, gain_ratio / WORTH_RATIO)
        patient_s = copied_s + max(patience_s, 1e-3)
        if time_s < patient_s:
            return float(least_s * (target_s / least_s) ** ((time_s - copied_s) / (patient_s - copied_s)))
        return float(target_s * (limit_s / target_s) ** ((time_s - patient_s) / (end_s - patient_s)))

    def _end_s(self, copied_s: float, limit_s: float) -> float:
        """Until when it holds out: from then on the limit itself is to be crossed."""
        if self._plan.deadline_s is None:
            return copied_s + max(HOLD_LEAST_S, copied_s)
        left_s = self._plan.deadline_s - copied_s
        reserve_s = max(RESERVE_NEAR_S, min(RESERVE_LEAST_S, RESERVE_MOST_SHARE * left_s), RESERVE_SHARE * left_s)
        if self._ratio > STEADY_RATIO and self._left_s[-1][1] < TIGHT_RATIO * limit_s:
            reserve_s = min(reserve_s, RESERVE_NEAR_S)
        return self._plan.deadline_s - reserve_s

    def _tight(self, waited_s: float, limit_s: float) -> bool:
        """Whether what comes down no more is near the limit, and was waited for long enough for that."""
        share = min(left_s for _, left_s in self._left_s[-2:]) / limit_s
        return self._settled() and share > TIGHT_RATIO and waited_s > TIGHT_WAIT_S * (1.0 - share)

    def _settled(self) -> bool:
        """Whether the rounds have come down as far as they do."""
        left = [left_s for _, left_s in self._left_s[-2:]]
        return len(left) > 1 and left[-1] > DECAY_RATIO * left[0]

    def _rising(self, time_s: float) -> bool:
        """Whether what the rounds leave grows, by a line through their logarithms."""
        recent = [
            (seen_s, log(max(left_s, 1e-6))) for seen_s, left_s in self._left_s if seen_s > time_s - RISING_WINDOW_S
        ]
        count = len(recent)
        if count < RISING_AFTER:
            return False
        mean_s, mean = (sum(column) / count for column in zip(*recent, strict=True))
        spread = sum((seen_s - mean_s) ** 2 for seen_s, _ in recent)
        slope = sum((seen_s - mean_s) * (value - mean) for seen_s, value in recent) / max(spread, 1e-9)
        errors = sum((value - mean - slope * (seen_s - mean_s)) ** 2 for seen_s, value in recent)
        deviation = (errors / (count - 2) / max(spread, 1e-9)) ** 0.5
        return bool(slope > RISING_RATE_S and slope > RISING_SIGNIFICANCE * deviation)

    def _fit(self, time_s: float) -> None:
        """Fits D(T) to the last rounds, now and then."""
        from livemig.core.reach import Reach

        period_s = HOPELESS_FIT_PERIOD_S if self._hopeless else FIT_PERIOD_S
        due = self._reach is None or time_s - self._fitted_s >= period_s
        if due and self._samples:
            self._reach, self._fitted_s = Reach(self._samples, self._page_count), time_s

    def _judge(self, time_s: float) -> None:
        """Says that there is no hope, or takes it back; by what QEMU is allowed, as it really is."""
        bytes_s, allowed_s = self._slots.hopeful_bytes_s, self._allowed_s()
        last = [left_bytes / (bytes_s or 1.0) for left_bytes in self._left_bytes]
        whole = self._passed_bytes >= WHOLE_PASS_SHARE * self._first_remaining_bytes
        if self._tired or len(last) < HOPELESS_AFTER_ROUNDS or not bytes_s or not whole:
            return
        if min(last[-HOPELESS_AFTER_ROUNDS:]) < allowed_s:
            self._hopeless = ""
            return
        if last[-1] < DECAY_RATIO * max(last):
            return
        self._fit(time_s)
        waits = self._probes(time_s, bytes_s, allowed_s)
        if waits or self._reach is None or self._reach.floor(bytes_s, pace=HOPELESS_PACE).pending_s < allowed_s:
            self._hopeless = ""
        elif not self._hopeless:
            self._hopeless = (
                f"the guest dirties its memory too fast for {self._limit_words()}, even at a third of its pace: "
                f"{self._remedy()}"
            )

    def _probes(self, time_s: float, bytes_s: float, allowed_s: float) -> bool:
        """Whether the cap is lifted for a slot: now, or from now on, where that would decide.

        It would where the guest does not come down to the limit under the cap, it is the cap that holds the copy, and
        the link is known to have carried what the last step needs.
        """
        cap_bytes_s = self._plan.bandwidth_bytes_s
        if self._probe.disturbs(time_s) or cap_bytes_s is None or bytes_s < CAP_SHARE * cap_bytes_s:
            return self._probe.disturbs(time_s)
        within_reach = self._reach is None or self._reach.floor(bytes_s).pending_s < allowed_s
        tried = [left_s for _, left_s in self._left_s[-PROBED_AFTER_ROUNDS:]]
        if within_reach and (len(tried) < PROBED_AFTER_ROUNDS or min(tried) < allowed_s):
            return False
        needed_bytes_s = bytes_s * min(tried[-HOPELESS_AFTER_ROUNDS:]) / allowed_s
        return self._probe.begin(time_s, needed_bytes_s=needed_bytes_s, shown_bytes_s=self._slots.most_bytes_s)

    def _tire(self, time_s: float) -> None:
        """Without a deadline nothing else would end what never fits: says so after a while."""
        if self._plan.deadline_s is not None or self._copied_s is None or not self._left_s or self._hopeless:
            return
        tried_s = 2 * max(HOLD_LEAST_S, self._copied_s)
        if time_s > max(self._copied_s, self._trying_since_s) + tried_s:
            self._tired = True
            self._hopeless = f"what is left has not fitted into {self._limit_words()} for {format_duration(tried_s)}"
            self._hopeless += f": {remedy}" if (remedy := self._remedy()) else ""

    def _limit_words(self) -> str:
        sure = f" ({self._ratio:.0%} of it for sure)" if self._ratio < 1.0 else ""
        limit, rate = format_duration(self._plan.downtime_limit_s), format_rate(self._slots.middle_bytes_s or 0.0)
        return f"a limit of {limit} at {rate}{sure}"

    def _remedy(self) -> str:
        """What would do: room for what its passes leave is enough at any bandwidth. Empty while nothing is known."""
        bytes_s, ratio = self._slots.middle_bytes_s, self._ratio
        if not self._left_s or not bytes_s:
            return ""
        left_s = REMEDY_RATIO * max(left_s for _, left_s in self._left_s[-HOPELESS_AFTER_ROUNDS:])
        if left_s <= self._allowed_s():
            return ""  # it would fit as it is
        limit_s = first_crossing(self._plan).downtime_limit_s
        return (
            f"a downtime limit of {format_duration(left_s / ratio + fixed_downtime_s(self._plan))} or a bandwidth of "
            f"{format_rate(bytes_s * left_s / ratio / limit_s)} would do"
        )
