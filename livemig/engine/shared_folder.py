"""Whether two hosts see the same folder: a file that is made in it at one is seen in it at the other, and removed."""

from __future__ import annotations

import contextlib
import posixpath
import secrets
from collections.abc import Iterable

from livemig.core.errors import HostError
from livemig.hosts.host import Host


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
