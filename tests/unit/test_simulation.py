"""A simulated migration: nothing is lost, nothing is random but by its seed, and QEMU's rules are kept.

That the figures are those of real QEMUs is held by ``python -m bench simulation``.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.errors import PlanError
from livemig.core.inputs import Input, Observed, RunStateSeen, SourceStopped
from livemig.core.outcome import Outcome
from livemig.core.phases import Phase
from livemig.core.plan import AtDeadline, Plan, PlanChange
from livemig.core.policy import Decision
from livemig.core.trace import InputRecord, decode_trace, encode_record
from livemig.simulation.guest_memory import GuestMemory
from livemig.simulation.link import Link, LinkSetting, Outage
from livemig.simulation.ram_scan import RamScan
from livemig.simulation.replay import replay
from livemig.simulation.setting import Branch, Costs, Setting
from livemig.simulation.simulate import Wish, simulate
from livemig.simulation.source_qemu import SourceQemu
from livemig.simulation.workloads import (
    Accelerator,
    Pattern,
    SimulatedGuest,
    Stage,
    Writes,
)
from tests.unit.simulated import MIB, VERSIONS, Fixed, guest_of, said


class Watched(GuestMemory):
    """A memory that knows which pages were really written to since they were last sent."""

    def __init__(self, guest: SimulatedGuest, generator: np.random.Generator) -> None:
        super().__init__(guest, generator)
        self.stale = np.ones(self.page_count, dtype=np.bool_)

    def advance(self, time_s: float) -> None:
        """Finds what is written by an empty log."""
        logged = self.log.copy()
        self.log[:] = False
        super().advance(time_s)
        self.stale |= self.log
        self.log |= logged


def watched_copy(setting: Setting, *, seed: int, limit_ms: int, bandwidth_bytes_s: int) -> Iterator[SourceQemu]:
    """Runs the source alone; gives it after each turn of its thread."""
    guest_seed, link_seed, source_seed = np.random.SeedSequence(seed).spawn(3)
    memory = Watched(setting.guest, np.random.default_rng(guest_seed))
    source = SourceQemu(
        setting,
        memory=memory,
        link=Link(setting.link, np.random.default_rng(link_seed)),
        generator=np.random.default_rng(source_seed),
        say=lambda _said, _value: None,
        horizon_s=lambda: source.now_s + 0.013,
    )
    source.downtime_limit_ms, source.max_bandwidth_bytes_s = limit_ms, bandwidth_bytes_s
    source.scan._chunk_pieces = 700  # several chunks of the log even in a small guest
    take = source.scan.take

    def taking(count: int) -> None:
        before = source.scan.bitmap.copy()
        take(count)
        memory.stale[before & ~source.scan.bitmap] = False

    with mock.patch.object(source.scan, "take", taking):
        for wake_s in source.run():
            yield source
            source.now_s = wake_s
        yield source


@st.composite
def random_guests(draw: st.DrawFn) -> SimulatedGuest:
    """Guests of 16 MiB that do whatever a guest may do."""
    pages = 4096

    def writes() -> Writes:
        start, size = draw(st.integers(0, pages - 1)), draw(st.integers(1, pages))
        size = min(size, pages - start)
        pattern = draw(st.sampled_from(list(Pattern)))
        growth = draw(st.floats(0, 10 * MIB)) if pattern is Pattern.RANDOM and draw(st.booleans()) else 0.0
        return Writes(
            pattern=pattern,
            start_bytes=start * 4096,
            size_bytes=size * 4096,
            rate_bytes_s=draw(st.floats(0, 400 * MIB)),
            growth_bytes_s=growth,
            growth_most_bytes=(pages - start) * 4096,
        )

    def stage(start_s: float) -> Stage:
        return Stage(
            start_s=start_s,
            writes=tuple(writes() for _ in range(draw(st.integers(0, 3)))),
            burst_period_s=draw(st.sampled_from([0.0, 0.05, 1.0])),
            burst_duty_percent=draw(st.floats(1, 100)),
        )

    content_start = draw(st.integers(0, pages))
    return SimulatedGuest(
        memory_bytes=pages * 4096,
        content_start_bytes=content_start * 4096,
        content_bytes=draw(st.integers(0, pages - content_start)) * 4096,
        stages=tuple(stage(start_s) for start_s in (0.0, 0.7)[: draw(st.integers(1, 2))]),
        accelerator=draw(st.sampled_from(list(Accelerator))),
        variation_ratio=draw(st.sampled_from([0.0, 0.4])),
    )


SLOW = LinkSetting(rate_bytes_s=60e6, noise_ratio=0.2, outages=(Outage(start_s=0.2, duration_s=0.1),))


@settings(max_examples=60, deadline=None)
@given(
    guest=random_guests(),
    version=st.sampled_from(VERSIONS),
    seed=st.integers(0, 1000),
    limit_ms=st.sampled_from([0, 1, 30, 300]),
    cap_bytes_s=st.sampled_from([0, 20_000_000]),
)
def test_no_page_is_ever_lost(guest, version, seed, limit_ms, cap_bytes_s):
    """What was written to since it was last sent is in the bitmap or in the log; at the end nothing was.

    And what was sent and is left adds up to all there was and all that syncs have found.
    """
    setting = Setting(guest=guest, qemu=version, link=SLOW)
    source = memory = None
    for source in watched_copy(setting, seed=seed, limit_ms=limit_ms, bandwidth_bytes_s=cap_bytes_s):
        memory, scan = source.memory, source.scan
        assert isinstance(memory, Watched)
        assert not (memory.stale & ~scan.bitmap & ~memory.log).any()
        assert scan.normal_count + scan.zero_count + scan.remaining_count == memory.page_count + scan.newly_dirty_count
        assert scan.remaining_count == int(scan.bitmap.sum())
        if source.now_s > 4:
            return
    assert source is not None
    assert isinstance(memory, Watched)
    assert source.scan.remaining_count == 0
    assert not memory.stale.any()


@settings(max_examples=40, deadline=None)
@given(
    guest=random_guests(),
    version=st.sampled_from(VERSIONS),
    seed=st.integers(0, 1000),
    limit_s=st.sampled_from([0.02, 0.3]),
    gated=st.booleans(),
    wish_s=st.one_of(st.none(), st.floats(0, 2)),
    cut_s=st.one_of(st.none(), st.floats(0, 2)),
)
def test_a_run_ends_and_replays(guest, version, seed, limit_s, gated, wish_s, cut_s):
    """Whatever the guest does and whoever cancels: it ends soon after its deadline, the same twice, and replays."""
    outages = () if cut_s is None else (Outage(start_s=cut_s, duration_s=float("inf")),)
    setting = Setting(guest=guest, qemu=version, link=LinkSetting(rate_bytes_s=60e6, outages=outages))
    plan = Plan(downtime_limit_s=limit_s, deadline_s=3.0, bandwidth_bytes_s=30e6, pause_before_switchover=gated)
    wishes = () if wish_s is None else (Wish(time_s=wish_s),)
    run = simulate(setting, plan, seed=seed, wishes=wishes, keep_trace=True)
    assert run == simulate(setting, plan, seed=seed, wishes=wishes, keep_trace=True)
    assert run.outcome in (Outcome.COMPLETED, Outcome.CANCELLED, Outcome.FAILED)
    assert run.total_s < 12
    assert (run.downtime_s is not None) == (run.outcome is Outcome.COMPLETED)
    assert replay(decode_trace(map(encode_record, run.records))).differences == ()


def test_another_seed_is_another_run():
    """Or a thousand of them would be one."""
    setting = Setting(guest=guest_of())
    runs = {simulate(setting, Plan(bandwidth_bytes_s=50e6), seed=seed).total_s for seed in range(5)}
    assert len(runs) == 5


def test_another_future_has_the_same_past():
    """All that was told up to the branch is the same; what comes is not, and differs by the branch's seed."""
    link = LinkSetting(rate_bytes_s=60e6, noise_ratio=0.2)
    setting = Setting(guest=msgspec.structs.replace(guest_of(), variation_ratio=0.3), link=link)
    plan = Plan(downtime_limit_s=0.005, deadline_s=4.0)
    branches = (None, *(Branch(time_s=1.5, seed=seed) for seed in range(3)))
    runs = [simulate(setting, plan, seed=5, branch=branch, keep_trace=True) for branch in branches]
    pasts = [
        [record for record in run.records if isinstance(record, InputRecord) and record.input.time_s < 1.4]
        for run in runs
    ]
    assert len(pasts[0]) > 10
    assert all(past == pasts[0] for past in pasts)
    assert len({run.sent_bytes for run in runs}) == len(runs)
    assert runs[1] == simulate(setting, plan, seed=5, branch=branches[1], keep_trace=True)


