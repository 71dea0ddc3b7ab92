"""A simulated link, and what both its ends take for a page: how long bytes and pages are under way. Pure and seeded.

Knows nothing of caps: QEMU's own rate limiting is in `livemig.simulation.source_qemu`.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from livemig.core.errors import PlanError
from livemig.simulation.wavering import GRID_S, Wavering

STEADY_S = 5 * GRID_S
"""So long a rate that wavers stays as it is: as long as a slot of QEMU's, whose mean is what anybody sees of it."""


class Outage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A time during which a link carries less.

    Attributes:
        start_s: When it begins, in seconds since ``migrate``.
        duration_s: How long it lasts; infinite for a link that is cut for good and says nothing.
        left_percent: What it still carries.
    """

    start_s: float
    duration_s: float
    left_percent: float = 0.0


class LinkSetting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link and the two hosts at its ends.

    Attributes:
        rate_bytes_s: What it carries with pages that the destination holds already.
        latency_s: One way.
        noise_ratio: Standard deviation of the rate's logarithm; 0 is steady.
        noise_s: How long a deviation lasts.
        outages: When it carries less; they do not overlap.
        fresh_page_s: What the destination takes longer for a page that it receives for the first time.
        zero_page_s: What both take for a zero page, which is 9 bytes.

    Raises:
        PlanError: When a value makes no sense.
    """

    rate_bytes_s: float = 1.25e9
    latency_s: float = 0.0001
    noise_ratio: float = 0.0
    noise_s: float = 1.0
    outages: tuple[Outage, ...] = ()
    fresh_page_s: float = 0.0
    zero_page_s: float = 0.4e-6

    def __post_init__(self) -> None:
        if not 0 < self.rate_bytes_s < math.inf:
            raise PlanError("a link's rate is more than 0, and finite")
        if min(self.latency_s, self.noise_ratio, self.fresh_page_s, self.zero_page_s) < 0 or self.noise_s <= 0:
            raise PlanError("a link's times and noise are 0 or more")


class Link:
    """What a link carries as time goes on."""

    def __init__(self, setting: LinkSetting, generator: np.random.Generator) -> None:
        self.setting = setting
        self._noise = Wavering(setting.noise_ratio, setting.noise_s, generator)

    def branch(self, time_s: float, generator: np.random.Generator) -> None:
        """Has its noise go on otherwise from a moment; its outages come when they come."""
        self._noise.branch(time_s, generator)

    def rate_bytes_s(self, time_s: float) -> float:
        """Returns what it carries at a moment, 0 in an outage."""
        from_s = self._step(time_s) * STEADY_S
        noise = 1.0 if self._noise.steady else self._noise.mean_ratio(from_s, from_s + STEADY_S)
        return self.setting.rate_bytes_s * noise * self._left(time_s)

    def steady_until_s(self, time_s: float) -> float:
        """Returns until when the rate stays as it is now; infinite when it always does."""
        edges_s = [math.inf]
        if not self._noise.steady:
            edges_s.append((self._step(time_s) + 1) * STEADY_S)
        for outage in self.setting.outages:
            edges_s += [edge_s for edge_s in (outage.start_s, outage.start_s + outage.duration_s) if edge_s > time_s]
        return min(edges_s)

    @staticmethod
    def _step(time_s: float) -> int:
        """Which step of the noise a moment is in; a step's very end, as floats have it, is in the next."""
        step = int(time_s / STEADY_S)
        return step + 1 if (step + 1) * STEADY_S <= time_s else step

    def _left(self, time_s: float) -> float:
        for outage in self.setting.outages:
            if outage.start_s <= time_s < outage.start_s + outage.duration_s:
                return outage.left_percent / 100
        return 1.0
