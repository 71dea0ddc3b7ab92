"""Where livemig's and a launched QEMU's files go on a host: whether they can be made, making and removing them."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Iterator

from livemig.core.errors import ConnectError
from livemig.hosts.places import MARKER, may_write
from livemig.hosts.process import Surroundings
from livemig.hosts.ssh.link import Link


async def those_that(link: Link, test: str, paths: Iterable[str]) -> frozenset[str]:
    """Returns those paths that pass a test of the shell's, such as ``-d``."""
    commands = {path: f"[ {test} {_q(path)} ]" for path in paths}
    if not commands:
        return frozenset()
    found = await link.run_parts(commands)
    return frozenset(path for path, answer in found.items() if answer.status == 0)


async def missing_among(link: Link, paths: Iterable[str]) -> tuple[str, ...]:
    """Returns those paths where there is surely nothing: the folder that would hold it may be searched."""
    wanted = tuple(paths)
    if not wanted:
        return ()
    steps = {step for path in wanted for step in _steps(path)}
    looks = {
        step: f"[ -e {_q(step)} ] && echo there; [ -d {_q(step)} ] && [ ! -x {_q(step)} ] && echo closed"
        for step in steps
    }
    found = {step: answer.text.split() for step, answer in (await link.run_parts(looks)).items()}

    def is_missing(path: str) -> bool:
        if "there" in found[path]:
            return False
        nearest = next((step for step in _steps(path) if "there" in found[step]), "/")
        return "closed" not in found.get(nearest, [])

    return tuple(path for path in wanted if is_missing(path))


async def why_no_sockets(link: Link, paths: Iterable[str]) -> tuple[str, ...]:
    """Returns why sockets can't be made at these paths: QEMU would delete whatever is there."""
    wanted = tuple(paths)
    if not wanted:
        return ()
    looks = {
        path: f"[ -d {_q(posixpath.dirname(path))} ] && echo folder; [ -S {_q(path)} ] && echo socket; "
        f"{{ [ -e {_q(path)} ] || [ -L {_q(path)} ]; }} && echo there"
        for path in wanted
    }
    found = {path: answer.text.split() for path, answer in (await link.run_parts(looks)).items()}
    reasons = []
    for path in wanted:
        folder = posixpath.dirname(path)
        if "there" not in found[path]:
            if "folder" not in found[path] and not folder.endswith(".livemig"):
                reasons.append(f"{folder} is no folder at {link.name}")
        elif "socket" not in found[path]:
            reasons.append(f"{path} is there already at {link.name} and no socket: choose another path")
        elif await listened_at(link, path):
            reasons.append(f"somebody listens at {path} already at {link.name}: choose another path")
    return tuple(reasons)


async def listened_at(link: Link, path: str) -> bool:
    """Whether somebody accepts connections at a socket, or may."""
    from livemig.hosts.ssh.way import RemoteWay

    way = RemoteWay(link, path)
    try:
        (await way.open()).close()
    except ConnectionRefusedError:
        return False
    except (OSError, ConnectError):
        return True
    return True


async def why_no_folder(link: Link, folder: str, owner: Surroundings) -> tuple[str, ...]:
    """Returns why livemig's folder can't be made, or QEMU's user could not make its sockets beside it."""
    parent = posixpath.dirname(folder)
    found = await link.run_parts(
        {
            "parent": f"stat -L -c '%u %g %f' -- {_q(parent)}",
            "there": f"[ -e {_q(folder)} ]",
            "marked": f"[ -e {_q(posixpath.join(folder, MARKER))} ]",
            "writable": f"[ -w {_q(parent)} ]",
            "sockets": f'for f in {_q(folder)}/*; do [ -S "$f" ] && echo "$f"; done; true',
        }
    )
    if found["parent"].status != 0:
        return ()  # said of the socket already
    reasons = []
    user, group, mode = found["parent"].text.split()
    if owner.user != 0 and not may_write(int(user), int(group), int(mode, 16), owner):
        reasons.append(
            f"user {owner.user}, who runs QEMU, can't write to {parent} at {link.name}: choose another --dst-qmp"
        )
    elif found["writable"].status != 0:
        reasons.append(
            f"you can't write to {parent} at {link.name}: choose another --dst-qmp, or log in as another user"
        )
    if found["there"].status == 0:
        if found["marked"].status != 0:
            reasons.append(f"{folder} is there already at {link.name} and not livemig's: choose another --dst-qmp")
        elif any([await listened_at(link, path) for path in found["sockets"].text.splitlines()]):
            reasons.append(f"a QEMU that livemig launched still uses {folder}: end it, or choose another --dst-qmp")
    return tuple(reasons)


async def remove_dead_socket(link: Link, path: str) -> None:
    """Removes a socket that nobody listens at any more."""
    there = (await link.run(f"[ -S {_q(path)} ]")).status == 0
    if there and not await listened_at(link, path):
        await link.run(f"rm -f -- {_q(path)}")


async def make_private_folder(link: Link, owner: tuple[int, int] | None, run_id: str) -> str:
    """Makes a new folder that only one user may enter.

    Raises:
        OSError: When it can't be made, or not given to that user; nothing is left then.
    """
    given = "" if owner is None else f' && {{ chown {owner[0]}:{owner[1]} "$f" || {{ rmdir "$f"; false; }}; }}'
    return await must(
        link, f'umask 077; f=$(mktemp -d "${{TMPDIR:-/tmp}}/livemig-{run_id}-XXXXXXXXXX"){given} && echo "$f"'
    )


async def write_secret(link: Link, path: str, text: str, owner: tuple[int, int] | None) -> None:
    """Makes a file that only one user may read: by ``echo``, which every shell has built in, so no process shows it.

    Raises:
        OSError: When it can't be made; nothing is left then.
    """
    given = "" if owner is None else f" && chown {owner[0]}:{owner[1]} {_q(path)}"
    await must(
        link, f"umask 077; set -C; {{ echo {_q(text.rstrip())} >{_q(path)}{given}; }} || {{ rm -f {_q(path)}; false; }}"
    )


async def must(link: Link, script: str) -> str:
    """Runs a script that has to succeed; returns what it wrote.

    Raises:
        OSError: When it fails.
    """
    answer = await link.run(script)
    if answer.status != 0:
        words = answer.text.splitlines()
        raise OSError(f"{link.name}: {words[-1] if words else 'it failed without a word'}")
    return answer.text


def _steps(path: str) -> Iterator[str]:
    """A path and all that is above it, from below."""
    while True:
        yield path
        above = posixpath.dirname(path)
        if above in (path, ""):
            return
        path = above


def _q(text: str) -> str:
    return shlex.quote(text)
