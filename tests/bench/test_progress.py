"""A benchmark says how far it is: in a log, where nobody sees a line change, now and then with whole lines."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.progress import Progress


@pytest.mark.parametrize("step_count", [1, 5, 7, 100])
def test_a_log_sees_it_go_on_whatever_the_size_of_a_step(capsys: pytest.CaptureFixture[str], step_count: int) -> None:
    """About every tenth, never the same twice, and the end."""
    with Progress("moves", 312) as progress:
        while progress.count < 312:
            progress.step(0)
            progress.step(min(step_count, 312 - progress.count))
    lines = capsys.readouterr().err.splitlines()
    counts = [int(line.removeprefix("moves: ").removesuffix("/312")) for line in lines]
    assert (counts[0], counts[-1]) == (0, 312)
    assert counts == sorted(set(counts))
    assert len(counts) <= 12
    gaps = [after - before for before, after in pairwise(counts)]
    assert max(gaps) <= 31 + step_count


def test_nothing_to_do_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("moves", 0):
        pass
    assert capsys.readouterr().err == "moves: 0/0\n"
