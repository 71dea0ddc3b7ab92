"""Makes both sides ready for `migrate`, and puts everything back when that fails. Sends nothing of the guest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from livemig.core.errors import CommandError, LivemigError, RefusedError
from livemig.core.plan import Plan
from livemig.engine.channel import Channel, open_channel
from livemig.engine.side import Side
from livemig.qemu.introspection import query_capabilities

CAPABILITIES_ON = ("events", "return-path", "late-block-activate")
"""Where a QEMU has one of them. Without `return-path` the source says ``completed`` although the destination failed to
load; without `late-block-activate` 7.2 takes the disks' locks before ``cont``."""
CAPABILITIES_KEPT = frozenset(
    {"validate-uuid", "x-ignore-shared", "dirty-bitmaps", "zero-blocks", "postcopy-blocktime"}
)
"""What may stay as somebody set it. All others are switched off: a left-over ``multifd`` or ``postcopy-ram`` on one
side alone hangs or loses guests."""


RECONNECT_BOUND_S = 1.0


class Preparation:
    """What is done to both sides before ``migrate``.

    Attributes:
        notes: What could not be put back, one line each.
        connect_uri: What the source is to connect to, once the destination listens.
    """

    def __init__(
        self, source: Side, destination: Side, plan: Plan, notes: list[str], *, tunnelled: bool = False
    ) -> None:
        """Does nothing yet.

        Args:
            source: The source.
            destination: The destination.
            plan: What is asked.
            notes: Is added what could not be put back, one line each.
            tunnelled: Whether memory takes the way through SSH.
        """
        self.notes = notes
        self.connect_uri = ""
        self._source, self._destination, self._plan = source, destination, plan
        self._listening = False
        self._tunnelled = tunnelled

    @asynccontextmanager
    async def channel(
        self,
        run_id: str,
        intend: Callable[[Channel], Awaitable[None]],
        set_limits: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[Channel]:
        """Sets capabilities and limits and lets the destination listen, for as long as it is entered.

        Args:
            run_id: The run's id.
            intend: Writes down what is about to be changed.
            set_limits: Sets the policy's first limits on the source.

        Raises:
            RefusedError: When a side refuses. All was put back; a destination that listened already was ended.
        """
        async with open_channel(
            self._plan, self._source, self._destination, run_id=run_id, tunnelled=self._tunnelled
        ) as channel:
            try:
                await intend(channel)
                await self._set_capabilities()
                await self._destination.settings.set_parameters({"announce-rounds": 0})
                await channel.prepare(self._source, self._destination)
                await set_limits()
                await self._listen(channel)
                self.connect_uri = await channel.connect_uri(self._destination)
            except LivemigError as error:
                await self._undo()
                raise RefusedError((str(error),)) from error
            except BaseException:
                await asyncio.shield(self._undo())
                raise
            yield channel
            self.notes += channel.notes

    async def restore(self) -> None:
        """Puts back what was changed, on the sides that live on."""
        for side in (self._source, self._destination):
            if await side.is_gone():
                continue
            try:
                if side.monitor.closed:
                    await side.reconnect(RECONNECT_BOUND_S)
                self.notes += [f"{side.name}: {failure}" for failure in await side.settings.restore()]
            except LivemigError as error:
                if not await side.has_died():
                    self.notes.append(f"{side.name}: migration settings may not be as before: {error}")

    async def _undo(self) -> None:
        if self._listening:
            await self._destination.end()
        await self.restore()

    async def _set_capabilities(self) -> None:
        for side in (self._source, self._destination):
            known = await query_capabilities(side.monitor)
            wanted = {name: name in CAPABILITIES_ON for name in known if name not in CAPABILITIES_KEPT}
            if self._plan.pause_before_switchover and side is self._source:
                wanted["pause-before-switchover"] = True
            await side.settings.set_capabilities(wanted)

    async def _listen(self, channel: Channel) -> None:
        """Lets the destination listen, paused: it must not run before it is told to, whoever started it and how."""
        monitor = self._destination.monitor
        self._listening = True
        try:
            await monitor.execute("migrate-incoming", {"uri": channel.listen_uri, "exit-on-error": False})
        except CommandError:
            await self._listen_before_9_1(channel)
        await monitor.execute("stop")

    async def _listen_before_9_1(self, channel: Channel) -> None:
        """Without `exit-on-error`: that QEMU ends when the load fails, and its reason is on its stderr alone."""
        try:
            await self._destination.monitor.execute("migrate-incoming", {"uri": channel.listen_uri})
        except CommandError:
            self._listening = False  # refused twice: it listens nowhere
            raise
