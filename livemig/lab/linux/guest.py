"""The Linux guest on a host of the lab: its QEMU, started and ended. Speaks QMP to nobody."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from livemig.core.errors import LabError
from livemig.lab.linux.image import LinuxImage
from livemig.lab.two_hosts.host import Host
from livemig.lab.two_hosts.layout import GUEST_ADDRESS, SECOND_GUEST_ADDRESS, TAPS
from livemig.lab.two_hosts.namespaces import processes

_START_BOUND_S = 20.0
_END_BOUND_S = 5.0
_POLL_S = 0.01
_MACS = ("52:54:00:6c:6d:01", "52:54:00:6c:6d:02")
_ADDRESSES = (f"{GUEST_ADDRESS}/24", f"{SECOND_GUEST_ADDRESS}/24")
_KERNEL_COMMAND_LINE = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check ipv6.disable=1"
"""The timer check fails now and then under TCG on a busy machine; IPv6 would speak by itself now and then, and so hide
from the switch that nobody announced the guest."""


class LinuxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the guest is made of and does.

    Attributes:
        memory_bytes: Its memory.
        working_set_bytes: What of it is rewritten and checked, over and over.
        dirty_rate_bytes_s: How fast.
        nic_count: Network cards: 1 or 2.
        disk: Its journal's disk, or None for none.
        agent: Whether the guest agent runs.
        accelerator: What follows ``-accel``.
        binary: QEMU, a name or a path.
    """

    memory_bytes: int = 192 * 2**20
    working_set_bytes: int = 32 * 2**20
    dirty_rate_bytes_s: int = 8 * 2**20
    nic_count: int = 1
    disk: Path | None = None
    agent: bool = False
    accelerator: str = "tcg"
    binary: str = "qemu-system-x86_64"


class LinuxGuest:
    """A QEMU with the Linux guest on a host of the lab. As an async context manager it ends with its block.

    Attributes:
        host: Where it runs.
        qmp_path: Its monitor, as its host sees it; the same path on either host.
        qmp_path_outside: The same, as this machine sees it.
    """

    def __init__(
        self, host: Host, image: LinuxImage, settings: LinuxSettings, *, incoming: bool = False, name: str = "linux"
    ) -> None:
        """Describes it; starts nothing. With `incoming` it waits for a migration."""
        self.host = host
        self.qmp_path = host.private_folder / f"{name}.qmp"
        self.qmp_path_outside = host.private_folder_outside / f"{name}.qmp"
        self._image, self._settings, self._incoming, self._name = image, settings, incoming, name
        self._process: asyncio.subprocess.Process | None = None

    def on(self, host: Host, *, incoming: bool) -> LinuxGuest:
        """Returns the same guest on another host, not started."""
        return LinuxGuest(host, self._image, self._settings, incoming=incoming, name=self._name)

    @property
    def argv(self) -> list[str]:
        """QEMU's command line, the same on either host."""
        settings, private = self._settings, self.host.private_folder
        words = [_KERNEL_COMMAND_LINE, f"livemig.memory={settings.working_set_bytes}"]
        words.append(f"livemig.rate={settings.dirty_rate_bytes_s}")
        words += [f"livemig.address{number}={_ADDRESSES[number]}" for number in range(settings.nic_count)]
        argv = [settings.binary, "-nodefaults", "-no-user-config", "-display", "none", "-name", self._name]
        argv += ["-machine", "pc", "-accel", settings.accelerator, "-m", f"{settings.memory_bytes}B"]
        argv += ["-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs), "-append", " ".join(words)]
        argv += ["-chardev", f"file,id=serial0,path={private / self._name}.serial", "-serial", "chardev:serial0"]
        argv += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        for number in range(settings.nic_count):
            argv += ["-netdev", f"tap,id=net{number},ifname={TAPS[number]},script=no,downscript=no"]
            argv += ["-device", f"virtio-net-pci,id=nic{number},netdev=net{number},mac={_MACS[number]},romfile="]
        if settings.disk is not None:
            argv += ["-blockdev", f"driver=file,node-name=disk0,filename={settings.disk}"]
            argv += ["-device", "virtio-blk-pci,id=disk,drive=disk0"]
        if settings.agent:
            argv += ["-device", "virtio-serial-pci,id=ports"]
            argv += ["-chardev", f"socket,id=agent,path={private / self._name}.qga,server=on,wait=off"]
            argv += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        return argv + (["-S", "-incoming", "defer"] if self._incoming else [])

    @property
    def pid(self) -> int:
        """QEMU's pid.

        Raises:
            LabError: When it was not started.
        """
        if self._process is None:
            raise LabError(f"the guest on host {self.host.name} was not started")
        return self._process.pid

    @property
    def serial(self) -> str:
        """What the guest has written on its serial port while it ran here."""
        return _text(self.host.private_folder_outside / f"{self._name}.serial")

    async def start(self, *, stays: bool = False) -> None:
        """Starts QEMU and returns once its monitor listens. With `stays` it outlives this process.

        Raises:
            LabError: When it ends at once (its own words are quoted) or is not ready in time.
        """
        for path in (self.qmp_path_outside, self.host.private_folder_outside / f"{self._name}.serial"):
            path.unlink(missing_ok=True)
        if self._settings.disk is not None and not self._settings.disk.exists():
            raise LabError(f"the guest's disk {self._settings.disk} does not exist")
        bound_to_this = [] if stays else ["setpriv", "--pdeathsig", "KILL", "--"]
        errors_path = self.host.private_folder_outside / f"{self._name}.stderr"
        with errors_path.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self.host.argv(*bound_to_this, *self.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_BOUND_S):
                while not self.qmp_path_outside.exists() and self._process.returncode is None:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        if not self.qmp_path_outside.exists() or self._process.returncode is not None:
            await self.stop()
            raise LabError(f"QEMU on host {self.host.name} does not start: {_text(errors_path).strip()}")

    async def wait_ready(self, timeout_s: float = 120.0) -> None:
        """Waits until the guest's services run.

        Raises:
            LabError: When they do not within the bound.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while "ready\n" not in self.serial.replace("\r", ""):  # noqa: ASYNC110  # the serial port is a file
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            said = self.serial[-500:]
            raise LabError(f"the guest on host {self.host.name} is not ready after {timeout_s} s: {said!r}") from error

    async def stop(self) -> None:
        """Ends QEMU for certain; does nothing when it has ended."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(_END_BOUND_S):
            await process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())


def faults(*serials: str) -> list[str]:
    """What the guest found wrong, on all the hosts that it ran on."""
    return [line for serial in serials for line in serial.splitlines() if line.startswith("FAULT") or "anic" in line]


def qemu_pids(host: Host) -> list[int]:
    """All QEMUs on a host, by whomever started."""
    found = []
    for pid in processes(host.namespace):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system"):
                found.append(pid)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
