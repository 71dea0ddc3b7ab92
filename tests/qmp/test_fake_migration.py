"""The fake's own migration, as the engine sees it."""

from pathlib import Path

import pytest

from livemig.core.errors import (
    CommandError,
)
from livemig.core.status import MigrationStatus, RunState
from livemig.qemu.monitor import Monitor

from .conftest import until
from .fake_migration import FakeGuest
from .fake_qemu import FakeQemu

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}}, "capabilities": []}}\r\n'


async def test_a_fake_migration_from_start_to_end(tmp_path: Path) -> None:
    """The fake's own lifecycle, as the engine sees it."""
    uri = f"unix:{tmp_path / 'm'}"
    async with (
        FakeQemu(tmp_path / "s") as source,
        FakeQemu(tmp_path / "d", incoming=True, paused=True) as destination,
        await Monitor.connect(source.path) as out,
        await Monitor.connect(destination.path) as into,
    ):
        for monitor in (out, into):
            await monitor.execute(
                "migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]}
            )
        with out.subscribe() as events:
            await into.execute("migrate-incoming", {"uri": uri, "exit-on-error": False})
            await out.execute("migrate", {"uri": uri})
            await events.wait_for("MIGRATION_PASS", timeout_s=1.0, where=lambda event: event.data["pass"] == 2)
            await events.wait_for("STOP", timeout_s=5.0)
            await events.wait_for("MIGRATION", timeout_s=1.0, where=lambda event: event.data["status"] == "completed")
        observation = await out.query_migrate()
        assert observation.status is MigrationStatus.COMPLETED
        assert observation.remaining_bytes == 0
        assert observation.downtime_s
        assert await out.query_status() is RunState.POSTMIGRATE
        assert await into.query_status() is RunState.PAUSED
        assert (await into.query_migrate()).status is MigrationStatus.COMPLETED
        await into.execute("cont")
        assert await into.query_status() is RunState.RUNNING


async def test_a_fake_migration_cancelled_and_one_refused(tmp_path: Path) -> None:
    uri = f"unix:{tmp_path / 'm'}"
    guest = FakeGuest(link_bytes_s=1e6)
    async with FakeQemu(tmp_path / "s", guest=guest) as source, await Monitor.connect(source.path) as out:
        await out.execute("migrate", {"uri": uri})
        await until(lambda: source.migration.status == "failed")
        assert "refused" in ((await out.query_migrate()).error_text or "")
        async with (
            FakeQemu(tmp_path / "d", incoming=True, paused=True) as destination,
            await Monitor.connect(destination.path) as into,
        ):
            await into.execute("migrate-incoming", {"uri": uri, "exit-on-error": False})
            await out.execute("migrate", {"uri": uri})
            await until(lambda: source.migration.status == "active")
            with pytest.raises(CommandError, match="in progress"):
                await out.execute("migrate", {"uri": uri})
            await out.execute("migrate_cancel")
            assert (await out.query_migrate()).status is MigrationStatus.CANCELLED
            assert (await into.query_migrate()).status is MigrationStatus.FAILED
            assert await out.query_status() is RunState.RUNNING
