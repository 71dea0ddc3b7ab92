"""What one run taught is used by the next, on real QEMU, and said; what it could not keep is said too."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import livemig
from livemig.core.action import SetBandwidth
from livemig.core.event import Decided, Warned
from livemig.core.fixed_part import ENOUGH_COUNT
from livemig.core.past import PastMigration
from livemig.core.trace import decode_trace
from livemig.engine.foresight import Foresight
from livemig.engine.history import History, state_folder
from livemig.engine.side import Side
from livemig.lab.workload import Pattern, Workload
from livemig.qemu.address import Address
from livemig.simulation.replay import replay
from tests.engine.pair import IDLE, QUICK, MiB, Pair

pytestmark = pytest.mark.qemu


@pytest.mark.one_host("the way back is from another host, of which nothing was learned")
async def test_the_fixed_part_of_the_downtime_is_learned_between_the_same_hosts(pair: Pair, tmp_path: Path) -> None:
    """After enough moves the policy keeps what they showed; plan, reason, report and replay say so."""
    await pair.start(IDLE)
    first, _ = await pair.migrate()
    assert (first.fixed_downtime_origin, first.fixed_downtime_measured) == ("prior", False)
    record = _last_record()
    for fixed_s in (0.02, 0.02, *[0.003] * ENOUGH_COUNT):
        History(state_folder()).append(msgspec.structs.replace(record, fixed_downtime_s=fixed_s))
    await pair.swap()
    found = await livemig.plan_migration(livemig.Plan(downtime_limit_s=0.003), source=pair.source_address)
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


async def test_a_history_that_can_be_neither_read_nor_written_is_said_and_costs_nothing(pair: Pair) -> None:
    """One line for each, in the report too; the guest arrives."""
    await pair.start(IDLE)
    (state_folder() / "history.jsonl").mkdir(parents=True)
    report, seen = await pair.migrate()
    assert report.outcome == livemig.Outcome.COMPLETED
    told = [event.text for event in seen if isinstance(event, Warned)]
    for words in ("can't be read", "could not be kept"):
        assert sum(words in text and "history.jsonl" in text for text in report.warnings) == 1
    assert told == list(report.warnings)


@pytest.mark.parametrize("content", [b"no history\n", b'{"livemig_history":99}\n'], ids=["damaged", "newer"])
async def test_a_history_of_another_kind_is_said_once_and_begun_anew(pair: Pair, content: bytes) -> None:
    """The run is as it would be without one, and the next one learns from it."""
    await pair.start(IDLE)
    path = state_folder() / "history.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    report, _ = await pair.migrate()
    assert report.outcome == livemig.Outcome.COMPLETED
    assert sum("history.jsonl" in text for text in report.warnings) == 1
    assert _last_record().completed


def _last_record() -> PastMigration:
    lines = (state_folder() / "history.jsonl").read_bytes().splitlines()
    return msgspec.json.decode(lines[-1], type=PastMigration)


CAP = 30 * MiB
CAPPED = livemig.Plan(bandwidth_bytes_s=float(CAP), downtime_limit_s=0.5, deadline_s=60.0, probation_s=0.1)
BUSY = Workload(pattern=Pattern.RANDOM, working_set_bytes=48 * MiB, dirty_rate_bytes_s=2000 * MiB, fill_bytes=64 * MiB)
"""What it leaves takes 1.6 s under the cap, and far less at what one host carries."""


@pytest.mark.one_host("what it remembers is of a link that one host has with itself")
@pytest.mark.parametrize("known_bytes_s", [1e9, 1.1 * CAP, None], ids=["fast", "slow", "nothing known"])
async def test_a_slot_without_the_cap_is_sent_only_where_it_would_decide(
    pair: Pair, tmp_path: Path, known_bytes_s: float | None
) -> None:
    """Where earlier moves between these hosts were fast: then a limit out of the cap's reach is kept."""
    await pair.start(BUSY)
    if known_bytes_s is not None:
        await _remember(pair, known_bytes_s)
    trace_path = tmp_path / "trace"
    report, seen = await pair.migrate(CAPPED, trace_path=trace_path)
    actions = [action for event in seen if isinstance(event, Decided) for action in event.actions]
    lifted = actions.count(SetBandwidth(bandwidth_bytes_s=None))
    if known_bytes_s != 1e9:
        assert (lifted, report.outcome) == (0, livemig.Outcome.CANCELLED)
        await pair.assert_runs_only("source")
        return
    assert (lifted, report.outcome) == (1, livemig.Outcome.COMPLETED), report.reason
    assert report.downtime is not None
    assert report.downtime.total_s < CAPPED.downtime_limit_s
    await pair.assert_runs_only("destination")
    assert replay(decode_trace(trace_path.read_bytes().splitlines(keepends=True))).reproduced


async def _remember(pair: Pair, throughput_bytes_s: float) -> None:
    """An earlier copy of another guest between these hosts, without a cap, at such a throughput."""
    side = await Side.connect("source", Address(path=str(pair.source.qmp_path)))
    try:
        foresight = Foresight(QUICK, side, None, 1)
        await foresight.remember()
    finally:
        await side.close()
    earlier = PastMigration(
        guest="another",
        hosts=foresight.known.hosts,
        ended_at="2026-01-01T00:00:00+00:00",
        completed=True,
        memory_bytes=128 * MiB,
        bandwidth_bytes_s=None,
        downtime_limit_s=0.3,
        throughput_bytes_s=throughput_bytes_s,
    )
    assert History(state_folder()).append(earlier) == ()
