"""Which parts of a guest's memory were ever touched, by the kernel's page map of its QEMU. Reads /proc alone.

Where to look and what an entry says holds on every host; only `touched_shares` reads, and on this one.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

SEGMENT_COUNT = 32
"""The parts of memory that are told apart, in the order of addresses, which is that in which QEMU sends them first."""
GUEST_SHARE_LEAST = 1 / 16
"""Smaller mappings than this share of the guest's memory are not its RAM."""
READ_BYTES_MOST = 16 * 2**20
"""Of the page map, 8 bytes a page: all of a guest of 8 GiB; of a larger one, the begin of each segment."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-(p|s) \S+ \S+ (\d+)", re.MULTILINE)
_SWAPPED, _FILE, _ALONE = 1 << 62, 1 << 61, 1 << 56
"""Swapped; of a file, shared, or the huge page of zeros; mapped nowhere else: see the kernel's
Documentation/admin-guide/mm/pagemap.rst. All are shown to whoever may read the process."""


class Mapping(NamedTuple):
    """A part of a process's memory.

    Attributes:
        begin: Its first address.
        end: The address after its last.
        anonymous: Whether it is private and of no file: reading it maps the kernel's pages of zeros.
    """

    begin: int
    end: int
    anonymous: bool


class Extent(NamedTuple):
    """A stretch of the page map.

    Attributes:
        offset_bytes: Where it begins.
        size_bytes: How long it is: 8 bytes for each page.
        anonymous: Whether its pages are of an anonymous mapping.
    """

    offset_bytes: int
    size_bytes: int
    anonymous: bool


def touched_shares(pid: int, memory_bytes: int) -> tuple[float, ...]:
    """Returns what share of each of 32 parts of the guest's RAM has pages, in memory or in swap; empty if unknown.

    An upper bound of what is to be sent: a touched page may be zero all the same; in a file or shared memory one that
    was only read, by a sampling say, counts too. Takes some milliseconds a GiB and is bounded for large guests: call it
    in a thread.

    Args:
        pid: QEMU's.
        memory_bytes: The guest's memory; its mappings are told by their sizes.
    """
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
        pieces = extents(maps, memory_bytes, page_bytes=PAGE_BYTES)
        if not pieces:
            return ()
        with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as page_map:
            return tuple(share(_counted(page_map.fileno(), extent) for extent in piece) for piece in pieces)
    except (OSError, ValueError):
        return ()


def extents(maps: str, memory_bytes: int, *, page_bytes: int, bytes_most: int = READ_BYTES_MOST) -> list[list[Extent]]:
    """Returns what to read of the page map for each of the 32 parts; empty when the guest's RAM can't be told.

    Args:
        maps: The process's mappings, as ``/proc/PID/maps`` says them.
        memory_bytes: The guest's memory.
        page_bytes: The size of a page on that host.
        bytes_most: Of the page map, in all: of a larger guest the begin of each part stands for it.
    """
    mappings = guest_mappings(maps, memory_bytes)
    return [
        [
            Extent(
                piece.begin // page_bytes * 8,
                min((piece.end - piece.begin) // page_bytes * 8, bytes_most // SEGMENT_COUNT),
                piece.anonymous,
            )
            for piece in pieces
        ]
        for pieces in (_pieces(mappings) if mappings else ())
    ]


def share(counted: Iterable[tuple[int, int]]) -> float:
    """Returns the share of touched pages of those that were counted: touched ones, and all, of each extent."""
    touched_count = page_count = 0
    for touched, pages in counted:
        touched_count += touched
        page_count += pages
    return touched_count / page_count if page_count else 1.0


def guest_mappings(maps: str, memory_bytes: int) -> list[Mapping]:
    """Returns the mappings that are the guest's RAM, in order; empty when they can't be told."""
    found: list[Mapping] = []
    left_bytes = memory_bytes
    every = [
        Mapping(int(one[1], 16), int(one[2], 16), one[3] == "p" and one[4] == "0") for one in _MAPPING.finditer(maps)
    ]
    for begin, end, anonymous in sorted(every, key=lambda one: one.begin - one.end):
        size_bytes = end - begin
        if memory_bytes * GUEST_SHARE_LEAST <= size_bytes <= left_bytes * (1 + GUEST_SHARE_LEAST):
            found.append(Mapping(begin, min(end, begin + left_bytes), anonymous))
            left_bytes -= min(size_bytes, left_bytes)
    return sorted(found) if found and left_bytes <= memory_bytes * GUEST_SHARE_LEAST else []


def _pieces(mappings: list[Mapping]) -> Iterator[list[Mapping]]:
    """Cuts the mappings, one after the other, into equal segments."""
    each = sum(one.end - one.begin for one in mappings) // SEGMENT_COUNT
    rest = list(mappings)
    for _ in range(SEGMENT_COUNT):
        piece, wanted = [], each
        while wanted > 0 and rest:
            begin, end, anonymous = rest.pop(0)
            cut = min(begin + wanted, end)
            piece.append(Mapping(begin, cut, anonymous))
            wanted -= cut - begin
            if cut < end:
                rest.insert(0, Mapping(cut, end, anonymous))
        yield piece


def _counted(descriptor: int, extent: Extent) -> tuple[int, int]:
    """How many pages of an extent were touched, and how many it has."""
    entries = array("Q", os.pread(descriptor, extent.size_bytes, extent.offset_bytes))
    return sum(is_touched(entry, anonymous=extent.anonymous) for entry in entries), len(entries)


def is_touched(entry: int, *, anonymous: bool) -> bool:
    """Tells a page from none, and from the kernel's pages of zeros, which reading alone maps: a sampling does so.

    The small one is present and mapped elsewhere too, the huge one looks as if it were of a file. A page that KSM or a
    fork shares is taken for one of them, too.
    """
    if not anonymous:
        return bool(entry & (_SWAPPED | _FILE | _ALONE))
    return bool(entry & _SWAPPED) or entry & (_ALONE | _FILE) == _ALONE
