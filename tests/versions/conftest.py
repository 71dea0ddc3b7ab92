"""Collects the tests between QEMU versions only for `scripts/test --versions`, and writes what they found."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.versions.binaries import EVERY_CASE, VERSIONS
from tests.versions.table import PAGE, Table, rewrite
from tests.versions.version_pair import VersionPair

collect_ignore = [] if VERSIONS else ["test_moves.py", "test_endings.py"]

WRITE_VARIABLE = "LIVEMIG_WRITE_VERSIONS"
"""Set when all tests run: what a part of them found would make a table with holes."""
TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    """Begins an empty table."""
    if not VERSIONS:
        return
    packages = {version.name: _package(version.binary) for version in VERSIONS}
    machine = f"Linux {os.uname().release}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    table = Table(date=datetime.now(UTC).date().isoformat(), machine=machine, packages=packages)
    for source, destination, accelerator in EVERY_CASE:
        table.moves_of(source.name, destination.name, accelerator)
    config.stash[TABLE] = table


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Refuses a test of this folder that was named outright, without the versions it needs."""
    if not VERSIONS and "pair" in metafunc.fixturenames:
        raise pytest.UsageError("QEMU versions to test are missing: run scripts/test --versions")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes the table into docs/versions.md."""
    if os.environ.get(WRITE_VARIABLE) and TABLE in session.config.stash:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(rewrite(page, session.config.stash[TABLE].render()), encoding="utf-8")


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Table:
    """What was found so far."""
    return request.config.stash[TABLE]


@pytest.fixture
async def pair() -> AsyncIterator[VersionPair]:
    """Two machines, started by the test, ended for certain afterwards."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        pair = VersionPair(Path(folder))
        try:
            yield pair
        finally:
            await pair.stop()


def _package(binary: str) -> str:
    words = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()
    return words[3]
