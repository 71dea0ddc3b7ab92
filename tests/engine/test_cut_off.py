"""A fault in livemig itself, or a caller that waits no longer, in the middle of a run: as good as a killed engine."""

from __future__ import annotations

from typing import Any

import pytest

import livemig
from livemig.engine import recovery
from livemig.engine.foresight import Foresight
from livemig.engine.handover import Handover
from livemig.engine.run_files import runs_folder
from tests.engine.pair import IDLE, QUICK, Pair

pytestmark = pytest.mark.qemu


class Fault(Exception):
    """What a bug of ours would raise."""


async def broken(*_: Any, **__: Any) -> None:
    """Stands in for a part of livemig that has a bug."""
    raise Fault


async def followed(migration: livemig.Migration) -> None:
    """Enters a migration and follows it to its end."""
    async with migration:
        async for _ in migration:
            pass


@pytest.mark.parametrize(
    ("owner", "part"), [(Handover, "before_continue"), (Foresight, "keep")], ids=["before cont", "after all"]
)
async def test_a_fault_after_the_switchover_costs_no_guest(
    either_pair: Pair, monkeypatch: pytest.MonkeyPatch, owner: type, part: str
) -> None:
    """A launched destination that has the guest is not ended; what was begun is left to recovery, which finishes it."""
    pair = either_pair
    await pair.start(IDLE)
    migration = livemig.migrate(QUICK, source=pair.source_address, destination=pair.destination_address)
    with monkeypatch.context() as patched:
        patched.setattr(owner, part, broken)
        with pytest.raises(Fault):
            await followed(migration)
    with pytest.raises(livemig.LivemigError, match=f"livemig recover {migration.id}"):
        _ = migration.report
    if pair.launching:
        await pair.attach()

    (found,) = await recovery.recover(migration.id)

    assert (found.was_settled, found.ending.outcome) == (False, "completed"), found
    await pair.assert_runs_only("destination")


async def test_a_cancel_before_the_beginning_is_obeyed(waiting_pair: Pair) -> None:
    """Nothing is touched."""
    pair = waiting_pair
    await pair.start(IDLE)
    migration = livemig.migrate(QUICK, source=pair.source_address, destination=pair.destination_address)
    migration.cancel("not today")
    with pytest.raises(livemig.RefusedError, match="not today"):
        await followed(migration)
    await pair.assert_settings_restored("source", "destination")
    await pair.assert_runs_only("source")


async def test_a_kill_at_the_very_end_leaves_no_file_for_good(waiting_pair: Pair) -> None:
    """The run's end was written down, its lock file was not removed any more: the next recovery does it."""
    pair = waiting_pair
    await pair.start(IDLE)
    report, _ = await pair.migrate()
    path = runs_folder() / f"{report.id}.lock"
    assert not path.exists()
    path.touch()

    assert await recovery.recover() == ()

    assert not path.exists()
