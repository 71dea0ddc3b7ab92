"""Measures the built-in guest on this machine: ``python -m livemig.lab.figures``.

Prints the figures that docs/guest.md speaks of. Part of no run of livemig.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Content, Pattern, Workload

_MIB = 2**20
_IDLE_S = 2.0
_CASES = {
    "sweep": Workload(working_set_bytes=32 * _MIB, dirty_rate_bytes_s=0),
    "random": Workload(working_set_bytes=32 * _MIB, dirty_rate_bytes_s=0, pattern=Pattern.RANDOM),
    "hot": Workload(working_set_bytes=32 * _MIB, dirty_rate_bytes_s=0, pattern=Pattern.HOT, hot_set_bytes=4 * _MIB),
    "zero": Workload(working_set_bytes=32 * _MIB, dirty_rate_bytes_s=0, content=Content.ZERO),
    "incompressible": Workload(working_set_bytes=_MIB, dirty_rate_bytes_s=0, content=Content.RANDOM),
}


def _cpu_s(pid: int) -> float:
    """CPU time of a process and its threads so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _measure(name: str, workload: Workload, accelerator: str, folder: Path) -> str:
    settings = MachineSettings(workload=workload, accelerator=accelerator)
    start_s = time.monotonic()
    async with Machine(settings, folder=folder) as machine:
        ready = await machine.serial.wait_ready()
        boot_s = time.monotonic() - start_s
        cpu_from_s = _cpu_s(machine.pid)
        await asyncio.sleep(_IDLE_S)
        idle_percent = 100 * (_cpu_s(machine.pid) - cpu_from_s) / _IDLE_S
        verdict = await machine.serial.ask_verdict(all_bodies=True, timeout_s=120)
    fill_mib = ready.fill_bytes / _MIB
    return (
        f"{accelerator:4} {name:15} start to ready {boot_s * 1e3:5.0f} ms   fill {ready.fill_s * 1e3:6.0f} ms "
        f"for {fill_mib:3.0f} MiB   ceiling {ready.ceiling_bytes_s / _MIB:8.0f} MiB/s   "
        f"beat {ready.beat_cost_s * 1e6:4.0f} us   idle CPU {idle_percent:3.0f} %   "
        f"verdict {verdict.duration_s * 1e3:6.0f} ms{'' if verdict.good else '   MEMORY IS WRONG'}\n"
    )


async def _main() -> None:
    accelerators = ["tcg", *(["kvm"] if os.access("/dev/kvm", os.W_OK) else [])]
    for accelerator in accelerators:
        for name, workload in _CASES.items():
            with tempfile.TemporaryDirectory(prefix="guest-") as folder:
                sys.stdout.write(await _measure(name, workload, accelerator, Path(folder)))
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_main())
