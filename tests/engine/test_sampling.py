"""A running guest is sampled on real QEMU: what it dirties is measured right, and nothing else is touched."""

from __future__ import annotations

from math import expm1
from statistics import median

import pytest

from livemig.engine.sampling import sample_guest
from livemig.hosts.page_map import touched_shares
from livemig.lab.workload import Pattern, Workload
from livemig.qemu.monitor import Monitor
from tests.engine.pair import MiB, Pair, migration_settings

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
