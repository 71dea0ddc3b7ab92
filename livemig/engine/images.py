"""Finds out whether both sides mean one file by what they call a disk's image.

On one kernel devices and inodes tell. Between hosts nothing tells by itself: a file that is made beside the image at
one and seen beside it at the other proves that the folder is shared; a block device has an identity of its own; and
what is reached by a network has its name. The file is removed at once; nothing else is changed.
"""

from __future__ import annotations

import posixpath
import re

from livemig.engine.shared_folder import is_shared
from livemig.engine.side import Side
from livemig.hosts.host import Host
from livemig.hosts.open_files import FileKey, is_same_file
from livemig.qemu.compare import ImagePair

_NETWORK = re.compile(r"[a-z0-9+.-]+://|(rbd|nbd|iscsi|sheepdog|ssh|gluster(\+\w+)?):", re.IGNORECASE)
_IDENTITIES = ("wwid", "device/wwid", "dm/uuid")
"""Where the kernel tells a block device's own identity, below ``/sys/dev/block/MAJOR:MINOR``."""


def on_one_kernel(source: Side, destination: Side) -> bool:
    """Whether both run on one kernel: there what can't be seen is seldom another file; between hosts it often is."""
    return source.host.identity.shares_kernel(destination.host.identity)


async def same_images(
    source: Side, destination: Side, pairs: tuple[ImagePair, ...]
) -> list[tuple[ImagePair, bool | None]]:
    """Looks at both sides; None for an image of which it can't be told, whichever name it has.

    Raises:
        HostError: When a host does not answer.
    """
    if not pairs:
        return []
    if source.process is None or destination.process is None:
        return [(pair, None) for pair in pairs]
    here = await source.host.image_keys(source.process.pid, [pair.source for pair in pairs])
    there = await destination.host.image_keys(destination.process.pid, [pair.destination for pair in pairs])
    if on_one_kernel(source, destination):
        return [(pair, is_same_file(here[pair.source], there[pair.destination])) for pair in pairs]
    found = []
    for pair in pairs:
        keys = here[pair.source].named, there[pair.destination].named
        found.append((pair, await _same_between(source, destination, pair, keys)))
    return found


async def _same_between(
    source: Side, destination: Side, pair: ImagePair, keys: tuple[FileKey | None, FileKey | None]
) -> bool | None:
    if _NETWORK.match(pair.source) or _NETWORK.match(pair.destination):
        return True if pair.source == pair.destination else None
    mine, other = keys
    if mine is None or other is None or mine.kind != other.kind:
        return None
    if mine.kind != "file":
        one, two = await _device_identity(source.host, mine), await _device_identity(destination.host, other)
        return one == two if one and two else None
    return await _in_shared_folder(source, destination, pair, same_inode=mine.minor == other.minor)


async def _device_identity(host: Host, key: FileKey) -> str:
    paths = [f"/sys/dev/block/{key.major}:{key.minor}/{name}" for name in _IDENTITIES]
    texts = await host.texts_of(paths)
    return next((text.strip() for path in paths if (text := texts.get(path, "").strip())), "")


async def _in_shared_folder(source: Side, destination: Side, pair: ImagePair, *, same_inode: bool) -> bool | None:
    """Makes a file beside the image at the destination, and looks for it beside the image at the source."""
    mine = await source.host.real_path(await _absolute(source, pair.source))
    other = await destination.host.real_path(await _absolute(destination, pair.destination))
    seen = await is_shared(destination.host, posixpath.dirname(other), source.host, [posixpath.dirname(mine)])
    if seen is None:
        return None
    return seen and (posixpath.basename(mine) == posixpath.basename(other) or same_inode)


async def _absolute(side: Side, path: str) -> str:
    if path.startswith("/") or side.process is None:
        return path
    return posixpath.join((await side.host.read_process(side.process.pid)).surroundings.cwd, path)
