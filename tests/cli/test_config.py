"""Options from a TOML file and from variables, as a user gives them; nothing is ever touched by a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.engine.pair import Pair, livemig_output

ADDRESSES = ("--src-qmp", "/nowhere/a.qmp", "--dst-qmp", "/nowhere/b.qmp")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('downtime-limt = "100ms"', "did you mean 'downtime-limit'"),
        ("downtime-limit = 100", "has no unit"),
        ('downtime-limit = "100"', "has no unit"),
        ('keep-source = "yes"', "true or false"),
        ("map = [1]", "list of texts"),
        ("downtime-limit =", "is no TOML"),
        ("bandwidth = 100", '"100MiB/s"'),
        ("src-qmp = 5", "in quotes, as on the command line"),
        ('trace = "a\\u0000b"', "NUL"),
        ('map = ["a=b\\u0000"]', "list of texts"),
    ],
)
async def test_wrong_config_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    """The key is named, the nearest one suggested."""
    config = tmp_path / "livemig.toml"
    config.write_text(text)
    code, output, errors = await livemig_output("run", *ADDRESSES, "--config", str(config))
    assert (code, output) == (2, "")
    assert words in errors
    assert len(errors.splitlines()) == 1


async def test_missing_config_is_refused(tmp_path: Path) -> None:
    """Named, with the reason."""
    code, _, errors = await livemig_output("run", *ADDRESSES, "--config", str(tmp_path / "none.toml"))
    assert code == 2
    assert "can't be read" in errors


async def test_variable_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """And checked like the option."""
    monkeypatch.setenv("LIVEMIG_DOWNTIME_LIMIT", "300")
    code, _, errors = await livemig_output("run", *ADDRESSES)
    assert code == 2
    assert "'300' has no unit" in errors


@pytest.mark.parametrize("by", ["variable", "file"])
async def test_json_by_a_variable_or_a_file_closes_a_usage_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """The last object is owed however JSON was asked for."""
    arguments = ["run", "--src-qmp", "/nowhere/a.qmp"]
    if by == "variable":
        monkeypatch.setenv("LIVEMIG_JSON", "1")
    else:
        config = tmp_path / "livemig.toml"
        config.write_text("json = true")
        arguments += ["--config", str(config)]
    code, output, errors = await livemig_output(*arguments)
    assert code == 2
    assert "--dst-qmp" in errors
    assert json.loads(output)["outcome"] == "refused"


@pytest.mark.qemu
async def test_file_fills_in_and_the_command_line_goes_first(pair: Pair) -> None:
    """Addresses, limits and switches from a file; the probation of the command line."""
    await pair.start()
    config = pair.folder / "livemig.toml"
    config.write_text(
        f'src-qmp = "{pair.source.qmp_path}"\ndst-qmp = "{pair.destination.qmp_path}"\n'
        'probation = "1h"\nkeep-source = true\n'
    )
    code, _, errors = await livemig_output("run", "--config", str(config), "--probation", "0s")
    assert code == 0, errors
    assert (await pair.run_states())["source"] == "postmigrate"
    await pair.assert_runs_only("destination")
