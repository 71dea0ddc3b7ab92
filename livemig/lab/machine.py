"""One QEMU with the built-in guest, for demo, tests and bench.

Starts and ends the process and names its sockets; speaks QMP to nobody. QEMU dies with the thread that started
it, however that ends (``PR_SET_PDEATHSIG``, set by ``setpriv``, which then becomes QEMU: the pid is QEMU's).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from livemig.core.errors import GuestError, PlanError
from livemig.lab.guest import image_path
from livemig.lab.heartbeat import Heartbeat
from livemig.lab.serial import SerialLine
from livemig.lab.workload import Workload

__all__ = ["Machine", "MachineSettings"]

SOCKET_PATH_BYTES_LIMIT = 107
"""``sun_path`` without its closing zero."""
_TERMINATE_S = 2.0
_STDERR_QUOTED_BYTES = 2000
_POLL_S = 0.005


class MachineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a machine is made of.

    Attributes:
        workload: What its guest does.
        memory_bytes: Its memory, in bytes.
        binary: QEMU, a name or a path.
        accelerator: What follows ``-accel``: ``tcg``, ``kvm``, ``kvm,dirty-ring-size=4096``.
        machine_type: What follows ``-machine``, such as ``pc`` or ``q35``.
        incoming: What follows ``-incoming``: None for a source, ``defer`` or an address for a destination.
        paused: Start with ``-S``: nothing runs before a QMP ``cont``.
        extra_arguments: Further arguments, at the end of the command line.
    """

    workload: Workload = Workload()
    memory_bytes: int = 128 * 2**20
    binary: str = "qemu-system-x86_64"
    accelerator: str = "tcg"
    machine_type: str = "pc"
    incoming: str | None = None
    paused: bool = False
    extra_arguments: tuple[str, ...] = ()


