"""``livemig lab demo``: the whole story on two hosts, told by the commands that a user would give."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from pathlib import Path

from livemig.cli.lab_guest import flow_line, guest_settings
from livemig.core.errors import LabError
from livemig.core.event import Ended
from livemig.core.trace import EventRecord, decode_trace
from livemig.core.units import format_bit_rate, format_duration, format_size
from livemig.lab.linux.guest import LinuxGuest, faults
from livemig.lab.linux.image import linux_image
from livemig.lab.linux.records import ECHO_PORT, journal_sequences
from livemig.lab.linux.watching import Watching
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.two_hosts.layout import GUEST_ADDRESS

BEFORE_S, AFTER_S = 2.0, 2.0
RECENT_BLOCKS = 400
"""Of the 512 on the disk: the guest writes on while they are read."""
SESSION_BROKEN = 1


async def run_lab_demo(*, rate_bytes_s: float, downtime_limit: str) -> int:
    """Runs the story and returns the exit code: that of `livemig run`, or 1 when a session, memory or disk suffered.

    Raises:
        LabError: When the lab or the guest can't be made. Nothing is left behind.
    """
    began_s = time.monotonic()
    image = await asyncio.to_thread(linux_image)
    lab = TwoHosts(f"demo-{os.getpid() % 10**6}", rate_bytes_s=rate_bytes_s)
    async with lab:
        print(f"two hosts A and B, {format_bit_rate(rate_bytes_s)} between them, and a client: {_since(began_s)}")
        settings = guest_settings(lab)
        source = LinuxGuest(lab.a, image, settings)
        async with source:
            await source.wait_ready()
            print(
                f"a Linux guest of {format_size(settings.memory_bytes)} serves TCP on host A, rewrites "
                f"{format_size(settings.dirty_rate_bytes_s)}/s and keeps a journal on its disk: {_since(began_s)}"
            )
            async with Watching(lab.client, echo=1, stream=1, udp=1, journal=True) as watching:
                await asyncio.sleep(BEFORE_S)
                code, ended, moved_s = await _move(lab, source, downtime_limit)
                await asyncio.sleep(AFTER_S)
                flows = await watching.end()
            print()
            if ended is not None and ended.downtime_s is not None:
                print(_silences_line(watching, ended.downtime_s, moved_s))
            broken = [flow for flow in flows.values() if flow.problems]
            print("\n".join(flow_line(flow) for flow in flows.values() if flow.flow != "journal"))
            arrived = LinuxGuest(lab.b, image, settings)
            wrong = faults(source.serial, arrived.serial) + _lost_blocks(settings.disk, flows["journal"].received)
            if not wrong:
                print(
                    f"the guest found its memory as it wrote it; of {flows['journal'].received} journal blocks that it "
                    f"said are on its disk, none is missing"
                )
            print("\n".join(f"WRONG: {line}" for line in wrong), end="\n" if wrong else "")
    print(f"all of it took {_since(began_s)}; nothing is left behind")
    return code or (SESSION_BROKEN if broken or wrong else 0)


async def _move(
    lab: TwoHosts, source: LinuxGuest, downtime_limit: str
) -> tuple[int, Ended | None, tuple[float, float]]:
    """Runs `livemig run` in the client; returns its exit code, how it ended, and from when to when it ran."""
    trace = lab.folder / "run.trace"
    argv = ["run", "--src-qmp", f"ssh://{lab.a.data_address}{source.qmp_path}"]
    argv += ["--dst-qmp", f"ssh://{lab.b.data_address}{source.qmp_path}"]
    argv += ["--downtime-limit", downtime_limit, "--probe", f"tcp:{GUEST_ADDRESS}:{ECHO_PORT}", "--trace", str(trace)]
    print(f"\nclient$ livemig {shlex.join(argv)}", flush=True)
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *lab.client.argv(sys.executable, "-m", "livemig", *argv),
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(lab.home_folder)},
    )
    try:
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return code, _ended(trace), (began_s, time.monotonic())


def _ended(trace: Path) -> Ended | None:
    if not trace.exists():
        return None
    with trace.open("rb") as lines:
        told = [record.event for record in decode_trace(lines) if isinstance(record, EventRecord)]
    return next((event for event in told if isinstance(event, Ended)), None)


def _silences_line(watching: Watching, downtime_s: float, moved_s: tuple[float, float]) -> str:
    shown = {"TCP stream": "stream1", "TCP echo": "echo1", "UDP echo": "udp1"}
    parts = [f"{what} {format_duration(watching.longest_s(flow, *moved_s))}" for what, flow in shown.items()]
    return f"the guest stood still for {format_duration(downtime_s)}; its clients heard nothing for: {', '.join(parts)}"


def _lost_blocks(disk: Path | None, acknowledged: int) -> list[str]:
    if disk is None:
        raise LabError("the guest has no disk")
    missing = set(range(max(1, acknowledged - RECENT_BLOCKS), acknowledged + 1)) - journal_sequences(disk.read_bytes())
    return [f"journal block {sequence} is not on the disk" for sequence in sorted(missing)[:5]]


def _since(began_s: float) -> str:
    return format_duration(time.monotonic() - began_s)
