"""The finished story of one migration: what was asked, what came of it, in figures and words. Pure data."""

from __future__ import annotations

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.event import Ended
from livemig.core.outcome import Outcome, RunningOn
from livemig.core.plan import Plan
from livemig.core.prediction import Forecast
from livemig.core.probe import Blackout
from livemig.core.rounds import Round

NEXT_TO_NOTHING_BYTES = 256 * 1024
"""A rest that takes a link of 1 Gbit/s some 2 ms; device state of a small guest included."""


class Downtime(msgspec.Struct, frozen=True, kw_only=True):
    """How long the guest stood still, and where the time went. The three parts add up to the whole.

    Attributes:
        total_s: From the source's STOP to the destination's RESUME, by QEMU's own timestamps, clocks corrected.
        clock_uncertainty_s: By how much that may be off; 0 when both QEMUs read the same clock.
        transfer_s: From STOP until both sides had said ``completed``: QEMU sends the rest, the destination loads it.
        controller_s: From there until ``cont`` was on its way: livemig's own time.
        resume_s: From there to RESUME.
    """

    total_s: float
    clock_uncertainty_s: float
    transfer_s: float
    controller_s: float
    resume_s: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How a migration ended.

    Attributes:
        id: The run's id.
        plan: What was asked, with what was tuned on the way.
        outcome: What came of it.
        running_on: Which side has the guest.
        guest_state: The guest's run state there, in QEMU's word.
        reason: Why it ended so, in words.
        cancel_reason: Why livemig wanted the guest to stay, or None.
        total_s: From ``migrate`` to the guest's RESUME at the destination, or to the end at the source; None when it
            never began. Probation is not in it.
        downtime: How long the guest stood still; None when it was not handed over, or did not run before.
        qemu_downtime_s: QEMU's own figure.
        qemu_total_s: QEMU's ``total-time``.
        sent_bytes: What went over the wire.
        round_count: Passes over dirty memory, the first full copy included.
        rounds: The passes that were seen to end.
        samples: What is known of how the guest dirties memory: sampled before, and shown by the rounds.
        sampled_s: How long the guest was sampled before ``migrate``; not part of `total_s`.
        forecasts: What was said beforehand, in order: at the start, after rounds, at the commit.
        fixed_downtime_s: What of the downtime was taken as fixed, in seconds.
        fixed_downtime_measured: Whether that was measured for this pair, not the prior.
        fixed_downtime_origin: Where it is from, in words.
        fixed_downtime_found_s: The fixed part as this run shows it (see the function of that name), or None. Worth
            passing to the next `Plan`.
        source_kept: Whether the source was left paused.
        blackout: How long the guest did not answer the probe; None without one.
        journal_s: How long the run waited for its journal, in all; never while the guest stood still.
        warnings: What was seen that the user should know.
    """

    id: str
    plan: Plan
    outcome: Outcome
    running_on: RunningOn
    guest_state: str
    reason: str
    cancel_reason: str | None = None
    total_s: float | None = None
    downtime: Downtime | None = None
    qemu_downtime_s: float | None = None
    qemu_total_s: float | None = None
    sent_bytes: int = 0
    round_count: int = 0
    rounds: tuple[Round, ...] = ()
    samples: tuple[DirtySample, ...] = ()
    sampled_s: float = 0.0
    forecasts: tuple[Forecast, ...] = ()
    fixed_downtime_s: float = 0.0
    fixed_downtime_measured: bool = False
    fixed_downtime_origin: str = ""
    fixed_downtime_found_s: float | None = None
    source_kept: bool = False
    blackout: Blackout | None = None
    journal_s: float = 0.0
    warnings: tuple[str, ...] = ()

    def ended(self, time_s: float) -> Ended:
        """Returns the closing event."""
        return Ended(
            time_s=time_s,
            id=self.id,
            outcome=self.outcome,
            running_on=self.running_on,
            guest_state=self.guest_state,
            total_s=self.total_s,
            downtime_s=None if self.downtime is None else self.downtime.total_s,
            qemu_downtime_s=self.qemu_downtime_s,
            sent_bytes=self.sent_bytes,
            round_count=self.round_count,
            blackout_s=None if self.blackout is None else self.blackout.longest_s,
            forecasts=self.forecasts,
            warnings=self.warnings,
            reason=self.reason,
        )


def fixed_downtime_found_s(downtime: Downtime | None, sent_bytes: int | None) -> float | None:
    """Returns what a switchover shows of its fixed part, in seconds: all of it, where next to nothing was left to send.

    An upper bound, never an estimate by throughput: how fast QEMU sends the rest is not what a slot or a cap showed
    before, and a fixed part taken too small would break the user's limit.

    Args:
        downtime: As measured; None when the guest was not handed over running.
        sent_bytes: What was sent while the guest stood still; None when QEMU does not say.
    """
    if downtime is None or sent_bytes is None or sent_bytes > NEXT_TO_NOTHING_BYTES:
        return None
    return downtime.total_s