class Machine:
    """A QEMU process with the built-in guest. Use it as an async context manager, or `start` and `stop`.

    Attributes:
        settings: What it is made of.
        name: Of the machine, its sockets and its serial line.
        qmp_path: A QMP socket.
        spare_qmp_path: Another one, for a second client.
        serial_path: The serial line's socket; `serial` holds its one client.
        stderr_path: What QEMU wrote on stdout and stderr.
        serial: The connected serial line.
    """

    def __init__(
        self,
        settings: MachineSettings,
        *,
        folder: Path,
        name: str = "guest",
        heartbeat: Heartbeat | None = None,
    ) -> None:
        """Names the machine's files; starts nothing.

        Args:
            settings: What it is made of.
            folder: Where its sockets go; it must exist.
            name: Tells it from the other machines in that folder.
            heartbeat: Shared by the machines that one guest runs on, one after the other.

        Raises:
            PlanError: When a socket's path would be too long, or the memory can't hold the workload.
        """
        settings.workload.check_fits(settings.memory_bytes)
        self.settings = settings
        self.name = name
        self.folder = folder.resolve()
        self.qmp_path = self._socket_path("qmp")
        self.spare_qmp_path = self._socket_path("qmp2")
        self.serial_path = self._socket_path("serial")
        self.stderr_path = self.folder / f"{name}.stderr"
        self.serial = SerialLine(self.serial_path, name=name, heartbeat=heartbeat)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def argv(self) -> list[str]:
        """QEMU's command line."""
        settings = self.settings
        argv = [
            settings.binary,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-vga",
            "none",
            "-nic",
            "none",
        ]
        argv += ["-name", self.name, "-machine", settings.machine_type, "-accel", settings.accelerator]
        argv += ["-m", f"{settings.memory_bytes}B", "-bios", str(image_path())]
        argv += ["-fw_cfg", settings.workload.fw_cfg_argument()]
        argv += ["-chardev", f"socket,id=serial0,path={_escaped(self.serial_path)},server=on,wait=off"]
        argv += ["-serial", "chardev:serial0"]
        for path in (self.qmp_path, self.spare_qmp_path):
            argv += ["-qmp", f"unix:{_escaped(path)},server=on,wait=off"]
        if settings.incoming is not None:
            argv += ["-incoming", settings.incoming]
        if settings.paused:
            argv.append("-S")
        return [*argv, *settings.extra_arguments]

    @property
    def pid(self) -> int:
        """QEMU's process id.

        Raises:
            GuestError: When it was not started.
        """
        if self._process is None:
            raise GuestError(f"the machine {self.name} was not started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """What QEMU ended with, negative for a signal; None while it runs or before it is started."""
        return None if self._process is None else self._process.returncode

    @property
    def stderr(self) -> str:
        """What QEMU wrote so far."""
        try:
            return self.stderr_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    async def start(self, *, timeout_s: float = 20.0) -> None:
        """Starts QEMU and returns once its serial line is connected and its QMP socket listens.

        Nothing of it is left behind when this fails.

        Raises:
            GuestError: When QEMU is missing, ends at once (its own words are quoted) or is not ready in time.
        """
        if self._process is not None:
            raise GuestError(f"the machine {self.name} was started before")
        setpriv, binary = _found("setpriv"), _found(self.settings.binary)
        for path in (self.qmp_path, self.spare_qmp_path, self.serial_path):
            path.unlink(missing_ok=True)
        with self.stderr_path.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                setpriv,
                "--pdeathsig",
                "KILL",
                binary,
                *self.argv[1:],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C at the terminal is for livemig to answer
            )
        try:
            async with asyncio.timeout(timeout_s):
                await self._connect()
        except TimeoutError as error:
            await self.stop()
            raise GuestError(f"{self.name}: QEMU is not ready after {timeout_s} s{self._quoted_stderr()}") from error
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def stop(self) -> int | None:
        """Ends QEMU for certain and waits for it; returns its exit code. Does nothing when it has ended."""
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            _signal(process, terminate=True)
            try:
                async with asyncio.timeout(_TERMINATE_S):
                    await process.wait()
            except TimeoutError:
                _signal(process, terminate=False)
        await process.wait()
        await self.serial.close()
        return process.returncode

    async def wait_ended(self, *, timeout_s: float) -> int:
        """Waits until QEMU ends by itself and returns its exit code.

        Raises:
            GuestError: When it does not within the bound, or was not started.
        """
        if self._process is None:
            raise GuestError(f"the machine {self.name} was not started")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._process.wait()
        except TimeoutError as error:
            raise GuestError(f"{self.name}: QEMU still runs after {timeout_s} s") from error

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())

    async def _connect(self) -> None:
        """Connects the serial line and waits for the QMP sockets, as long as QEMU lives."""
        connecting = asyncio.ensure_future(self.serial.connect(timeout_s=3600))
        try:
            while not (connecting.done() and self.qmp_path.exists() and self.spare_qmp_path.exists()):
                if self.exit_code is not None:
                    raise GuestError(f"{self.name}: QEMU ended at once, code {self.exit_code}{self._quoted_stderr()}")
                await asyncio.wait([connecting], timeout=_POLL_S)
            await connecting
        finally:
            connecting.cancel()

    def _socket_path(self, kind: str) -> Path:
        path = self.folder / f"{self.name}.{kind}"
        length_bytes = len(os.fsencode(path))
        if length_bytes > SOCKET_PATH_BYTES_LIMIT:
            raise PlanError(f"{path} has {length_bytes} bytes: a socket's path has {SOCKET_PATH_BYTES_LIMIT} at most")
        return path

    def _quoted_stderr(self) -> str:
        text = self.stderr.strip()[-_STDERR_QUOTED_BYTES:]
        return f": {text}" if text else " and wrote nothing"


def _escaped(path: Path) -> str:
    """QEMU's option parser takes a comma for a separator unless it is doubled."""
    return str(path).replace(",", ",,")


def _found(binary: str) -> str:
    path = shutil.which(binary)
    if path is None:
        raise GuestError(f"{binary} is not installed, or not on PATH")
    return path


def _signal(process: asyncio.subprocess.Process, *, terminate: bool) -> None:
    try:
        process.terminate() if terminate else process.kill()
    except ProcessLookupError:
        return  # it ended meanwhile
