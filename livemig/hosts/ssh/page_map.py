"""The kernel's page map of a process of another host, counted there by its shell's tools: next to nothing is sent.

Where to look and what an entry says is in `livemig.hosts.page_map`.
"""

from __future__ import annotations

from livemig.hosts.page_map import Extent, extents, is_touched, share
from livemig.hosts.ssh.link import Link
from livemig.hosts.ssh.shell import Answer

READ_BYTES_MOST = 8 * 2**20
"""Of the page map: all of a guest of 4 GiB. Counting so much takes that host some 0.3 s of a processor."""
BLOCK_BYTES = 4096
"""What `dd` reads at a time: it seeks where the other tools would read all that comes before."""
MAPS_BYTES_MOST = 2**20
_MAPS = "grep ' rw-[ps] ' /proc/{pid}/maps | head -c {most}"
_PAGE_KIB = "sed -n 's/^KernelPageSize: *\\([0-9]*\\) kB$/\\1/p' /proc/self/smaps | head -n 1"
_COUNT = "awk '{ for (i = 1; i <= NF; i++) seen[substr($i, 1, 2)]++ } END { for (one in seen) print one, seen[one] }'"
"""How often each first byte comes: it holds all of an entry's flags, and the rest is of no use here."""


async def touched_shares(link: Link, pid: int, memory_bytes: int) -> tuple[float, ...]:
    """Returns what share of each of 32 parts of the guest's RAM has pages; empty where that can't be read.

    Args:
        link: The host.
        pid: QEMU's.
        memory_bytes: The guest's memory.

    Raises:
        HostError: When the host gave no answer within a bound.
    """
    told = await link.run_parts({"maps": _MAPS.format(pid=pid, most=MAPS_BYTES_MOST), "page": _PAGE_KIB})
    if not told["page"].text.isdigit():
        return ()
    page_bytes = int(told["page"].text) * 1024
    pieces = extents(told["maps"].text, memory_bytes, page_bytes=page_bytes, bytes_most=READ_BYTES_MOST)
    if not pieces:
        return ()
    every = {f"{part} {rank}": one for part, piece in enumerate(pieces) for rank, one in enumerate(piece)}
    found = await link.run_parts({name: _counting(pid, extent) for name, extent in every.items()})
    try:
        counted = {name: _counted(found[name], extent) for name, extent in every.items()}
    except ValueError:
        return ()
    return tuple(share(counted[f"{part} {rank}"] for rank in range(len(piece))) for part, piece in enumerate(pieces))


def _counting(pid: int, extent: Extent) -> str:
    """The command that counts the first bytes of an extent's entries, each as its number in this host's own order."""
    first, before_bytes = divmod(extent.offset_bytes, BLOCK_BYTES)
    block_count = -(-(before_bytes + extent.size_bytes) // BLOCK_BYTES)
    return (
        f"dd if=/proc/{pid}/pagemap bs={BLOCK_BYTES} skip={first} count={block_count}"
        f" | od -A n -v -t x8 -j {before_bytes} -N {extent.size_bytes} | {_COUNT}"
    )


def _counted(answer: Answer, extent: Extent) -> tuple[int, int]:
    """How many pages of an extent were touched, and how many it has.

    Raises:
        ValueError: When not all of it was read.
    """
    touched_count = page_count = 0
    for line in answer.text.splitlines():
        first_byte, count = line.split()
        page_count += int(count)
        if is_touched(int(first_byte, 16) << 56, anonymous=extent.anonymous):
            touched_count += int(count)
    if page_count * 8 != extent.size_bytes:
        raise ValueError("the page map was not read whole")
    return touched_count, page_count
