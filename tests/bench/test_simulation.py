"""``python -m bench simulation`` on real QEMU, as small as it gets: it measures, compares, leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.bench.test_benchmarks import figures, left_behind, run, totals


@pytest.mark.qemu
def test_simulation():
    """Two settings: both arrive, really and simulated, having sent about as much."""
    with tempfile.TemporaryDirectory(prefix="b-", dir="/tmp") as path:
        code, result = run(Path(path), "simulation", "--count", "1", "--seeds", "2", "--settings", "2")
        assert left_behind(Path(path)) == []
    assert code in (0, 1)  # how far off is no matter of a test on a busy machine
    assert totals(result)["disagreeing_count"] == 0
    assert figures(result)["sent_error_percent"]["count"] == 2
    assert figures(result)["sent_error_percent"]["maximum"] < 60
    for sample in result["conclusion"]["samples"]:
        assert len(sample["real"]) == 1
        assert len(sample["simulated"]) == 2
        assert all(one["completed"] for one in sample["real"] + sample["simulated"])