@pytest.mark.parametrize(("version", "excess_bytes"), [("7.2", 4104 + 18), ("10.0", 131328 + 36)])
def test_a_slot_keeps_to_its_quota(version, excess_bytes):
    """7.2 to the page, 10.0 to what its buffer holds; the rest of each slot the thread sleeps."""
    cap_bytes_s = 50_000_000
    found: set[float] = set()
    setting = Setting(guest=guest_of(dirty_rate_bytes_s=200), qemu=version)
    for source in watched_copy(setting, seed=1, limit_ms=1, bandwidth_bytes_s=cap_bytes_s):
        found.add(source.slot_bytes_s)
        if source.now_s > 1.5:
            assert 14 <= source.sent_bytes / (cap_bytes_s / 10) <= 17
            break
    assert max(found) <= cap_bytes_s + excess_bytes * 10
    assert sorted(found)[1] > cap_bytes_s * 0.98


def test_a_larger_limit_makes_more_and_shorter_rounds():
    """A round ends as soon as the rest is under the threshold."""
    guest = guest_of("random", memory=128, working_set_bytes=64, dirty_rate_bytes_s=2000)
    link = LinkSetting(rate_bytes_s=5e8)
    plan = Plan(downtime_limit_s=0.001, deadline_s=6.0, bandwidth_bytes_s=50e6)
    held = simulate(Setting(guest=guest, link=link), plan, Fixed(0.02, 50e6), seed=1, wishes=(Wish(time_s=6.0),))
    wide = simulate(Setting(guest=guest, link=link), plan, Fixed(1.2, 50e6), seed=1, wishes=(Wish(time_s=6.0),))
    assert wide.round_count > 3 * held.round_count


