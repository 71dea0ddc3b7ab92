"""Figures, targets and how they are shown."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from bench.environment import Environment
from bench.presentation import deliver, in_unit
from bench.result import Conclusion, Figure, Result, Target, Total, present

FIGURE = Figure.of("share_s", "the share", [0.001, 0.003, None])


@pytest.fixture(scope="module")
def environment() -> Environment:
    """This machine, with a QEMU that does not exist."""
    return Environment.read("no-such-qemu")


def test_environment_says_what_it_can_and_unknown_else(environment: Environment) -> None:
    """A figure without its machine says nothing: what is missing is said, not left out."""
    assert environment.qemu_version == "unknown"
    assert environment.core_count >= 1
    assert environment.kernel.startswith("Linux ")
    assert environment.kvm in ("none", "hardware", "without hardware virtualisation")


@pytest.mark.parametrize(("limit_s", "reached"), [(0.002, True), (0.0019, False)])
def test_target_compares_the_statistic_that_counts(limit_s: float, reached: bool) -> None:
    """The median of 1 ms and 3 ms is 2 ms; a limit may be met exactly."""
    (target,) = Target.of(FIGURE, "median", limit_s)
    assert (target.actual, target.reached) == (0.002, reached)


def test_what_was_not_measured_has_no_figure_and_no_target() -> None:
    """Nothing is made up."""
    assert Figure.of("share_s", "the share", [None, None]) is None
    assert Target.of(None, "median", 1) == ()
    assert present(None, FIGURE) == (FIGURE,)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("downtime_s", 0.01234, "12.34 ms"),
        ("controller_s", 0.000003, "0.003 ms"),
        ("share_s", -0.002, "-2.00 ms"),
        ("duration_s", 30.0, "30.00 s"),
        ("rate_bytes_s", 2**20, "1.0 MiB/s"),
        ("memory_bytes", 2**30, "1.0 GiB"),
        ("cpu_percent", 0.5, "0.50 %"),
        ("page_count", 2457600, "2457600"),
        ("round_count", 2.5, "2.5"),
    ],
)
def test_values_carry_the_unit_of_their_name(name: str, value: float, text: str) -> None:
    """The name's end says the unit."""
    assert in_unit(name, value) == text


def a_result(environment: Environment, **changes) -> Result:
    """A result with one of everything."""
    assert FIGURE is not None
    conclusion = Conclusion(
        figures=(FIGURE,),
        totals=(Total("lost_page_count", "pages lost", 0),),
        targets=Target.of(FIGURE, "median", 0.001),
        notes=("read it so",),
    )
    fields = {"benchmark": "made-up", "settings": {"count": 3, "memory_bytes": 2**20, "check": None}}
    return Result(**{**fields, "environment": environment, "conclusion": conclusion, **changes})


def test_table_says_everything(environment: Environment, capsys) -> None:
    """Settings, environment, figures, totals, targets, notes, and why it ended early."""
    deliver(a_result(environment, ended_early="interrupted"), as_json=False, output=None)

    shown = capsys.readouterr().out
    for text in (
        "made-up: count 3, memory 1.0 MiB, check None",
        environment.kernel,
        "the share",
        "3.00 ms",
        "pages lost: 0",
        "target MISSED: median of the share: 2.00 ms, at most 1.00 ms",
        "note: read it so",
        "ended early: interrupted",
    ):
        assert text in shown


def test_json_is_one_object_and_goes_to_the_file_too(environment: Environment, capsys, tmp_path: Path) -> None:
    """What programs read is the same in both places."""
    output = tmp_path / "result.json"
    deliver(a_result(environment), as_json=True, output=output)

    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed) == json.loads(output.read_text())
    assert json.loads(printed)["environment"]["python_version"] == environment.python_version


def test_file_that_can_not_be_written_is_named(environment: Environment, capsys, tmp_path: Path) -> None:
    """The result was shown before: nothing is lost."""
    output = tmp_path / "no" / "folder.json"
    with pytest.raises(click.ClickException, match=r"folder\.json can't be written: No such file"):
        deliver(a_result(environment), as_json=False, output=output)
    assert "the share" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({"conclusion": Conclusion()}, True),
        ({"conclusion": Conclusion(sound=False)}, False),
        ({"conclusion": Conclusion(), "ended_early": "interrupted"}, False),
        ({}, False),
    ],
    ids=["all well", "memory lost", "interrupted", "target missed"],
)
def test_good_means_all_of_it(environment: Environment, changes, good: bool) -> None:
    """Exit code 0 is for a whole benchmark that found nothing wrong."""
    assert a_result(environment, **changes).good is good
