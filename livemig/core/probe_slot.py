"""One slot without the user's cap, which shows what the last step has: no cap holds that. Pure; the rule says when.

QEMU reckons its threshold with its own last slot. So the slot that shows what the link carries is the one that counts,
and QEMU is told nothing that could be out of date. Sent at most once a run, and only where it would decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from livemig.core.foreknowledge import Foreknowledge
from livemig.core.observation import Observation
from livemig.core.past import PastMigration

SLOT_S = 0.1
COMPARED_S = 0.06
"""So soon after a slot QEMU has compared what is left with it: it looks once in 50 ms."""
PROBE_MOST_S = 0.5
"""It ends by then, whatever was seen: a slot that is under way, the one that is meant, and a look that comes late."""
DISTURBED_S = 0.3
"""So long after it QEMU's last slot may still be one without the cap, in part."""
CAP_EXCESS_RATIO = 1.2
"""A slot that shows no more than so much over the cap shows nothing that would decide."""
SAFE_RATIO = 0.75
"""Of what the slot carried: one slot alone does not tell how the link wavers."""
ROOM_RATIO = 1.25
"""What the link is known to have carried must be more than what is needed by so much: no probe for a maybe."""


def most_carried_bytes_s(past: Sequence[PastMigration], hosts: str) -> float:
    """Returns the most that the link between these hosts is known to have carried; 0 where nothing tells."""
    between = [one for one in past if hosts and one.hosts == hosts]
    rates = [rate for one in between for rate in (one.throughput_bytes_s, one.switchover_bytes_s) if rate]
    return max(rates, default=0.0)


def needed_most_bytes_s(known_bytes_s: float) -> float:
    """Returns what the last step may need at most, of a link that has carried so much, for the slot to decide."""
    return SAFE_RATIO * known_bytes_s / ROOM_RATIO


class ProbeSlot:
    """Whether it was sent.

    Attributes:
        lifted: Whether the cap is lifted now.
    """

    def __init__(self, known: Foreknowledge) -> None:
        """Takes what is known beforehand: how fast the link between these hosts was."""
        self._known_bytes_s = most_carried_bytes_s(known.past, known.hosts)
        self.lifted = False
        self._began_s: float | None = None
        self._ended_s = 0.0
        self._first_bytes_s: float | None = None
        self._shown_s: float | None = None

    def begin(self, time_s: float, *, needed_bytes_s: float, shown_bytes_s: float) -> bool:
        """Begins, if it was not sent before and would decide; returns whether it does.

        Args:
            time_s: When that is.
            needed_bytes_s: What the last step needs so that the limit is kept.
            shown_bytes_s: What this run's own slots were at most.
        """
        known_bytes_s = max(self._known_bytes_s, shown_bytes_s)
        if self._began_s is not None or needed_bytes_s > needed_most_bytes_s(known_bytes_s):
            return False
        self._began_s, self.lifted = time_s, True
        return True

    def observe(self, observation: Observation, cap_bytes_s: float) -> None:
        """Takes a reply: once QEMU has counted a slot that began without the cap, and compared, the cap comes back."""
        bytes_s, time_s = observation.throughput_bytes_s, observation.time_s
        if self.lifted and self._began_s is not None and bytes_s:
            if self._first_bytes_s is None:
                self._first_bytes_s = bytes_s
            whole = bytes_s != self._first_bytes_s and time_s - self._began_s > SLOT_S
            if self._shown_s is None and whole and bytes_s > CAP_EXCESS_RATIO * cap_bytes_s:
                self._shown_s = time_s
        self.passed(time_s)

    def passed(self, time_s: float) -> None:
        """Takes that time went by."""
        if not self.lifted or self._began_s is None:
            return
        compared = self._shown_s is not None and time_s - self._shown_s > COMPARED_S
        if compared or time_s - self._began_s > PROBE_MOST_S:
            self.lifted, self._ended_s = False, time_s

    def disturbs(self, time_s: float) -> bool:
        """Whether QEMU's slots are, or may still be, of the time without the cap."""
        return self.lifted or (self._began_s is not None and time_s - self._ended_s < DISTURBED_S)
