"""How much of a guest's memory was ever touched, as the kernel accounts it to its QEMU. Reads /proc alone."""

from __future__ import annotations

import re
from pathlib import Path

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ", re.MULTILINE)
_FIELD = re.compile(r"^(Rss|Swap): +(\d+) kB", re.MULTILINE)
GUEST_SHARE_LEAST = 1 / 16
"""Smaller mappings than this share of the guest's memory are not its RAM."""


def touched_bytes(pid: int, memory_bytes: int) -> int | None:
    """Returns what of the guest's RAM has pages, in memory or in swap; None when that can't be told.

    An upper bound of what is to be sent: touched pages may be zero all the same, and huge pages count whole. Takes the
    kernel some milliseconds a GiB.

    Args:
        pid: QEMU's.
        memory_bytes: The guest's memory; its mappings are told by their sizes.
    """
    try:
        text = Path(f"/proc/{pid}/smaps").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return touched_in(text, memory_bytes)


def touched_in(smaps: str, memory_bytes: int) -> int | None:
    """The same from the text of a smaps file."""
    starts = list(_MAPPING.finditer(smaps))
    ends = [one.start() for one in starts[1:]] + [len(smaps)]
    left_bytes, found_bytes = memory_bytes, 0
    mappings = [(int(one[2], 16) - int(one[1], 16), one.end(), end) for one, end in zip(starts, ends, strict=True)]
    for size_bytes, begin, end in sorted(mappings, reverse=True):
        if size_bytes > left_bytes or size_bytes < memory_bytes * GUEST_SHARE_LEAST:
            continue
        left_bytes -= size_bytes
        found_bytes += sum(int(kib) for _, kib in _FIELD.findall(smaps, begin, end)) * 1024
    if left_bytes > memory_bytes * GUEST_SHARE_LEAST:
        return None
    return min(found_bytes, memory_bytes)
