"""What a move asks of the network and the guest besides memory: announcement, the user's hook, the probe, the clock.

Nothing here decides who runs: whatever fails is told, and where the guest may be out of reach the source is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from livemig.core.errors import LivemigError
from livemig.core.plan import Plan, SwitchoverMoment
from livemig.core.probe import Blackout, ProbeTarget
from livemig.core.units import format_duration
from livemig.engine.channel import connect_to
from livemig.engine.guest_agent import AgentError, agent_chardev, set_guest_time, socket_path
from livemig.engine.hook import run_hook
from livemig.engine.probe import Probe
from livemig.engine.side import Side
from livemig.qemu.inventory import Inventory

ANNOUNCEMENT = {"initial": 50, "max": 550, "rounds": 5, "step": 100}
"""QEMU's own defaults, in ms; every network card in each round, the first at once."""
ANSWER_BOUND_S = 5.0
"""How long after RESUME the guest may need to answer the probe: ARP and TCP have tried again by then."""


async def announce(side: Side) -> None:
    """Makes the guest's network cards known to the switches again. A QEMU that can't costs nothing but that.

    Asked for with or after ``cont``: by itself QEMU announces before that, in runs too that then fail. While the guest
    stands still QEMU keeps the packet back, so that none is sent for a guest that does not run.
    """
    with contextlib.suppress(LivemigError):
        await side.monitor.execute("announce-self", ANNOUNCEMENT)


