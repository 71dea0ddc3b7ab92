"""The slot without the cap, foreseen: when `livemig.core.switchover` will send it, for many particles at once.

The rule looks at each round as it ends, and so does this at each sync of `livemig.core.scan`. It lifts the cap after
the first copy, when what is left comes down no more, does not fit, and the link is known to carry what would.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livemig.core.dirty_curve import CurveTable
from livemig.core.probe_slot import SLOT_S
from livemig.core.switchover import DECAY_RATIO, HOPELESS_AFTER_ROUNDS, PROBED_AFTER_ROUNDS, WHOLE_PASS_SHARE

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

REACTION_S = 0.004
"""From the sync until the source has the command: livemig hears of it by an event. A burst that is over by then leaves
the thread asleep till the next slot."""
LIFTED_S = 2 * SLOT_S
"""The slot under way, the one that is counted, and until QEMU has compared."""
_CYCLES_S: Array = np.geomspace(2e-3, 100.0, 64)


class Foreseen(NamedTuple):
    """What the rule knows, and what will be.

    Attributes:
        needed_most_pages_s: The most that the last step may need for the slot to decide.
        held: Whether it is the cap that holds the copy, shape (M,).
        left_pages: What each of the last rounds left, the first copy the first of them.
        passed_pages: What of that was sent since the first copy.
        first_pages: What the first copy left.
    """

    needed_most_pages_s: float
    held: Flags
    left_pages: tuple[float, ...] = ()
    passed_pages: float = 0.0
    first_pages: float = 0.0


class Probing:
    """Where each particle is with its one slot.

    Attributes:
        lifted: Whose cap is lifted now, shape (M,).
        lifted_s: Since when; infinite before it is, shape (M,).
    """

    def __init__(self, foreseen: Foreseen, curves: CurveTable, running_pages_s: Array, allowed_s: float) -> None:
        """Takes what is known, how the guests dirty memory, the throughput under the cap, and the limit."""
        count = len(running_pages_s)
        self.lifted = np.zeros(count, dtype=bool)
        self.lifted_s = np.full(count, np.inf)
        self._foreseen = foreseen
        self._allowed_s, self._allowed_pages = allowed_s, allowed_s * running_pages_s
        self._beyond = _floor_pages(curves, running_pages_s) >= self._allowed_pages
        self._left_pages = np.full((count, PROBED_AFTER_ROUNDS), np.nan)
        for left_pages in foreseen.left_pages[-PROBED_AFTER_ROUNDS:]:
            self._left_pages = np.concatenate((self._left_pages[:, 1:], np.full((count, 1), left_pages)), axis=1)
        self._passed_pages = np.full(count, foreseen.passed_pages)
        self._first_pages = np.full(count, foreseen.first_pages if foreseen.left_pages else np.nan)

    def walked(self, sent_pages: Array) -> None:
        """Takes what was sent of what was known to be dirty; before the first copy has ended it does not count."""
        self._passed_pages += np.where(np.isnan(self._first_pages), 0.0, sent_pages)

    def synced(self, which: Flags, left_pages: Array) -> Flags:
        """Takes that a sync ended a round for some; returns for which of them the rule lifts the cap now."""
        self._first_pages = np.where(which & np.isnan(self._first_pages), left_pages, self._first_pages)
        rolled = np.concatenate((self._left_pages[:, 1:], left_pages[:, None]), axis=1)
        self._left_pages = np.where(which[:, None], rolled, self._left_pages)
        return np.asarray(which & np.isinf(self.lifted_s) & self._foreseen.held & self._decides(), dtype=bool)

    def lift(self, which: Flags, since_s: Array) -> None:
        """Takes that the cap is lifted for some."""
        self.lifted |= which
        self.lifted_s = np.where(which, since_s, self.lifted_s)

    def passed(self, now_s: Array) -> Flags:
        """Takes that time went by; returns for which the cap comes back now."""
        back: Flags = self.lifted & (now_s - self.lifted_s >= LIFTED_S)
        self.lifted &= ~back
        return back

    def _decides(self) -> Flags:
        """The rule; no comparison with a round that was not yet, a NaN, holds."""
        left = self._left_pages
        last = left[:, -HOPELESS_AFTER_ROUNDS:]
        settled = left[:, -1] >= DECAY_RATIO * np.fmax(left[:, -HOPELESS_AFTER_ROUNDS - 1], last[:, 0])
        whole = self._passed_pages >= WHOLE_PASS_SHARE * self._first_pages
        beyond = self._beyond | (left >= self._allowed_pages[:, None]).all(axis=1)
        least_pages = last.min(axis=1)
        needed = least_pages <= self._foreseen.needed_most_pages_s * self._allowed_s
        return np.asarray(settled & whole & beyond & (least_pages >= self._allowed_pages) & needed, dtype=bool)


def _floor_pages(curves: CurveTable, running_pages_s: Array) -> Array:
    """What is pending on average right after a sync of short rounds, see `livemig.core.reach`; shape (M,)."""
    dirtied = curves.dirtied_pages(np.tile(_CYCLES_S, (len(running_pages_s), 1)))
    above = dirtied > running_pages_s[:, None] * _CYCLES_S
    steps_s = np.diff(np.concatenate(([0.0], _CYCLES_S)))
    cycle_s = (above * steps_s).sum(axis=1)
    pending = (above * dirtied * steps_s).sum(axis=1) / np.maximum(cycle_s, 1e-9)
    return np.asarray(np.where(cycle_s > 0, pending, 0.0), dtype=float)
