"""Replies and events of one monitor may be taken out of order; neither ends a migration that goes well."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import livemig
from livemig.core import inputs
from livemig.core.observation import Observation
from livemig.core.phases import Phase
from livemig.core.status import MigrationStatus, RunState
from livemig.engine.live import LiveMigration
from livemig.engine.side import Side
from livemig.engine.watch import SideEvent, Watch
from livemig.qemu.event_stream import MonitorEvent


def migration() -> LiveMigration:
    """A migration that was prepared, without a QEMU: only the order of what it is told matters here."""
    source = cast("Side", SimpleNamespace(name="source", facts=SimpleNamespace(run_state=RunState.RUNNING)))
    live = LiveMigration(livemig.Plan(), source, Watch(source, source), tell=lambda _event: None, recorder=None)
    live.started_s = 0.0
    return live


def told(live: LiveMigration, status: MigrationStatus, at_s: float) -> None:
    """An event of the source, as the watch remembers and the loop takes it."""
    event = MonitorEvent(name="MIGRATION", data={"status": str(status)}, timestamp_s=at_s, arrival_s=at_s)
    item: Any = SideEvent("source", event)
    live.watch._remember(item)
    live._take_event(item)


def replied(live: LiveMigration, status: MigrationStatus, at_s: float) -> None:
    """A reply to a poll."""
    live._take_input(inputs.Observed(time_s=at_s, observation=Observation(time_s=at_s, status=status)))


def test_reply_taken_after_the_event_that_overtook_it() -> None:
    """A polled `device` after the event `completed`: the migration is completed, nothing is settled."""
    live = migration()
    told(live, MigrationStatus.ACTIVE, 0.1)
    told(live, MigrationStatus.COMPLETED, 0.5)
    replied(live, MigrationStatus.DEVICE, 0.49)
    assert (live.phase, live._settle) == (Phase.COMPLETED, False)


def test_event_taken_after_the_reply_that_overtook_it() -> None:
    """The event `setup` after a polled `active`: the copy goes on."""
    live = migration()
    replied(live, MigrationStatus.ACTIVE, 0.2)
    told(live, MigrationStatus.SETUP, 0.1)
    assert (live.phase, live._settle) == (Phase.PRECOPY, False)


def test_impossible_status_in_order_is_settled() -> None:
    """What really can't follow is not passed over."""
    live = migration()
    replied(live, MigrationStatus.ACTIVE, 0.2)
    told(live, MigrationStatus.SETUP, 0.3)
    assert live._settle
