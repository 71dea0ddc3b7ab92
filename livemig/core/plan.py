"""What the user asked of one migration, validated once. Holds no defaults of QEMU's and reads nothing."""

from __future__ import annotations

import math
from enum import StrEnum

import msgspec

from livemig.core.errors import PlanError
from livemig.core.probe import ProbeTarget
from livemig.core.units import format_duration, format_rate

DOWNTIME_LIMIT_LEAST_S = 0.001
"""QEMU counts in milliseconds, and a limit of 0 stops the guest with everything still to send (7.2, 10.0)."""
DOWNTIME_LIMIT_MOST_S = 2000.0
"""QEMU's own bound on ``downtime-limit``."""
BANDWIDTH_LEAST_BYTES_S = 1e6
"""QEMU 10 and later let at least one buffer through each 100 ms, about 1.3 MB/s: less is not held."""


class AtDeadline(StrEnum):
    """What to do when the deadline comes and the guest has not moved."""

    CANCEL = "cancel"
    """Give up: the guest goes on at the source."""
    PAUSE = "pause"
    """Lift the limits, so that QEMU stops the guest and sends the rest: the one consented excess."""


class Security(StrEnum):
    """What protects a guest's memory on its way between hosts. On one host it takes a private UNIX socket anyway."""

    AUTO = "auto"
    """TLS, or SSH where a QEMU has no TLS or the two can't reach each other."""
    TLS = "tls"
    """QEMU's own TLS with a key made for the migration."""
    SSH = "ssh"
    """A tunnel through livemig's SSH connections."""
    NONE = "none"
    """Nothing: whoever is on the way may read and change it."""


class SwitchoverMoment(StrEnum):
    """When the user's command runs in the switchover."""

    STOPPED = "stopped"
    """While the guest stands still; it is continued as soon as the command has ended, at the limit at the latest."""
    RESUMED = "resumed"
    """As soon as the guest runs at the destination."""


