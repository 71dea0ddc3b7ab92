"""The rules of style that no linter knows, as tests: small files and functions, units in names, nothing left lying."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FILE_LINES_MOST = 450
FILE_LINES_ALLOWED = {"livemig/core/rules.py": 520}
"""A table is read by looking up, not from top to bottom."""
FUNCTION_LINES_MOST = 80

UNITS = (
    "_s",
    "_bytes",
    "_bytes_s",
    "_pages_s",
    "_pages",
    "_percent",
    "_ratio",
    "_count",
)
"""What the name of a number with a fraction ends in."""
UNITS_ELSEWHERE = {
    "Calibration.downtime": "a factor",
    "Calibration.sent": "a factor",
    "Calibration.total": "a factor",
    "LastStep.deviation": "of a logarithm",
    "_Repeats.excess": "a variance over the square of the mean",
    "_Repeats.levels": "over the mean",
    "Forecast.widened": "factors",
    "Pace.deviation": "over the mean",
    "Pace.levels": "over the mean",
    "DirtySample.weights": "shares that add up to 1",
    "Forecast.converges": "a probability, by the contract of the JSON lines",
    "Forecast.keeps_limit": "a probability",
    "Foreknowledge.touched_shares": "shares",
    "PastMigration.touched_shares": "shares",
    "WhatIf.converges": "a probability",
    "Progressed.progress": "a share from 0 to 1, by the contract of the JSON lines",
}

LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
VAGUE = re.compile(r"(^|_)(utils?|helpers?|managers?)(_|$)", re.IGNORECASE)
OF_THIS_MACHINE = re.compile(rb"(?<![\w.-])/(work|root)/")


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git knows and that is there."""
    shown = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = [name.decode() for name in shown.split(b"\0") if name]
    assert names, "git knows no file here"
    return tuple(path for path in (ROOT / name for name in names) if path.is_file())


def package_files() -> list[Path]:
    """The package's own modules, new ones included."""
    return sorted((ROOT / "livemig").rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """The syntax of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def where(path: Path, node: ast.AST | int) -> str:
    """A place that an editor can jump to."""
    line = node if isinstance(node, int) else getattr(node, "lineno", 1)
    return f"{path.relative_to(ROOT)}:{line}"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function in a file, nested ones too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_file_is_too_long():
    """One that has outgrown a sitting is cut in two, also of the tests and the bench."""
    every = [path for folder in ("livemig", "tests", "bench") for path in sorted((ROOT / folder).rglob("*.py"))]
    too_long = [
        f"{where(path, count)}: {count} lines"
        for path in every
        if (count := len(path.read_text(encoding="utf-8").splitlines()))
        > FILE_LINES_ALLOWED.get(str(path.relative_to(ROOT)), FILE_LINES_MOST)
    ]
    assert too_long == []


def test_no_function_is_too_long():
    """One that does not fit on a screen does more than one thing."""
    too_long = [
        f"{where(path, function)}: {function.name} has {lines} lines"
        for path in package_files()
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MOST
    ]
    assert too_long == []


def test_every_module_says_what_it_is():
    """A docstring at the top of each file of the package and of the tests, but for empty ones."""
    silent = [
        where(path, 1)
        for path in [*package_files(), *sorted((ROOT / "tests").rglob("*.py"))]
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(tree(path))
    ]
    assert silent == []


def test_nothing_is_left_to_do_in_comments():
    """What is left to do is an issue; a comment says why something is."""
    left = [
        f"{where(path, number)}: {line.strip()}"
        for path in package_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if LEFTOVERS.search(line)
    ]
    assert left == []


def test_no_task_is_started_and_dropped():
    """The event loop holds a task weakly: one whose result nobody keeps may vanish in the middle."""
    dropped = [
        where(path, node)
        for path in package_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute | ast.Name)
        and (node.value.func.attr if isinstance(node.value.func, ast.Attribute) else node.value.func.id)
        in ("create_task", "ensure_future")
    ]
    assert dropped == []


def test_no_name_says_nothing():
    """No utils, helpers or managers: neither files, nor classes, nor functions."""
    vague = [where(path, 1) for path in package_files() if VAGUE.search(path.stem)]
    vague += [
        where(path, node)
        for path in package_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and VAGUE.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name))
    ]
    assert vague == []


def fields(path: Path) -> Iterator[tuple[str, str, ast.AnnAssign]]:
    """Each annotated field of each class in a file: class, name, node."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ClassDef):
            for entry in node.body:
                if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
                    yield node.name, entry.target.id, entry


def test_every_fraction_names_its_unit():
    """A float in the core's data ends in its unit, or is listed here with what it is instead."""
    found = [
        (f"{owner}.{name}", where(path, node))
        for path in sorted((ROOT / "livemig" / "core").glob("*.py"))
        for owner, name, node in fields(path)
        if re.search(r"\bfloat\b", ast.unparse(node.annotation))
    ]
    assert len(found) > 30, "the fields are not found any more"
    without = {name: place for name, place in found if not name.endswith(UNITS)}
    assert {name: place for name, place in without.items() if name not in UNITS_ELSEWHERE} == {}
    assert set(without) == set(UNITS_ELSEWHERE), "an exception that is none any more"


def test_the_core_names_no_other_unit():
    """Milliseconds and megabits are QEMU's, converted at the border; megabytes are nobody's."""
    foreign = re.compile(r"_(ms|us|ns|msec|sec|secs|seconds|mb|mib|kb|mbps|mbit|minutes)$")
    found = [
        f"{where(path, node)}: {name}"
        for path in sorted((ROOT / "livemig" / "core").glob("*.py"))
        for _, name, node in fields(path)
        if foreign.search(name)
    ]
    assert found == []


def test_no_file_knows_this_machine():
    """No path of the machine it was written on, in code, tests, traces or docs."""
    found = [
        where(path, number)
        for path in tracked()
        if path.suffix not in (".bin", ".png")
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if OF_THIS_MACHINE.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "matches"),
    [
        ("see /wo" + "rk/main", True),
        ("at '/ro" + "ot/x'", True),
        ("my/wo" + "rk/x", False),
        ("https://x.example/y/ro" + "ot/", False),
    ],
)
def test_the_search_for_paths_finds_them(line, matches):
    """Only absolute ones."""
    assert bool(OF_THIS_MACHINE.search(line.encode())) == matches


def test_the_search_for_vague_names_finds_them():
    """As a word in a name, not as a part of one."""
    assert VAGUE.search("string_utils")
    assert VAGUE.search("Task_Manager")
    assert not VAGUE.search("management_network")
    assert not VAGUE.search("commons")
