"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.engine.fixtures import either_pair, pair, waiting_pair
from tests.lab.fixtures import two_hosts

__all__ = ["either_pair", "pair", "two_hosts", "waiting_pair"]

settings.register_profile("livemig", deadline=None)  # on a loaded machine an example may take its time
settings.load_profile("livemig")


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What livemig keeps from run to run is each test's own, and empty at first."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder
