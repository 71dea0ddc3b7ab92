"""Trials on real QEMU that CI plays, those that once went wrong among them, and random ways through the model."""

from __future__ import annotations

import pytest

from tests.faults import interleavings
from tests.faults.campaign import result_of

SEEDS = range(1, 21)
STRANGERS = (95, 100044, 100088, 100112)
"""Another QEMU in the place of one that died, from 100000 on with the same pid as well."""
ONCE_WRONG = (122, 50035, 60130, 70198)
"""122: a journal that was made on a full disk had no table, and recover stumbled over it. 50035 and 70198: a lock file
was left, by a kill at the very end and by a full disk. 60130: an error was taken as proof that there is no lock."""


@pytest.mark.qemu
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [*SEEDS, *STRANGERS, *ONCE_WRONG])
def test_whatever_fails_one_guest_runs(seed: int) -> None:
    """As `python -m tests.faults --seed SEED` plays it."""
    result = result_of(seed)
    assert result.wrong == "", result


def test_random_ways_through_the_model() -> None:
    """A sample; the campaign goes a million."""
    ends = interleavings.play(0)
    assert ends.total() == interleavings.BATCH
    assert {"stays", "runs-at-destination-alone", "handed-over", "may-run-at-destination"} <= set(ends)
