"""One livemig at a time on a guest, whoever starts the second one and however it reaches that QEMU."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

import livemig
from livemig.core import event as events
from livemig.engine.lock import LOCK_ID, lock_holder
from livemig.qemu.monitor import Monitor
from tests.engine.pair import LOADED, MiB, Pair
from tests.faults.relay import QmpRelay

pytestmark = pytest.mark.qemu

SLOW = livemig.Plan(probation_s=0.1, bandwidth_bytes_s=30 * MiB)


async def holder_of(machine) -> str | None:
    """Whose lock is on a QEMU, by its other monitor."""
    async with await Monitor.connect(str(machine.spare_qmp_path), name="test") as monitor:
        return await lock_holder(monitor)


async def test_second_one_is_refused_with_the_id_of_the_first(either_pair: Pair) -> None:
    """By another monitor of the same QEMU; the first one goes on; afterwards there is no lock."""
    pair = either_pair
    await pair.start(msgspec.structs.replace(LOADED, dirty_rate_bytes_s=1 * MiB))
    refusals: list[livemig.RefusedError] = []
    seconds: list[asyncio.Task[None]] = []

    async def second() -> None:
        other = livemig.migrate(
            SLOW, source=str(pair.source.spare_qmp_path), destination=str(pair.folder / "nobody.qmp")
        )
        with pytest.raises(livemig.RefusedError) as caught:
            await other.__aenter__()
        refusals.append(caught.value)

    def begin(_migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.Progressed) and not seconds:
            seconds.append(asyncio.create_task(second()))

    report, _ = await pair.migrate(SLOW, on_event=begin)
    await asyncio.gather(*seconds)

    assert f"run {report.id} holds the source" in str(refusals[0])
    assert f"livemig cancel {report.id}" in str(refusals[0])
    assert report.outcome is livemig.Outcome.COMPLETED
    await pair.assert_runs_only("destination")
    assert await holder_of(pair.destination) is None


async def test_lock_that_arrives_late(pair: Pair) -> None:
    """The command for it was stuck on its way as the run gave up: the journal knows, and recovery takes it off."""
    await pair.start()
    path = pair.folder / "relay.qmp"
    relay = QmpRelay(path, pair.destination.qmp_path, lambda point: relay.hole() if point == ">object-add" else None)
    async with relay:
        migration = livemig.migrate(SLOW, source=str(pair.source.qmp_path), destination=str(path))
        with pytest.raises(livemig.LivemigError, match="no answer to object-add") as caught:
            await migration.__aenter__()
        assert any(f"livemig recover {migration.id}" in note for note in caught.value.__notes__)
        relay.cut()
        async with await Monitor.connect(str(pair.destination.spare_qmp_path), name="the way that is free") as monitor:
            late = {"qom-type": "authz-simple", "id": LOCK_ID, "identity": migration.id}
            await monitor.execute("object-add", late)
        relay.heal()

        (found,) = await livemig.recover(migration.id)

    assert (found.ending.outcome, found.ending.left) == ("refused", ())
    assert await holder_of(pair.destination) is None
    await pair.assert_runs_only("source")


async def test_lock_of_a_dead_livemig(pair: Pair) -> None:
    """It outlives who took it; the refusal says how to go on."""
    await pair.start()
    async with await Monitor.connect(str(pair.source.spare_qmp_path), name="test") as monitor:
        await monitor.execute("object-add", {"qom-type": "authz-simple", "id": LOCK_ID, "identity": "0badcafe"})
    with pytest.raises(livemig.RefusedError, match="livemig recover 0badcafe"):
        await pair.migrate()
    assert await holder_of(pair.source) == "0badcafe"
    await pair.assert_settings_restored("source", "destination")
    await pair.assert_runs_only("source")


async def test_gone_after_a_cancel_and_after_a_refusal(pair: Pair) -> None:
    """In every outcome."""
    await pair.start()

    def cancel(migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.Progressed):
            migration.cancel("stay")

    report, _ = await pair.migrate(SLOW, on_event=cancel)
    assert report.outcome is livemig.Outcome.CANCELLED
    assert await holder_of(pair.source) is None
    pair.destination = await pair.waiting(memory_bytes=96 * MiB)
    with pytest.raises(livemig.RefusedError, match="memory"):
        await pair.migrate()
    assert await holder_of(pair.source) is None
    assert await holder_of(pair.destination) is None
    await pair.assert_runs_only("source")


async def test_journal_costs_little_and_nothing_while_the_guest_stands_still(pair: Pair, monkeypatch) -> None:
    """Nothing is written between STOP and RESUME."""
    from livemig.engine.journal import Journal

    written: list[str] = []
    real = Journal.keep

    def keep(self: Journal, record) -> None:
        written.append("journal")
        real(self, record)

    monkeypatch.setattr(Journal, "keep", keep)
    await pair.start()

    def listen(_migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.SourceStopped | events.DestinationRunning):
            written.append(type(event).__name__)

    report, _ = await pair.migrate(on_event=listen)

    assert written.index("DestinationRunning") == written.index("SourceStopped") + 1
    assert written.count("journal") == 4, written
    assert 0 < report.journal_s < 1.0
