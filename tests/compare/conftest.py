"""Fixtures of the comparison's tests on real QEMU."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.compare.scene import MiB, Scene


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """QEMUs started by the test, ended for certain afterwards."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        scene = Scene(Path(folder))
        try:
            yield scene
        finally:
            await scene.stop()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An empty disk image of 8 MiB."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(8 * MiB)
    return path
