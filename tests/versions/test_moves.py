"""Every QEMU version moves a guest to every other, and takes it back: whole, beating, its settings as before."""

from __future__ import annotations

import asyncio

import pytest

import livemig
from livemig.core import event as events
from livemig.core.errors import GuestError, RefusedError
from livemig.lab.serial_lines import Beat
from livemig.qemu.monitor import Monitor
from tests.engine.pair import IDLE, MiB
from tests.versions.binaries import EVERY_CASE, EVERY_PAIR, VERSIONS, Version, keeps_sleep, loses_writes
from tests.versions.table import Table, noted, one_line
from tests.versions.version_pair import VersionPair

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

ROUND_TRIPS = 3


@pytest.mark.parametrize(("source", "destination", "accelerator"), EVERY_CASE, ids=str)
async def test_there_and_back(
    pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str
) -> None:
    """A lightly loaded guest of a machine type that all know, moved by the library and taken back, three times."""
    await pair.start_on(source, destination, accelerator)
    try:
        for _ in range(ROUND_TRIPS):
            await move(pair, table, source, destination, accelerator)
            await pair.swap_on(source)
            await move(pair, table, destination, source, accelerator)
            await pair.swap_on(destination)
    except GuestError as error:
        if not loses_writes(source, accelerator) and not loses_writes(destination, accelerator):
            raise
        pytest.xfail(f"QEMU 7.2 under TCG lost writes, and the guest died of it: {error}")


@pytest.mark.parametrize(("source", "destination", "accelerator"), EVERY_CASE, ids=str)
async def test_newest_machine_type_by_command_line(
    pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str
) -> None:
    """The newest q35 that both know, by ``livemig run``: exit code 0 and what its last line says."""
    older = min(source, destination, key=lambda version: version.age)
    lossy = loses_writes(source, accelerator)
    await pair.start_on(source, destination, accelerator, machine_type=f"pc-q35-{older}")
    row = table.moves_of(source.name, destination.name, accelerator)
    try:
        code, lines, errors = await pair.run("--probation", "0.1s")

        ended = lines[-1]
        assert (code, ended["outcome"], ended["running_on"]) == (0, "completed", "destination"), (ended, errors)
        assert ended["guest_state"] == "running"
        assert 0 < ended["downtime_s"] < 0.3
        row.downtimes_s.append(ended["downtime_s"])
        row.lossy += await pair.assert_whole("destination", lossy=lossy) > 0
        await pair.assert_settings_restored("destination")
    except AssertionError as error:
        row.problem = row.problem or one_line(error)
        raise


@pytest.mark.parametrize("destination", VERSIONS, ids=str)
@pytest.mark.parametrize("source", [version for version in VERSIONS if loses_writes(version, "tcg")], ids=str)
async def test_idle_guest_is_whole_where_writes_are_lost(
    pair: VersionPair, source: Version, destination: Version
) -> None:
    """What writes next to nothing loses nothing: QEMU 7.2 under TCG, five moves of an idle guest."""
    await pair.start_on(source, destination, "tcg", workload=IDLE)
    for _ in range(5):
        report, _ = await pair.migrate()
        assert report.outcome is livemig.Outcome.COMPLETED, report.reason
        await pair.assert_whole("destination")
        await pair.stop()
        await pair.start_on(source, destination, "tcg", workload=IDLE)


@pytest.mark.parametrize(("source", "destination"), EVERY_PAIR, ids=str)
async def test_sleeping_guest_arrives_asleep_or_is_refused(
    pair: VersionPair, table: Table, source: Version, destination: Version
) -> None:
    """It sleeps on and wakes at the destination; where QEMU would lose it (before 9.0) it wakes where it was."""
    await pair.start_on(source, destination, "tcg")
    pair.source.serial.send(b"s")
    await wait_until_asleep(pair)
    kept = keeps_sleep(source) and keeps_sleep(destination)
    with noted(table, "asleep", source, destination, "tcg") as case:
        if kept:
            report, _ = await pair.migrate()
            assert (report.outcome, report.guest_state) == (livemig.Outcome.COMPLETED, "suspended"), report.reason
            assert report.warnings == ()
        else:
            with pytest.raises(RefusedError, match="the guest sleeps"):
                await pair.migrate()
            await pair.assert_settings_restored("source", "destination")
        side, machine = ("destination", pair.destination) if kept else ("source", pair.source)
        assert (await pair.run_states())[side] == "suspended"
        async with await Monitor.connect(str(machine.spare_qmp_path)) as monitor:
            await monitor.execute("system_wakeup")
        await machine.serial.next(Beat, timeout_s=10)
        await pair.assert_whole(side)
        case.endings.append("asleep" if kept else "refused")


