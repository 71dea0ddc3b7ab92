"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.engine.fixtures import either_pair, pair, waiting_pair
from tests.lab.fixtures import two_hosts

__all__ = ["either_pair", "pair", "two_hosts", "waiting_pair"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--two-hosts``: the engine's and launch's tests move between two hosts of the lab, over SSH and TLS."""
    parser.addoption("--two-hosts", action="store_true", default=False, help="move between two hosts over SSH and TLS")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What has no meaning between two hosts says why."""
    if not config.getoption("two_hosts"):
        return
    for item in items:
        for marker in item.iter_markers("one_host"):
            item.add_marker(pytest.mark.skip(reason=f"on one host: {marker.args[0]}"))


settings.register_profile("livemig", deadline=None)  # on a loaded machine an example may take its time
settings.load_profile("livemig")


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What livemig keeps from run to run is each test's own, and empty at first."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder
