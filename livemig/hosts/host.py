"""What the engine needs of the machine under a QEMU, whichever it is: this one, or one reached over SSH. No code.

`livemig.hosts.local_host` and `livemig.hosts.ssh` do it. All paths are the host's own. Every call on a host that is out
of reach raises `HostError` within a bound; what a call that only looks can't see, it says so in its result.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from livemig.hosts.confinement import Confinement
from livemig.hosts.launch_folder import LaunchClaim
from livemig.hosts.open_files import ImageKeys
from livemig.hosts.process import ProcessFacts, Surroundings
from livemig.hosts.start import Program


class HostIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """By what a host is known, so that a number or a path of one is never taken for another's.

    Attributes:
        machine: The machine's own, hashed, the same after a reboot; empty where it has none.
        boot_id: The kernel's, new at each boot.
        process_namespace: The namespace that pids are of.
        network_namespace: The namespace that ports are of.
        mount_namespace: The namespace that paths are of.
    """

    machine: str
    boot_id: str
    process_namespace: str
    network_namespace: str
    mount_namespace: str

    def is_same_host(self, other: HostIdentity) -> bool:
        """Whether what is bound to an address, or made as a file, on one is there on the other too."""
        return self.shares_files(other) and self.network_namespace == other.network_namespace

    def shares_files(self, other: HostIdentity) -> bool:
        """Whether a path means the same file on both."""
        return (self.boot_id, self.mount_namespace) == (other.boot_id, other.mount_namespace)

    def shares_kernel(self, other: HostIdentity) -> bool:
        """Whether devices and inodes have the same numbers on both: two namespaces of one machine."""
        return self.boot_id == other.boot_id

    def shares_processes(self, other: HostIdentity) -> bool:
        """Whether a pid means the same process on both."""
        return (self.boot_id, self.process_namespace) == (other.boot_id, other.process_namespace)


def machine_of(machine_id: bytes) -> str:
    """Returns by what a machine is known, from its /etc/machine-id, which is nobody else's to know."""
    return hashlib.sha256(machine_id.strip()).hexdigest()[:12] if machine_id.strip() else ""


class HostProcess(Protocol):
    """A process, held so that a reuse of its pid is never mistaken for it."""

    @property
    def pid(self) -> int:
        """Its process id on its host."""

    @property
    def start_ticks(self) -> int:
        """When it started, in clock ticks since the host's boot: with the pid and the boot id it names it for good."""

    @property
    def owner(self) -> tuple[int, int]:
        """The user and group it acts as.

        Raises:
            OSError: When it has ended.
        """

    async def is_gone(self) -> bool:
        """Whether it is proven to have ended; False also when that can't be seen within a bound."""

    async def end(self, timeout_s: float) -> bool:
        """Kills it and waits; returns whether it is proven gone within the bound."""

    async def wait_gone(self, timeout_s: float) -> bool:
        """Waits until it has ended; returns whether it is proven to have within the bound."""

    def close(self) -> None:
        """Lets go of it, which goes on as it was."""


class StartedProgram(Protocol):
    """A program that livemig started; letting go of it leaves it running."""

    @property
    def process(self) -> HostProcess:
        """Its process."""

    @property
    def exit_code(self) -> int | None:
        """What it ended with, negative for a signal; None while it runs, or when that can't be known."""

    async def wait_ended(self, timeout_s: float) -> bool:
        """Waits until it has ended; returns whether it has within the bound."""

    async def kill(self) -> bool:
        """Kills it and waits; returns whether it is gone."""

    def close(self) -> None:
        """Lets go of it."""


class HostTunnel(Protocol):
    """Listens at a host until it is closed."""

    async def close(self) -> None:
        """Listens no more, and closes all connections."""


class HostWay(Protocol):
    """Opens connections to one UNIX socket of a host."""

    @property
    def is_broken(self) -> bool:
        """Whether the way of the last one broke, so that its end is not what was said last at the other end."""

    async def open(self) -> socket.socket:
        """Connects.

        Raises:
            OSError: As `socket.connect` does; with ENOENT or ECONNREFUSED nobody listens there.
        """


