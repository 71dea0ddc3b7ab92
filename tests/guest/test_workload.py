"""What the guest can be told, and how it is written."""

import re
from pathlib import Path
from typing import Any

import pytest

from livemig.core.errors import PlanError
from livemig.lab.workload import UNLIMITED, Pattern, Phase, Workload

MIB = 2**20
FULL = Workload(
    pattern=Pattern.HOT,
    hot_set_bytes=MIB,
    dirty_rate_bytes_s=UNLIMITED,
    phase2_at_s=2.5,
    phase2=Phase(pattern=Pattern.RANDOM, working_set_bytes=32 * MIB, dirty_rate_bytes_s=0),
)


def test_the_argument_needs_no_quoting() -> None:
    """Neither a shell nor QEMU's option parser finds anything to split or expand."""
    argument = FULL.fw_cfg_argument()

    assert re.fullmatch(r"name=opt/livemig,string=[a-z0-9_=:]+", argument)
    assert "dirty_rate_bytes_s=max" in argument
    assert "phase2_at_ms=2500" in argument
    assert "phase2_pattern=random" in argument


def test_the_guest_knows_every_name() -> None:
    """The names in its source and those that are written are the same."""
    source = (Path(__file__).parents[2] / "livemig/lab/guest/parameters.c").read_text()
    known = set(re.findall(r'^\t\{"(\w+)", OFFSET', source, re.MULTILINE))

    written = {re.sub("^phase2_(?!at_ms)", "", name) for name in FULL.parameters()}

    assert known == written


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"working_set_bytes": 0}, "working_set_bytes"),
        ({"working_set_bytes": 2**33}, "working_set_bytes"),
        ({"dirty_rate_bytes_s": -1}, "dirty_rate_bytes_s"),
        ({"hot_set_bytes": 17 * MIB}, "hot_set_bytes"),
        ({"pattern": Pattern.HOT}, "hot_set_bytes"),
        ({"hot_writes_percent": 101}, "hot_writes_percent"),
        ({"burst_duty_percent": 0}, "burst_duty_percent"),
        ({"burst_period_s": 0.0005}, "burst_period_s"),
        ({"heartbeat_interval_s": 0.0001}, "heartbeat_interval_s"),
        ({"check_share_percent": 100}, "check_share_percent"),
        ({"check_body_word_count": 0}, "check_body_word_count"),
        ({"seed": 2**32}, "seed"),
        ({"phase2_at_s": 1.0}, "phase2"),
        ({"phase2": Phase()}, "phase2"),
        ({"poweroff_at_s": -1}, "poweroff_at_s"),
        ({"fill_bytes": float("nan")}, "fill_bytes"),
    ],
    ids=str,
)
def test_nonsense_is_refused_by_name(values: dict[str, Any], named: str) -> None:
    """The error says which value and what would do."""
    with pytest.raises(PlanError, match=named):
        Workload(**values)


def test_a_workload_that_does_not_fit_is_refused_before_it_runs() -> None:
    """The memory must hold the pages, their generations and the guest itself."""
    workload = Workload(working_set_bytes=14 * MIB)
    workload.check_fits(16 * MIB)

    with pytest.raises(PlanError, match="bytes at most"):
        Workload(working_set_bytes=16 * MIB).check_fits(16 * MIB)


def test_filled_memory_covers_both_phases() -> None:
    """A page that will be written is filled from the start."""
    assert FULL.filled_bytes == 32 * MIB
    assert Workload(working_set_bytes=5000, fill_bytes=0).filled_bytes == 8192
