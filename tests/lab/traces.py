"""What a lab leaves on this machine, looked for without livemig's own help."""

from __future__ import annotations

import contextlib
from pathlib import Path

LABS = Path("/run/livemig-lab")


def traces(name: str) -> list[str]:
    """Everything that bears the lab's name: namespaces, interfaces, files, processes, mounts."""
    found = [str(path) for path in Path("/run/netns").glob(f"livemig-{name}-*")]
    found += [str(path) for path in Path("/sys/class/net").glob(f"lm-{name}")]
    found += [str(path) for path in LABS.glob(f"{name}*")]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"livemig-lab/{name}/" in line]
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if folder.name.isdigit() and f"{LABS}/{name}/" in command:
                found.append(f"{folder.name}: {command}")
    return found
