"""A running guest is sampled on real QEMU: what it dirties is measured right, and nothing else is touched."""

from __future__ import annotations

from math import expm1
from pathlib import Path
from statistics import median

import msgspec
import pytest

import livemig
from livemig.core.inputs import Prepared
from livemig.core.pace import pace_of
from livemig.core.trace import InputRecord, decode_trace
from livemig.engine.sampling import sample_guest
from livemig.hosts.page_map import touched_shares
from livemig.lab.workload import Pattern, Workload
from livemig.qemu.monitor import Monitor
from tests.engine.pair import QUICK, MiB, Pair, migration_settings

pytestmark = pytest.mark.qemu

SET, RATE = 32 * MiB, 40 * MiB


@pytest.mark.parametrize("pattern", [Pattern.SWEEP, Pattern.RANDOM])
async def test_what_is_measured_is_what_the_guest_dirties(pair: Pair, pattern: Pattern) -> None:
    """A sweep is a ramp, random writes are an exponential; the middle of all samples, for a machine may be busy."""
    await pair.start(Workload(pattern=pattern, working_set_bytes=SET, dirty_rate_bytes_s=RATE, fill_bytes=64 * MiB))
    before = await migration_settings(pair.source)
    async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
        found = await sample_guest(monitor, total_s=3.0, memory_bytes=128 * MiB)
    assert await migration_settings(pair.source) == before
    assert found.samples
    assert found.duration_s < 4.0
    shares = []
    for sample in found.samples:
        written_pages = RATE * sample.periods_s[0] / 4096
        most_pages = min(SET / 4096, written_pages)
        if pattern is Pattern.RANDOM:
            most_pages = -SET / 4096 * expm1(-written_pages * 4096 / SET)
        shares.append(sample.dirtied_pages / most_pages)
        assert sample.dirtied_pages <= most_pages * 1.2 + 4 * sample.deviation_pages
    assert 0.6 < median(shares) < 1.15  # a busy machine slows the guest, too
    assert (await pair.source.serial.ask_verdict()).good


async def test_bursts_at_even_intervals_are_told(pair: Pair) -> None:
    """By QEMU's samples alone: writes for half of each second."""
    await pair.start(
        Workload(working_set_bytes=64 * MiB, dirty_rate_bytes_s=100 * MiB, fill_bytes=64 * MiB, burst_period_s=1.0)
    )
    async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
        found = await sample_guest(monitor, total_s=6.0, memory_bytes=128 * MiB)
    pace = pace_of(found.samples, 0.0)
    assert pace is not None
    assert pace.regular
    assert pace.time_s == pytest.approx(1.0, rel=0.15)
    assert pace.since_trough_s is not None


@pytest.mark.parametrize("given", [False, True], ids=["sampled", "given"])
async def test_how_long_before_is_known_of_its_own_samples(pair: Pair, tmp_path: Path, given: bool) -> None:
    """Of those that somebody gives, nobody knows what the guest did since."""
    await pair.start()
    sampling = None
    if given:
        async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
            sampling = await sample_guest(monitor, total_s=0.5, memory_bytes=128 * MiB)
    plan = msgspec.structs.replace(QUICK, sample_s=0.5)
    source, destination, trace = pair.source_address, pair.destination_address, tmp_path / "trace"
    async with livemig.migrate(
        plan, source=source, destination=destination, sampling=sampling, trace_path=trace
    ) as migration:
        async for _ in migration:
            pass
    assert migration.report.outcome == "completed", migration.report.reason
    with trace.open("rb") as lines:
        told = [each.input for each in decode_trace(lines) if isinstance(each, InputRecord)]
    (known,) = [each.known for each in told if isinstance(each, Prepared)]
    assert known.samples
    if given:
        assert known.sampled_before_s is None
    else:
        assert known.sampled_before_s is not None
        assert 0.0 < known.sampled_before_s < 10.0


async def test_no_time_asks_nothing(pair: Pair) -> None:
    """With 0 s QEMU is not even asked whether it could."""
    await pair.start()
    async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
        found = await sample_guest(monitor, total_s=0.0, memory_bytes=128 * MiB)
        assert (await monitor.execute("query-dirty-rate"))["status"] == "unstarted"
    assert found.samples == ()


async def test_where_the_guest_has_touched_its_memory(pair: Pair) -> None:
    """The built-in guest fills the begin of its memory, and nothing behind it."""
    await pair.start()
    shares = touched_shares(pair.source.pid, 128 * MiB)
    assert all(share > 0.9 for share in shares[:15])
    assert sum(shares[20:]) < 1.0
