"""This machine as a host: joins what the modules beside it read of /proc and start. Decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from livemig.hosts import confinement, launch_folder, open_files, page_map, places, process
from livemig.hosts.host import HostIdentity, HostWay, machine_of
from livemig.hosts.launch_folder import LaunchClaim
from livemig.hosts.local import LocalProcess
from livemig.hosts.open_files import ImageKeys
from livemig.hosts.process import ProcessFacts, Surroundings
from livemig.hosts.start import Program, StartedProcess, start
from livemig.hosts.tunnel import LocalTunnel


class LocalHost:
    """This machine. Keeps nothing open."""

    name = "this host"
    is_local = True
    reached_at: str | None = None
    reached_from: str | None = None

    @property
    def identity(self) -> HostIdentity:
        """By what it is known."""
        return HostIdentity(
            machine=machine_of(_text("/etc/machine-id").encode()),
            boot_id=_text("/proc/sys/kernel/random/boot_id").strip(),
            process_namespace=_link("/proc/self/ns/pid"),
            network_namespace=_link("/proc/self/ns/net"),
            mount_namespace=_link("/proc/self/ns/mnt"),
        )

    @property
    def user_id(self) -> int:
        """The user id that livemig acts by."""
        return os.geteuid()

    def way_to(self, path: str) -> HostWay | None:
        """Returns None: its sockets are connected to by their paths."""
        del path
        return None

    async def real_path(self, path: str) -> str:
        """Returns the path with its links followed."""
        return os.path.realpath(path)  # a link or two

    async def process_of_thread(
        self, thread_id: int, connection: socket.socket, path: str | None
    ) -> LocalProcess | None:
        """Returns the process of a thread, if it has the other end of the connection."""
        del path
        return LocalProcess.of_thread(thread_id, connection)

    async def process_known_as(self, pid: int, start_ticks: int) -> LocalProcess | None:
        """Returns the process of that pid that started then; None when it has ended."""
        try:
            held = LocalProcess(pid)
        except ProcessLookupError:
            return None
        if held.start_ticks == start_ticks:
            return held
        held.close()
        return None

    async def read_process(self, pid: int) -> ProcessFacts:
        """Reads a process."""
        return process.read_process(pid)

    async def own_surroundings(self) -> Surroundings:
        """What livemig itself runs in."""
        return process.own_surroundings()

    async def tap_names(self, pid: int, descriptors: Iterable[int]) -> dict[int, str]:
        """Returns the interfaces behind a process's tap descriptors."""
        names = {descriptor: process.tap_name(pid, descriptor) for descriptor in descriptors}
        return {descriptor: name for descriptor, name in names.items() if name is not None}

    async def busy_ports(self, pid: int | None = None) -> frozenset[int]:
        """Returns the ports that are taken in a process's network namespace, or livemig's."""
        return process.busy_ports(pid)

    async def available_memory_bytes(self) -> int:
        """How much memory a new process may take without swapping."""
        return process.available_memory_bytes()

    async def supervisor(self, facts: ProcessFacts) -> str | None:
        """Who would start a process again once it ends."""
        return process.supervisor(facts)

    async def confinement(self, pid: int) -> confinement.Confinement:
        """What confines a process from outside."""
        return confinement.read_confinement(pid)

    async def image_keys(self, pid: int, paths: Iterable[str]) -> dict[str, ImageKeys]:
        """Returns by what the files are known that a process means by these names."""
        return open_files.image_keys(pid, paths)

    async def touched_shares(self, pid: int, memory_bytes: int) -> tuple[float, ...]:
        """Returns what share of each part of a QEMU's guest memory was ever touched."""
        return await asyncio.to_thread(page_map.touched_shares, pid, memory_bytes)

    async def texts_of(self, paths: Iterable[str]) -> dict[str, str]:
        """Returns the texts of those files that can be read."""
        found = {}
        for path in paths:
            with contextlib.suppress(OSError):
                found[path] = _text(path)
        return found

    async def folders_among(self, paths: Iterable[str]) -> frozenset[str]:
        """Returns those paths that are folders."""
        return frozenset(path for path in paths if Path(path).is_dir())

    async def existing_among(self, paths: Iterable[str]) -> frozenset[str]:
        """Returns those paths where something is."""
        return frozenset(path for path in paths if Path(path).exists())

    async def missing_among(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Returns those paths where there is surely nothing."""
        return tuple(path for path in paths if places.is_missing(path))

    async def program_file(self, name: str, search: str | None) -> str | None:
        """Returns the file of a program by its name or path."""
        return shutil.which(name, path=search) or shutil.which(name)

    async def why_no_sockets(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Returns why sockets can't be made at these paths."""
        return tuple(reason for path in paths if (reason := places.why_no_socket(Path(path))))

    async def why_no_folder(self, folder: Path, owner: Surroundings) -> tuple[str, ...]:
        """Returns why livemig's folder can't be made."""
        return tuple(places.why_no_folder(folder, owner))

    async def why_no_start(self, program: Program) -> tuple[str, ...]:
        """Returns nothing: the kernel's own refusals come with the start, and name what is denied."""
        del program
        return ()

    async def make_launch_folder(self, folder: Path, owner: tuple[int, int], run_id: str) -> None:
        """Makes the folder of a QEMU to be launched, of its user alone."""
        launch_folder.make_folder(folder, owner, run_id)

    async def release_launch_folder(self, folder: Path) -> None:
        """Lets others look at it again."""
        with contextlib.suppress(OSError):
            launch_folder.release_folder(folder)

    async def launch_claim(self, folder: Path) -> LaunchClaim | None:
        """Returns for whom a folder was made by `make_launch_folder`."""
        return launch_folder.read_claim(folder)

    async def remove_launch_folder(self, folder: Path, run_id: str | None = None) -> None:
        """Removes a folder that `make_launch_folder` made."""
        launch_folder.remove_folder(folder, run_id)

    async def remove_dead_socket(self, path: Path) -> None:
        """Removes a socket that nobody listens at any more."""
        places.remove_dead_socket(path)

    async def read_end(self, path: Path, bytes_most: int) -> str:
        """Returns the end of a file's text; empty where it can't be read."""
        try:
            return path.read_bytes()[-bytes_most:].decode("utf-8", "replace")
        except OSError:
            return ""

    async def start(self, program: Program, stderr_path: Path) -> StartedProcess:
        """Starts a program that outlives livemig."""
        return start(program, stderr_path=stderr_path)

    async def make_private_folder(self, owner: tuple[int, int] | None, run_id: str) -> str:
        """Makes a new folder that only one user may enter."""
        folder = tempfile.mkdtemp(prefix=f"livemig-{run_id}-")
        try:
            if owner is not None and owner[0] != os.geteuid():
                os.chown(folder, *owner)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    async def write_secret(self, path: str, text: str, owner: tuple[int, int] | None) -> None:
        """Makes a file that only one user may read."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if owner is not None and owner[0] != os.geteuid():
            os.chown(path, *owner)

    async def remove_file(self, path: str) -> None:
        """Removes a file; does nothing when there is none."""
        with contextlib.suppress(OSError):
            Path(path).unlink()

    async def serve(
        self, path: str, owner: tuple[int, int] | None, connect: Callable[[], Awaitable[socket.socket]]
    ) -> LocalTunnel:
        """Listens at a UNIX socket."""
        return LocalTunnel.open(path, owner, connect)

    async def touch(self, address: str, port: int) -> None:
        """Connects to a TCP port and closes the connection at once."""
        _, writer = await asyncio.open_connection(address, port)
        writer.close()

    async def respond(self) -> None:
        """Sleeps for a moment: on a busy machine it is a long one."""
        await asyncio.sleep(0.01)

    async def cut_connections(self, address: str, port: int) -> None:
        """Cuts all TCP connections to an address and port, as far as the kernel and livemig's rights allow."""
        command = ("ss", "--kill", "--tcp", "state", "connected", "dst", address, "dport", "=", str(port))
        with contextlib.suppress(OSError):
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            await process.wait()

    async def remove_private_folders_of(self, run_id: str, temporary_folder: str) -> None:
        """Removes all that `make_private_folder` made for a run."""
        for folder in Path(temporary_folder).glob(f"livemig-{run_id}-*"):
            shutil.rmtree(folder, ignore_errors=True)

    async def session_process(self) -> None:
        """Returns None: nothing stands between livemig and this machine."""

    async def process_of_pid(self, pid: int) -> LocalProcess | None:
        """Returns a process, held."""
        try:
            return LocalProcess(pid)
        except ProcessLookupError:
            return None

    async def processes_with(self, text: str) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Returns the processes that have a text in their command line."""
        return tuple(await asyncio.to_thread(process.command_lines_with, text))

    async def remove_private_folder(self, path: str) -> None:
        """Removes what `make_private_folder` made, with all in it."""
        shutil.rmtree(path, ignore_errors=True)


def _text(path: str) -> str:
    return Path(path).read_bytes().decode("utf-8", "surrogateescape")


def _link(path: str) -> str:
    return os.readlink(path)  # noqa: PTH115
