"""Events as JSON lines: what ``--json`` prints, and nothing else on stdout. Pure."""

from __future__ import annotations

import msgspec

from livemig.core.event import Ended, Event
from livemig.core.json_text import encoded
from livemig.core.outcome import Outcome


class Started(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="started"):
    """The first line of a run: its id, before anything is asked of either QEMU."""

    id: str


def json_line(event: Event | Started) -> str:
    """Returns an event as one line of JSON, without the newline."""
    return encoded(event).decode()


def refused_line(reason: str, run_id: str = "", outcome: Outcome = Outcome.REFUSED) -> str:
    """Returns the closing object of a run that never began: the source runs on, untouched."""
    return json_line(
        Ended(
            time_s=0.0,
            id=run_id,
            outcome=outcome,
            running_on="source",
            guest_state="unknown",
            total_s=None,
            downtime_s=None,
            qemu_downtime_s=None,
            sent_bytes=0,
            round_count=0,
            reason=reason,
        )
    )
