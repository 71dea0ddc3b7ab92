"""Which parts of memory were touched, read from the kernel's account of a real process and from maps as text."""

from __future__ import annotations

import mmap
import os

import pytest

from livemig.hosts.page_map import SEGMENT_COUNT, guest_mappings, touched_shares

MIB = 2**20
MAPS = """\
00400000-00500000 r-xp 00000000 08:01 1 /usr/bin/qemu
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
7f0020000000-7f0020100000 rw-p 00000000 00:00 0
7f0030000000-7f0040000000 rw-s 00000000 00:01 5 /memfd:ram
"""


@pytest.mark.parametrize("advice", [mmap.MADV_NOHUGEPAGE, mmap.MADV_HUGEPAGE])
def test_touched_parts_of_this_process_are_found(advice):
    """A quarter of a mapping was written to; the rest was only read, as a sampling does, and is not the guest's."""
    size_bytes = 96 * MIB + 3 * mmap.PAGESIZE  # of a size that nothing else here has
    with mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(advice)
        for offset in range(0, size_bytes // 4, mmap.PAGESIZE):
            memory[offset] = 1
        assert not any(memory[offset] for offset in range(48 * MIB, size_bytes, mmap.PAGESIZE))
        shares = touched_shares(os.getpid(), size_bytes)
    assert len(shares) == SEGMENT_COUNT
    assert all(share > 0.95 for share in shares[: SEGMENT_COUNT // 4 - 1])
    assert all(share < 0.05 for share in shares[SEGMENT_COUNT // 4 + 1 :])


def test_mappings_are_told_by_their_sizes():
    """One block, two blocks, or none that could be it."""
    block = 256 * MIB
    assert guest_mappings(MAPS, block)[0][0] in (0x7F0000000000, 0x7F0030000000)
    assert len(guest_mappings(MAPS, 2 * block)) == 2
    assert guest_mappings(MAPS, 64 * block) == []
    assert guest_mappings("", block) == []
    assert guest_mappings("nonsense\n", block) == []


def test_a_process_that_is_not_there():
    """Nothing is known, nothing is raised."""
    assert touched_shares(2**22 + 5, MIB) == ()
