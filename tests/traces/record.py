"""Records the traces beside this file anew, by migrating the built-in guest under TCG. Run it from the repo's root.

With ``--forecasts`` it migrates nothing: only the forecasts in the traces are replaced, by what is forecast now.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[2]))

from livemig import AtDeadline, Migration, Plan, PlanChange
from livemig.core.event import Ended, Event, Forecasted, Progressed
from livemig.core.prediction import Forecast
from livemig.core.trace import EventRecord, TraceRecord, decode_trace, encode_record
from livemig.lab.workload import Workload
from livemig.simulation.replay import replay
from tests.engine.pair import HOT, LOADED, MiB, Pair
from tests.versions.binaries import VERSIONS, Version
from tests.versions.version_pair import VersionPair

TRACES = Path(__file__).parent
SMALL = Workload(working_set_bytes=16 * MiB, dirty_rate_bytes_s=40 * MiB, fill_bytes=24 * MiB)
SLOW = Plan(probation_s=0.1, bandwidth_bytes_s=20e6)


class TunesLater:
    """Frees a migration that can't converge once it has been under way for a second."""

    def __init__(self) -> None:
        self._tuned = False

    def __call__(self, migration: Migration, event: Event) -> None:
        """Tunes at the first progress after a second, once."""
        if isinstance(event, Progressed) and event.time_s > 1 and not self._tuned:
            self._tuned = True
            migration.tune(PlanChange(downtime_limit_s=1.0, bandwidth_bytes_s=500e6))


async def record(
    name: str, plan: Plan, *, hot: bool, on_event: Callable[[Migration, Event], None] | None = None
) -> None:
    """Migrates once and leaves the trace beside this file."""
    with tempfile.TemporaryDirectory(prefix="livemig-traces-") as folder:
        pair = Pair(Path(folder))
        try:
            await pair.start(HOT if hot else LOADED, memory_bytes=128 * MiB)
            report, _ = await pair.migrate(plan, trace_path=TRACES / f"{name}.jsonl", on_event=on_event)
        finally:
            await pair.stop()
    print(f"{name}: {report.outcome}: {report.reason}")


async def record_version(version: Version) -> None:
    """Migrates the loaded guest between two QEMUs of a version."""
    plan = Plan(probation_s=0.1, bandwidth_bytes_s=80e6, downtime_limit_s=0.1)
    with tempfile.TemporaryDirectory(prefix="livemig-traces-") as folder:
        pair = VersionPair(Path(folder))
        try:
            await pair.start_on(version, version, "tcg", workload=SMALL)
            report, _ = await pair.migrate(plan, trace_path=TRACES / f"loaded-{version}.jsonl")
        finally:
            await pair.stop()
    print(f"{version}: {report.outcome}: {report.reason}")


async def main() -> None:
    """Records all of them, knowing nothing from before; with `scripts/fetch-qemu`'s versions only those of versions."""
    with tempfile.TemporaryDirectory(prefix="livemig-traces-") as folder:
        os.environ["XDG_STATE_HOME"] = folder
        for version in VERSIONS:
            await record_version(version)
        if not VERSIONS:
            await record_all()


async def record_all() -> None:
    """Records one after the other; the first ones are the history of the later ones."""
    deadline = Plan(probation_s=0.1, bandwidth_bytes_s=20e6, deadline_s=2.0)
    pause = Plan(probation_s=0.1, bandwidth_bytes_s=20e6, deadline_s=2.0, at_deadline=AtDeadline.PAUSE)
    gated = Plan(probation_s=0.1, pause_before_switchover=True)
    await record("loaded", Plan(probation_s=0.1, bandwidth_bytes_s=80e6, downtime_limit_s=0.1), hot=False)
    await record("gated", gated, hot=False)
    await record("deadline", deadline, hot=True)
    await record("paused", pause, hot=True)
    await record("tuned", SLOW, hot=True, on_event=TunesLater())


def forecast_again() -> None:
    """Replaces the forecasts of each trace by those of a replay."""
    for path in sorted(TRACES.glob("*.jsonl")):
        records = list(decode_trace(path.read_bytes().splitlines(keepends=True)))
        now = {forecast.at: forecast for forecast in replay(records).forecasts}
        path.write_bytes(b"".join(encode_record(_told_again(record, now)) for record in records))


def _told_again(record: TraceRecord, now: dict[str, Forecast]) -> TraceRecord:
    event = record.event if isinstance(record, EventRecord) else None
    if isinstance(event, Forecasted):
        event = msgspec.structs.replace(event, forecast=now[event.forecast.at])
    elif isinstance(event, Ended):
        event = msgspec.structs.replace(event, forecasts=tuple(now[one.at] for one in event.forecasts))
    return record if event is None else EventRecord(event=event)


if __name__ == "__main__":
    if "--forecasts" in sys.argv:
        forecast_again()
    else:
        asyncio.run(main())
