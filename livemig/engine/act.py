"""Carries the policy's actions out on the source: each one is a command of QEMU's. Decides nothing."""

from __future__ import annotations

import asyncio
from typing import assert_never

from livemig.core.action import (
    Action,
    Cancel,
    ContinueSwitchover,
    SetBandwidth,
    SetDowntimeLimit,
    SetSwitchoverBandwidth,
    Settle,
    Yank,
)
from livemig.core.errors import MonitorLost
from livemig.engine.settle import yank
from livemig.engine.side import Side

ACTION_BOUND_S = 5.0
PAUSE_S = 0.1


async def carry_out(action: Action, source: Side) -> None:
    """Carries an action out.

    Raises:
        LivemigError: When QEMU refused it or did not answer.
    """
    monitor = source.monitor
    match action:
        case SetDowntimeLimit(downtime_limit_s=limit_s):
            await source.settings.set_downtime_limit(limit_s)
        case SetBandwidth(bandwidth_bytes_s=bandwidth_bytes_s):
            await source.settings.set_bandwidth(bandwidth_bytes_s)
        case SetSwitchoverBandwidth(bandwidth_bytes_s=bandwidth_bytes_s):
            await source.settings.set_switchover_bandwidth(bandwidth_bytes_s)
        case ContinueSwitchover():
            await monitor.execute("migrate-continue", {"state": "pre-switchover"}, timeout_s=ACTION_BOUND_S)
        case Cancel():
            await monitor.execute("migrate_cancel", timeout_s=ACTION_BOUND_S)
        case Yank():
            await yank(source)
        case Settle():
            pass
        case _:
            assert_never(action)


async def carry_out_once_there(action: Action, source: Side) -> None:
    """Carries an action out, again and again while the source's host is out of reach: each may be carried out twice.

    Raises:
        LivemigError: When QEMU refused it or did not answer.
    """
    while True:
        try:
            return await carry_out(action, source)
        except MonitorLost:
            if not source.may_return:
                raise
        await asyncio.sleep(PAUSE_S)
