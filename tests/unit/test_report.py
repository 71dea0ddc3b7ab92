"""What a report says of the fixed part of a switchover."""

from __future__ import annotations

import pytest

from livemig.core.report import NEXT_TO_NOTHING_BYTES, Downtime, fixed_downtime_found_s

SHORT = Downtime(total_s=0.004, clock_uncertainty_s=0.0, transfer_s=0.003, controller_s=0.0, resume_s=0.001)


@pytest.mark.parametrize(
    ("downtime", "sent_bytes", "found_s"),
    [
        (SHORT, 16_384, 0.004),
        (SHORT, NEXT_TO_NOTHING_BYTES, 0.004),
        (SHORT, NEXT_TO_NOTHING_BYTES + 1, None),
        (SHORT, 20 * 2**20, None),
        (SHORT, None, None),
        (None, 16_384, None),
    ],
)
def test_fixed_part_is_shown_only_where_nothing_else_takes_time(downtime, sent_bytes, found_s) -> None:
    """Never 0, never guessed from a throughput: passed on, it must not eat into the user's limit."""
    assert fixed_downtime_found_s(downtime, sent_bytes) == found_s
