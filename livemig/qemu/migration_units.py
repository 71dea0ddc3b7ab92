"""SI units back into QEMU's, where an action becomes a parameter. Refuses values that QEMU takes to harm."""

import math

from livemig.core.errors import PlanError

UNLIMITED = 0
"""``max-bandwidth`` for no limit; so is anything under 10, a tenth of it per slot being rounded to 0."""
ESTIMATE = 0
"""``avail-switchover-bandwidth`` for QEMU's own estimate."""

_DOWNTIME_LIMIT_MOST_MS = 2_000_000
_BANDWIDTH_LEAST_BYTES_S = 10
_SWITCHOVER_BANDWIDTH_LEAST_BYTES_S = 1000
_BANDWIDTH_MOST_BYTES_S = 2**63 - 1


def to_downtime_limit_ms(downtime_limit_s: float) -> int:
    """Turns a limit in seconds into QEMU's ``downtime-limit``, rounded down: the limit is never raised.

    Raises:
        PlanError: Under 1 ms, which 7.2 and 10.0 take for "stop the guest with everything still to send"; or
            over QEMU's 2000 s.
    """
    if not math.isfinite(downtime_limit_s) or downtime_limit_s * 1000 + 1e-6 < 1:
        raise PlanError(f"a downtime limit of {downtime_limit_s:g} s is under QEMU's least of 1 ms")
    limit_ms = math.floor(downtime_limit_s * 1000 + 1e-6)
    if limit_ms > _DOWNTIME_LIMIT_MOST_MS:
        raise PlanError(f"a downtime limit of {downtime_limit_s:g} s is over QEMU's most of 2000 s")
    return limit_ms


def to_max_bandwidth(bandwidth_bytes_s: float | None) -> int:
    """Turns a cap in bytes per second, or None for no cap, into QEMU's ``max-bandwidth``.

    Raises:
        PlanError: Under 10 B/s, which QEMU takes for no limit.
    """
    if bandwidth_bytes_s is None:
        return UNLIMITED
    return _to_bytes_s(bandwidth_bytes_s, _BANDWIDTH_LEAST_BYTES_S, "bandwidth", "QEMU takes less for none")


def to_avail_switchover_bandwidth(bandwidth_bytes_s: float | None) -> int:
    """Turns the link's capacity in bytes per second, or None, into QEMU's ``avail-switchover-bandwidth``.

    None lets QEMU estimate.

    Raises:
        PlanError: Under 1000 B/s, which QEMU rounds to a threshold of 0: it then stops the guest with
            everything still to send.
    """
    if bandwidth_bytes_s is None:
        return ESTIMATE
    least_bytes_s = _SWITCHOVER_BANDWIDTH_LEAST_BYTES_S
    return _to_bytes_s(bandwidth_bytes_s, least_bytes_s, "switchover bandwidth", "QEMU rounds less to 0")


def _to_bytes_s(rate_bytes_s: float, least_bytes_s: int, what: str, why: str) -> int:
    if not math.isfinite(rate_bytes_s) or rate_bytes_s < least_bytes_s:
        raise PlanError(f"a {what} of {rate_bytes_s:g} B/s is under {least_bytes_s} B/s: {why}")
    return min(math.floor(rate_bytes_s), _BANDWIDTH_MOST_BYTES_S)