class Prefer(StrEnum):
    """What is worth more, within the downtime limit."""

    TIME = "time"
    """Switch over as soon as the limit holds."""
    DOWNTIME = "downtime"
    """Use the time there is to let the guest stand still less."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user asked of one migration.

    Attributes:
        downtime_limit_s: How long the guest may stand still, in seconds. livemig never raises it by itself.
        bandwidth_bytes_s: Cap on what is sent while the guest runs, in bytes per second; None is unlimited.
            QEMU's last step, while the guest stands still, is not held to it.
        deadline_s: Time from ``migrate`` within which the guest must have moved, in seconds; None is no deadline.
        at_deadline: What to do when the deadline comes, or as soon as it is clear that nothing else is left.
        keep_trying: Go on although it looks hopeless: until the deadline, or for ever without one.
        prefer: What is worth more, within the limit.
        patience_ratio: Of preferring downtime: wait for less at most so many times as long as the downtime that is at
            stake; None waits in all the time there is.
        probation_s: How long the destination is watched before the source is retired, in seconds.
        keep_source: Leave the source paused instead of quitting it.
        pause_before_switchover: Let QEMU stop the guest and wait for livemig's word before it sends the rest. A last
            gate: a cancel up to that word is certain to leave the guest at the source. Costs a round trip of downtime,
            and a guest whose controller dies just then stands still until somebody comes.
        sample_s: How long the running guest is sampled for the forecast before ``migrate``, in seconds; 0 is not at
            all.
        security: What protects the guest's memory between hosts.
        migrate_address: The address at which the destination listens for it; None takes the one by which its SSH is
            reached.
        on_switchover: A command to run here at the switchover, its words; empty is none.
        switchover_moment: When it runs.
        probe: Whom to ask for the guest through the run, ``tcp:HOST:PORT`` or ``ping:HOST``; None is nobody.
        set_guest_time: Set the guest's clock after the move, through its agent.
        fixed_downtime_s: The part of the downtime that does not depend on what is left to send, in seconds, as an
            earlier report measured it for this pair of QEMUs; None takes the policy's prior.

    Raises:
        PlanError: When a value is out of range or two contradict; the message says which and what would do.
    """

    downtime_limit_s: float = 0.3
    bandwidth_bytes_s: float | None = None
    deadline_s: float | None = None
    at_deadline: AtDeadline = AtDeadline.CANCEL
    keep_trying: bool = False
    prefer: Prefer = Prefer.TIME
    patience_ratio: float | None = None
    probation_s: float = 2.0
    keep_source: bool = False
    pause_before_switchover: bool = False
    sample_s: float = 0.0
    security: Security = Security.AUTO
    migrate_address: str | None = None
    on_switchover: tuple[str, ...] = ()
    switchover_moment: SwitchoverMoment = SwitchoverMoment.RESUMED
    probe: str | None = None
    set_guest_time: bool = False
    fixed_downtime_s: float | None = None

    def __post_init__(self) -> None:
        if not DOWNTIME_LIMIT_LEAST_S <= self.downtime_limit_s <= DOWNTIME_LIMIT_MOST_S:
            raise PlanError(
                f"downtime limit {format_duration(self.downtime_limit_s)} is out of range: "
                f"give {format_duration(DOWNTIME_LIMIT_LEAST_S)} to {DOWNTIME_LIMIT_MOST_S:.0f} s"
            )
        if self.bandwidth_bytes_s == math.inf:
            raise PlanError("an infinite bandwidth is no cap: leave it out")
        if self.bandwidth_bytes_s is not None and not self.bandwidth_bytes_s >= BANDWIDTH_LEAST_BYTES_S:
            raise PlanError(
                f"bandwidth {format_rate(self.bandwidth_bytes_s)} is too low: QEMU does not hold to less than "
                f"about 1.3 MB/s; give at least 1MB/s, or leave it out for no cap"
            )
        if self.deadline_s is not None and not 0 < self.deadline_s < math.inf:
            raise PlanError(
                f"a deadline of {format_duration(self.deadline_s)} makes no sense: "
                "give the time within which the guest must have moved, such as 5min, or leave it out"
            )
        if self.deadline_s is None and self.at_deadline is not AtDeadline.CANCEL:
            raise PlanError(f"at-deadline {self.at_deadline} needs a deadline: give one, such as --deadline 5min")
        self._check_waiting()
        address = self.migrate_address
        if address is not None and (not address or any(each.isspace() or each in "[]/,%" for each in address)):
            raise PlanError(f"migrate address {address!r}: give an address of the destination's host, without brackets")
        if self.fixed_downtime_s is not None and not 0 <= self.fixed_downtime_s < DOWNTIME_LIMIT_MOST_S:
            raise PlanError("the fixed part of the downtime must be 0 or more, in seconds")
        if self.switchover_moment is SwitchoverMoment.STOPPED and not self.on_switchover:
            raise PlanError("on-switchover-at stopped needs a command: give one with --on-switchover")
        if self.probe is not None:
            ProbeTarget.parse(self.probe)

    def _check_waiting(self) -> None:
        if self.patience_ratio is not None and not 0 < self.patience_ratio < math.inf:
            raise PlanError(
                f"a patience of {self.patience_ratio:g} makes no sense: say how many times as long to wait as the "
                "downtime that is at stake, such as 10, or leave it out to wait in all the time there is"
            )
        if not 0 <= self.probation_s <= 3600:
            raise PlanError(f"probation {format_duration(self.probation_s)} is out of range: give 0s to 1h")
        if not 0 <= self.sample_s <= 600:
            raise PlanError(f"sampling for {format_duration(self.sample_s)} is out of range: give 0s to 10min")


class PlanChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `Migration.tune` may change while a migration runs; what is left out stays as it is.

    A deadline or a cap is changed, not taken away: that is what ``msgspec.UNSET`` against None would be for, and
    nobody who set one wants none.

    Attributes:
        downtime_limit_s: See `Plan`.
        bandwidth_bytes_s: See `Plan`.
        deadline_s: See `Plan`; counted from ``migrate``, not from the change.
        at_deadline: See `Plan`.
        keep_trying: See `Plan`.
        prefer: See `Plan`.
    """

    downtime_limit_s: float | None = None
    bandwidth_bytes_s: float | None = None
    deadline_s: float | None = None
    at_deadline: AtDeadline | None = None
    keep_trying: bool | None = None
    prefer: Prefer | None = None

    def applied_to(self, plan: Plan) -> Plan:
        """Returns the changed plan.

        Raises:
            PlanError: When the result makes no sense; then nothing was changed.
        """
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(plan, **given)
