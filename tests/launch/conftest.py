"""Fixtures for the tests of launching: on this machine, or with ``--two-hosts`` from one host to another."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from livemig.engine.host_pool import HostPool
from tests.lab.fixtures import reachable_lab
from tests.launch.bench import QEMU, Bench
from tests.launch.leftovers import end_stale, own_folder
from tests.ssh.host_bench import HostBench


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_of_killed_runs() -> None:
    """A test run that was killed could not end what it had launched."""
    end_stale()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets; whatever a test launched in it is ended."""
    with own_folder() as path:
        yield path


@pytest.fixture
async def bench(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Starts and launches QEMUs."""
    assert shutil.which(QEMU), f"{QEMU} is not installed"
    if request.config.getoption("two_hosts"):
        async with reachable_lab(monkeypatch) as lab, HostPool() as hosts:
            made = HostBench(lab, hosts)
            try:
                yield made
            finally:
                await made.close()
        return
    bench = Bench(folder)
    try:
        yield bench
    finally:
        await bench.close()
