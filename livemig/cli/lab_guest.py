"""``livemig lab guest`` and ``watch``: the Linux guest on a host of a lab, and the client that talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from livemig.core.errors import LabError
from livemig.core.units import format_duration
from livemig.lab.linux.guest import LinuxGuest, LinuxSettings
from livemig.lab.linux.image import linux_image
from livemig.lab.linux.watching import FlowSummary, Watching
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.two_hosts.layout import GUEST_ADDRESS

DISK_BYTES = 2 * 2**20
_SHOWN_S = 0.1
_POLL_S = 0.1


def guest_settings(lab: TwoHosts) -> LinuxSettings:
    """The guest as the commands start it, its disk made if there is none."""
    disk = lab.a.shared_folder / "linux.img"
    if not disk.exists():
        disk.write_bytes(bytes(DISK_BYTES))
    return LinuxSettings(disk=disk)


async def start_guest(lab: TwoHosts, where: str) -> list[str]:
    """Starts the guest on a host, where it stays, and returns what is said of it.

    Raises:
        LabError: When it can't be started.
    """
    guest = LinuxGuest(lab.host(where), await asyncio.to_thread(linux_image), guest_settings(lab))
    if guest.qmp_path_outside.is_socket() and any(
        "qemu" in name for _, name in lab.status()["AB".index(where)].processes
    ):
        raise LabError(f"a QEMU runs on host {where} already: livemig lab status")
    await guest.start(stays=True)
    try:
        await guest.wait_ready()
    except BaseException:
        await asyncio.shield(guest.stop())
        raise
    other = "B" if where == "A" else "A"
    address, other_address = lab.layout.data_address(where), lab.layout.data_address(other)
    return [
        f"the guest runs on host {where}, at {GUEST_ADDRESS}; its monitor is {guest.qmp_path}",
        "move it from the client, which reaches both hosts and the guest:",
        f"  livemig lab shell client --name {lab.name} -- env HOME={lab.home_folder} livemig run \\",
        f"    --src-qmp ssh://{address}{guest.qmp_path} --dst-qmp ssh://{other_address}{guest.qmp_path} \\",
        f"    --probe ping:{GUEST_ADDRESS}",
    ]


async def watch_guest(lab: TwoHosts) -> int:
    """Shows every silence until Ctrl-C; returns the exit code, 1 when a session lost something.

    Raises:
        LabError: When the guest can't be reached.
    """
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    shown = 0
    async with Watching(lab.client, echo=1, stream=1, udp=1) as watching:
        print(f"talking to {GUEST_ADDRESS}; Ctrl-C ends", flush=True)
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _POLL_S)
            for silence in watching.silences[shown:]:
                if silence.duration_s >= _SHOWN_S:
                    print(f"{silence.flow}: silent for {format_duration(silence.duration_s)}", flush=True)
            shown = len(watching.silences)
        flows = await watching.end()
    print("\n".join(flow_line(flow) for flow in flows.values()))
    return 1 if any(flow.problems for flow in flows.values()) else 0


def flow_line(flow: FlowSummary) -> str:
    """How a flow did, in one line."""
    if flow.problems:
        return f"{flow.flow}: BROKEN: {'; '.join(flow.problems)}"
    if flow.flow.startswith("echo"):
        return f"{flow.flow}: {flow.sent} records sent, all came back, once and in order"
    if flow.flow.startswith("stream"):
        return f"{flow.flow}: {flow.received} records came, each once and in order"
    return f"{flow.flow}: {flow.received} of {flow.sent} datagrams came back"
