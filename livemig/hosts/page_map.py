"""Which parts of a guest's memory were ever touched, by the kernel's page map of its QEMU. Reads /proc alone."""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

SEGMENT_COUNT = 32
"""The parts of memory that are told apart, in the order of addresses, which is that in which QEMU sends them first."""
GUEST_SHARE_LEAST = 1 / 16
"""Smaller mappings than this share of the guest's memory are not its RAM."""
READ_BYTES_MOST = 16 * 2**20
"""Of the page map, 8 bytes a page: all of a guest of 8 GiB; of a larger one, the begin of each segment."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw", re.MULTILINE)
_PRESENT_OR_SWAPPED = (1 << 63) | (1 << 62)
"""See the kernel's Documentation/admin-guide/mm/pagemap.rst; both bits are shown to whoever may read the process."""


def touched_shares(pid: int, memory_bytes: int) -> tuple[float, ...]:
    """Returns what share of each of 32 parts of the guest's RAM has pages, in memory or in swap; empty if unknown.

    An upper bound of what is to be sent: a touched page may be zero all the same, and one that was only read, by a
    sampling say, counts too. Takes some milliseconds a GiB and is bounded for large guests: call it in a thread.

    Args:
        pid: QEMU's.
        memory_bytes: The guest's memory; its mappings are told by their sizes.
    """
    try:
        mappings = guest_mappings(Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace"), memory_bytes)
        if not mappings:
            return ()
        with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as page_map:
            return tuple(_share(page_map.fileno(), piece) for piece in _pieces(mappings))
    except (OSError, ValueError):
        return ()


def guest_mappings(maps: str, memory_bytes: int) -> list[tuple[int, int]]:
    """Returns begin and end of the mappings that are the guest's RAM, in order; empty when they can't be told."""
    found: list[tuple[int, int]] = []
    left_bytes = memory_bytes
    mappings = [(int(one[1], 16), int(one[2], 16)) for one in _MAPPING.finditer(maps)]
    for begin, end in sorted(mappings, key=lambda one: one[0] - one[1]):
        size_bytes = end - begin
        if memory_bytes * GUEST_SHARE_LEAST <= size_bytes <= left_bytes * (1 + GUEST_SHARE_LEAST):
            found.append((begin, min(end, begin + left_bytes)))
            left_bytes -= min(size_bytes, left_bytes)
    return sorted(found) if found and left_bytes <= memory_bytes * GUEST_SHARE_LEAST else []


def _pieces(mappings: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Cuts the mappings, one after the other, into equal segments: lists of begin and end."""
    each = sum(end - begin for begin, end in mappings) // SEGMENT_COUNT
    rest = list(mappings)
    for _ in range(SEGMENT_COUNT):
        piece, wanted = [], each
        while wanted > 0 and rest:
            begin, end = rest.pop(0)
            cut = min(begin + wanted, end)
            piece.append((begin, cut))
            wanted -= cut - begin
            if cut < end:
                rest.insert(0, (cut, end))
        yield piece


def _share(descriptor: int, piece: list[tuple[int, int]]) -> float:
    """The share of the pages of one segment that are there; of a large one, of its begin."""
    page_count = present_count = 0
    for begin, end in piece:
        wanted_bytes = min((end - begin) // PAGE_BYTES * 8, READ_BYTES_MOST // SEGMENT_COUNT)
        entries = array("Q", os.pread(descriptor, wanted_bytes, begin // PAGE_BYTES * 8))
        page_count += len(entries)
        present_count += sum(1 for entry in entries if entry & _PRESENT_OR_SWAPPED)
    return present_count / page_count if page_count else 1.0
