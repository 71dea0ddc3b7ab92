"""By what a process is known for good, on whichever host: a reused pid or socket path is never mistaken for it."""

from __future__ import annotations

import os
from enum import StrEnum

import msgspec

from livemig.hosts.host import Host, HostIdentity, HostProcess
from livemig.hosts.local import LocalProcess
from livemig.hosts.local_host import LocalHost


class ProcessIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """A process.

    Attributes:
        host: The host that it runs on, in this boot.
        pid: Its process id.
        start_ticks: When it started, in clock ticks since the boot.
    """

    host: HostIdentity
    pid: int
    start_ticks: int


class Absent(StrEnum):
    """Why there is no process of an identity."""

    GONE = "gone"
    """It has ended: that is proven."""
    UNSEEN = "unseen"
    """It is of another machine or another pid namespace, or can't be looked at: nothing is known of it."""


def identity_of(host: Host, process: HostProcess | None) -> ProcessIdentity | None:
    """Returns the identity of a process; None of none."""
    if process is None:
        return None
    return ProcessIdentity(host=host.identity, pid=process.pid, start_ticks=process.start_ticks)


def own_identity() -> ProcessIdentity:
    """Returns livemig's own."""
    own = LocalProcess(os.getpid())
    try:
        return ProcessIdentity(host=LocalHost().identity, pid=own.pid, start_ticks=own.start_ticks)
    finally:
        own.close()


async def process_known_as(host: Host, identity: ProcessIdentity) -> HostProcess | Absent:
    """Returns the process of an identity, held, or why there is none.

    Args:
        host: Where it is looked for.
        identity: What is looked for.
    """
    here, there = host.identity, identity.host
    if here.boot_id != there.boot_id:
        rebooted = here.machine != "" and here.machine == there.machine
        return Absent.GONE if rebooted else Absent.UNSEEN
    if not here.shares_processes(there):
        return Absent.UNSEEN
    try:
        found = await host.process_known_as(identity.pid, identity.start_ticks)
    except OSError:
        return Absent.UNSEEN
    return Absent.GONE if found is None else found
