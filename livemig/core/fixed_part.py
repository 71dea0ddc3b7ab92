"""The fixed part of the downtime: how much of the limit the policy keeps for it, and where that is from. Pure.

A high value: one that is too small would break the user's limit. The forecast has its own, which is the likeliest
(`livemig.core.last_step`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from livemig.core.past import PastMigration
from livemig.core.plan import Plan
from livemig.core.switchover import FIXED_DOWNTIME_PRIOR_S
from livemig.core.units import format_duration

RECENT_COUNT = 20
"""So many of the last migrations between these hosts: hosts change, and what one busy day did is not for ever."""
ENOUGH_COUNT = 5
"""So few are not enough to go below the prior."""
MARGIN_RATIO = 1.25
"""Over the largest of them: the next one may be larger."""
FREAK_RATIO = 3.0
"""So much over all the others, which are enough: a host that was busy once, and would forbid tight limits."""


class FixedPart(msgspec.Struct, frozen=True):
    """What of the limit is kept.

    Attributes:
        value_s: How much.
        origin: Where it is from, in words.
        measured: Whether it was measured at all, and is not the prior.
    """

    value_s: float
    origin: str
    measured: bool

    def __str__(self) -> str:
        return f"{format_duration(self.value_s)}, {self.origin}"


def fixed_part(plan: Plan, past: Sequence[PastMigration] = (), hosts: str = "") -> FixedPart:
    """Returns what is kept of the limit: what the plan gives, else what was learned between these hosts, or the prior.

    Learned is a quarter over the largest of the last switchovers that had next to nothing to send. What is more than
    the prior counts at once; to go below it takes some.

    Args:
        plan: What is asked.
        past: Earlier migrations, newest first.
        hosts: Between which hosts and QEMUs it is to go, as these say it.
    """
    if plan.fixed_downtime_s is not None:
        return FixedPart(plan.fixed_downtime_s, "as given", measured=True)
    between = [one for one in past if hosts and one.hosts == hosts][:RECENT_COUNT]
    found = sorted(one.fixed_downtime_s for one in between if one.fixed_downtime_s is not None)
    if len(found) > ENOUGH_COUNT and found[-1] > FREAK_RATIO * found[-2]:
        found.pop()
    safe_s = MARGIN_RATIO * found[-1] if found else 0.0
    if not found or (len(found) < ENOUGH_COUNT and safe_s <= FIXED_DOWNTIME_PRIOR_S):
        return FixedPart(FIXED_DOWNTIME_PRIOR_S, "prior", measured=False)
    origin = f"a quarter over the most of {len(found)} between these hosts"
    return FixedPart(safe_s, origin, measured=True)
