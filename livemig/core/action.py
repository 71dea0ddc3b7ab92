"""The closed set of what the engine may do to a migration under way. Decides nothing, sends nothing."""

from __future__ import annotations

import msgspec

from livemig.core.units import format_duration, format_rate


class SetDowntimeLimit(msgspec.Struct, frozen=True, kw_only=True, tag="set-downtime-limit"):
    """Sets QEMU's ``downtime-limit``: it switches over when the rest fits into it."""

    downtime_limit_s: float

    def __str__(self) -> str:
        return f"downtime-limit {format_duration(self.downtime_limit_s)}"


class SetBandwidth(msgspec.Struct, frozen=True, kw_only=True, tag="set-bandwidth"):
    """Sets QEMU's ``max-bandwidth``; None is unlimited."""

    bandwidth_bytes_s: float | None

    def __str__(self) -> str:
        if self.bandwidth_bytes_s is None:
            return "bandwidth unlimited"
        return f"bandwidth {format_rate(self.bandwidth_bytes_s)}"


class SetSwitchoverBandwidth(msgspec.Struct, frozen=True, kw_only=True, tag="set-switchover-bandwidth"):
    """Sets QEMU's ``avail-switchover-bandwidth``, which its threshold is reckoned with; None is its own estimate."""

    bandwidth_bytes_s: float | None

    def __str__(self) -> str:
        if self.bandwidth_bytes_s is None:
            return "switchover bandwidth as QEMU estimates it"
        return f"switchover bandwidth {format_rate(self.bandwidth_bytes_s)}"


class ContinueSwitchover(msgspec.Struct, frozen=True, tag="continue-switchover"):
    """Lets a QEMU that waits in ``pre-switchover`` send the rest: ``migrate-continue``."""

    def __str__(self) -> str:
        return "continue the switchover"


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Sends ``migrate_cancel``. Only before STOP: it is not out-of-band and hangs on a dead link after it."""

    def __str__(self) -> str:
        return "cancel"


class Yank(msgspec.Struct, frozen=True, tag="yank"):
    """Cuts the migration's connection out of band, which frees a source that hangs after STOP."""

    def __str__(self) -> str:
        return "cut the migration's connection"


class Settle(msgspec.Struct, frozen=True, tag="settle"):
    """Stops driving the migration and reads the truth from both sides: the outcome table goes on from there."""

    def __str__(self) -> str:
        return "read the truth from both sides"


Action = SetDowntimeLimit | SetBandwidth | SetSwitchoverBandwidth | ContinueSwitchover | Cancel | Yank | Settle
