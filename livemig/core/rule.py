"""What says when QEMU may switch over: the seam between the policy's state machine and its rule. Data and a protocol.

livemig's own rule is `livemig.core.switchover`; those of others are in `livemig.simulation.rivals`.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from livemig.core.inputs import Prepared
from livemig.core.observation import Observation
from livemig.core.plan import Plan


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule wants of QEMU until it says otherwise.

    Attributes:
        downtime_limit_s: QEMU's ``downtime-limit``: with the bandwidth it makes the threshold at which QEMU fires.
        switchover_bytes_s: What the last step is taken to be sent with (``avail-switchover-bandwidth``); None is
            QEMU's own estimate, the last slot. Taken only where QEMU has that parameter.
        uncapped: Whether the user's cap is lifted for a moment, to see what the link carries (`core.probe_slot`).
        reason: Why it is so now, in words.
        hopeless: Why this can't end well, and what would do; empty while it may.
        remedy: What would do, as far as what was left so far tells: for who runs out of time. Changes no setting.
    """

    downtime_limit_s: float
    switchover_bytes_s: float | None = None
    uncapped: bool = False
    reason: str = ""
    hopeless: str = ""
    remedy: str = ""


class Rule(Protocol):
    """Says what is wanted, each time something was seen. Deterministic: the same inputs give the same wishes."""

    def begin(self, plan: Plan, seen: Prepared) -> Wanted:
        """Takes what is known before ``migrate``."""

    def observe(self, observation: Observation) -> Wanted:
        """Takes a reply of the source while its guest runs and memory is copied."""

    def passed(self, time_s: float) -> Wanted:
        """Takes that time went by."""

    def tuned(self, plan: Plan, time_s: float) -> Wanted:
        """Takes a changed plan."""
