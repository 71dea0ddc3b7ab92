"""A program of its own: takes on what a QEMU is to run in, and becomes that QEMU, so that the pid stays.

It reads one JSON object from its standard input: nothing of it shows in the process list, and no tool of the host is
needed. Started by `livemig.hosts.start` with ``python -I -S``; imports only what that has.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from typing import Any

CLONE_NEWNET = 0x40000000
DESCRIPTORS_MOST = 2**20
EXIT_CODE = 126
"""As a shell's for a program that can't be run: the reason is on standard error."""


def become(what: dict[str, Any]) -> None:
    """Takes on the surroundings and becomes the program; returns only by an exception.

    Raises:
        OSError: When something of it is denied, or there is no such program.
    """
    own = (os.geteuid(), os.getegid())
    if what["network_namespace"] is not None:
        _enter_network(what["network_namespace"])
    _schedule(what)
    _limit(what["limits"])
    os.chdir(what["cwd"])
    os.umask(what["umask"])
    if own[0] == 0:
        os.setgroups(what["groups"])
    if own != (what["user"], what["group"]):
        os.setresgid(what["group"], what["group"], what["group"])
        os.setresuid(what["user"], what["user"], what["user"])
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 0)
    os.dup2(silent, 1)
    os.closerange(3, DESCRIPTORS_MOST)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and what is ignored stays so
        signal.signal(number, signal.SIG_DFL)
    os.execve(what["executable"], what["argv"], what["environment"])  # noqa: S606 - no shell is meant


def _enter_network(path: str) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "the source's network namespace can't be entered")


def _schedule(what: dict[str, Any]) -> None:
    """As far as livemig may; `livemig.engine.launch` looks afterwards what came of it."""
    kind, priority = what["scheduling"]
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, what["cpus"])
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, what["nice"])
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, kind, os.sched_param(priority))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(str(what["oom_score_adj"]))


def _limit(limits: dict[str, list[int]]) -> None:
    for number, (soft, hard) in limits.items():
        if list(resource.getrlimit(int(number))) == [soft, hard]:
            continue
        try:
            resource.setrlimit(int(number), (soft, hard))
        except ValueError as error:
            text = f"the source's limit {number} ({soft}:{hard}, see ulimit) can't be set: run livemig as root"
            raise ValueError(text) from error


if __name__ == "__main__":
    try:
        become(json.load(sys.stdin))
    except (OSError, ValueError) as error:
        print(f"livemig: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_CODE)
