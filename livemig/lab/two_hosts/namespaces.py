"""Makes the lab's networks and removes them: the one place that runs ``ip`` and ``tc``. Knows nothing of SSH."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

from livemig.core.errors import LabError
from livemig.lab.two_hosts.layout import CLIENT, HOST_NAMES, SWITCH, Layout

NAMES_FOLDER = Path("/run/netns")
COMMAND_BOUND_S = 30.0
_ENDING_BOUND_S = 20.0
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_DIES_WITH_THIS = ("setpriv", "--pdeathsig", "KILL", "--")


async def make(layout: Layout) -> None:
    """Makes every namespace, link, bridge, tap and queue of a lab.

    Raises:
        LabError: When something can't be made; `remove` takes away what there is by then.
    """
    await _batch("ip", [], [f"netns add {name}" for name in layout.namespaces])
    await _batch("ip", [], layout.links())
    for role in (SWITCH, *HOST_NAMES, CLIENT):
        inside = ["-n", layout.namespace(role)]
        await _batch("ip", inside, layout.inside(role))
        await _batch("tc", inside, layout.shaping(role))


async def remove(layout: Layout) -> None:
    """Ends every process inside a lab and removes its namespaces; the links go with them. Can be repeated.

    Raises:
        LabError: When a process does not end, or a namespace can't be removed.
    """
    names = [name for name in layout.namespaces if (NAMES_FOLDER / name).exists()]
    await _end_processes(names)
    if machine_has(layout.machine_interface):
        await run(
            "ip", "link", "delete", layout.machine_interface
        )  # at once; with the namespace it goes a little later
    for name in names:
        await run("ip", "netns", "delete", name)


def taken(layout: Layout) -> list[str]:
    """What of a lab's names exists: in words, for a message."""
    found = [f"the network namespace {name}" for name in layout.namespaces if (NAMES_FOLDER / name).exists()]
    if machine_has(layout.machine_interface):
        found.append(f"the network interface {layout.machine_interface}")
    return found


def processes(name: str) -> list[int]:
    """Pids of all processes inside a network namespace; none when it does not exist."""
    try:
        wanted = _identity(NAMES_FOLDER / name)
    except OSError:
        return []
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if _identity(folder / "ns/net") == wanted:
                    found.append(int(folder.name))
    return found


def machine_has(interface: str) -> bool:
    """Whether this machine has a network interface of that name."""
    return Path("/sys/class/net", interface).exists()


async def machine_addresses() -> str:
    """All of this machine's addresses and routes, as text, to choose a free range by."""
    return await run("ip", "-o", "-4", "addr", "show") + await run("ip", "-4", "route", "show", "table", "all")


def find(tool: str) -> str:
    """Returns the path of an administrator's tool, also for a user whose PATH has none of them.

    Raises:
        LabError: When it is not installed.
    """
    path = shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:{_SBIN}")
    if path is None:
        raise LabError(f"{tool} is not installed: scripts/setup installs what the lab needs")
    return path


async def run(*command: str, text: str = "") -> str:
    """Runs a command to its end, and returns what it printed.

    It dies with this process: what still makes a lab must not go on beside what removes it.

    Raises:
        LabError: When it is not installed, fails (its own words are quoted), or does not end within the bound.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *_DIES_WITH_THIS,
            find(command[0]),
            *command[1:],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise LabError(f"{command[0]} can't be started: {error}") from error
    try:
        async with asyncio.timeout(COMMAND_BOUND_S):
            output, errors = await process.communicate(text.encode())
    except TimeoutError as error:
        raise LabError(f"`{' '.join(command)}` does not end within {COMMAND_BOUND_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        said = errors.decode(errors="replace").strip().replace("\n", "; ") or f"exit code {process.returncode}"
        raise LabError(f"`{' '.join(command)}` failed: {said}")
    return output.decode(errors="replace")


async def _batch(tool: str, options: list[str], lines: list[str]) -> None:
    if lines:
        await run(tool, *options, "-batch", "-", text="\n".join([*lines, ""]))


async def _end_processes(names: list[str]) -> None:
    """Kills until none is left: one that just forks may escape the first pass."""
    end_s = asyncio.get_running_loop().time() + _ENDING_BOUND_S
    while True:
        left = {pid: name for name in names for pid in processes(name)}
        if not left:
            return
        if os.getpid() in left:
            raise LabError(f"this runs inside the lab ({left[os.getpid()]}): leave its shell first")
        if asyncio.get_running_loop().time() > end_s:
            raise LabError(f"processes {sorted(left)} inside the lab do not end")
        for pid, name in left.items():
            _kill(pid, name)
        await asyncio.sleep(0.01)


def _kill(pid: int, name: str) -> None:
    """Kills a process that is proven to be inside the namespace, whatever its pid stands for by now."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _identity(Path(f"/proc/{pid}/ns/net")) == _identity(NAMES_FOLDER / name):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
