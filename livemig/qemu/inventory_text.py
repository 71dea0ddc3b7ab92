"""Reads what QEMU tells only as text for people: its RAM blocks and its network backends. Pure."""

from __future__ import annotations

import re

from livemig.qemu.inventory import Network, RamBlock

_BLOCK = re.compile(r"\s*(\S.*?)\s+(\d+ [KMGT]?i?B)\s+0x[0-9a-f]+\s+(0x[0-9a-f]+)\s+(0x[0-9a-f]+)(?:\s.*)?")
_BACKEND = re.compile(r"\s*(?:\\ )?(\S+): index=\d+,type=([\w-]+)(?:,(.*))?")


def read_ram_blocks(text: str) -> tuple[RamBlock, ...]:
    """Reads ``x-query-ramblock``. Blocks without a name (a memory backend that nothing uses) are not in a stream."""
    return tuple(
        RamBlock(name=match[1], page_size=match[2], used_bytes=int(match[3], 16), total_bytes=int(match[4], 16))
        for match in map(_BLOCK.fullmatch, text.splitlines())
        if match is not None
    )


def read_networks(text: str) -> dict[str, Network]:
    """Reads the backends in ``info network``; the queues of one become one."""
    networks: dict[str, Network] = {}
    for match in map(_BACKEND.fullmatch, text.splitlines()):
        if match is None or match[2] in ("nic", "hubport") or match[1] in networks:
            continue
        options = dict(part.partition("=")[::2] for part in (match[3] or "").split(",") if "=" in part)
        networks[match[1]] = Network(id=match[1], type=match[2], options=options)
    return networks