def test_the_bandwidth_told_beforehand_counts():
    """``avail-switchover-bandwidth`` takes the place of what the last slot has shown; below 1000 it truncates to 0."""
    guest = guest_of(dirty_rate_bytes_s=200)
    found = []
    for bandwidth_bytes_s in (0, 999, 1000, 10**12):
        setting = Setting(guest=guest)
        for source in watched_copy(setting, seed=1, limit_ms=2, bandwidth_bytes_s=50_000_000):
            source.avail_switchover_bandwidth_bytes_s = bandwidth_bytes_s
            if source.now_s > 0.5:
                break
        found.append(source.threshold_bytes)
    assert found[0] == pytest.approx(100_000, rel=0.05)
    assert found[1:3] == [0, 2]
    assert found[3] > 2**40 or source.stopped_s is not None


def test_the_log_forgets_late_under_kvm():
    """Of the second GiB only when its first page is sent; a page written before that is sent once, under TCG twice."""
    for accelerator, twice in ((Accelerator.KVM, False), (Accelerator.TCG, True)):
        guest = SimulatedGuest(
            memory_bytes=2048 * MIB, content_bytes=2048 * MIB, page_bytes=MIB, accelerator=accelerator
        )
        memory = GuestMemory(guest, np.random.default_rng(1))
        scan = RamScan(guest, memory)
        scan.sync(0.0)
        memory.log[1500] = True
        while scan.remaining_count:
            scan.take(min(100, scan.prepare(0.0)))
        assert bool(memory.log[1500]) is twice
        memory.log[1501] = True
        scan.sync(0.1)
        assert scan.remaining_count == 1 + twice


def test_kvm_forgets_only_what_was_read():
    """A page that is still to be sent and is written to after a sync is found by the next, known or not."""
    guest = SimulatedGuest(memory_bytes=16 * MIB, content_bytes=16 * MIB, accelerator=Accelerator.KVM)
    memory = GuestMemory(guest, np.random.default_rng(1))
    scan = RamScan(guest, memory)
    scan.sync(0.0)
    scan.prepare(0.0)
    scan.take(100)
    scan.sync(0.1)
    memory.log[500] = True
    scan.prepare(0.2)
    assert memory.log[500]


