"""Where a benchmark ran: without it a figure says nothing to anyone else. Reads the machine, changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

_ROOT = Path(__file__).resolve().parent.parent
_UNKNOWN = "unknown"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the software that a benchmark ran on.

    Attributes:
        measured_at: Wall-clock time of its start, ISO 8601 with zone.
        livemig_version: The installed livemig.
        livemig_commit: Its commit, followed by ``+changes`` when the tree had others; ``unknown`` outside a clone.
        qemu_version: As QEMU names it.
        kernel: Name, release and architecture.
        cpu: The processor's model.
        core_count: The cores that this process may use.
        kvm: ``none``, ``hardware``, or ``without hardware virtualisation`` where the processor shows no such flag.
        python_version: The interpreter.
        load_average: Runnable tasks over the last minute, at the start: what else the machine had to do.
    """

    measured_at: str
    livemig_version: str
    livemig_commit: str
    qemu_version: str
    kernel: str
    cpu: str
    core_count: int
    kvm: str
    python_version: str
    load_average: float

    @classmethod
    def read(cls, qemu: str) -> Environment:
        """Reads this machine; `qemu` is the QEMU that is measured with, a name or a path."""
        processor = _processor()
        return cls(
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            livemig_version=version("livemig"),
            livemig_commit=_commit(),
            qemu_version=_first_line(qemu, "--version"),
            kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
            cpu=processor.get("model name", _UNKNOWN),
            core_count=len(os.sched_getaffinity(0)),
            kvm=_kvm(processor.get("flags", "").split()),
            python_version=f"{platform.python_implementation()} {platform.python_version()}",
            load_average=os.getloadavg()[0],
        )


def _processor() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _kvm(flags: list[str]) -> str:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "none"
    return "hardware" if {"vmx", "svm"} & set(flags) else "without hardware virtualisation"


def _commit() -> str:
    commit = _first_line("git", "-C", str(_ROOT), "rev-parse", "--short=12", "HEAD")
    if commit == _UNKNOWN:
        return commit
    changed = _first_line("git", "-C", str(_ROOT), "status", "--porcelain", "--untracked-files=no") != _UNKNOWN
    return f"{commit}+changes" if changed else commit


def _first_line(*argv: str) -> str:
    """What a command prints first, or ``unknown`` when it prints nothing, fails or is missing."""
    if shutil.which(argv[0]) is None:
        return _UNKNOWN
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return lines[0].strip() if lines else _UNKNOWN