class Host(Protocol):
    """A machine that QEMUs run on."""

    @property
    def name(self) -> str:
        """For sentences: ``this host``, or the address of its SSH."""

    @property
    def is_local(self) -> bool:
        """Whether livemig itself runs there."""

    @property
    def identity(self) -> HostIdentity:
        """By what it is known."""

    @property
    def user_id(self) -> int:
        """The user id that livemig acts by there."""

    @property
    def reached_at(self) -> str | None:
        """The address of the host by which its SSH is reached; None for this one."""

    @property
    def reached_from(self) -> str | None:
        """This machine's address as the host's SSH sees it; None for this one."""

    def way_to(self, path: str) -> HostWay | None:
        """Returns what opens connections to a UNIX socket there; None where its path can simply be connected to."""

    async def real_path(self, path: str) -> str:
        """Returns the path with its links followed; as it stands where that can't be."""

    async def process_of_thread(
        self, thread_id: int, connection: socket.socket, path: str | None
    ) -> HostProcess | None:
        """Returns the process that a QEMU's thread belongs to, or None when it can't be seen, or proven to be that.

        Args:
            thread_id: As QEMU says it.
            connection: The connection on which it says so.
            path: The UNIX socket that it listens at, or None when that is another kind.
        """

    async def process_known_as(self, pid: int, start_ticks: int) -> HostProcess | None:
        """Returns the process of that pid that started then; None when it has ended."""

    async def read_process(self, pid: int) -> ProcessFacts:
        """Reads a process.

        Raises:
            PermissionError: When it belongs to somebody else.
            OSError: When it has ended.
        """

    async def own_surroundings(self) -> Surroundings:
        """What livemig itself runs in there."""

    async def tap_names(self, pid: int, descriptors: Iterable[int]) -> dict[int, str]:
        """Returns the interfaces behind a process's tap descriptors."""

    async def busy_ports(self, pid: int | None = None) -> frozenset[int]:
        """Returns the ports that are taken in a process's network namespace, or livemig's there."""

    async def available_memory_bytes(self) -> int:
        """How much memory a new process may take there without swapping."""

    async def supervisor(self, facts: ProcessFacts) -> str | None:
        """Who would start a process again once it ends, with what to do about it; None if nobody is seen."""

    async def confinement(self, pid: int) -> Confinement:
        """What confines a process from outside."""

    async def image_keys(self, pid: int, paths: Iterable[str]) -> dict[str, ImageKeys]:
        """Returns by what the files are known that a process means by these names."""

    async def touched_shares(self, pid: int, memory_bytes: int) -> tuple[float, ...]:
        """Returns what share of each part of a QEMU's guest memory was ever touched; empty if that can't be seen."""

    async def texts_of(self, paths: Iterable[str]) -> dict[str, str]:
        """Returns the texts of those files that can be read."""

    async def folders_among(self, paths: Iterable[str]) -> frozenset[str]:
        """Returns those paths that are folders."""

    async def existing_among(self, paths: Iterable[str]) -> frozenset[str]:
        """Returns those paths where something is."""

    async def missing_among(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Returns those paths where there is surely nothing."""

    async def program_file(self, name: str, search: str | None) -> str | None:
        """Returns the file of a program by its name or path; None when there is none."""

    async def why_no_sockets(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Returns why sockets can't be made at these paths, one line each."""

    async def why_no_folder(self, folder: Path, owner: Surroundings) -> tuple[str, ...]:
        """Returns why livemig's folder for a launched QEMU can't be made, or its user can't make sockets beside it."""

    async def why_no_start(self, program: Program) -> tuple[str, ...]:
        """Returns why a program can't be started there as it is meant: what is missing, what is not allowed."""

    async def make_launch_folder(self, folder: Path, owner: tuple[int, int], run_id: str) -> None:
        """Makes the folder of a QEMU to be launched, of its user alone. It is held until `release_launch_folder`.

        Raises:
            FileExistsError: When another livemig has it.
            OSError: When it can't be made.
        """

    async def release_launch_folder(self, folder: Path) -> None:
        """Lets others look at it again: its QEMU is locked. Raises nothing; it is held until livemig ends then."""

    async def launch_claim(self, folder: Path) -> LaunchClaim | None:
        """Returns for whom a folder was made by `make_launch_folder`, and whether it is held; None if there is none."""

    async def remove_launch_folder(self, folder: Path, run_id: str | None = None) -> None:
        """Removes a folder that `make_launch_folder` made; leaves any other alone, and one that is in use.

        Args:
            folder: The folder.
            run_id: The run that may hold it: its own caller's; empty for one without an id.
        """

    async def remove_dead_socket(self, path: Path) -> None:
        """Removes a socket that nobody listens at any more."""

    async def read_end(self, path: Path, bytes_most: int) -> str:
        """Returns the end of a file's text; empty where it can't be read."""

    async def start(self, program: Program, stderr_path: Path) -> StartedProgram:
        """Starts a program that outlives livemig, its standard error appended to a file.

        Raises:
            OSError: When not even livemig's own part of it can be started.
        """

    async def make_private_folder(self, owner: tuple[int, int] | None, run_id: str) -> str:
        """Makes a new folder, named after a run, that only one user may enter: the owner, or livemig's own.

        Returns its path.

        Raises:
            OSError: When it can't be made, or not given to that user.
        """

    async def write_secret(self, path: str, text: str, owner: tuple[int, int] | None) -> None:
        """Makes a file that only one user may read. Its text shows in no command line.

        Raises:
            OSError: When it can't be made.
        """

    async def remove_file(self, path: str) -> None:
        """Removes a file; does nothing when there is none."""

    async def serve(
        self, path: str, owner: tuple[int, int] | None, connect: Callable[[], Awaitable[socket.socket]]
    ) -> HostTunnel:
        """Listens at a UNIX socket there; each connection is joined to the one that `connect` makes.

        Raises:
            OSError: When it can't.
        """

    async def touch(self, address: str, port: int) -> None:
        """Connects to a TCP port as the host sees it, and closes the connection at once.

        Raises:
            OSError: As `socket.connect` does.
            ConnectError: When the host's sshd does not allow it.
        """

    async def respond(self) -> None:
        """Does next to nothing: how long that takes tells how busy the host is."""

    async def cut_connections(self, address: str, port: int) -> None:
        """Cuts all TCP connections to an address and port, as far as the host's kernel and rights allow."""

    async def remove_private_folder(self, path: str) -> None:
        """Removes what `make_private_folder` made, with all in it."""

    async def remove_private_folders_of(self, run_id: str, temporary_folder: str) -> None:
        """Removes all that `make_private_folder` ever made for a run, and that is still there.

        Args:
            run_id: The run's id.
            temporary_folder: Where it made them, on this host; another host knows that by itself.
        """

    async def session_process(self) -> HostProcess | None:
        """Returns the process of its sshd that holds livemig's connections there; None where there is none."""

    async def process_of_pid(self, pid: int) -> HostProcess | None:
        """Returns a process, held; None when there is none of that pid any more."""

    async def processes_with(self, text: str) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Returns the processes there that have a text in their command line, each with that."""
