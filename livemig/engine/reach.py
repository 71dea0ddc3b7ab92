"""Whether the source's host reaches the address at which the destination is to listen. Says nothing there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress

from livemig.core.errors import LivemigError, RefusedError
from livemig.core.plan import Plan, Security
from livemig.hosts.host import Host
from livemig.qemu.address import Address

REACH_BOUND_S = 3.0
_UNREACHABLE = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})


def refuse_clear_text(plan: Plan, *addresses: Address) -> None:
    """Refuses a monitor whose conversation would leave this machine in clear text, unless that was asked for.

    Raises:
        RefusedError: When there is one.
    """
    if plan.security is Security.NONE:
        return
    open_ones = [address for address in addresses if not address.is_on_its_host]
    if open_ones:
        raise RefusedError(
            tuple(
                f"{address}: QMP over TCP is not protected, whoever is on the way may read and control that QEMU: use "
                "ssh://HOST/PATH, or allow it with --security none"
                for address in open_ones
            )
        )


def listen_address(plan: Plan, source_host: Host, destination: Address, destination_host: Host) -> str:
    """The address that the destination binds: as asked, or the one by which its SSH is reached.

    Raises:
        RefusedError: When none is known.
    """
    if plan.migrate_address is not None:
        return plan.migrate_address
    if not destination.is_on_its_host and destination.host is not None:
        return destination.host
    found = source_host.reached_from if destination_host.is_local else destination_host.reached_at
    if found is None or "%" in found or _is_loopback(found):
        raise RefusedError(
            ("the address by which the source reaches the destination is not known: give --migrate-address",)
        )
    return found


async def why_unreachable(source_host: Host, address: str, port: int) -> str | None:
    """Returns why the source's host can't reach an address; None when it can, or when that can't be tried.

    Args:
        source_host: Where the source runs.
        address: The address.
        port: Any port: one that refuses is reached too.
    """
    try:
        async with asyncio.timeout(REACH_BOUND_S):
            await source_host.touch(address, port)
    except TimeoutError:
        number = errno.ETIMEDOUT
    except OSError as error:
        number = error.errno or 0
    except LivemigError:
        return None  # its sshd forwards nothing: untested
    else:
        return None
    if number not in _UNREACHABLE:
        return None
    words = "no answer" if number == errno.ETIMEDOUT else "no route"
    return f"the source's host does not reach {address} ({words}): give another --migrate-address, or --security ssh"


def _is_loopback(address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False
