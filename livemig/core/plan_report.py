"""What `livemig plan` found: whether the guest can be moved, what speaks against it, what would be done. Pure data."""

from __future__ import annotations

import msgspec

from livemig.core.finding import Finding
from livemig.core.plan import Plan
from livemig.core.prediction import Forecast, Interval


class PlannedSide(msgspec.Struct, frozen=True, kw_only=True):
    """A QEMU that would take part.

    Attributes:
        address: Its monitor's address.
        version: Such as ``10.0.2``.
        guest_name: ``-name``, or empty.
        run_state: Its run state, in QEMU's word.
        memory_bytes: The guest's memory.
        vcpu_count: Its vCPUs.
    """

    address: str
    version: str
    guest_name: str
    run_state: str
    memory_bytes: int
    vcpu_count: int


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """What would be under another limit and another bandwidth.

    Attributes:
        downtime_limit_s: The limit.
        bandwidth_bytes_s: The cap.
        converges: The probability that it converges.
        total_s: How long it would take; None when it can't converge.
    """

    downtime_limit_s: float
    bandwidth_bytes_s: float
    converges: float
    total_s: Interval | None


class PlanReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="plan"):
    """The preflight of one migration; nothing was changed for it.

    Attributes:
        id: The id of this look.
        movable: Whether nothing speaks against it.
        plan: What was asked.
        source: The source.
        destination: The QEMU that waits; None where none does.
        destination_command: The command line that a destination would be launched by, secrets taken out; or None.
        changes: What that line has otherwise than the source's, one line each.
        refusals: What speaks against the migration, one line each, with the remedy.
        warnings: What the user should know.
        findings: How the two QEMUs differ, in full; their lines are among the two above.
        forecast: What is to be expected; None where the guest can't be moved.
        what_if: The same for other limits and bandwidths, row by row.
        least_bandwidth_bytes_s: The least cap under which it converges; None when none does.
        sampled_s: How long the guest was sampled for it.
    """

    id: str
    movable: bool
    plan: Plan
    source: PlannedSide
    destination: PlannedSide | None = None
    destination_command: str | None = None
    changes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    forecast: Forecast | None = None
    what_if: tuple[WhatIf, ...] = ()
    least_bandwidth_bytes_s: float | None = None
    sampled_s: float = 0.0