class Handover:
    """The part of one run that looks to the network and the guest.

    Attributes:
        notes: What the user should know before it begins.
    """

    def __init__(
        self, plan: Plan, run_id: str, source: Side, destination: Side, *, warn: Callable[[str], None]
    ) -> None:
        """Looks at nothing yet."""
        self.notes: list[str] = []
        self._plan, self._run_id, self._source, self._destination = plan, run_id, source, destination
        self._warn = warn
        self._macs: tuple[str, ...] = ()
        self._agent_chardev: str | None = None
        self._probe = None if plan.probe is None else Probe(ProbeTarget.parse(plan.probe))
        self._stopped_s: float | None = None
        self._resumed_s: float | None = None
        self._hook: asyncio.Task[str | None] | None = None
        self._hooked_while_stopped = False
        self._afterwards: list[asyncio.Task[None]] = []
        self._trouble: list[str] = []

    @asynccontextmanager
    async def ready(self, inventory: Inventory | None) -> AsyncIterator[None]:
        """Learns what the source's guest has, and lets the probe ask for as long as it is entered.

        Raises:
            RefusedError: When nobody answers the probe. Nothing was touched.
        """
        if inventory is not None:
            self._macs = macs(inventory)
            self._agent_chardev = agent_chardev(inventory)
        if self._plan.set_guest_time and self._agent_chardev is None:
            self.notes.append("the guest has no agent's port (org.qemu.guest_agent.0): its clock can't be set")
        if self._probe is not None:
            await self._probe.start()
        try:
            yield
        finally:
            await self._close()

    @property
    def blackout(self) -> Blackout | None:
        """What the probe has seen so far; None without one."""
        return None if self._probe is None else self._probe.blackout(self._resumed_s)

    def migrating(self) -> None:
        """``migrate`` comes next: silence counts from now on."""
        if self._probe is not None:
            self._probe.restart()

    def source_stopped(self) -> None:
        """The source's guest stands still: runs the hook now, where it was asked for then.

        Should somebody else have stopped it, the hook has run too early, and runs again at the switchover.
        """
        self._stopped_s = time.monotonic()
        if self._plan.switchover_moment is SwitchoverMoment.STOPPED and self._hook is None:
            self._hooked_while_stopped = True
            self._hook = self._start_hook("stopped")

    async def before_continue(self) -> None:
        """Waits for that hook, but never so long that the guest stood still longer for it than the limit allows."""
        if self._hook is None or self._stopped_s is None:
            return
        limit_s = self._plan.downtime_limit_s
        left_s = self._stopped_s + limit_s - time.monotonic()
        done, _ = await asyncio.wait((self._hook,), timeout=max(0.0, left_s))
        if not done:
            self._warn(
                f"--on-switchover had not ended at the limit of {format_duration(limit_s)}: the guest was continued "
                "without waiting for it"
            )

    def resumed(self, resumed_s: float) -> None:
        """The guest runs at the destination since that time, monotonic: does what is asked for afterwards, once."""
        if self._resumed_s is not None:
            return
        self._resumed_s = resumed_s
        if self._plan.on_switchover and self._plan.switchover_moment is SwitchoverMoment.RESUMED:
            self._hook = self._start_hook("resumed")
        if self._plan.set_guest_time and self._agent_chardev is not None:
            self._do_afterwards(self._set_guest_time(self._agent_chardev))
        if self._hook is not None:
            self._do_afterwards(self._judge_hook(self._hook))
        if self._probe is not None:
            self._do_afterwards(self._judge_probe(self._probe, resumed_s))

    async def trouble(self) -> str | None:
        """Waits, bounded, for what was begun after the resume; returns why the source should be kept, or None."""
        await asyncio.gather(*self._afterwards, return_exceptions=True)
        return "; ".join(self._trouble) or None

    async def stayed(self) -> list[str]:
        """The guest goes on at the source after it was stopped: announces it there, and tells a hook that had run.

        Returns what the user should know.
        """
        await announce(self._source)
        if self._hook is not None:
            await self._judge_hook(self._hook)
        if self._hooked_while_stopped:
            await self._judge_hook(self._start_hook("stayed"))
        if self._probe is not None and not await self._probe.wait_answer(self._stopped_s or 0.0, ANSWER_BOUND_S):
            where = f"the guest does not answer at {self._probe.target} since it goes on at the source"
            self._trouble.append(where + _excuse(self._probe))
        return self._trouble

    async def _close(self) -> None:
        """Ends the probe and whatever else is under way."""
        if self._probe is not None:
            await asyncio.to_thread(self._probe.close)
        tasks = [*self._afterwards, *([self._hook] if self._hook is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start_hook(self, when: str) -> asyncio.Task[str | None]:
        facts = {
            "LIVEMIG_RUN_ID": self._run_id,
            "LIVEMIG_RUN_WHEN": when,
            "LIVEMIG_RUN_GUEST": self._source.facts.guest_name,
            "LIVEMIG_RUN_SOURCE": str(self._source.address),
            "LIVEMIG_RUN_DESTINATION": str(self._destination.address),
            "LIVEMIG_RUN_MACS": " ".join(self._macs),
        }
        return asyncio.get_running_loop().create_task(run_hook(self._plan.on_switchover, facts))

    def _do_afterwards(self, work: Coroutine[Any, Any, None]) -> None:
        self._afterwards.append(asyncio.get_running_loop().create_task(work))

    async def _judge_hook(self, hook: asyncio.Task[str | None]) -> None:
        failure = await hook
        if failure is not None:
            self._trouble.append(f"--on-switchover failed: {failure}")

    async def _judge_probe(self, probe: Probe, resumed_s: float) -> None:
        if not await probe.wait_answer(resumed_s, ANSWER_BOUND_S):
            where = f"the guest does not answer at {probe.target} since it was moved ({ANSWER_BOUND_S:.0f} s)"
            self._trouble.append(where + _excuse(probe))

    async def _set_guest_time(self, chardev: str) -> None:
        try:
            path = await socket_path(self._destination.monitor, chardev)
            if path is None:
                self._warn("the guest's clock was not set: its agent's socket is not one that can be connected to")
                return
            await set_guest_time(lambda: connect_to(self._destination.host, path))
        except (AgentError, LivemigError) as error:
            self._warn(f"the guest's clock was not set: {error}")


def _excuse(probe: Probe) -> str:
    return f"; {probe.trouble}" if probe.trouble else ""


def macs(inventory: Inventory) -> tuple[str, ...]:
    """The addresses of the guest's network cards."""
    found = (device.properties.get("mac", "").strip('"') for device in inventory.devices or ())
    return tuple(mac for mac in found if mac)
