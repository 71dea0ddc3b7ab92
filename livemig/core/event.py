"""What happens during a migration, one frozen object each: for the screen, JSON lines, the trace and the library.

Times are seconds since the ``migrate`` command, monotonic; what came before is negative. Pure data.
"""

from __future__ import annotations

import msgspec

from livemig.core.action import Action
from livemig.core.phases import Phase
from livemig.core.prediction import Forecast
from livemig.core.rounds import Round


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    time_s: float


class Prepared(_Event, frozen=True, kw_only=True, tag="prepared"):
    """Both sides were compared and made ready; ``migrate`` comes next.

    Attributes:
        id: The run's id.
        guest_name: QEMU's ``-name``, or empty.
        memory_bytes: The guest's memory.
        source: The source's address.
        destination: The destination's address.
        source_version: QEMU's version at the source.
        destination_version: QEMU's version at the destination.
        channel: How memory travels.
        downtime_limit_s: The user's limit, in seconds.
        fixed_downtime_s: What of the limit is taken as fixed, in seconds.
    """

    id: str
    guest_name: str
    memory_bytes: int
    source: str
    destination: str
    source_version: str
    destination_version: str
    channel: str
    downtime_limit_s: float
    fixed_downtime_s: float


class Sampled(_Event, frozen=True, kw_only=True, tag="sampled"):
    """The running guest is being sampled, before ``migrate``.

    Attributes:
        passed_s: For how long by now.
        wanted_s: For how long in all.
    """

    passed_s: float
    wanted_s: float


class DestinationLaunched(_Event, frozen=True, kw_only=True, tag="destination-launched"):
    """No QEMU waited at the destination's address: one was launched by the source's command line.

    Attributes:
        command: Its command line as a shell takes it, secrets taken out.
        changes: What differs from the source's, one line each.
    """

    command: str
    changes: tuple[str, ...]


class Progressed(_Event, frozen=True, kw_only=True, tag="progressed"):
    """The state of the copy. A slow consumer sees the latest, not each.

    Attributes:
        phase: Where the migration stands.
        progress: From 0 to 1, never going back.
        round_number: The pass under way, from 1.
        remaining_bytes: What is left to send.
        sent_bytes: What went over the wire so far.
        throughput_bytes_s: QEMU's last ~100 ms slot; None before the first.
        newly_dirtied_bytes_s: The last round's newly dirtied bytes over its duration; None in the first round.
        expected_downtime_s: What a switchover now would cost; None before the first counters.
        downtime_limit_s: The user's limit.
        left_s: The time left as a range in seconds, its 5 % and 95 % quantiles; None when nothing is known of it.
    """

    phase: Phase
    progress: float
    round_number: int
    remaining_bytes: int
    sent_bytes: int
    throughput_bytes_s: float | None
    newly_dirtied_bytes_s: float | None
    expected_downtime_s: float | None
    downtime_limit_s: float
    left_s: tuple[float, float] | None = None


class RoundCompleted(_Event, frozen=True, kw_only=True, tag="round-completed"):
    """A pass over dirty memory ended."""

    round: Round
    expected_downtime_s: float | None
    downtime_limit_s: float


class Decided(_Event, frozen=True, kw_only=True, tag="decided"):
    """The policy decided something, and why."""

    phase: Phase
    actions: tuple[Action, ...]
    reason: str


class Warned(_Event, frozen=True, kw_only=True, tag="warned"):
    """Something the user should know that does not end the migration."""

    text: str


class Forecasted(_Event, frozen=True, kw_only=True, tag="forecasted"):
    """What is to be expected of the migration, as known now."""

    forecast: Forecast


class SourceStopped(_Event, frozen=True, kw_only=True, tag="source-stopped"):
    """The guest stands still: the switchover has begun."""


class DestinationRunning(_Event, frozen=True, kw_only=True, tag="destination-running"):
    """The guest is at the destination, in the state it had at the source.

    Attributes:
        downtime_s: From the source's STOP to the destination's RESUME; None when the guest did not run before.
        run_state: The destination's run state.
    """

    downtime_s: float | None
    run_state: str


class Settling(_Event, frozen=True, kw_only=True, tag="settling"):
    """A step of the outcome table, taken because the straight way did not end well.

    Attributes:
        step: What is done next.
        reason: Why, in words.
    """

    step: str
    reason: str


class SourceRetired(_Event, frozen=True, kw_only=True, tag="source-retired"):
    """The source's QEMU has ended, or is kept paused.

    Attributes:
        kept: Whether it was left paused.
    """

    kept: bool


class Ended(_Event, frozen=True, kw_only=True, tag="ended"):
    """The last event: the contract's closing line. See `livemig.core.report.Report` for the fields."""

    id: str
    outcome: str
    running_on: str
    guest_state: str
    total_s: float | None
    downtime_s: float | None
    qemu_downtime_s: float | None
    sent_bytes: int
    round_count: int
    blackout_s: float | None = None
    forecasts: tuple[Forecast, ...] = ()
    warnings: tuple[str, ...] = ()
    reason: str = ""


Event = (
    Prepared
    | Sampled
    | DestinationLaunched
    | Progressed
    | RoundCompleted
    | Decided
    | Forecasted
    | Warned
    | SourceStopped
    | DestinationRunning
    | Settling
    | SourceRetired
    | Ended
)
