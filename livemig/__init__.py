"""livemig moves a running QEMU virtual machine to another QEMU by talking QMP to both.

`migrate` is the way in; names are loaded when they are first used, so that importing livemig costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from livemig.core.errors import (
        AddressError,
        CommandError,
        ConnectError,
        ControlError,
        JournalError,
        LivemigError,
        MonitorLost,
        MonitorTimeout,
        PlanError,
        RefusedError,
    )
    from livemig.core.event import Event
    from livemig.core.outcome import Outcome, RunningOn
    from livemig.core.plan import AtDeadline, Plan, PlanChange
    from livemig.core.plan_report import PlanReport
    from livemig.core.report import Downtime, Report
    from livemig.engine.migration import Migration, migrate
    from livemig.engine.planning import plan_migration
    from livemig.engine.recovery import Recovered, recover

_HOMES = {
    "migrate": "livemig.engine.migration",
    "Migration": "livemig.engine.migration",
    "plan_migration": "livemig.engine.planning",
    "recover": "livemig.engine.recovery",
    "Recovered": "livemig.engine.recovery",
    "Plan": "livemig.core.plan",
    "PlanChange": "livemig.core.plan",
    "AtDeadline": "livemig.core.plan",
    "Report": "livemig.core.report",
    "Downtime": "livemig.core.report",
    "PlanReport": "livemig.core.plan_report",
    "Outcome": "livemig.core.outcome",
    "RunningOn": "livemig.core.outcome",
    "Event": "livemig.core.event",
    "LivemigError": "livemig.core.errors",
    "PlanError": "livemig.core.errors",
    "AddressError": "livemig.core.errors",
    "ConnectError": "livemig.core.errors",
    "RefusedError": "livemig.core.errors",
    "CommandError": "livemig.core.errors",
    "MonitorTimeout": "livemig.core.errors",
    "MonitorLost": "livemig.core.errors",
    "ControlError": "livemig.core.errors",
    "JournalError": "livemig.core.errors",
}

__all__ = [
    "migrate",
    "Migration",
    "plan_migration",
    "recover",
    "Plan",
    "PlanChange",
    "AtDeadline",
    "Report",
    "Downtime",
    "PlanReport",
    "Recovered",
    "Outcome",
    "RunningOn",
    "Event",
    "LivemigError",
    "PlanError",
    "AddressError",
    "ConnectError",
    "RefusedError",
    "CommandError",
    "MonitorTimeout",
    "MonitorLost",
    "ControlError",
    "JournalError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'livemig' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
