"""What the lab is made of: namespaces, links, addresses, shaping; and the lines that `ip -batch` makes it from.

Pure: decides and runs nothing. Everything is named after the lab, so that nothing else is ever touched.

    this machine ── management ──┬── A ──┐
                                 │       ├── data ── client
                                 └── B ──┘

A fifth namespace, the switch, holds the two bridges. On each host the data link and the guests' taps are ports of a
bridge of its own, as on a real host; the switch learns behind which host a guest is, as a real switch does.
"""

from __future__ import annotations

import re

import msgspec

from livemig.core.errors import PlanError
from livemig.core.units import format_bit_rate

HOST_NAMES = ("A", "B")
CLIENT = "client"
SWITCH = "switch"
TAPS = ("tap0", "tap1")
"""Two a host: a guest has one or two network cards."""

DATA_PREFIX = "198.19.0"
"""Of RFC 2544's range for measurements, which no real network uses; the data network is the lab's alone, so that labs
may share it."""
MANAGEMENT_PREFIX = "198.18"
"""This machine takes part in the management network, so each lab has another third byte."""
LAB_INDEXES = range(1, 251)
MACHINE_HOST_NUMBER = 254
GUEST_ADDRESS = f"{DATA_PREFIX}.10"
SECOND_GUEST_ADDRESS = "198.19.1.10"
"""In a network of its own, so that what belongs to the second card does not leave by the first."""
CLIENT_ADDRESS, SECOND_CLIENT_ADDRESS = f"{DATA_PREFIX}.100", "198.19.1.100"

RATE_LEAST_BYTES_S, RATE_MOST_BYTES_S = 125_000.0, 12.5e9
_QUEUE_MS = 20
_BURST_S = 0.002
_BURST_LEAST_BYTES = 64 * 1024
"""A segment handed down whole by the sender's TCP must fit into a token bucket, or it is never sent."""

_NAME = re.compile(r"[a-z][a-z0-9-]{0,10}[a-z0-9]|[a-z]")


