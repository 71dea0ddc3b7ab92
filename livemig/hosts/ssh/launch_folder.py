"""The folder of a QEMU that livemig launches on a host, as `livemig.hosts.launch_folder` has it on this machine.

The process that holds a folder is the shell through which livemig works there: it ends with the connection.
"""

from __future__ import annotations

import secrets
import shlex

from livemig.hosts.launch_folder import ANONYMOUS, TAKEN, LaunchClaim, busy_text
from livemig.hosts.places import MARKER, STDERR_NAME
from livemig.hosts.ssh.link import Link
from livemig.hosts.ssh.places import listened_at, must

_START_TICKS = """
ticks() { { read -r line </proc/"$1"/stat || return 1; set -- ${line##*) }; echo "${20}"; } 2>/dev/null; }
"""
"""Defines what tells when a process started; it fails for one that has ended."""
_EXISTS = 3


async def read_claim(link: Link, folder: str) -> LaunchClaim | None:
    """Returns what the marker of a folder says; None where there is none.

    Raises:
        HostError: When the host does not answer.
    """
    marker = shlex.quote(f"{folder}/{MARKER}")
    answer = await link.run(
        f"{_START_TICKS}[ -e {marker} ] || exit 1\n"
        f'read -r run pid started <{marker}; echo "run $run"\n'
        f'[ -n "$started" ] && [ "$(ticks "$pid")" = "$started" ] && echo held; true'
    )
    if answer.status != 0:
        return None
    lines = answer.text.splitlines()
    run_id = next((line.removeprefix("run").strip() for line in lines if line.startswith("run")), "")
    return LaunchClaim(run_id=run_id, is_held="held" in lines)


async def make_folder(link: Link, folder: str, owner: tuple[int, int] | None, run_id: str) -> None:
    """Makes the folder, and the file for what QEMU writes.

    Raises:
        FileExistsError: When another livemig has it.
        OSError: When it can't be made; nothing is left then.
        HostError: When the host does not answer.
    """
    quoted, written = shlex.quote(folder), shlex.quote(f"{folder}/{STDERR_NAME}")
    given = "" if owner is None else f" && chown {owner[0]}:{owner[1]} {quoted} {written}"
    mark = _mark(folder, f'"{run_id or ANONYMOUS} $$ $(ticks $$)"')
    script = (  # one script: a connection lost between two would leave a folder that nobody may ever remove
        f"{_START_TICKS}umask 077; mkdir {quoted} || {{ [ -e {quoted} ] && exit {_EXISTS}; exit 1; }}\n"
        f"{{ {mark} && : >{written}{given}; }} || {{ rm -rf {quoted}; false; }}"
    )
    if (made := await link.run(script)).status == _EXISTS:
        await _make_room(link, folder)
        made = await link.run(script)
    if made.status != 0:
        raise OSError(f"{link.name}: {made.text}")


async def release_folder(link: Link, folder: str) -> None:
    """Lets others look at it: its QEMU is locked by the run.

    Raises:
        HostError: When the host does not answer.
    """
    claim = await read_claim(link, folder)
    if claim is not None:
        await link.run(f"umask 077; {_mark(folder, shlex.quote(claim.run_id))}")


async def remove_folder(link: Link, folder: str, run_id: str | None) -> None:
    """Removes the folder of a QEMU that has ended; leaves any other alone, and one that somebody still uses.

    Args:
        link: The host's.
        folder: The folder.
        run_id: The run that may be about to launch in it: its own caller's.

    Raises:
        HostError: When the host does not answer.
    """
    claim = await read_claim(link, folder)
    own = claim is not None and run_id is not None and claim.run_id == (run_id or ANONYMOUS)
    if own or await _is_left_over(link, folder):
        await link.run(f"rm -rf -- {shlex.quote(folder)}")


async def _make_room(link: Link, folder: str) -> None:
    """Removes a folder that is left over; see `livemig.hosts.launch_folder`."""
    taken, aside = shlex.quote(f"{folder}/{TAKEN}"), shlex.quote(f"{folder}.{secrets.token_hex(8)}")
    if (await link.run(f"mkdir {taken}")).status != 0:
        raise FileExistsError(busy_text(folder))
    if not await _is_left_over(link, folder):
        await link.run(f"rmdir {taken}")
        raise FileExistsError(busy_text(folder))
    await must(link, f"mv {shlex.quote(folder)} {aside} && rm -rf -- {aside}")


async def _is_left_over(link: Link, folder: str) -> bool:
    claim = await read_claim(link, folder)
    if claim is None or claim.is_held:
        return False
    found = await link.run(f'for f in {shlex.quote(folder)}/*; do [ -S "$f" ] && echo "$f"; done; true')
    return not any([await listened_at(link, path) for path in found.text.splitlines()])


def _mark(folder: str, text: str) -> str:
    """A command that writes the marker so that nobody ever reads half of it."""
    written = shlex.quote(f"{folder}/{MARKER}.{secrets.token_hex(8)}")
    return f"echo {text} >{written} && mv -f {written} {shlex.quote(f'{folder}/{MARKER}')}"
