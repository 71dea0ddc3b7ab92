"""The comparison of rules, small: it runs, reads on where it was, and its figures are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.__main__ import bench
from bench.contest import CLAIRVOYANT, OURS, contest
from bench.policies import wilson
from bench.population import CLASSES, DEVELOPMENT_SEEDS, draw
from livemig.simulation.rivals import RIVALS


def test_every_class_gives_the_same_guest_for_the_same_seed():
    """And another for another."""
    for kind in CLASSES:
        assert draw(kind, 7) == draw(kind, 7)
        assert draw(kind, 7) != draw(kind, 8)


def test_a_contest_has_every_rule_and_none_beats_the_clairvoyant():
    """On one guest of two classes."""
    for kind in ("idle", "random"):
        found = contest(kind, DEVELOPMENT_SEEDS.start)
        assert set(found.ended) == {*OURS, *RIVALS, CLAIRVOYANT}
        best = found.ended[CLAIRVOYANT]
        assert best.kept
        least_s = best.downtime_s or 0.0
        assert all((ended.downtime_s or 0.0) >= least_s > 0 for ended in found.ended.values() if ended.kept)
        assert all(ended.sent_bytes > 0 for ended in found.ended.values())


def test_it_reads_on_where_it_was(tmp_path: Path):
    """What stands in the file is not simulated again."""
    keep = tmp_path / "kept.jsonl"
    arguments = ["policies", "--development", "--count", "1", "--processes", "1", "--keep", str(keep)]
    first = CliRunner().invoke(bench, arguments)
    assert first.exit_code in (0, 1), first.output
    lines = keep.read_bytes().splitlines()
    assert len(lines) == len(CLASSES)
    again = CliRunner().invoke(bench, arguments)
    assert keep.read_bytes().splitlines() == lines
    assert "livemig against qemu" in again.output


def test_a_file_of_something_else_is_refused_in_a_line(tmp_path: Path):
    """With what to do."""
    keep = tmp_path / "other"
    keep.write_text("nonsense\n")
    found = CliRunner().invoke(bench, ["policies", "--count", "1", "--keep", str(keep)])
    assert found.exit_code == 2
    assert "name another file" in found.output


def test_wilson():
    """Known values: Wilson 1927 for 10 of 10, and the middle."""
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-3)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)
    assert wilson(0, 0) == (0.0, 1.0)
