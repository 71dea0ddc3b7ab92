"""One measurement of how much memory a guest dirties: distinct pages within a time, and how far off it may be. Data."""

from __future__ import annotations

import msgspec


class DirtySample(msgspec.Struct, frozen=True, kw_only=True):
    """Distinct pages dirtied within a time, as measured.

    A round of a migration does not measure one period: each page's is the age since its own last visit. So a sample
    is the mean of D over several periods: ``sum(weights[i] * D(periods_s[i]))`` is what was measured.

    Attributes:
        periods_s: The periods, in seconds; one for ``calc-dirty-rate``.
        weights: Their weights, which add up to 1.
        dirtied_pages: Distinct pages of 4096 bytes.
        deviation_pages: One standard deviation of the measurement, in pages: QEMU's sampling of pages and its
            rounding; not the guest's own changing behaviour.
    """

    periods_s: tuple[float, ...]
    weights: tuple[float, ...]
    dirtied_pages: float
    deviation_pages: float
