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
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        pair = Pair(Path(folder))
        try:
            yield pair
        finally:
            await pair.stop()
