"""The generated part of docs/versions.md."""

from __future__ import annotations

import pytest

from tests.versions.binaries import parse
from tests.versions.table import BEGIN, END, PAGE, Table, one_line, rewrite


def table() -> Table:
    """One pair of each kind."""
    table = Table(date="2026-11-23", machine="Linux 6.1, 2 cores", packages={"7.2": "7.2.22", "10.0": "10.0.2"})
    table.moves_of("7.2", "10.0", "tcg").downtimes_s = [0.004, 0.010, 0.005]
    table.moves_of("7.2", "10.0", "tcg").lossy = 1
    table.moves_of("10.0", "7.2", "kvm").problem = "no"
    table.case_of("cancel", "7.2", "10.0", "kvm").endings += ["source", "source", "destination"]
    table.case_of("load", "7.2", "10.0", "tcg").endings.append("lost writes")
    return table


def test_rows_say_what_was_found() -> None:
    """A loss, a failure and an untested cell are told apart, and nothing bad reads as good."""
    lines = table().render().splitlines()
    assert "| 7.2 | 10.0 | TCG | 3 | arrived; lost writes in 1 of them (QEMU 7.2 under TCG) | 5.0 ms |" in lines
    assert "| 10.0 | 7.2 | KVM | 0 | **failed**: no | - |" in lines
    assert "| moved | cancel | load |" in lines
    assert "| 7.2 to 10.0, KVM | 1 x destination, 2 x source | - |" in lines
    assert "| 7.2 to 10.0, TCG | - | lost writes |" in lines


def test_only_the_generated_part_is_rewritten() -> None:
    """What stands around the markers stays; a page without them is refused."""
    generated = table().render()
    page = rewrite(f"# Title\n{BEGIN}\nold\n{END}\nend\n", generated)
    assert page == f"# Title\n{generated}\nend\n"
    assert rewrite(page, generated) == page
    with pytest.raises(ValueError, match="markers"):
        rewrite("# Title\n", generated)


def test_the_page_has_its_markers() -> None:
    """docs/versions.md can be rewritten."""
    assert rewrite(PAGE.read_text(encoding="utf-8"), table().render())


def test_versions_are_sorted_by_age() -> None:
    """By numbers, not by letters; a path may hold blanks."""
    versions = parse("10.0 /a b/qemu\n7.2 /c\n")
    assert [(version.name, version.binary) for version in versions] == [("7.2", "/c"), ("10.0", "/a b/qemu")]


def test_an_error_fits_a_cell() -> None:
    """One line, and no bar that would end the cell."""
    assert one_line(ValueError("a | b\nc")) == "a / b"
    assert one_line(AssertionError()) == "AssertionError"
