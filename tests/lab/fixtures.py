"""The lab of two hosts, as other folders' tests use it. Needs root and /dev/net/tun, and says so where they lack."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from livemig.lab.two_hosts import TwoHosts
from tests.lab.traces import traces

_count = itertools.count()


def lab_name() -> str:
    """A name that no other test, test run or user's lab has."""
    return f"t{os.getpid() % 10**7}-{next(_count) % 100}"


@pytest.fixture
async def two_hosts() -> AsyncIterator[TwoHosts]:
    """Two hosts and a client, links unlimited; whatever runs there ends with the test, and nothing stays."""
    lab = TwoHosts(lab_name())
    async with lab:
        yield lab
    assert traces(lab.name) == []


@asynccontextmanager
async def reachable_lab(monkeypatch: pytest.MonkeyPatch, rate_bytes_s: float | None = None) -> AsyncIterator[TwoHosts]:
    """Two hosts whose sshd this process may log in at: livemig's SSH finds the lab's keys by HOME."""
    made = TwoHosts(lab_name(), rate_bytes_s=rate_bytes_s)
    async with made:
        monkeypatch.setenv("HOME", str(made.home_folder))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        yield made
    assert traces(made.name) == []
