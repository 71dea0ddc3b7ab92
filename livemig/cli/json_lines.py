"""Events as JSON lines: what ``--json`` prints, and nothing else on stdout. Pure."""

from __future__ import annotations

import msgspec

from livemig.core.event import Ended, Event


def json_line(event: Event) -> str:
    """Returns an event as one line of JSON, without the newline."""
    return msgspec.json.encode(event).decode()


def refused_line(reason: str, run_id: str = "") -> str:
    """Returns the closing object of a run that was refused: the source runs on, untouched."""
    return json_line(refused(reason, run_id))


def refused(reason: str, run_id: str) -> Ended:
    """Returns the closing event of a run that was refused."""
    return Ended(
        time_s=0.0,
        id=run_id,
        outcome="refused",
        running_on="source",
        guest_state="unknown",
        total_s=None,
        downtime_s=None,
        qemu_downtime_s=None,
        sent_bytes=0,
        round_count=0,
        reason=reason,
    )