class Layout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One lab.

    Attributes:
        name: Tells it from other labs on this machine.
        index: Its part of the management addresses, one of `LAB_INDEXES`.
        rate_bytes_s: What each host's data link carries in each direction, in bytes per second; None is unlimited.
        with_ipv6: Whether this machine can do IPv6.
    """

    name: str
    index: int
    rate_bytes_s: float | None = None
    with_ipv6: bool = True

    def __post_init__(self) -> None:
        check_name(self.name)
        rate = self.rate_bytes_s
        if rate is not None and not RATE_LEAST_BYTES_S <= rate <= RATE_MOST_BYTES_S:
            raise PlanError(
                f"a rate of {format_bit_rate(rate)} is out of range: give {format_bit_rate(RATE_LEAST_BYTES_S)} to "
                f"{format_bit_rate(RATE_MOST_BYTES_S)}, such as 1Gbit/s, or leave it out for no limit"
            )

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Names of all its network namespaces."""
        return tuple(self.namespace(role) for role in (*HOST_NAMES, CLIENT, SWITCH))

    @property
    def machine_interface(self) -> str:
        """This machine's own end of the management network."""
        return f"lm-{self.name}"

    @property
    def machine_address(self) -> str:
        """This machine's address in the management network."""
        return f"{MANAGEMENT_PREFIX}.{self.index}.{MACHINE_HOST_NUMBER}"

    def namespace(self, role: str) -> str:
        """The network namespace of a host, the client or the switch."""
        return f"livemig-{self.name}-{role}"

    def management_address(self, host: str) -> str:
        """Where a host's sshd is for this machine."""
        return f"{MANAGEMENT_PREFIX}.{self.index}.{_number(host)}"

    def management_address_6(self, host: str) -> str:
        """The same in IPv6."""
        return f"fd6c:6d00:{self.index:x}::{_number(host):x}"

    def data_address(self, host: str) -> str:
        """A host's address in the data network."""
        return f"{DATA_PREFIX}.{_number(host)}"

    def data_address_6(self, host: str) -> str:
        """The same in IPv6."""
        return f"fd6c:6d64::{_number(host):x}"

    def links(self) -> list[str]:
        """Lines for `ip -batch` outside: every pair of interfaces, each end made in its namespace."""
        switch = self.namespace(SWITCH)
        lines = [f"link add {self.machine_interface} type veth peer name this-management netns {switch}"]
        for role in (*HOST_NAMES, CLIENT):
            namespace = self.namespace(role)
            for network in ("data", "management") if role in HOST_NAMES else ("data",):
                peer = f"peer name {_port(role, network)} netns {switch}"
                lines.append(f"link add {network} netns {namespace} type veth {peer}")
        address = f"{self.machine_address}/24"
        lines += [f"addr add {address} dev {self.machine_interface}", f"link set {self.machine_interface} up"]
        if self.with_ipv6:
            address = f"fd6c:6d00:{self.index:x}::{MACHINE_HOST_NUMBER:x}/64"
            lines.append(f"addr add {address} dev {self.machine_interface} nodad")
        return lines

    def inside(self, role: str) -> list[str]:
        """Lines for `ip -batch` in the namespace of a host, the client or the switch."""
        if role == SWITCH:
            return self._inside_switch()
        lines = ["link set lo up"]
        if role == CLIENT:
            lines += [f"addr add {address}/24 dev data" for address in (CLIENT_ADDRESS, SECOND_CLIENT_ADDRESS)]
            return [*lines, *self._data_6(role, "data"), "link set data up"]
        lines += [*_bridge("br0"), "link set data master br0", "link set data up"]
        for tap in TAPS:
            lines += [f"tuntap add dev {tap} mode tap", f"link set {tap} master br0", f"link set {tap} up"]
        lines += [f"addr add {self.data_address(role)}/24 dev br0", *self._data_6(role, "br0")]
        lines += [f"addr add {self.management_address(role)}/24 dev management", "link set management up"]
        if self.with_ipv6:
            lines.append(f"addr add {self.management_address_6(role)}/64 dev management nodad")
        return lines

    def shaping(self, role: str) -> list[str]:
        """Lines for `tc -batch` in a namespace: what leaves a host, and in the switch what goes towards one."""
        if self.rate_bytes_s is None or role == CLIENT:
            return []
        burst_bytes = max(_BURST_LEAST_BYTES, int(self.rate_bytes_s * _BURST_S))
        bits = int(self.rate_bytes_s * 8)
        shape = f"root tbf rate {bits}bit burst {burst_bytes} latency {_QUEUE_MS}ms"
        interfaces = [_port(host, "data") for host in HOST_NAMES] if role == SWITCH else ["data"]
        return [f"qdisc replace dev {interface} {shape}" for interface in interfaces]

    def _inside_switch(self) -> list[str]:
        lines = ["link set lo up", *_bridge("data"), *_bridge("management")]
        ports = {"data": [_port(role, "data") for role in (*HOST_NAMES, CLIENT)]}
        ports["management"] = ["this-management", *(_port(host, "management") for host in HOST_NAMES)]
        for bridge, names in ports.items():
            for name in names:
                lines += [f"link set {name} master {bridge}", f"link set {name} up"]
        return lines

    def _data_6(self, role: str, device: str) -> list[str]:
        return [f"addr add {self.data_address_6(role)}/64 dev {device} nodad"] if self.with_ipv6 else []


def check_name(name: str) -> None:
    """Refuses what can't name a lab.

    Raises:
        PlanError: Saying what can.
    """
    if not _NAME.fullmatch(name):
        raise PlanError(
            f"{name!r} can't name a lab: 1 to 12 of a-z, 0-9 and -, a letter first (an interface's name is that short)"
        )


def _bridge(name: str) -> list[str]:
    """A bridge that forwards at once, and floods neighbour discovery as a switch without snooping does."""
    return [f"link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0", f"link set {name} up"]


def _port(role: str, network: str) -> str:
    return f"{role.lower()}-{network}"


def _number(host: str) -> int:
    return {"A": 1, "B": 2, CLIENT: 100}[host]
