"""Makes a monitor again whose way broke while its QEMU went on, and catches up on what was missed. Decides nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from livemig.core import inputs
from livemig.core.errors import LivemigError
from livemig.core.status import RunState
from livemig.engine.side import Side
from livemig.engine.watch import Watch

RETURN_BOUND_S = 60.0
"""How long a host may be out of reach: QEMU holds to its limits all the while, and stands still after a switchover."""
ATTEMPT_BOUND_S = 10.0
PAUSE_S = 0.2
_RUNS = frozenset({RunState.RUNNING, RunState.SUSPENDED})


async def return_of(side: Side, watch: Watch, started_s: float) -> bool:
    """Connects again and puts what was missed into the watch's inbox; returns whether it could within the bound."""
    end_s = time.monotonic() + RETURN_BOUND_S
    while time.monotonic() < end_s:
        try:
            await side.reconnect(ATTEMPT_BOUND_S)
            watch.follow(side)
            for item in await _missed(side, watch, started_s):
                watch.put(item)
        except LivemigError:
            await asyncio.sleep(PAUSE_S)
        else:
            return True
    return False


async def _missed(side: Side, watch: Watch, started_s: float) -> list[inputs.Input]:
    """The run state is asked for last: a switchover that begins in between is seen by its events."""
    observation = await side.monitor.query_migrate(origin_s=started_s)
    watch.statuses[side.name] = observation.status
    if side.name != "source":
        return []
    run_state = await side.monitor.query_status()
    return [
        *_stop(run_state, time.monotonic() - started_s),
        inputs.Observed(time_s=observation.time_s, observation=observation),
    ]


def _stop(run_state: RunState, time_s: float) -> Iterator[inputs.Input]:
    if run_state not in _RUNS:
        yield inputs.SourceStopped(time_s=time_s)
        yield inputs.RunStateSeen(time_s=time_s, run_state=run_state)
