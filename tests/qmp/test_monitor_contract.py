"""What a `Monitor` does with a well-behaved QEMU: the same tests on the fake and on the real one."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from livemig.core.errors import CommandError, ConnectError, MonitorLost, MonitorTimeout
from livemig.core.status import MigrationStatus, RunState
from livemig.qemu.capabilities import MigrationSettings
from livemig.qemu.event_stream import EndKind
from livemig.qemu.introspection import Introspection, query_capabilities, query_parameters
from livemig.qemu.monitor import Monitor

from .conftest import until


@pytest.fixture
async def monitor(qemu_path: Path) -> AsyncIterator[Monitor]:
    async with await Monitor.connect(str(qemu_path), name="source", starting=True) as monitor:
        yield monitor


async def test_negotiates_out_of_band(monitor: Monitor) -> None:
    assert monitor.out_of_band
    assert monitor.version["qemu"]
    assert not monitor.closed


async def test_asks_for_the_state(monitor: Monitor) -> None:
    assert await monitor.query_status() is RunState.PRELAUNCH
    observation = await monitor.query_migrate()
    assert observation.status is MigrationStatus.NONE
    assert abs(observation.time_s - time.monotonic()) < 1.0


async def test_an_observation_counts_from_the_origin(monitor: Monitor) -> None:
    origin_s = time.monotonic()
    assert 0 <= (await monitor.query_migrate(origin_s=origin_s)).time_s < 1.0


async def test_an_unknown_command_is_told_apart(monitor: Monitor) -> None:
    with pytest.raises(CommandError) as caught:
        await monitor.execute("no-such-command")
    assert caught.value.not_found
    assert caught.value.command == "no-such-command"
    assert await monitor.query_status() is RunState.PRELAUNCH


async def test_a_refusal_keeps_qemus_words(monitor: Monitor) -> None:
    with pytest.raises(CommandError) as caught:
        await monitor.execute("migrate-set-parameters", {"downtime-limit": 2_000_001})
    assert not caught.value.not_found
    assert "2000" in caught.value.description


async def test_commands_at_the_same_time_get_their_own_answers(monitor: Monitor) -> None:
    async with asyncio.TaskGroup() as group:
        states = [group.create_task(monitor.query_status()) for _ in range(20)]
        migrations = [group.create_task(monitor.query_migrate()) for _ in range(20)]
    assert {task.result() for task in states} == {RunState.PRELAUNCH}
    assert {task.result().status for task in migrations} == {MigrationStatus.NONE}
    assert monitor.unanswered_count == 0


async def test_out_of_band_commands(monitor: Monitor) -> None:
    with pytest.raises(CommandError):
        await monitor.execute_out_of_band("no-such-command")
    with pytest.raises(CommandError, match="not found") as caught:
        await monitor.execute_out_of_band("yank", {"instances": [{"type": "migration"}]})
    assert caught.value.error_class == "DeviceNotFound"
    assert await monitor.execute_out_of_band("yank", {"instances": []}) == {}


async def test_events_come_in_order_and_soon(monitor: Monitor) -> None:
    with monitor.subscribe("STOP", "RESUME") as events:
        for _ in range(5):
            await monitor.execute("cont")
            await monitor.execute("stop")
        names = [(await events.wait_for(timeout_s=1.0)).name for _ in range(10)]
        assert names == ["RESUME", "STOP"] * 5
        assert events.take() is None
        assert await events.next(0.02) is None


async def test_every_stream_gets_every_event(monitor: Monitor) -> None:
    with monitor.subscribe() as every, monitor.subscribe("STOP") as stops:
        await monitor.execute("cont")
        await monitor.execute("stop")
        assert (await stops.wait_for("STOP", timeout_s=1.0)).name == "STOP"
        assert [(await every.wait_for(timeout_s=1.0)).name for _ in range(2)] == ["RESUME", "STOP"]
    await monitor.execute("cont")
    assert every.take() is None


async def test_waiting_for_an_event_is_bounded_and_loses_none(monitor: Monitor) -> None:
    with monitor.subscribe("RESUME") as events:
        with pytest.raises(MonitorTimeout):
            await events.wait_for("RESUME", timeout_s=0.02)
        waiting = asyncio.create_task(events.wait_for("RESUME", timeout_s=None))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await monitor.execute("cont")
        event = await events.wait_for("RESUME", timeout_s=1.0, where=lambda event: event.data == {})
    assert abs(event.timestamp_s - time.time()) < 5


async def test_the_clocks_are_brought_together(monitor: Monitor) -> None:
    true_offset_s = time.monotonic() - time.time()
    assert monitor.clock_offset_s is None
    with monitor.subscribe("STOP", "RESUME") as events:
        for _ in range(10):
            await monitor.execute("cont")
            await monitor.execute("stop")
        event = await events.wait_for("STOP", timeout_s=1.0)
    assert monitor.clock_offset_s == pytest.approx(true_offset_s, abs=0.005)
    assert 0 < (monitor.clock.uncertainty_s or 0) < 0.01
    assert monitor.clock.to_monotonic_s(event.timestamp_s) == pytest.approx(event.arrival_s, abs=0.05)


async def test_a_second_client_learns_that_the_monitor_is_held(monitor: Monitor, qemu_path: Path) -> None:
    started_s = time.monotonic()
    with pytest.raises(ConnectError, match="another client holds this monitor") as caught:
        await Monitor.connect(str(qemu_path), silence_s=0.3)
    assert time.monotonic() - started_s < 1.0
    assert caught.value.address == str(qemu_path)
    assert await monitor.query_status() is RunState.PRELAUNCH


async def test_after_closing_another_client_gets_in(monitor: Monitor, qemu_path: Path) -> None:
    await monitor.close()
    await monitor.close()
    assert monitor.closed
    assert monitor.end is not None
    assert monitor.end.kind is EndKind.CLOSED
    assert not monitor.end.orderly
    with pytest.raises(MonitorLost):
        await monitor.query_status()
    async with await Monitor.connect(str(qemu_path)) as again:
        assert await again.query_status() is RunState.PRELAUNCH


async def test_quit_is_an_orderly_end_after_the_last_event(monitor: Monitor) -> None:
    with monitor.subscribe() as events:
        assert await monitor.execute("quit") == {}
        seen = [event.name async for event in events]
        assert seen[-1] == "SHUTDOWN"
        assert events.end is not None
        assert events.end.orderly
        with pytest.raises(MonitorLost) as caught:
            await events.wait_for("RESUME", timeout_s=1.0)
        assert caught.value.orderly
    assert (await monitor.wait_closed()).kind is EndKind.END_OF_FILE
    with pytest.raises(MonitorLost) as caught:
        await monitor.execute("query-status")
    assert caught.value.orderly
    assert caught.value.command == "query-status"
    with monitor.subscribe() as late:
        assert [event async for event in late] == []


async def test_what_it_can_do_is_asked_of_itself(monitor: Monitor) -> None:
    introspection = Introspection(monitor, binary="a")
    assert await introspection.has_capability("return-path")
    assert not await introspection.has_capability("no-such")
    assert await introspection.has_parameter("downtime-limit")
    assert not await introspection.has_parameter("no-such")
    assert await introspection.has_command("migrate-incoming")
    assert await introspection.has_command("migrate_cancel")
    assert not await introspection.has_command("no-such")
    assert await introspection.has_argument("migrate-incoming", "exit-on-error")
    assert not await introspection.has_argument("migrate-incoming", "no-such")
    assert not await introspection.has_argument("no-such", "uri")


async def test_what_was_changed_is_put_back_and_nothing_else(monitor: Monitor) -> None:
    await monitor.execute("migrate-set-parameters", {"max-bandwidth": 5_000_000})
    before = await query_capabilities(monitor), await query_parameters(monitor)
    settings = MigrationSettings(monitor)
    await settings.set_capabilities({"events": True, "return-path": True, "multifd": False})
    await settings.set_downtime_limit(0.05)
    await settings.set_downtime_limit(0.0017)
    await settings.set_bandwidth(None)
    await settings.set_switchover_bandwidth(1e9)
    await settings.set_parameters({"tls-creds": "nobody", "announce-rounds": 5})
    await settings.add_object("authz-simple", "lock", {"identity": "me"})
    parameters = await query_parameters(monitor)
    assert parameters["downtime-limit"] == 1
    assert parameters["max-bandwidth"] == 0
    assert parameters["avail-switchover-bandwidth"] == 10**9
    assert settings.changes.capabilities == {"events": False, "return-path": False}
    assert settings.changes.parameters == {
        "downtime-limit": 300,
        "max-bandwidth": 5_000_000,
        "avail-switchover-bandwidth": 0,
        "tls-creds": "",
    }
    await monitor.execute("migrate-set-parameters", {"cpu-throttle-initial": 33})  # somebody else's
    before[1]["cpu-throttle-initial"] = 33

    assert await settings.restore() == ()

    assert (await query_capabilities(monitor), await query_parameters(monitor)) == before
    assert not settings.changes
    await settings.add_object("authz-simple", "lock", {"identity": "me"})
    assert await settings.restore() == ()


async def test_another_process_can_put_it_back(monitor: Monitor) -> None:
    settings = MigrationSettings(monitor)
    await settings.set_capabilities({"events": True})
    await settings.set_downtime_limit(0.05)
    heir = MigrationSettings(monitor, settings.changes)
    assert await heir.restore() == ()
    assert (await query_parameters(monitor))["downtime-limit"] == 300
    assert not (await query_capabilities(monitor))["events"]


async def test_a_refused_change_is_not_put_back(monitor: Monitor) -> None:
    settings = MigrationSettings(monitor)
    with pytest.raises(CommandError):
        await settings.set_parameters({"downtime-limit": 2_000_001})
    with pytest.raises(CommandError):
        await settings.set_parameters({"no-such": 1})
    with pytest.raises(CommandError):
        await settings.set_capabilities({"no-such": True})
    await settings.add_object("authz-simple", "lock", {"identity": "me"})
    rival = MigrationSettings(monitor)
    with pytest.raises(CommandError):
        await rival.add_object("authz-simple", "lock", {"identity": "you"})
    assert not rival.changes
    assert settings.changes.object_ids == ["lock"]
    await monitor.execute("object-del", {"id": "lock"})
    assert await settings.restore() == ()  # gone already is as good


async def test_an_object_that_can_not_be_deleted_is_named(monitor: Monitor) -> None:
    settings = MigrationSettings(monitor)
    settings.changes.parameters.update({"no-such": 1, "downtime-limit": 200})
    settings.changes.capabilities["no-such"] = False
    failures = await settings.restore()
    assert len(failures) == 2
    assert "no-such" in failures[0]
    assert settings.changes.parameters == {"no-such": 1}
    assert (await query_parameters(monitor))["downtime-limit"] == 200


async def test_a_cancelled_command_leaves_the_connection_usable(monitor: Monitor) -> None:
    for _ in range(10):
        task = asyncio.create_task(monitor.execute("query-qmp-schema"))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await monitor.query_status() is RunState.PRELAUNCH
    await until(lambda: monitor.unanswered_count == 0)
