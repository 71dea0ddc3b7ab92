"""The direct way between two hosts: at which address the destination listens, and whether the source comes there.

Looks before anything is made; says nothing there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress

import msgspec

from livemig.core.errors import CommandError, LivemigError, RefusedError
from livemig.core.plan import Plan, Security
from livemig.engine.side import Side
from livemig.hosts.host import Host
from livemig.qemu.address import Address

REACH_BOUND_S = 3.0
SSH_PORT = 22
"""Whether it is open or not, it tells whether the host is reached."""
REMEDY = "give another --migrate-address, or --security ssh"
_ADDRESSES_4, _ADDRESSES_6 = "/proc/net/fib_trie", "/proc/net/if_inet6"
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


async def has_tls(side: Side) -> bool:
    """Whether a QEMU was built with TLS with a pre-shared key."""
    try:
        found = await side.monitor.execute("qom-list-types", {"implements": "tls-creds"})
    except CommandError:
        return False
    return any(kind["name"] == "tls-creds-psk" for kind in found)


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """The direct way for memory.

    Attributes:
        address: Where the destination is to listen.
        trouble: Why the source does not come there; None when it does, as far as is known.
        untested: Why that could not be tried; None when it was.
    """

    address: str
    trouble: str | None = None
    untested: str | None = None


async def find_way(plan: Plan, source_host: Host, destination: Address, destination_host: Host) -> Way:
    """Looks whether the destination can listen at its address, and the source comes there.

    Raises:
        RefusedError: When no address is known, or the one that was asked for is none of the destination's.
    """
    address = listen_address(plan, source_host, destination, destination_host)
    reason = await _why_not_own(destination_host, address)
    if reason is not None:
        if plan.migrate_address is not None:
            raise RefusedError((f"--migrate-address {address}: {reason}",))
        return Way(address=address, trouble=f"the destination can't listen at {address}, {reason}")
    try:
        return Way(address=address, trouble=await _why_unreachable(source_host, address))
    except LivemigError as error:
        words = f"whether the source's host reaches {address} is untested"
        return Way(address=address, untested=f"{words}: {error}")


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


async def _why_unreachable(source_host: Host, address: str) -> str | None:
    """Returns why the source's host can't reach an address; None when it can. A port that refuses is reached too.

    Raises:
        LivemigError: When that can't be tried: its sshd forwards nothing.
    """
    try:
        async with asyncio.timeout(REACH_BOUND_S):
            await source_host.touch(address, SSH_PORT)
    except TimeoutError:
        number = errno.ETIMEDOUT
    except OSError as error:
        number = error.errno or 0
    else:
        return None
    if number not in _UNREACHABLE:
        return None
    words = "no answer" if number == errno.ETIMEDOUT else "no route"
    return f"the source's host does not reach {address} ({words})"


async def _why_not_own(host: Host, address: str) -> str | None:
    """Why a host can't listen at an address; None when it can, or when only QEMU there will know: a name."""
    try:
        wanted = ipaddress.ip_address(address)
    except ValueError:
        return None
    if wanted.is_unspecified or wanted.is_loopback:
        return "that is no address by which another host comes: give one of the destination's host"
    texts = await host.texts_of((_ADDRESSES_4, _ADDRESSES_6))
    own = addresses_in(texts.get(_ADDRESSES_4, ""), texts.get(_ADDRESSES_6, ""))
    if not own or wanted in own:
        return None
    return "that is none of the destination's host's own addresses: give one of these"


def addresses_in(table_4: str, table_6: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """A host's own addresses, by the kernel's table of routes for IPv4 and of interfaces for IPv6."""
    found: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
    address = ""
    for line in table_4.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[-1]
        elif words == ["/32", "host", "LOCAL"]:
            found.add(ipaddress.IPv4Address(address))
    found |= {ipaddress.IPv6Address(bytes.fromhex(line.split()[0])) for line in table_6.splitlines() if line}
    return found


def _is_loopback(address: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address).is_loopback
    return False
