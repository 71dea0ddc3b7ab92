"""Two machines for a test, ended for certain afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.engine.pair import Pair


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """Two machines, started by the test, ended for certain afterwards."""
    async for pair in started(launching=False):
        yield pair


@pytest.fixture
async def waiting_pair() -> AsyncIterator[Pair]:
    """The same where `pair` is not only this."""
    async for pair in started(launching=False):
        yield pair


@pytest.fixture(params=[False, True], ids=["waiting", "launched"])
async def either_pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    """The same for a destination that waits, and for one that livemig launches from the running source."""
    async for pair in started(launching=request.param):
        yield pair


async def started(*, launching: bool) -> AsyncIterator[Pair]:
    """Makes room for two machines, and ends whatever came of it."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        pair = Pair(Path(folder), launching=launching)
        try:
            yield pair
        finally:
            await pair.stop()
