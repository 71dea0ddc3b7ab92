"""Whether time that passes in silence says anything about a side, or its host is out of reach. Decides nothing.

A connection that is silently gone is noticed only after a while; until then a QEMU that goes on by itself looks like
one that stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from livemig.core.errors import HostError
from livemig.engine.side import Side

QUIET_S = 1.0
"""After so much silence of its QEMU the host itself is asked."""


class Doubt:
    """Asks the host of a side while its QEMU is silent; on this machine there is no doubt."""

    def __init__(self, side: Side) -> None:
        """Asks nothing yet."""
        self._side = side
        self._heard_s = time.monotonic()
        self._asking: asyncio.Task[None] | None = None

    def heard(self) -> None:
        """Something came from there."""
        self._heard_s = time.monotonic()

    @property
    def holds(self) -> bool:
        """Whether nothing has been heard for a while, not from the host either: it is asked then."""
        if self._side.host.is_local or time.monotonic() - self._heard_s < QUIET_S:
            return False
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        return True

    async def _ask(self) -> None:
        with contextlib.suppress(HostError):
            await self._side.host.respond()
            self.heard()

    async def end(self) -> None:
        """Asks no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
