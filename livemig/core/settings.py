"""What QEMU is told of limits: the guard of the first slot, the user's cap, what the rule wants. Decides nothing else.

Keeps what QEMU was told last, so that only what differs becomes an action.
"""

from __future__ import annotations

from livemig.core.action import Action, SetBandwidth, SetDowntimeLimit, SetSwitchoverBandwidth
from livemig.core.plan import DOWNTIME_LIMIT_LEAST_S, DOWNTIME_LIMIT_MOST_S, Plan
from livemig.core.rule import Wanted
from livemig.core.units import format_rate

GUARD_SLOT_S = 0.2
"""While QEMU has not counted a first ~100 ms slot its threshold is 0, and a first pass that ends within it stops the
guest with everything dirty still to send (7.2, 10.0). The guard stretches a first pass of only zero pages to this."""
ZERO_PAGE_SENT_BYTES = 9
"""What a zero page costs on the wire: its header."""
SCAN_MOST_BYTES_S = 40 * 2**30
"""No pass over memory is faster, were every page zero: 18 GiB/s were measured over pages that were never touched. So a
guest of 8 GiB needs no guard."""
GUARD_LEAST_BYTES_S = 2e6
GUARD_MOST_BYTES_S = 64 * 2**20
SWITCHOVER_LEAST_BYTES_S = 1000.0
"""QEMU takes less for 0, and then stops the guest with everything still to send."""


def guard_bytes_s(memory_bytes: int) -> float | None:
    """What the first slot may be sent with, so that the first pass outlasts it; None where it does so anyway."""
    if memory_bytes >= SCAN_MOST_BYTES_S * GUARD_SLOT_S:
        return None
    zero_pass_bytes = memory_bytes / 4096 * ZERO_PAGE_SENT_BYTES
    return min(max(zero_pass_bytes / GUARD_SLOT_S, GUARD_LEAST_BYTES_S), GUARD_MOST_BYTES_S)


class Settings:
    """What QEMU's limits are to be, and what they are.

    Attributes:
        guarded: Whether QEMU has not yet counted its first slot.
        lifted: Whether the limits were lifted, at a deadline, as the user asked.
        takes_switchover_bandwidth: Whether QEMU has ``avail-switchover-bandwidth``.
    """

    def __init__(self) -> None:
        self.lifted = False
        self.takes_switchover_bandwidth = False
        self._guard_bytes_s: float | None = None
        self._downtime_limit_s: float | None = None
        self._bandwidth_bytes_s: float | None = None
        self._switchover_bytes_s: float | None = None

    @property
    def guarded(self) -> bool:
        """Whether QEMU has not yet counted its first slot."""
        return self._guard_bytes_s is not None

    def guard(self, memory_bytes: int) -> None:
        """Begins with a modest bandwidth, where the guest is small enough to need it."""
        self._guard_bytes_s = guard_bytes_s(memory_bytes)

    def let_go(self) -> None:
        """Ends the guard."""
        self._guard_bytes_s = None

    def lift(self) -> None:
        """Lets QEMU stop the guest whatever is left."""
        self.lifted, self._guard_bytes_s = True, None

    def bandwidth_words(self, plan: Plan) -> str:
        """The cap in words."""
        bandwidth_bytes_s = self._wanted_bandwidth_bytes_s(plan)
        return "no cap on bandwidth" if bandwidth_bytes_s is None else f"bandwidth {format_rate(bandwidth_bytes_s)}"

    def actions(self, plan: Plan, wanted: Wanted) -> tuple[Action, ...]:
        """The settings that differ from what QEMU was told last."""
        actions: list[Action] = []
        downtime_limit_s, switchover_bytes_s = wanted.downtime_limit_s, wanted.switchover_bytes_s
        if self.lifted:
            downtime_limit_s, switchover_bytes_s = DOWNTIME_LIMIT_MOST_S, None
        downtime_limit_s = min(max(downtime_limit_s, DOWNTIME_LIMIT_LEAST_S), DOWNTIME_LIMIT_MOST_S)
        first = self._downtime_limit_s is None
        if downtime_limit_s != self._downtime_limit_s:
            self._downtime_limit_s = downtime_limit_s
            actions.append(SetDowntimeLimit(downtime_limit_s=downtime_limit_s))
        bandwidth_bytes_s = self._wanted_bandwidth_bytes_s(plan)
        if wanted.uncapped:
            bandwidth_bytes_s = None
        if first or bandwidth_bytes_s != self._bandwidth_bytes_s:
            self._bandwidth_bytes_s = bandwidth_bytes_s
            actions.append(SetBandwidth(bandwidth_bytes_s=bandwidth_bytes_s))
        if self.takes_switchover_bandwidth:
            if switchover_bytes_s is not None:
                switchover_bytes_s = max(switchover_bytes_s, SWITCHOVER_LEAST_BYTES_S)
            if switchover_bytes_s != self._switchover_bytes_s:
                self._switchover_bytes_s = switchover_bytes_s
                actions.append(SetSwitchoverBandwidth(bandwidth_bytes_s=switchover_bytes_s))
        return tuple(actions)

    def _wanted_bandwidth_bytes_s(self, plan: Plan) -> float | None:
        if self.lifted:
            return None
        caps = [cap for cap in (plan.bandwidth_bytes_s, self._guard_bytes_s) if cap is not None]
        return min(caps, default=None)
