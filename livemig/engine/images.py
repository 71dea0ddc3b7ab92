"""Finds out whether both sides mean one file by what they call a disk's image. Changes nothing."""

from __future__ import annotations

from livemig.engine.side import Side
from livemig.hosts.open_files import is_same_file
from livemig.qemu.compare import ImagePair


async def same_images(
    source: Side, destination: Side, pairs: tuple[ImagePair, ...]
) -> list[tuple[ImagePair, bool | None]]:
    """Looks at both processes; a side whose process can't be seen may mean anything by a name: None."""
    if source.process is None or destination.process is None or not pairs:
        return [(pair, None) for pair in pairs]
    here = await source.host.image_keys(source.process.pid, [pair.source for pair in pairs])
    there = await destination.host.image_keys(destination.process.pid, [pair.destination for pair in pairs])
    return [(pair, is_same_file(here[pair.source], there[pair.destination])) for pair in pairs]
