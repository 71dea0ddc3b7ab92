"""Whether two hosts see the same folder: a file that is made in it at one is seen in it at the other, and removed.

So a UNIX socket in it is told from one of a host's own: only the kernel of whoever listens there connects to it, and to
the other host it looks dead.
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
from collections.abc import Iterable

from livemig.core.errors import HostError
from livemig.hosts.host import Host

_SOCKETS = "/proc/net/unix"


async def is_shared(made_at: Host, folder: str, seen_from: Host, folders: Iterable[str]) -> bool | None:
    """Makes a file in a folder at one host, and looks for it in some folders at the other.

    Returns:
        Whether it is in one of these; None where it can't be made. It is removed again.

    Raises:
        HostError: When a host does not answer.
    """
    name = f".livemig-{secrets.token_hex(16)}"
    made = posixpath.join(folder, name)
    try:
        await made_at.write_secret(made, "livemig looks whether this folder is shared\n", None)
    except OSError:
        return None
    try:
        return bool(await seen_from.existing_among(posixpath.join(each, name) for each in folders))
    finally:
        with contextlib.suppress(HostError):
            await made_at.remove_file(made)


async def may_be_elsewheres(path: str, host: Host, other: Host) -> bool:
    """Whether a socket that looks dead at one host may be that of somebody who listens at the other.

    It may where it lies in a folder of both, or where that can't be told. On one kernel it can't: connecting tells.

    Raises:
        HostError: When a host does not answer.
    """
    if host.identity.shares_kernel(other.identity):
        return False
    folder, name = posixpath.split(path)
    listened = (await other.texts_of([_SOCKETS])).get(_SOCKETS, "")
    bound = {line.split()[-1] for line in listened.splitlines() if line.endswith(f"/{name}")}
    folders = {folder, *(posixpath.dirname(each) for each in bound)}  # it may be mounted at another place there
    return await is_shared(host, folder, other, folders) is not False