@pytest.mark.parametrize(("source", "destination"), EVERY_PAIR, ids=str)
async def test_guest_that_falls_asleep_on_the_way(pair: VersionPair, source: Version, destination: Version) -> None:
    """Too late to refuse it: what these QEMUs do to it is a warning, and the way out works."""
    await pair.start_on(source, destination, "tcg")
    asleep: list[events.Event] = []

    def sleep(_migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.Progressed) and not asleep:
            asleep.append(event)
            pair.source.serial.send(b"s")

    report, _ = await pair.migrate(livemig.Plan(probation_s=0.1, bandwidth_bytes_s=5 * MiB), on_event=sleep)

    assert report.outcome is livemig.Outcome.COMPLETED, report.reason
    woken = any("QEMU woke it" in text for text in report.warnings)
    stuck = any("once it is woken it stands still" in text for text in report.warnings)
    assert woken is not keeps_sleep(source)
    assert stuck is (keeps_sleep(source) and not keeps_sleep(destination))
    assert report.guest_state == ("running" if woken else "suspended")
    if woken:
        return  # it may be dead: nothing livemig can do
    async with await Monitor.connect(str(pair.destination.spare_qmp_path)) as monitor:
        for command in ("system_wakeup", "stop", "cont") if stuck else ("system_wakeup",):
            await monitor.execute(command)
    await pair.destination.serial.next(Beat, timeout_s=10)
    await pair.assert_whole("destination")


@pytest.mark.parametrize(("source", "destination"), EVERY_PAIR, ids=str)
async def test_paused_guest_arrives_paused(pair: VersionPair, source: Version, destination: Version) -> None:
    """A guest that its owner paused stays so, and goes on at the destination when told to."""
    await pair.start_on(source, destination, "tcg")
    async with await Monitor.connect(str(pair.source.spare_qmp_path)) as monitor:
        await monitor.execute("stop")

    report, _ = await pair.migrate()

    assert (report.outcome, report.guest_state) == (livemig.Outcome.COMPLETED, "paused")
    assert await pair.run_states() == {"source": "gone", "destination": "paused"}
    async with await Monitor.connect(str(pair.destination.spare_qmp_path)) as monitor:
        await monitor.execute("cont")
    await pair.assert_whole("destination")


async def wait_until_asleep(pair: VersionPair) -> None:
    """Waits until the source's guest sleeps."""
    async with await Monitor.connect(str(pair.source.spare_qmp_path)) as monitor, asyncio.timeout(10):
        while str(await monitor.query_status()) != "suspended":
            await asyncio.sleep(0.02)


async def move(pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str) -> None:
    """Moves the guest once and sees that all is well; enters it in the table."""
    row = table.moves_of(source.name, destination.name, accelerator)
    try:
        report, seen = await pair.migrate()
        assert (report.outcome, report.running_on) == (livemig.Outcome.COMPLETED, livemig.RunningOn.DESTINATION), report
        assert report.guest_state == "running"
        risky = accelerator == "tcg" and source.name == "7.2"  # it loses guest writes, and livemig says so
        assert [text for text in report.warnings if "may crash" in text] == list(report.warnings), report.warnings
        assert bool(report.warnings) is risky, report.warnings
        assert report.downtime is not None, seen
        assert 0 < report.downtime.total_s < report.plan.downtime_limit_s
        assert report.qemu_total_s
        assert report.qemu_downtime_s is not None
        assert report.sent_bytes > 0
        row.downtimes_s.append(report.downtime.total_s)
        row.lossy += await pair.assert_whole("destination", lossy=loses_writes(source, accelerator)) > 0
        await pair.assert_settings_restored("destination")
        assert (await pair.run_states())["source"] == "gone"
    except AssertionError as error:
        row.problem = row.problem or one_line(error)
        raise
    except GuestError:
        row.lossy += loses_writes(source, accelerator)
        raise
