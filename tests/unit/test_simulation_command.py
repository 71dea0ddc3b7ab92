"""``livemig simulate``: what it prints, and how it says no."""

from __future__ import annotations

from typing import Any

import click
import msgspec
import pytest

from livemig.cli.replay import replay_trace
from livemig.cli.simulate import PATTERNS, PIECES_MOST, Asked, guest_of, run_simulation
from livemig.core.plan import Plan

MIB = 2**20
SMALL = Asked(memory_bytes=64 * MIB, working_set_bytes=8 * MIB, dirty_rate_bytes_s=20 * MIB)
PLAN = Plan(bandwidth_bytes_s=100e6, deadline_s=20)


def run(asked: Asked = SMALL, **options: object) -> int:
    """Runs it with what is left out as by default."""
    chosen: dict[str, Any] = {"plan": PLAN, "seed": 1, "count": 1, "trace_path": None, "as_json": False} | options
    return run_simulation(**{"asked": asked} | chosen)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_pattern_can_be_simulated(pattern, capsys):
    """And says what of."""
    assert run(msgspec.structs.replace(SMALL, pattern=pattern)) == 0
    printed = capsys.readouterr().out
    assert pattern in printed
    assert "seed 1: 1 completed" in printed
    assert "downtime" in printed


def test_several_are_summed_up(capsys):
    """A line each and one at the end, in JSON; the middle and the spread in words."""
    assert run(count=3, as_json=True) == 0
    *lines, last = (msgspec.json.decode(line) for line in capsys.readouterr().out.splitlines())
    assert [line["seed"] for line in lines] == [1, 2, 3]
    assert (last["event"], last["completed_count"]) == ("ended", 3)
    assert last["median_total_s"] == sorted(line["total_s"] for line in lines)[1]
    assert run(count=3) == 0
    assert "3 of seeds 1 to 3: 3 completed" in capsys.readouterr().out


def test_its_trace_is_replayed(tmp_path, capsys):
    """As a real one is."""
    path = tmp_path / "simulated.trace"
    assert run(trace_path=path) == 0
    assert replay_trace(path, policy=None, as_json=False) == 0
    assert "all reproduced" in capsys.readouterr().out


def test_a_large_guest_is_simulated_in_larger_pieces():
    """So that it takes seconds, not hours."""
    guest = guest_of(msgspec.structs.replace(SMALL, memory_bytes=2**36 + 4096, working_set_bytes=None))
    assert guest.memory_bytes // guest.page_bytes <= PIECES_MOST + 1
    assert guest.memory_bytes >= 2**36 + 4096


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 2, "trace_path": "x"}, "leave out --count"),
        ({"asked": msgspec.structs.replace(SMALL, working_set_bytes=128 * MIB)}, "can't hold"),
        ({"asked": msgspec.structs.replace(SMALL, qemu="9.9")}, "no simulation of QEMU 9.9"),
        ({"asked": msgspec.structs.replace(SMALL, burst_period_s=1.0, burst_duty_percent=0)}, "duty"),
    ],
)
def test_what_makes_no_sense_is_refused(options, says):
    """In one line, before anything is simulated."""
    with pytest.raises(click.UsageError, match=says):
        run(**options)


def test_a_trace_that_cannot_be_written_is_said(tmp_path):
    """With the reason."""
    with pytest.raises(click.UsageError, match="can't be written"):
        run(trace_path=tmp_path / "missing" / "trace")
