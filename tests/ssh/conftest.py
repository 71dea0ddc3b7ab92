"""Hosts of the lab and a guest; livemig's SSH finds the lab's keys by HOME. Needs root, and says so."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from livemig.lab.two_hosts import TwoHosts
from tests.lab.fixtures import reachable_lab
from tests.ssh.between import Between


@pytest.fixture
async def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoHosts]:
    """Two hosts whose sshd this process may log in at; a parameter is what their data links carry, bytes per second."""
    async with reachable_lab(monkeypatch, getattr(request, "param", None)) as made:
        yield made


@pytest.fixture
async def between(lab: TwoHosts) -> AsyncIterator[Between]:
    """A guest that can be started on the first host."""
    made = Between(lab)
    try:
        yield made
    finally:
        await made.stop()
