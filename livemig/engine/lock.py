"""The lock on a QEMU: an object in it that names the run it takes part in, seen by whoever has a monitor of it.

It needs no living livemig, and lasts until it is taken off or that QEMU ends.
"""

from __future__ import annotations

import contextlib

from livemig.core.errors import CommandError, LivemigError, RefusedError
from livemig.engine.run_files import is_driven
from livemig.engine.side import Side, way_to
from livemig.qemu.address import Address
from livemig.qemu.monitor import Monitor

LOCK_ID = "livemig"
"""One for all livemigs, so that the second one fails."""
LOCK_BOUND_S = 2.0
NO_SUCH_OBJECT = "DeviceNotFound"
"""The class of ``qom-get``'s error where nothing is at a path (qom/qom-qmp-cmds.c)."""
SAME_QEMU = "both addresses lead to the same QEMU: give the monitor of the waiting QEMU as --dst-qmp"


async def take_lock(side: Side, run_id: str) -> None:
    """Holds a QEMU for a run.

    Raises:
        RefusedError: When another run holds it. Nothing was changed.
        LivemigError: When it does not answer.
    """
    try:
        await side.monitor.execute("object-add", {"qom-type": "authz-simple", "id": LOCK_ID, "identity": run_id})
    except CommandError as error:
        holder = None
        with contextlib.suppress(CommandError):
            holder = await lock_holder(side.monitor)
        if holder is None:
            raise RefusedError((f"the {side.name} can't be held for this run: {error.description}",)) from error
        if holder == run_id:
            raise RefusedError((SAME_QEMU,)) from error
        raise RefusedError((_refusal(side, holder),)) from error


async def lock_holder(monitor: Monitor) -> str | None:
    """Returns the id of the run that holds a QEMU; None when none does.

    Raises:
        LivemigError: When it does not answer, or anything else than that there is no lock.
    """
    try:
        what = {"path": f"/objects/{LOCK_ID}", "property": "identity"}
        found = await monitor.execute("qom-get", what, timeout_s=LOCK_BOUND_S)
    except CommandError as error:
        if error.error_class != NO_SUCH_OBJECT:
            raise
        return None
    return str(found)


async def release_lock(side: Side, run_id: str, other_addresses: tuple[str, ...] = ()) -> str | None:
    """Takes the lock off, if it is this run's; returns why it may still be there, or None. Raises nothing.

    Args:
        side: The QEMU.
        run_id: The run's id.
        other_addresses: Its other monitors, for the case that the one in use hangs.
    """
    if await side.is_gone():
        return None
    try:
        if side.monitor.closed:
            await side.reconnect(LOCK_BOUND_S)
        await _take_off(side.monitor, run_id)
    except LivemigError as error:
        reason = str(error)
    else:
        return None
    for address in other_addresses:
        with contextlib.suppress(LivemigError):
            way = way_to(side.host, Address.parse(address))
            async with await Monitor.connect(address, name=side.name, timeout_s=LOCK_BOUND_S, way=way) as monitor:
                await _take_off(monitor, run_id)
                return None
    if await side.has_died():
        return None
    return f"the lock of run {run_id} may still be on the {side.name}: `livemig recover {run_id}` ({reason})"


async def _take_off(monitor: Monitor, run_id: str) -> None:
    if await lock_holder(monitor) == run_id:
        await monitor.execute("object-del", {"id": LOCK_ID}, timeout_s=LOCK_BOUND_S)


def _refusal(side: Side, holder: str) -> str:
    remedy = f"wait for its end, or `livemig cancel {holder}`"
    with contextlib.suppress(OSError):
        if not is_driven(holder):
            remedy = f"if nobody drives it any more, `livemig recover {holder}` where it was started"
    return f"run {holder} holds the {side.name} {side.address}: {remedy}"
