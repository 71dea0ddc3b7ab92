"""What the lab of two hosts is made of, before any of it is."""

from __future__ import annotations

import pytest

from livemig.core.errors import PlanError
from livemig.core.units import format_bit_rate
from livemig.lab.two_hosts.layout import CLIENT, HOST_NAMES, LAB_INDEXES, SWITCH, Layout

INTERFACE_NAME_MOST = 15
ROLES = (*HOST_NAMES, CLIENT, SWITCH)


def layout(name: str = "abcdefghijkl", rate_bytes_s: float | None = None, index: int = 7) -> Layout:
    return Layout(name=name, index=index, rate_bytes_s=rate_bytes_s)


def test_every_interface_has_a_name_that_fits_and_is_one_labs_alone() -> None:
    """Even of the longest name; what is outside the namespaces bears the lab's name."""
    lines = layout().links()
    names = [words[words.index("add") + 1] for words in map(str.split, lines) if words[0] == "link" and "add" in words]
    peers = [words[words.index("name") + 1] for words in map(str.split, lines) if "peer" in words]
    assert all(len(name) <= INTERFACE_NAME_MOST for name in (*names, *peers, layout().machine_interface))
    assert len(set(peers)) == len(peers)
    assert all("abcdefghijkl" in line for line in lines)
    assert all("abcdefghijkl" in name for name in layout().namespaces)


def test_two_labs_share_no_address_that_this_machine_sees() -> None:
    one, other = layout(index=LAB_INDEXES[0]), layout(index=LAB_INDEXES[-1])
    mine = {one.machine_address, *(one.management_address(host) for host in HOST_NAMES)}
    mine |= {one.management_address_6(host) for host in HOST_NAMES}
    theirs = {other.machine_address, *(other.management_address(host) for host in HOST_NAMES)}
    theirs |= {other.management_address_6(host) for host in HOST_NAMES}
    assert len(mine) == len(theirs) == 5
    assert not mine & theirs


def test_shaping_is_of_both_directions_of_both_hosts() -> None:
    """1 Gbit/s leaves 250 kB to a burst of 2 ms; the client and SSH are not shaped."""
    shaped = layout(rate_bytes_s=125e6)
    for host in HOST_NAMES:
        assert shaped.shaping(host) == ["qdisc replace dev data root tbf rate 1000000000bit burst 250000 latency 20ms"]
    assert [line.split()[3] for line in shaped.shaping(SWITCH)] == ["a-data", "b-data"]
    assert shaped.shaping(CLIENT) == []
    assert all(layout().shaping(role) == [] for role in ROLES)


def test_without_ipv6_nothing_of_it_is_made() -> None:
    bare = Layout(name="x", index=1, with_ipv6=False)
    assert not any("fd6c" in line for role in ROLES for line in (*bare.inside(role), *bare.links()))
    assert any("fd6c" in line for line in layout().inside("A"))


@pytest.mark.parametrize("name", ["", "A", "9lives", "a_b", "-a", "a-", "a" * 13, "a/b", "a b"])
def test_name_that_can_not_be(name: str) -> None:
    with pytest.raises(PlanError, match="can't name a lab"):
        layout(name)


@pytest.mark.parametrize("rate_bytes_s", [0.0, 1.0, 124_999.0, 1e12])
def test_rate_that_can_not_be(rate_bytes_s: float) -> None:
    with pytest.raises(PlanError, match="out of range"):
        layout(rate_bytes_s=rate_bytes_s)


@pytest.mark.parametrize(
    ("rate_bytes_s", "text"), [(1.0, "8 bit/s"), (125e3, "1 Mbit/s"), (125e6, "1 Gbit/s"), (312.5e6, "2.5 Gbit/s")]
)
def test_bit_rate(rate_bytes_s: float, text: str) -> None:
    assert format_bit_rate(rate_bytes_s) == text
