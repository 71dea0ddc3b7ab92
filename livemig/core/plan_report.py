"""What `livemig plan` found: whether the guest can be moved, what speaks against it, what would be done. Pure data."""

from __future__ import annotations

import msgspec

from livemig.core.finding import Finding
from livemig.core.plan import Plan
from livemig.core.prediction import Forecast


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
        forecast: What is to be expected; None where none was asked for or the guest can't be moved.
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
