"""Silence of a QEMU proves something only where its host still answers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from livemig.core.errors import HostError
from livemig.engine import doubt
from livemig.engine.side import Side


class Asked:
    """A host that answers when it is let, and a side on it."""

    def __init__(self, *, local: bool = False) -> None:
        self.is_local = local
        self.host = self
        self.count = 0
        self.reached = asyncio.Event()
        self.lost = False

    async def respond(self) -> None:
        """Waits to be reached."""
        self.count += 1
        await self.reached.wait()
        if self.lost:
            raise HostError("lost", host="there")

    def doubt(self) -> doubt.Doubt:
        """Whether there is any."""
        return doubt.Doubt(cast("Side", cast("Any", self)))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time needs to pass in silence."""
    monkeypatch.setattr(doubt, "QUIET_S", 0.0)


async def settled() -> None:
    """Lets everything that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_on_this_machine_there_is_none() -> None:
    side = Asked(local=True)
    assert not side.doubt().holds
    assert side.count == 0


async def test_it_lasts_until_the_host_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Asked()
    found = side.doubt()
    assert found.holds
    await settled()
    assert found.holds
    assert side.count == 1  # asked once, however often one looks
    side.reached.set()
    await settled()
    monkeypatch.setattr(doubt, "QUIET_S", 60.0)
    assert not found.holds


async def test_a_host_that_is_lost_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Asked()
    side.lost = True
    side.reached.set()
    found = side.doubt()
    for count in (1, 2):
        assert found.holds
        await settled()
        assert side.count == count
    side.lost = False
    assert found.holds
    await settled()
    monkeypatch.setattr(doubt, "QUIET_S", 60.0)
    assert not found.holds


async def test_what_was_heard_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    side = Asked()
    found = side.doubt()
    assert found.holds
    found.heard()
    monkeypatch.setattr(doubt, "QUIET_S", 60.0)
    assert not found.holds
    await found.end()
    assert not side.reached.is_set()
