"""The way to a UNIX socket of a host: through sshd, which connects to it as the user that livemig logged in as."""

from __future__ import annotations

import errno
import os
import shlex
import socket

from livemig.hosts.ssh.link import Link
from livemig.hosts.ssh.reading import listening_in, one_for_each_network
from livemig.hosts.ssh.relay import Relay

HELD = (
    "somebody listens there, but its sshd does not connect: other clients hold this monitor (give QEMU a second one), "
    "or that sshd forwards no UNIX sockets (AllowStreamLocalForwarding, AllowTcpForwarding)"
)


class RemoteWay:
    """Opens connections to one UNIX socket of a host."""

    def __init__(self, link: Link, path: str) -> None:
        """Connects to nothing yet."""
        self._link, self._path = link, path
        self._relay: Relay | None = None

    @property
    def is_broken(self) -> bool:
        """Whether the way of the last connection broke, so that its end is not what was said last at the other end."""
        return self._relay is not None and not self._relay.ended

    async def open(self) -> socket.socket:
        """Connects.

        Raises:
            ConnectError: When the host is out of reach, or its sshd forwards nothing.
            OSError: As `socket.connect`.
        """
        try:
            opened, self._relay = await self._link.open_unix(self._path)
        except ConnectionRefusedError as error:  # all that sshd says
            raise await why_not_open(self._link, self._path) from error
        return opened


async def why_not_open(link: Link, path: str) -> OSError:
    """Finds out what sshd does not tell.

    Somebody who listens, but whose queue of clients is full, must not be taken for nobody: a QEMU would be launched in
    their place.
    """
    quoted = shlex.quote(path)
    found = await link.run_parts(
        {
            "kind": f"if [ -S {quoted} ]; then echo socket; elif [ -e {quoted} ]; then echo other; else "
            f"[ -x {shlex.quote(os.path.dirname(path))} ] && echo none || echo hidden; fi",  # noqa: PTH120
            "mine": f"[ -w {quoted} ]",
            "real": f"readlink -f -- {quoted}",
        }
    )
    number = errno.ECONNREFUSED
    match found["kind"].text:
        case "none":
            number = errno.ENOENT
        case "hidden":
            number = errno.EACCES
        case "other":
            number = errno.ENOTSOCK
        case _ if found["mine"].status != 0:
            number = errno.EACCES
        case _ if {path, found["real"].text} & await _listened(link):
            return OSError(errno.EAGAIN, HELD)
        case _:
            pass
    return OSError(number, os.strerror(number))


async def _listened(link: Link) -> set[str]:
    """The paths of all sockets that somebody listens at, in every network namespace that can be seen.

    Of processes that see the same files: elsewhere a path is another place.
    """
    listing = await link.run("ls -l /proc/self/ns/mnt /proc/[0-9]*/ns/net /proc/[0-9]*/ns/mnt 2>/dev/null")
    pids = one_for_each_network(listing.text)
    tables = await link.run(f"cat {' '.join(f'/proc/{pid}/net/unix' for pid in ('self', *pids))} 2>/dev/null")
    return {name for _, name in listening_in(tables.text)}
