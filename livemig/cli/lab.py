"""``livemig lab``: two hosts on this machine, made, looked at, entered, removed."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from livemig.cli.help import Option, Verb
from livemig.cli.help_texts import LAB_EPILOG
from livemig.cli.options import RATE
from livemig.core.errors import LivemigError
from livemig.core.units import format_bit_rate

if TYPE_CHECKING:
    from livemig.lab.two_hosts import TwoHosts

_Result = TypeVar("_Result")
_LAB = "The lab"
_option = partial(click.option, cls=Option)
_name = _option("--name", heading=_LAB, default="lab", show_default=True, help="Tells it from other labs.")


@click.group(epilog=LAB_EPILOG, short_help="Two hosts on this machine, in network namespaces.")
def lab() -> None:
    """Two hosts A and B, a client and the networks between them, in network namespaces of this machine.

    Each host has its own SSH server, its own folder and taps for guests; keys are made for the lab. Needs root.
    """


@lab.command(cls=Verb, short_help="Make the lab.")
@_option(
    "--rate",
    heading=_LAB,
    type=RATE,
    help="What each host's data link carries in each direction, such as 1Gbit/s. Without it there is no limit.",
)
@_name
def up(rate: float | None, name: str) -> int:
    """Make two hosts, a client, and the networks between them. A lab that is up already is left as it is."""
    from livemig.lab.two_hosts.lab import Started

    made = _named(name, rate)
    started = _run(made.start())
    if started is Started.WAS_UP:
        print(f"the lab {name} was up already")
    elif started is Started.MADE_ANEW:
        print(f"removed what was left of the lab {name}, and made it anew")
    print("\n".join(_status_lines(made)))
    return 0


@lab.command(cls=Verb, short_help="Say what runs in the lab.")
@_name
def status(name: str) -> int:
    """Say whether the lab is up, how its hosts are reached, and what runs on them."""
    print("\n".join(_status_lines(_opened(name))))
    return 0


@lab.command(cls=Verb, short_help="Open a shell on a host, or run a command there.")
@click.argument("where", type=click.Choice(["A", "B", "client"]))
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@_name
def shell(where: str, command: tuple[str, ...], name: str) -> int:
    """Open a shell on host A or B or the client, or run a COMMAND there (after --)."""
    found = _opened(name)
    place = found.client if where == "client" else found.host(where)
    try:
        argv = place.argv(*(command or (os.environ.get("SHELL", "/bin/sh"),)))
        os.execvp(argv[0], argv)  # noqa: S606  # the shell takes this process's place, its terminal and signals
    except (LivemigError, OSError) as error:
        raise click.ClickException(f"{where}: {error}") from error


@lab.command(cls=Verb, short_help="Start the small Linux guest on a host.")
@click.argument("where", type=click.Choice(["A", "B"]), default="A")
@_name
def guest(where: str, name: str) -> int:
    """Start the small Linux guest on host A or B, with a disk on the folder that both share.

    It serves TCP and UDP, rewrites its memory, and keeps a journal on its disk, checking all of it. It is built from
    Debian packages when it is needed first.
    """
    from livemig.cli.lab_guest import start_guest

    print("\n".join(_run(start_guest(_opened(name), where))))
    return 0


@lab.command(cls=Verb, short_help="Talk to the Linux guest from the client, and show every silence.")
@_name
def watch(name: str) -> int:
    """Talk to the Linux guest from the client without pause, until Ctrl-C, and print each silence of 100 ms and more.

    Two TCP sessions and UDP: every record must come back, or come, once and in order. How each did is said at the end.
    """
    from livemig.cli.lab_guest import watch_guest

    return _run(watch_guest(_opened(name)))


@lab.command(cls=Verb, short_help="See the Linux guest move between two hosts while a client streams from it.")
@_option("--rate", heading=_LAB, type=RATE, default="1Gbit/s", show_default=True, help="What each data link carries.")
@_option(
    "--downtime-limit", heading=_LAB, default="300ms", show_default=True, metavar="TIME", help="As of `livemig run`."
)
def demo(rate: float, downtime_limit: str) -> int:
    """Make a lab, start the Linux guest on host A, and move it to host B over SSH and TLS while a client talks to it.

    Shown at the end: how long the guest stood still, how long its clients heard nothing, and that nothing was lost.
    """
    from livemig.cli.lab_demo import run_lab_demo

    return _run(run_lab_demo(rate_bytes_s=rate, downtime_limit=downtime_limit))


@lab.command(cls=Verb, short_help="Remove the lab and all that runs in it.")
@_name
def down(name: str) -> int:
    """End everything that runs in the lab, and remove every trace of it. Works after a crash too."""
    if _run(_named(name).stop()):
        print(f"the lab {name} is gone")
    else:
        print(f"there was no lab {name}")
    return 0


def _status_lines(found: TwoHosts) -> list[str]:
    layout = found.layout
    rate = "no limit" if layout.rate_bytes_s is None else format_bit_rate(layout.rate_bytes_s)
    lines = [f"lab {found.name}: data link {rate}"]
    for host in found.status():
        state = f"SSH at {layout.management_address(host.name)}" if host.sshd else "no sshd runs"
        running = ", ".join(f"{name} ({pid})" for pid, name in host.processes) or "nothing"
        address = layout.data_address(host.name)
        lines.append(f"{host.name:7} {state if host.up else 'is down'}, data {address}; runs {running}")
    lines.append(f"client  data {layout.data_address('client')}")
    lines.append(f"folders {found.folder}/private (each host its own), {found.folder}/shared (both the same)")
    lines.append(f"log in  ssh -F {found.ssh_config_path} A")
    return lines


def _named(name: str, rate_bytes_s: float | None = None) -> TwoHosts:
    from livemig.lab.two_hosts import TwoHosts

    try:
        return TwoHosts(name, rate_bytes_s=rate_bytes_s)
    except LivemigError as error:
        raise click.UsageError(str(error), ctx=click.get_current_context()) from error


def _opened(name: str) -> TwoHosts:
    from livemig.lab.two_hosts import TwoHosts

    try:
        return TwoHosts.opened(name)
    except LivemigError as error:
        raise click.ClickException(str(error)) from error


def _run(work: Coroutine[Any, Any, _Result]) -> _Result:
    import asyncio

    try:
        return asyncio.run(work)
    except LivemigError as error:
        raise click.ClickException(str(error)) from error
