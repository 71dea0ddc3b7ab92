"""Ends what a test launched and did not end: QEMUs outlive livemig on purpose, and so they outlive a killed test.

A process is known by the folder in its command line, never by its name; a folder belongs to the test run whose pid and
start time stand in its own name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from livemig.hosts.local import LocalProcess

PREFIX = "launch"


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets; what still runs in it afterwards is ended."""
    run = f"{PREFIX}-{os.getpid()}-{_start_time(os.getpid())}-"
    with tempfile.TemporaryDirectory(prefix=run, dir="/tmp", ignore_cleanup_errors=True) as path:
        try:
            yield Path(path)
        finally:
            end_processes_in(Path(path))


def end_stale(parent: Path = Path("/tmp")) -> list[Path]:
    """Ends what test runs left that are gone themselves, and removes their folders; returns these."""
    stale = [folder for folder in parent.glob(f"{PREFIX}-*-*-*") if _is_stale(folder.name)]
    for folder in stale:
        end_processes_in(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return stale


def processes_in(folder: Path) -> list[int]:
    """The processes, this one aside, in whose command line the folder stands."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(f"{folder}/") in line and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def end_processes_in(folder: Path) -> None:
    """Kills them, each held by its pidfd."""
    for pid in processes_in(folder):
        try:
            process = LocalProcess(pid)
        except ProcessLookupError:
            continue
        if pid in processes_in(folder):  # it is held now: still the one that was meant
            process.kill()
        process.close()


def _is_stale(name: str) -> bool:
    _, pid, start_time, _ = name.split("-", 3)
    if not (pid.isdigit() and start_time.isdigit()):
        return False
    return _start_time(int(pid)) != int(start_time)


def _start_time(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
