"""What one run taught is used by the next, on real QEMU, and said; what it could not keep is said too."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import livemig
from livemig.core.fixed_part import ENOUGH_COUNT
from livemig.core.past import PastMigration
from livemig.core.trace import decode_trace
from livemig.engine.history import History, state_folder
from livemig.simulation.replay import replay
from tests.engine.pair import IDLE, QUICK, Pair

pytestmark = pytest.mark.qemu


async def test_the_fixed_part_of_the_downtime_is_learned_between_the_same_hosts(pair: Pair, tmp_path: Path) -> None:
    """After enough moves the policy keeps what they showed; plan, reason, report and replay say so."""
    await pair.start(IDLE)
    first, _ = await pair.migrate()
    assert (first.fixed_downtime_origin, first.fixed_downtime_measured) == ("prior", False)
    record = _last_record()
    for fixed_s in (0.02, 0.02, *[0.003] * ENOUGH_COUNT):
        History(state_folder()).append(msgspec.structs.replace(record, fixed_downtime_s=fixed_s))
    await pair.swap()
    found = await livemig.plan_migration(livemig.Plan(downtime_limit_s=0.003), source=str(pair.source.qmp_path))
    assert any("a quarter over the most of" in text and "between these hosts" in text for text in found.warnings)
    trace_path = tmp_path / "trace"
    second, seen = await pair.migrate(QUICK, trace_path=trace_path)
    assert second.outcome == livemig.Outcome.COMPLETED
    assert second.fixed_downtime_measured
    assert "between these hosts" in second.fixed_downtime_origin
    assert any("the fixed part is a quarter over" in getattr(event, "reason", "") for event in seen)
    again = replay(decode_trace(trace_path.read_bytes().splitlines(keepends=True)))
    assert again.reproduced
    assert any("the fixed part is a quarter over" in decision.reason for _, decision in again.decisions)


def _last_record() -> PastMigration:
    lines = (state_folder() / "history.jsonl").read_bytes().splitlines()
    return msgspec.json.decode(lines[-1], type=PastMigration)
