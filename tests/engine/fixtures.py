"""Two machines for a test, ended for certain afterwards: on this machine, or with ``--two-hosts`` on one host each."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.pair import Pair
from tests.lab.fixtures import reachable_lab
from tests.ssh.host_pair import HostPair


@pytest.fixture
async def pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """Two machines, started by the test, ended for certain afterwards."""
    async for pair in started(request, monkeypatch, launching=False):
        yield pair


@pytest.fixture
async def waiting_pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """The same where `pair` is not only this."""
    async for pair in started(request, monkeypatch, launching=False):
        yield pair


@pytest.fixture(params=[False, True], ids=["waiting", "launched"])
async def either_pair(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """The same for a destination that waits, and for one that livemig launches from the running source."""
    async for pair in started(request, monkeypatch, launching=request.param):
        yield pair


async def started(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, *, launching: bool
) -> AsyncIterator[Pair]:
    """Makes room for two machines where the tests are to run, and ends whatever came of it."""
    if request.config.getoption("two_hosts"):
        async with reachable_lab(monkeypatch) as lab:
            pair: Pair = HostPair(lab, launching=launching)
            try:
                yield pair
            finally:
                await pair.stop()
        return
    async for pair in on_this_machine(launching=launching):
        yield pair


async def on_this_machine(*, launching: bool) -> AsyncIterator[Pair]:
    """The same on this machine in any case."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        pair = Pair(Path(folder), launching=launching)
        try:
            yield pair
        finally:
            await pair.stop()
