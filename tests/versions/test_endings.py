"""Cancelled, timed out, its destination killed, under load: on each version the guest runs on one side, whole."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

import livemig
from livemig.core import event as events
from livemig.core.errors import GuestError
from livemig.lab.workload import Pattern, Workload
from tests.engine.pair import QUICK, MiB
from tests.versions.binaries import EVERY_ACCELERATOR, VERSIONS, Version, loses_writes
from tests.versions.table import Table, noted
from tests.versions.version_pair import LIGHT, VersionPair

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(240)]

SLOW = livemig.Plan(probation_s=0.1, bandwidth_bytes_s=8 * MiB)
"""Slow enough that the first copy of 16 MiB takes two seconds."""
GATED = livemig.Plan(probation_s=0.1, pause_before_switchover=True)
"""The guest stands still until livemig has answered: else, on a loaded machine, all is over before it is heard of."""
BUSY = Workload(working_set_bytes=12 * MiB, dirty_rate_bytes_s=400 * MiB)
"""Leaves enough for the switchover that something can happen in it."""
LOAD = Workload(pattern=Pattern.RANDOM, working_set_bytes=24 * MiB, dirty_rate_bytes_s=200 * MiB, fill_bytes=40 * MiB)
"""Random writes through many rounds: the load under which QEMU 7.2 with TCG loses some of them."""
LOAD_PLAN = livemig.Plan(
    probation_s=0.0,
    bandwidth_bytes_s=60 * MiB,
    downtime_limit_s=0.1,
    deadline_s=1.5,
    at_deadline=livemig.AtDeadline.PAUSE,
)

EVERY_SOURCE = [
    (source, destination, accelerator)
    for source, destination in zip(VERSIONS, (*VERSIONS[1:], *VERSIONS[:1]), strict=True)
    for accelerator in EVERY_ACCELERATOR
]
"""Each version once as the source, and once as the destination."""


@pytest.mark.parametrize(("source", "destination", "accelerator"), EVERY_SOURCE, ids=str)
async def test_cancel_while_active(
    pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str
) -> None:
    """A cancel in the first copy: the guest stays, the destination is gone."""
    await pair.start_on(source, destination, accelerator)

    def cancel(migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.Progressed) and event.time_s > 0.3:
            migration.cancel("stay")

    with noted(table, "cancel in the first copy", source, destination, accelerator) as case:
        report, _ = await pair.migrate(SLOW, on_event=cancel)
        expected = (livemig.Outcome.CANCELLED, livemig.RunningOn.SOURCE)
        assert (report.outcome, report.running_on) == expected, report.reason
        await assert_stays(pair, lossy=False)
        case.endings.append("source")


@pytest.mark.parametrize(("source", "destination", "accelerator"), EVERY_SOURCE, ids=str)
async def test_deadline_by_command_line(
    pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str
) -> None:
    """``--deadline`` cancels with exit code 3; a second try with time enough arrives."""
    await pair.start_on(source, destination, accelerator)
    with noted(table, "deadline, then a second try", source, destination, accelerator) as case:
        code, lines, errors = await pair.run("--bandwidth", "8MiB/s", "--deadline", "0.5s")
        assert (code, lines[-1]["outcome"], lines[-1]["running_on"]) == (3, "cancelled", "source"), (lines, errors)
        await assert_stays(pair, lossy=False)
        case.endings.append("source")

        await pair.wait_on(destination)
        code, lines, errors = await pair.run("--probation", "0.1s")
        assert (code, lines[-1]["outcome"]) == (0, "completed"), (lines, errors)
        await pair.assert_whole("destination", lossy=loses_writes(source, accelerator))
        await pair.assert_settings_restored("destination")
        case.endings.append("destination")


@pytest.mark.parametrize(("source", "destination", "accelerator"), EVERY_SOURCE, ids=str)
async def test_destination_killed_while_active(
    pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str
) -> None:
    """SIGKILL of the destination in the first copy, by ``livemig run``: exit code 1, the guest never noticed."""
    await pair.start_on(source, destination, accelerator)
    with noted(table, "destination killed in the first copy", source, destination, accelerator) as case:
        process = await pair.spawn_run("--bandwidth", "8MiB/s")
        assert process.stdout is not None
        lines = []
        async for line in process.stdout:
            lines.append(line)
            if b'"prepared"' in line:
                asyncio.get_running_loop().call_later(0.5, os.kill, pair.destination.pid, signal.SIGKILL)
        assert await process.wait() == 1, lines[-1]
        await assert_stays(pair, lossy=False)
        case.endings.append("source")


@pytest.mark.parametrize(("source", "destination", "accelerator"), EVERY_SOURCE, ids=str)
async def test_destination_killed_in_the_switchover(
    pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str
) -> None:
    """SIGKILL of the destination while the guest stands still: it runs on at the source, its settings as before."""
    await pair.start_on(source, destination, accelerator, workload=BUSY)

    def kill(_migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.SourceStopped):
            os.kill(pair.destination.pid, signal.SIGKILL)

    with noted(table, "destination killed in the switchover", source, destination, accelerator) as case:
        report, _ = await pair.migrate(GATED, on_event=kill)
        expected = (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE)
        assert (report.outcome, report.running_on) == expected, report.reason
        await assert_stays(pair, lossy=loses_writes(source, accelerator))
        case.endings.append("source")


@pytest.mark.parametrize(("source", "destination", "accelerator"), EVERY_SOURCE, ids=str)
async def test_cancel_around_the_switchover(
    pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str
) -> None:
    """Twelve cancels at moments before and after STOP: each time one side alone runs the guest."""
    chance = random.Random(20261123)
    lossy = loses_writes(source, accelerator)
    with noted(table, "cancel around STOP", source, destination, accelerator) as case:
        for _ in range(12):
            delay_s = chance.choice([0.0, chance.uniform(0, 0.02), chance.uniform(0.1, 0.3)])
            await pair.start_on(source, destination, accelerator, workload=LIGHT)

            def cancel(migration: livemig.Migration, event: events.Event, delay_s: float = delay_s) -> None:
                wanted = events.SourceStopped if delay_s < 0.05 else events.Prepared
                if isinstance(event, wanted):
                    asyncio.get_running_loop().call_later(delay_s, migration.cancel, "stay")

            report, _ = await pair.migrate(QUICK, on_event=cancel)
            if report.outcome is livemig.Outcome.COMPLETED:
                await pair.assert_whole("destination", lossy=lossy)
                case.endings.append("destination")
            else:
                assert report.outcome is livemig.Outcome.CANCELLED, report.reason
                await assert_stays(pair, lossy=False)
                case.endings.append("source")
            await pair.stop()


@pytest.mark.parametrize(("source", "destination", "accelerator"), EVERY_SOURCE, ids=str)
async def test_under_load(
    pair: VersionPair, table: Table, source: Version, destination: Version, accelerator: str
) -> None:
    """Three moves of a guest that writes at random, in many rounds: it loses nothing, unless QEMU itself loses it."""
    lossy = loses_writes(source, accelerator)
    with noted(table, "200 MiB/s of random writes", source, destination, accelerator) as case:
        for _ in range(3):
            await pair.start_on(source, destination, accelerator, workload=LOAD)
            report, _ = await pair.migrate(LOAD_PLAN)
            assert report.outcome is livemig.Outcome.COMPLETED, report.reason
            try:
                found = await pair.assert_whole("destination", lossy=lossy)
            except GuestError:
                assert lossy
                found = 1
            case.endings.append("lost writes" if found else "whole")
            await pair.stop()


async def assert_stays(pair: VersionPair, *, lossy: bool) -> None:
    """The guest runs at the source, whole, its settings as before; the destination is gone."""
    await pair.assert_whole("source", lossy=lossy)
    await pair.assert_settings_restored("source")
    assert (await pair.run_states())["destination"] == "gone"
