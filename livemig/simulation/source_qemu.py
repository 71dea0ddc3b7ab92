"""The source QEMU's migration thread, simulated: slots, quotas, syncs, the decision to switch over, the completion.

Written after ``migration_thread`` and what it calls in QEMU's ``migration/migration.c`` and ``ram_save_iterate`` in
``migration/ram.c``; apart from the forecast's model of the same, so that one can be held against the other. The thread
is a generator: it yields the time at which it wants to go on, and is resumed then, or earlier when it was woken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from enum import StrEnum

import numpy as np

from livemig.core.status import MigrationStatus, RunState
from livemig.simulation.guest_memory import GuestMemory
from livemig.simulation.link import Link
from livemig.simulation.ram_scan import NORMAL_SENT_BYTES, ZERO_SENT_BYTES, RamScan
from livemig.simulation.setting import Setting
from livemig.simulation.versions import rules_of
from livemig.simulation.workloads import PAGE_BYTES

SLOT_MS = 100
"""QEMU's ``BUFFER_DELAY``: bandwidth, threshold and quota are renewed no sooner."""
ITERATION_S = 0.051
"""An iteration ends once its whole milliseconds exceed ``MAX_WAIT``, 50."""
CLOCK_LOOK_PAGES = 64
"""It looks at the clock at its first page and every so many after it."""
SECTION_BYTES = 18
"""What an iteration adds: the section's header and footer, and the mark at its end."""
SETUP_SENT_BYTES = 216
PERIOD_MS = 1000
"""``dirty-pages-rate`` is renewed at a sync later than that after the last time."""
STEP_S = 20e-6
"""What a turn of the loop takes even when nothing is sent."""


Thread = Generator[float, None, None]


class Said(StrEnum):
    """What QEMU sends out by itself."""

    STATUS = "status"
    PASS = "pass"  # noqa: S105
    STOP = "stop"
    RESUME = "resume"
    DESTINATION_COMPLETED = "destination-completed"
    DESTINATION_RESUME = "destination-resume"


