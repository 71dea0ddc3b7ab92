"""A host's own addresses and its processor, as its kernel tells them."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from livemig.engine.reach import addresses_in
from livemig.hosts.processor import CPUINFO, processor_in

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.1.0.0/16 2 0 2
        +-- 10.1.0.0/26 2 0 2
           |-- 10.1.0.0
              /16 link UNICAST
           |-- 10.1.0.7
              /32 host LOCAL
        |-- 10.1.255.255
           /32 link BROADCAST
Local:
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
"""
IF_INET6 = "fe800000000000000000000000000001 02 40 20 80     eth0\nfd6c6d00000000000000000000000002 03 40 00 80 br0\n"


def test_own_addresses():
    """Those that packets are delivered at, no network's and no broadcast's."""
    found = addresses_in(FIB_TRIE, IF_INET6)
    assert found == {ip_address(text) for text in ("10.1.0.7", "127.0.0.1", "fe80::1", "fd6c:6d00::2")}
    assert addresses_in("", "") == set()


def test_this_machines_own_addresses():
    """As this kernel writes them."""
    assert ip_address("127.0.0.1") in addresses_in(Path("/proc/net/fib_trie").read_text(), "")


def test_a_processor():
    """The first one's flags; what KVM shows in any case is no difference."""
    one = processor_in("processor : 0\nmodel name : X : Y\nflags : fpu sse avx x2apic\n\nprocessor : 1\nflags : none\n")
    other = processor_in("Features\t: fpu sse neon\n")
    assert one is not None
    assert other is not None
    assert (one.name, other.name) == ("X : Y", "")
    assert one.flags_beyond(other) == {"avx"}
    assert other.flags_beyond(one) == {"neon"}
    assert processor_in("") is None
    assert processor_in("processor : 0\n") is None


def test_this_machines_processor():
    """It has one."""
    found = processor_in(Path(CPUINFO).read_text())
    assert found is not None
    assert found.flags_beyond(found) == set()