def test_a_buffer_is_flushed_at_32_pages():
    """So much goes out at once that a quota of one page lets 32 through; zero pages by the buffer of headers."""
    guest = SimulatedGuest(memory_bytes=64 * MIB, content_bytes=32 * MIB)
    scan = RamScan(guest, GuestMemory(guest, np.random.default_rng(1)))
    assert scan.count_over(1, flushed=False) == 1
    assert scan.count_over(1, flushed=True) == 32
    assert scan.count_over(32 * 4104, flushed=True) == 64
    assert scan.count_over(10 * MIB, flushed=True) % 32 == 0
    scan.take(8192)
    assert scan.count_over(1, flushed=True) == -(-32768 // 9)


def test_a_page_that_is_new_to_the_destination_takes_longer():
    """Once."""
    guest = SimulatedGuest(memory_bytes=16 * MIB, content_bytes=12 * MIB)
    memory = GuestMemory(guest, np.random.default_rng(1))
    scan = RamScan(guest, memory)
    assert scan.duration_s(4096, 1.0, 10.0, 0.1) == pytest.approx(3072 * 11 + 1024 * 0.1)
    scan.take(4096)
    scan.sync(0.0)
    assert scan.duration_s(4096, 1.0, 10.0, 0.1) == pytest.approx(3072 + 1024 * 0.1)


def test_no_reply_comes_while_the_source_holds_its_lock():
    """From STOP until the rest was sent it answers nothing; then everything that was asked."""
    setting = Setting(guest=guest_of(), link=LinkSetting(rate_bytes_s=20e6))
    plan = Plan(deadline_s=0.5, at_deadline=AtDeadline.PAUSE)
    run = simulate(setting, plan, seed=1, keep_trace=True)
    seen = [record.input for record in run.records if isinstance(record, InputRecord)]
    stop_s = next(one.time_s for one in seen if isinstance(one, SourceStopped))
    replies = [one for one in seen if isinstance(one, Observed | RunStateSeen) and one.time_s > stop_s]
    assert run.downtime_s is not None
    assert run.downtime_s > 1
    assert replies
    assert all(one.time_s > stop_s + run.downtime_s - 0.1 for one in replies)


def test_a_cut_link_is_noticed():
    """Before the switchover the watchdog cancels; within it the connection is cut and the guest runs on."""
    cut = LinkSetting(rate_bytes_s=100e6, outages=(Outage(start_s=0.4, duration_s=float("inf")),))
    run = simulate(Setting(guest=guest_of(), link=cut), Plan(), seed=1)
    assert run.outcome is Outcome.CANCELLED
    assert 5.3 < run.total_s < 5.8
    slow = LinkSetting(rate_bytes_s=20e6)
    plan = Plan(deadline_s=0.5, at_deadline=AtDeadline.PAUSE)
    whole = simulate(Setting(guest=guest_of(), link=slow), plan, seed=1)
    assert whole.outcome is Outcome.COMPLETED
    assert whole.downtime_s is not None
    dead_s = whole.total_s - whole.downtime_s / 2
    dead = msgspec.structs.replace(slow, outages=(Outage(start_s=dead_s, duration_s=float("inf")),))
    for version, last in (("10.0", ["STOP", "device", "failed"]), ("11.1", ["STOP", "device", "failing", "failed"])):
        setting = Setting(guest=guest_of(), link=dead, qemu=version)
        run = simulate(setting, plan, seed=1, keep_trace=True)
        assert run.outcome is Outcome.FAILED
        assert said(run)[-len(last) :] == last


def test_what_is_tuned_takes_effect():
    """A guest that can't converge arrives soon after its limit was raised: at the next slot."""
    guest = guest_of("random", memory=128, working_set_bytes=64, dirty_rate_bytes_s=2000)
    wish = Wish(time_s=3.0, change=PlanChange(downtime_limit_s=2.0))
    setting, plan = Setting(guest=guest), Plan(downtime_limit_s=0.02, bandwidth_bytes_s=50e6)
    run = simulate(setting, plan, seed=1, wishes=(wish,))
    assert run.outcome is Outcome.COMPLETED
    assert run.downtime_s is not None
    assert 3.0 < run.total_s - run.downtime_s < 3.25


class Deaf:
    """A rule that never does anything."""

    def step(self, _seen: Input) -> Decision:
        """Does nothing."""
        return Decision(phase=Phase.PRECOPY)


def test_who_does_not_heed_the_end_is_broken_off():
    """A rule that never cancels does not simulate for ever."""
    setting = Setting(
        guest=guest_of("sweep", dirty_rate_bytes_s=3000), link=LinkSetting(rate_bytes_s=20e6), bound_s=1.0
    )
    run = simulate(setting, Plan(), Deaf(), seed=1)
    assert run.outcome is Outcome.UNKNOWN
    assert run.total_s == 31.0


def test_one_that_never_ends_is_ended():
    """A guest that dirties more than fits, without a deadline."""
    setting = Setting(guest=guest_of("sweep", dirty_rate_bytes_s=3000), bound_s=4.0)
    plan = Plan(downtime_limit_s=0.02, bandwidth_bytes_s=20e6, keep_trying=True)
    run = simulate(setting, plan, seed=1)
    assert run.outcome is Outcome.CANCELLED
    assert 4.0 < run.total_s < 4.3


@pytest.mark.parametrize("pattern", list(Pattern))
def test_a_coarser_simulation_finds_the_same(pattern):
    """Pieces of 64 KiB: the same figures, roughly."""
    writes = Writes(pattern=pattern, size_bytes=64 * MIB, rate_bytes_s=20 * MIB)
    found = []
    for page_bytes in (4096, 65536):
        guest = SimulatedGuest(
            memory_bytes=256 * MIB, content_bytes=192 * MIB, stages=(Stage(writes=(writes,)),), page_bytes=page_bytes
        )
        found.append(simulate(Setting(guest=guest), Plan(bandwidth_bytes_s=50e6), seed=1))
    fine, coarse = found
    assert coarse.total_s == pytest.approx(fine.total_s, rel=0.05)
    assert coarse.sent_bytes == pytest.approx(fine.sent_bytes, rel=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Setting(guest=guest_of(), qemu="9.9"),
        lambda: Setting(guest=guest_of(), bound_s=0),
        lambda: Costs(stop_s=-1),
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    """With one line."""
    with pytest.raises(PlanError):
        wrong()