class SourceQemu:
    """The source of one migration.

    Attributes:
        now_s: The thread's time, in seconds since ``migrate``.
        status: As ``query-migrate`` says it.
        run_state: As ``query-status`` says it.
        scan: Its bitmap and what it has sent.
        memory: The guest's.
        downtime_limit_ms: Its parameter of that name; so are the next two.
        max_bandwidth_bytes_s: 0 is unlimited.
        avail_switchover_bandwidth_bytes_s: 0 takes the bandwidth of the last slot; not in 7.2.
        pause_before_switchover: Its capability of that name.
        locked: Whether it holds its big lock, so that no command is answered.
        stopped_s: When the guest was stopped by the switchover, or None.
        sync_count: ``dirty-sync-count``.
        threshold_bytes: What may be left for a switchover, as of the last slot.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        memory: GuestMemory,
        link: Link,
        generator: np.random.Generator,
        say: Callable[[Said, MigrationStatus | int | None], None],
        horizon_s: Callable[[], float],
    ) -> None:
        """Begins nothing.

        Args:
            setting: What is simulated.
            memory: The guest's.
            link: To the destination.
            generator: Of its own delays.
            say: Told what QEMU says, at `now_s`.
            horizon_s: When somebody will look next: counters are right at that time.
        """
        self.memory, self.link = memory, link
        self.rules, self.costs = rules_of(setting.qemu), setting.costs
        self.scan = RamScan(setting.guest, memory)
        self.now_s = 0.0
        self.status, self.run_state = MigrationStatus.SETUP, RunState.RUNNING
        self.downtime_limit_ms, self.max_bandwidth_bytes_s, self.avail_switchover_bandwidth_bytes_s = 300, 0, 0
        self.pause_before_switchover = self.locked = self.continued = False
        self.stopped_s: float | None = None
        self.sync_count = self.threshold_bytes = self.extra_bytes = 0
        self.slot_bytes_s = self.slot_pages_s = 0.0
        self.expected_downtime_ms = 0.0
        self.dirty_rate_pages_s = self.last_sync_bytes = self.pending_bytes = self.stopped_at_bytes = 0
        self.started_ms = self.setup_ms = self.total_ms = self.downtime_ms = 0
        self._sync_s = setting.costs.sync_s + setting.costs.sync_gib_s * setting.guest.memory_bytes / 2**30
        self._generator, self._say, self._horizon_s = generator, say, horizon_s
        self.page_bytes = setting.guest.page_bytes
        self._clock_offset_ms = float(generator.uniform(0, 1))
        spread = setting.costs.device_spread_ratio
        self._device_ratio, self._resume_ratio = (float(generator.lognormal(0.0, spread)) for _ in range(2))
        self._slot_start_ms = self._slot_start_bytes = self._slot_start_pages = 0
        self._iterating: tuple[int, int] | None = None
        self._before_bytes = 0
        self._look_count = max(1, CLOCK_LOOK_PAGES * PAGE_BYTES // setting.guest.page_bytes)
        self._period_start_ms, self._period_start_pages = 0, 0
        self._downtime_start_ms = 0

    @property
    def sent_bytes(self) -> int:
        """``transferred``: 7.2 counts what it has put into its buffer, later versions what they have flushed."""
        if self._iterating is None or self.rules.counts_buffered:
            return self.scan.sent_bytes + self.extra_bytes
        return self._before_bytes + self.scan.flushed_bytes(*self._iterating)

    @property
    def clock_ms(self) -> int:
        """QEMU's clock: whole milliseconds."""
        return int(self.now_s * 1000 + self._clock_offset_ms)

    def run(self) -> Thread:
        """Runs the thread; yields when it wants to go on, in seconds since ``migrate``."""
        yield self.now_s + self.costs.connect_s
        self._say(Said.STATUS, MigrationStatus.SETUP)
        self.started_ms = self.clock_ms
        self.expected_downtime_ms = self.downtime_limit_ms
        self._begin_slot()
        self.extra_bytes += SETUP_SENT_BYTES
        yield self.now_s + self.costs.setup_s
        self._sync()
        self.setup_ms = self.clock_ms - self.started_ms
        if self.status is MigrationStatus.SETUP:  # else it was cancelled meanwhile, and stays so
            self.set_status(MigrationStatus.ACTIVE)
        yield from self._copy()
        if self.status is MigrationStatus.ACTIVE:
            yield from self._complete()
        if self.status in (MigrationStatus.CANCELLING, MigrationStatus.FAILING):
            yield self.now_s + self.costs.reply_s
            self._end()

    def cancel(self) -> None:
        """``migrate_cancel``: heeded when the thread looks next. Too late once device state goes over."""
        heeding = (MigrationStatus.SETUP, MigrationStatus.ACTIVE, MigrationStatus.PRE_SWITCHOVER)
        if self.status in heeding and not self.locked:
            self.set_status(MigrationStatus.CANCELLING)

    def yank(self) -> None:
        """``yank``: the connection fails."""
        if self.status not in (MigrationStatus.COMPLETED, MigrationStatus.CANCELLED, MigrationStatus.FAILED):
            self.status = MigrationStatus.FAILING
            if self.rules.says_failing:
                self._say(Said.STATUS, self.status)

    def set_status(self, status: MigrationStatus) -> None:
        """Changes the status and says so."""
        self.status = status
        self._say(Said.STATUS, status)

    def _copy(self) -> Thread:
        while self.status is MigrationStatus.ACTIVE:
            if not self._exceeded():
                ready = yield from self._ready()
                if ready or self.status is not MigrationStatus.ACTIVE:
                    return
                yield from self._iterate()
            if self.status is not MigrationStatus.ACTIVE:
                return
            self._update_counters()
            if self._exceeded():
                wait_ms = max(0, self._slot_start_ms + SLOT_MS - self.clock_ms)
                yield self.now_s + wait_ms / 1000 + self._generator.exponential(self.costs.wake_s)

    def _ready(self) -> Generator[float, None, bool]:
        """Whether QEMU switches over, by its estimate or, where that is low, by a sync."""
        self.pending_bytes = self.scan.remaining_bytes
        if self.rules.looks_exactly(self.pending_bytes, self.threshold_bytes):
            yield self.now_s + self._sync_s
            self._sync()
            self.pending_bytes = self.scan.remaining_bytes
        return self.rules.switches_over(self.pending_bytes, self.threshold_bytes)

    def _iterate(self) -> Thread:
        """Sends until the quota is used, nothing is left or 50 ms have passed."""
        scan, start_s, sent = self.scan, self.now_s, 0
        self._iterating = (scan.normal_count, scan.zero_count)
        self._before_bytes = scan.sent_bytes + self.extra_bytes
        most = self._quota_count()
        while sent < most and scan.remaining_count:
            late = self.now_s - start_s >= ITERATION_S
            to_look = -(sent - 1) % self._look_count
            if late and not to_look and sent:
                break
            until_s = self._horizon_s() if late else min(self._horizon_s(), start_s + ITERATION_S)
            sent += yield from self._send(min(to_look or 1, most - sent) if late else most - sent, until_s)
            if self.status is not MigrationStatus.ACTIVE:
                break
        self._iterating = None
        self.extra_bytes += SECTION_BYTES
        yield self.now_s + STEP_S

    def _send(self, most: int, until_s: float) -> Generator[float, None, int]:
        """Sends some pages, at least one, and returns how many; none while the link carries nothing."""
        setting, now_s = self.link.setting, self.now_s
        rate_bytes_s, steady_s = self.link.rate_bytes_s(now_s), self.link.steady_until_s(now_s)
        if not rate_bytes_s:
            yield steady_s
            return 0
        most = min(most, self.scan.prepare(now_s), self.scan.remaining_count)
        takes_s = (
            NORMAL_SENT_BYTES / rate_bytes_s,
            setting.fresh_page_s,
            setting.zero_page_s + ZERO_SENT_BYTES / rate_bytes_s,
        )
        span_s = min(until_s, steady_s) - now_s
        if self.scan.duration_s(most, *takes_s) > span_s:
            most = min(most, max(1, self.scan.count_within(span_s, *takes_s)))
        yield now_s + self.scan.duration_s(most, *takes_s)
        self.scan.take(most)
        return most

    def _quota_count(self) -> int:
        quota_bytes = self.max_bandwidth_bytes_s // 10
        if not quota_bytes:
            return self.scan.remaining_count
        left_bytes = quota_bytes - (self.sent_bytes - self._quota_start_bytes)
        return min(
            self.scan.remaining_count, max(1, self.scan.count_over(left_bytes, flushed=not self.rules.counts_buffered))
        )

    def _exceeded(self) -> bool:
        quota_bytes = self.max_bandwidth_bytes_s // 10
        return quota_bytes > 0 and self.sent_bytes - self._quota_start_bytes > quota_bytes

    def _begin_slot(self) -> None:
        self._slot_start_ms = self.clock_ms
        self._slot_start_bytes = self._quota_start_bytes = self.sent_bytes
        self._slot_start_pages = self.scan.normal_pages + self.scan.zero_pages

    def _update_counters(self) -> None:
        spent_ms = self.clock_ms - self._slot_start_ms
        if spent_ms < SLOT_MS:
            return
        slot_bytes = self.sent_bytes - self._slot_start_bytes
        bandwidth_bytes_ms = expected_bytes_ms = slot_bytes / spent_ms
        if self.avail_switchover_bandwidth_bytes_s and self.rules.takes_bandwidth:
            expected_bytes_ms = float(self.avail_switchover_bandwidth_bytes_s // 1000)
        self.threshold_bytes = int(expected_bytes_ms * self.downtime_limit_ms)
        self.slot_bytes_s = bandwidth_bytes_ms * 1000
        pages = self.scan.normal_pages + self.scan.zero_pages - self._slot_start_pages
        self.slot_pages_s = pages / (spent_ms / 1000)
        if self.rules.tells_pending:
            if expected_bytes_ms:
                self.expected_downtime_ms = self.pending_bytes / expected_bytes_ms
        elif self.dirty_rate_pages_s and slot_bytes > 10000:
            left_bytes = self.scan.remaining_bytes if self.rules.counts_buffered else self.last_sync_bytes
            self.expected_downtime_ms = left_bytes / expected_bytes_ms if expected_bytes_ms else 0.0
        self._begin_slot()

    def _sync(self, *, last: bool = False) -> None:
        if not last or self.rules.counts_last_sync:
            self.sync_count += 1
        if not self._period_start_ms:
            self._period_start_ms = self.clock_ms
        self.scan.sync(self.now_s)
        self.last_sync_bytes = self.scan.remaining_bytes
        now_ms = self.clock_ms
        if now_ms > self._period_start_ms + PERIOD_MS:
            pages = self.scan.newly_dirty_pages - self._period_start_pages
            self.dirty_rate_pages_s = pages * 1000 // (now_ms - self._period_start_ms)
            self._period_start_ms, self._period_start_pages = now_ms, self.scan.newly_dirty_pages
        if (not last or self.rules.counts_last_sync) and (self.sync_count > 1 or self.rules.announces_first_sync):
            self._say(Said.PASS, self.sync_count)

    def _complete(self) -> Thread:
        """Stops the guest and sends the rest, its big lock held, without regard to the cap."""
        self.locked = True
        self._downtime_start_ms = self.clock_ms
        yield self.now_s + self.costs.stop_s
        self.memory.advance(self.now_s)
        self.memory.stands_still = True
        self.stopped_s, self.run_state = self.now_s, RunState.FINISH_MIGRATE
        self._say(Said.STOP, None)
        if self.pause_before_switchover:
            yield from self._pause()
            if self.status is not MigrationStatus.PRE_SWITCHOVER:
                return
        if self.rules.says_device or self.pause_before_switchover:
            self.set_status(MigrationStatus.DEVICE)
        sending = self.status
        self.stopped_at_bytes = self.sent_bytes
        self._sync(last=True)
        while self.scan.remaining_count:
            yield from self._send(self.scan.remaining_count, math.inf)
            if self.status is not sending:
                return
        yield from self._hand_over()

    def _hand_over(self) -> Thread:
        """Device state goes over and the destination says that it has loaded it."""
        sending, costs = self.status, self.costs
        left_s = costs.device_s * self._device_ratio
        while not (rate_bytes_s := self.link.rate_bytes_s(self.now_s)):
            yield self.link.steady_until_s(self.now_s)
            if self.status is not sending:
                return
        yield self.now_s + left_s / 2 + costs.device_bytes / rate_bytes_s
        self.extra_bytes += costs.device_bytes
        self.locked = False
        yield self.now_s + left_s / 2 + 2 * self.link.setting.latency_s
        if self.status is not sending:
            return
        now_ms = self.clock_ms
        self.total_ms, self.downtime_ms = now_ms - self.started_ms, now_ms - self._downtime_start_ms
        transfer_ms = self.total_ms - self.setup_ms
        if transfer_ms:
            self.slot_bytes_s = self.sent_bytes / transfer_ms * 1000
        self.run_state = RunState.POSTMIGRATE
        self.set_status(MigrationStatus.COMPLETED)
        self._say(Said.DESTINATION_COMPLETED, None)
        yield self.now_s + costs.resume_s * self._resume_ratio
        self._say(Said.DESTINATION_RESUME, None)

    def _pause(self) -> Thread:
        self.locked = False
        self.set_status(MigrationStatus.PRE_SWITCHOVER)
        while not self.continued and self.status is MigrationStatus.PRE_SWITCHOVER:
            yield math.inf
        self.locked = True

    def _end(self) -> None:
        """The guest goes on at the source."""
        self.locked = False
        if self.stopped_s is not None:
            self.stopped_s, self.run_state = None, RunState.RUNNING
            self._say(Said.RESUME, None)
        cancelled = self.status is MigrationStatus.CANCELLING
        self.total_ms = self.clock_ms - self.started_ms
        self.set_status(MigrationStatus.CANCELLED if cancelled else MigrationStatus.FAILED)
