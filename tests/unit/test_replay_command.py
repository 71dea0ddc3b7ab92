"""``livemig replay``: what it prints and returns where decisions or forecasts come out otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from livemig.cli.commands import cli

RECORDED = Path(__file__).parents[1] / "traces" / "loaded.jsonl"


def changed(tmp_path: Path, holding: str, key: str, value: object) -> Path:
    """The recorded trace with something else in the first record that holds a word."""
    lines = RECORDED.read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if f'"{holding}"' in line and number)
    record = json.loads(lines[at])
    inner = record["event"]["forecast"] if holding == "forecasted" else record["decision"]
    inner[key] = value
    path = tmp_path / "changed.jsonl"
    path.write_text("".join([*lines[:at], json.dumps(record) + "\n", *lines[at + 1 :]]))
    return path


def replayed(path: Path, *options: str) -> Result:
    """Runs the command."""
    return CliRunner().invoke(cli, ["replay", str(path), *options], standalone_mode=False)


def test_what_is_reproduced_returns_0():
    """A recorded migration, its forecasts too."""
    said = replayed(RECORDED)
    assert said.return_value == 0
    assert said.output.splitlines()[-1].endswith("all reproduced")


def test_a_forecast_that_differs_is_told_and_returns_1(tmp_path: Path):
    """Though every decision is the same."""
    path = changed(tmp_path, "forecasted", "total_s", [1.0, 2.0, 3.0])
    said = replayed(path)
    assert said.return_value == 1
    assert "DIFFERS: recorded forecast at start: " in said.output
    assert "time 2.00 s (1.00 s to 3.00 s)" in said.output
    assert said.output.splitlines()[-1].endswith(": 0 decisions and 1 forecasts differ")
    said = replayed(path, "--json")
    assert said.return_value == 1
    lines = [json.loads(line) for line in said.output.splitlines()]
    assert (lines[-1]["difference_count"], lines[-1]["forecast_difference_count"]) == (0, 1)
    [found] = [line for line in lines if line["event"] == "forecast_difference"]
    assert found["at"] == "start"
    assert found["recorded"]["total_s"] == [1.0, 2.0, 3.0]
    assert found["replayed"]["total_s"] != found["recorded"]["total_s"]


def test_a_decision_that_differs_is_told_and_returns_1(tmp_path: Path):
    """With both reasons."""
    said = replayed(changed(tmp_path, "decision", "reason", "on a whim"))
    assert said.return_value == 1
    assert "on a whim" in said.output
    assert said.output.splitlines()[-1].endswith(": 1 decisions and 0 forecasts differ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "the trace is cut short in line"),
        (lambda text: text.replace('"version":2', '"version":9', 1), "the trace is of version 9, this livemig reads"),
        (lambda text: text.split("\n", 1)[1], "its first line is no header"),
    ],
)
def test_a_bad_trace_is_one_clear_line(tmp_path: Path, damage, message):
    """With exit code 2."""
    path = tmp_path / "bad.jsonl"
    path.write_text(damage(RECORDED.read_text()))
    said = CliRunner().invoke(cli, ["replay", str(path)])
    assert said.exit_code == 2
    assert message in " ".join(said.output.split())
