"""From options to exit code: what was measured survives Ctrl-C and failures."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from bench.result import Conclusion, Figure, Target, present
from bench.runner import CouldNotMeasure, run_benchmark
from livemig.core.errors import GuestError


def run(measure: Any, capsys: Any, *, limit_s: float = 1.0) -> tuple[int, dict[str, Any]]:
    """Runs a made-up benchmark: its exit code and what it printed."""

    def conclude(samples: list[float]) -> Conclusion:
        figure = Figure.of("duration_s", "duration", samples)
        return Conclusion(figures=present(figure), targets=Target.of(figure, "maximum", limit_s))

    with pytest.raises(click.exceptions.Exit) as ended:
        run_benchmark("made-up", {}, measure=measure, conclude=conclude, qemu="no-such-qemu", as_json=True, output=None)
    return ended.value.exit_code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("limit_s", "code"), [(1.0, 0), (0.1, 1)], ids=["target reached", "target missed"])
def test_exit_code_says_whether_targets_were_reached(capsys, limit_s: float, code: int) -> None:
    """So that a script can tell."""

    async def measure(samples: list[float]) -> None:
        samples.append(0.5)

    assert run(measure, capsys, limit_s=limit_s)[0] == code


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [(KeyboardInterrupt(), 130, "interrupted"), (GuestError("the guest\nis gone"), 2, "the guest is gone")],
    ids=["Ctrl-C", "failure"],
)
def test_samples_survive_an_early_end(capsys, error: BaseException, code: int, reason: str) -> None:
    """The table shows what there is, and says that it is not all."""

    async def measure(samples: list[float]) -> None:
        samples.append(0.5)
        raise error

    found, printed = run(measure, capsys)

    assert (found, printed["ended_early"]) == (code, reason)
    assert printed["conclusion"]["figures"][0]["summary"]["count"] == 1


def test_nothing_measured_is_one_clear_line() -> None:
    """No table of nothing."""

    async def measure(_samples: list[float]) -> None:
        raise GuestError("qemu is not installed,\nor not on PATH")

    with pytest.raises(CouldNotMeasure, match=r"^qemu is not installed, or not on PATH$") as raised:
        run_benchmark(
            "made-up",
            {},
            measure=measure,
            conclude=lambda _: Conclusion(),
            qemu="no-such-qemu",
            as_json=False,
            output=None,
        )
    assert raised.value.exit_code == 2


def test_interrupted_before_anything_was_measured(capsys) -> None:
    """Ctrl-C is no error of the user's: a word, and the shell's code."""

    async def measure(_samples: list[float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(click.exceptions.Exit) as ended:
        run_benchmark(
            "made-up",
            {},
            measure=measure,
            conclude=lambda _: Conclusion(),
            qemu="no-such-qemu",
            as_json=False,
            output=None,
        )
    assert ended.value.exit_code == 130
    assert "before anything was measured" in capsys.readouterr().err
