"""A simulated QEMU of each version says and counts what a real one was recorded to, and looks when that does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from livemig.core.inputs import Observed, Prepared, SourceStopped, StatusSeen
from livemig.core.outcome import Outcome
from livemig.core.plan import Plan
from livemig.core.trace import InputRecord, TraceHeader, TraceRecord, decode_trace
from livemig.simulation.guest_memory import GuestMemory
from livemig.simulation.link import Link, LinkSetting
from livemig.simulation.setting import Setting
from livemig.simulation.simulate import simulate
from livemig.simulation.source_qemu import Said, SourceQemu
from livemig.simulation.workloads import (
    BuiltinPhase,
    builtin_guest,
)
from tests.unit.simulated import MIB, TRACES, VERSIONS, Fixed, guest_of, said


def events(version: str, *, gated: bool = False, limit_ms: int = 100) -> list[str]:
    """What the source says by itself in a short migration, MIGRATION_PASS included."""
    setting = Setting(guest=guest_of(), qemu=version)
    heard: list[str] = []
    guest_seed, link_seed, source_seed = np.random.SeedSequence(1).spawn(3)
    source = SourceQemu(
        setting,
        memory=GuestMemory(setting.guest, np.random.default_rng(guest_seed)),
        link=Link(setting.link, np.random.default_rng(link_seed)),
        generator=np.random.default_rng(source_seed),
        say=lambda what, value: heard.append(what.name if what is not Said.STATUS else str(value)),
        horizon_s=lambda: float("inf"),
    )
    source.downtime_limit_ms, source.max_bandwidth_bytes_s = limit_ms, 100_000_000
    source.pause_before_switchover = gated
    for wake_s in source.run():
        if wake_s == float("inf"):
            source.continued = True
        else:
            source.now_s = wake_s
    return heard


@pytest.mark.parametrize(
    ("version", "gated", "first", "last"),
    [
        ("7.2", False, ["setup", "PASS", "active", "PASS"], ["STOP", "PASS", "completed"]),
        ("10.0", False, ["setup", "PASS", "active", "PASS"], ["STOP", "device", "PASS", "completed"]),
        ("11.1", False, ["setup", "active", "PASS"], ["PASS", "STOP", "device", "completed"]),
        ("7.2", True, ["setup", "PASS", "active"], ["STOP", "pre-switchover", "device", "PASS", "completed"]),
        ("10.0", True, ["setup", "PASS", "active"], ["STOP", "pre-switchover", "device", "PASS", "completed"]),
    ],
)
def test_events_come_in_the_order_of_each_version(version, gated, first, last):
    """As recorded from real ones: success and pause-before-switchover."""
    heard = events(version, gated=gated)
    heard = heard[: heard.index("DESTINATION_COMPLETED")]
    assert heard[: len(first)] == first
    assert heard[-len(last) :] == last


def test_the_newest_does_not_count_the_last_sync():
    """It shows 2 where the others show 3."""
    counts = [simulate(Setting(guest=guest_of(), qemu=one), Plan(), seed=1).sync_count for one in VERSIONS]
    assert counts[0] == counts[1] == counts[2] + 1


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_behaves_as_it_was_recorded(version):
    """Statuses and STOP in order, what is counted, which fields and parameters there are; about as many rounds."""
    with (TRACES / f"loaded-{version}.jsonl").open("rb") as lines:
        records = tuple(decode_trace(lines))
    header = records[0]
    assert isinstance(header, TraceHeader)
    phase = BuiltinPhase(working_set_bytes=16 * MIB, dirty_rate_bytes_s=40 * MIB)
    guest = builtin_guest(phase, memory_bytes=64 * MIB, fill_bytes=24 * MIB)
    run = simulate(Setting(guest=guest, qemu=version), header.plan, seed=1, keep_trace=True)
    real, simulated = (_told(some) for some in (records, run.records))
    assert simulated.words == real.words
    assert simulated.takes_switchover_bandwidth == real.takes_switchover_bandwidth
    assert simulated.last.keys() == real.last.keys()
    assert abs(simulated.last["dirty_sync_count"] - real.last["dirty_sync_count"]) <= 3
    assert simulated.last["total_bytes"] == pytest.approx(real.last["total_bytes"], rel=0.02)


class _Told(NamedTuple):
    words: list[str]
    last: dict[str, Any]
    takes_switchover_bandwidth: bool


def _told(records: Iterable[TraceRecord]) -> _Told:
    """What a trace holds of its source: its words in order, and its last reply before the switchover."""
    inputs = [record.input for record in records if isinstance(record, InputRecord)]
    words = [
        "STOP" if isinstance(one, SourceStopped) else one.status.value
        for one in inputs
        if isinstance(one, StatusSeen | SourceStopped)
    ]
    stop = next(at for at, one in enumerate(inputs) if isinstance(one, SourceStopped))
    last = next(one.observation for one in reversed(inputs[:stop]) if isinstance(one, Observed))
    prepared = next(one for one in inputs if isinstance(one, Prepared))
    fields = {name: value for name, value in msgspec.structs.asdict(last).items() if value is not None}
    return _Told(words, fields, prepared.takes_switchover_bandwidth)


@pytest.mark.parametrize("name", ["loaded", "gated", "deadline"])
def test_livemig_is_told_the_same_in_the_same_order(name):
    """As in the recorded traces of 10.0: statuses and STOP, and what QEMU's counters look like at the first reply."""
    with (TRACES / f"{name}.jsonl").open("rb") as lines:
        records = tuple(decode_trace(lines))
    real = [record.input for record in records if isinstance(record, InputRecord)]
    guest = guest_of("sweep", memory=128, working_set_bytes=96, dirty_rate_bytes_s=4000)
    if name != "deadline":
        guest = guest_of(memory=128, working_set_bytes=24, dirty_rate_bytes_s=40)
    header = records[0]
    assert isinstance(header, TraceHeader)
    run = simulate(Setting(guest=guest), header.plan, seed=1, keep_trace=True)
    words = [
        one.status.value if isinstance(one, StatusSeen) else "STOP"
        for one in real
        if isinstance(one, StatusSeen | SourceStopped)
    ]
    assert said(run) == words
    first_real = next(one.observation for one in real if isinstance(one, Observed))
    first = next(
        record.input.observation
        for record in run.records
        if isinstance(record, InputRecord) and isinstance(record.input, Observed)
    )
    given_real = {name for name in first_real.__struct_fields__ if getattr(first_real, name) is not None}
    assert given_real == {name for name in first.__struct_fields__ if getattr(first, name) is not None}


@pytest.mark.parametrize("version", ["7.2", "10.0"])
@pytest.mark.parametrize("limit_s", [0.3, 0.0])
def test_a_first_pass_within_the_first_slot_is_dangerous(version, limit_s):
    """7.2 and 10.0 know no threshold in the first 100 ms, nor with a limit of 0: no sync, all in the downtime."""
    fast = LinkSetting(rate_bytes_s=2e9)
    cap = None if limit_s else 100e6
    guest = guest_of(dirty_rate_bytes_s=400)
    run = simulate(Setting(guest=guest, qemu=version, link=fast), Plan(), Fixed(limit_s, cap), seed=1)
    assert run.outcome is Outcome.COMPLETED
    assert run.sync_count == 2
    assert run.stopped_sent_bytes > 5 * MIB


def test_the_newest_looks_first():
    """11.1 syncs where the older ones stop the guest."""
    setting = Setting(guest=guest_of(dirty_rate_bytes_s=400), qemu="11.1", link=LinkSetting(rate_bytes_s=2e9))
    run = simulate(setting, Plan(), Fixed(0.3), seed=1)
    assert run.sync_count > 1
    assert run.first_copy_s is not None
    assert run.first_copy_s < run.total_s - 0.03
