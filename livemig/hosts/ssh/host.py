"""A machine reached over SSH, as the engine needs it: by a POSIX shell and the tools that every Linux has."""

from __future__ import annotations

import contextlib
import posixpath
import shlex
import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from livemig.core.errors import ConnectError, HostError
from livemig.hosts.confinement import Confinement, capabilities_in
from livemig.hosts.host import HostIdentity, machine_of
from livemig.hosts.launch_folder import LaunchClaim
from livemig.hosts.open_files import ImageKeys
from livemig.hosts.process import (
    PORT_TABLES,
    ProcessFacts,
    Surroundings,
    available_bytes_in,
    pairs_in,
    ports_in,
    tap_name_in,
    unit_in,
    who_restarts,
)
from livemig.hosts.ssh import launch_folder, places, reading
from livemig.hosts.ssh.link import Link
from livemig.hosts.ssh.page_map import touched_shares
from livemig.hosts.ssh.process import RemoteProcess, RemoteProgram
from livemig.hosts.ssh.starting import start, why_no_start
from livemig.hosts.ssh.tunnel import RemoteTunnel
from livemig.hosts.ssh.way import RemoteWay
from livemig.hosts.start import Program

_IDENTITY = {
    "machine": "cat /etc/machine-id 2>/dev/null || true",
    "boot": "cat /proc/sys/kernel/random/boot_id",
    "pid": "readlink /proc/self/ns/pid",
    "net": "readlink /proc/self/ns/net",
    "mnt": "readlink /proc/self/ns/mnt",
    "user": "id -u",
    "ssh": "echo $SSH_CONNECTION",
}


class RemoteHost:
    """A host reached over SSH.

    Attributes:
        name: Its address.
        identity: By what it is known, as it said when it was first connected to.
        user_id: The user id that livemig acts by there.
        reached_at: The address by which its SSH is reached.
        reached_from: This machine's address as it sees it.
        link: Its connection.
    """

    is_local = False

    def __init__(self, link: Link, identity: HostIdentity, user_id: int, addresses: list[str]) -> None:
        """For `connect` only."""
        known = len(addresses) == 4
        self.reached_from = addresses[0] if known else None
        self.reached_at = addresses[2] if known else None
        self.name = link.name
        self.identity = identity
        self.user_id = user_id
        self.link = link

    @classmethod
    async def connect(cls, name: str, host: str, user: str | None, port: int | None) -> RemoteHost:
        """Logs in and asks who is there.

        Raises:
            ConnectError: When it can't be reached, or lacks what livemig needs.
        """
        link = Link(name, host, user, port)
        try:
            found = await link.run_parts(_IDENTITY)
            if any(answer.status != 0 for answer in found.values()):
                raise ConnectError(f"{name}: that is no Linux with /proc, readlink and id", address=name)
        except HostError as error:
            await link.close()
            raise ConnectError(str(error), address=name) from error
        except BaseException:
            await link.close()
            raise
        identity = HostIdentity(
            machine=machine_of(found["machine"].text.encode()),
            boot_id=found["boot"].text,
            process_namespace=found["pid"].text,
            network_namespace=found["net"].text,
            mount_namespace=found["mnt"].text,
        )
        return cls(link, identity, int(found["user"].text), found["ssh"].text.split())

    async def close(self) -> None:
        """Closes the connection."""
        await self.link.close()

    def way_to(self, path: str) -> RemoteWay:
        """Returns what opens connections to a UNIX socket there."""
        return RemoteWay(self.link, path)

    async def real_path(self, path: str) -> str:
        """Returns the path with its links followed."""
        return (await self.link.run(f"readlink -f -- {_q(path)}")).text or path

    async def process_of_thread(
        self, thread_id: int, connection: socket.socket, path: str | None
    ) -> RemoteProcess | None:
        """Returns the process of a thread, if it holds a socket that listens at the path."""
        del connection
        status = (await self.link.run(f"cat /proc/{thread_id}/status 2>/dev/null")).text
        pid = dict(pairs_in(status.splitlines())).get("Tgid")
        if pid is None or path is None:
            return None
        found = await self.link.run_parts(
            {
                "stat": f"cat /proc/{pid}/stat",
                "status": f"cat /proc/{pid}/status",
                "descriptors": f"ls -l /proc/{pid}/fd",
                "sockets": f"cat /proc/{pid}/net/unix",
                "cwd": f"readlink /proc/{pid}/cwd",
                "path": f"readlink -f -- {_q(path)}",
            }
        )
        inodes = reading.socket_inodes_in(found["descriptors"].text)
        names = {path, found["path"].text}
        if not any(reading.listens_at(found["sockets"].text, inodes, name, found["cwd"].text) for name in names):
            return None
        return self._held(int(pid), found["stat"].text, found["status"].text)

    async def process_known_as(self, pid: int, start_ticks: int) -> RemoteProcess | None:
        """Returns the process of that pid that started then; None when it has ended."""
        held = await self.process_of_pid(pid)
        return held if held is not None and held.start_ticks == start_ticks else None

    def _held(self, pid: int, stat: str, status: str) -> RemoteProcess:
        return RemoteProcess(self.link, self.identity.boot_id, pid, reading.started_in(stat), reading.owner_in(status))

    async def read_process(self, pid: int) -> ProcessFacts:
        """Reads a process."""
        return reading.facts_in(pid, await self.link.run_parts(reading.process_commands(str(pid))))

    async def own_surroundings(self) -> Surroundings:
        """What the shell runs in."""
        return reading.surroundings_in(await self.link.run_parts(reading.process_commands("self")), "/proc/self")

    async def tap_names(self, pid: int, descriptors: Iterable[int]) -> dict[int, str]:
        """Returns the interfaces behind a process's tap descriptors."""
        numbers = {str(number): f"cat /proc/{pid}/fdinfo/{number}" for number in descriptors}
        if not numbers:
            return {}
        found = await self.link.run_parts(numbers)
        names = {int(number): tap_name_in(answer.text) for number, answer in found.items()}
        return {number: name for number, name in names.items() if name is not None}

    async def busy_ports(self, pid: int | None = None) -> frozenset[int]:
        """Returns the ports that are taken in a process's network namespace, or the shell's."""
        tables = await self.link.run_parts({name: f"cat /proc/{pid or 'self'}/net/{name}" for name in PORT_TABLES})
        return ports_in({name: answer.text for name, answer in tables.items()})

    async def available_memory_bytes(self) -> int:
        """How much memory a new process may take without swapping."""
        return available_bytes_in((await self.link.run("cat /proc/meminfo")).text)

    async def supervisor(self, facts: ProcessFacts) -> str | None:
        """Who would start a process again once it ends."""
        found = await self.link.run_parts(
            {
                "cgroup": f"cat /proc/{facts.pid}/cgroup",
                "parent": f"p=$(sed -n 's/^PPid:[[:space:]]*//p' /proc/{facts.pid}/status); echo $p; cat /proc/$p/comm",
            }
        )
        parent, _, parent_name = found["parent"].text.partition("\n")
        unit = unit_in(found["cgroup"].text)
        policy = ""
        if unit is not None:
            asked = await self.link.run(f"systemctl show --property=Restart --value -- {_q(unit)} 2>/dev/null")
            policy = asked.text if asked.status == 0 else ""
        return who_restarts(
            facts.argv,
            found["cgroup"].text,
            policy=policy,
            parent=int(parent) if parent.isdigit() else 0,
            parent_name=parent_name.strip(),
        )

    async def confinement(self, pid: int) -> Confinement:
        """What confines a process from outside, but for its cgroups."""
        found = await self.link.run_parts(
            {"status": f"cat /proc/{pid}/status", "label": f"cat /proc/{pid}/attr/current"}
        )
        return Confinement(label=found["label"].text.rstrip("\0\n"), capabilities=capabilities_in(found["status"].text))

    async def image_keys(self, pid: int, paths: Iterable[str]) -> dict[str, ImageKeys]:
        """Returns by what the files are known that a process means by these names."""
        stat = "stat -L -c '%f %d %i %t %T' --"
        wanted = tuple(dict.fromkeys(paths))
        named = {path: f"{stat} {_q(_seen_by(pid, path))}" for path in wanted if path and "\0" not in path}
        commands = {f"name {path}": command for path, command in named.items()}
        commands["held"] = f"cd /proc/{pid}/fd && {stat} *"
        found = await self.link.run_parts(commands)
        keys = {reading.file_key_in(line) for line in found["held"].text.splitlines()}
        held = frozenset(key for key in keys if key is not None)
        return {
            path: ImageKeys(
                named=reading.file_key_in(found[f"name {path}"].text) if path in named else None, held=held or None
            )
            for path in wanted
        }

    async def touched_shares(self, pid: int, memory_bytes: int) -> tuple[float, ...]:
        """Returns what share of each part of a QEMU's guest memory was ever touched."""
        return await touched_shares(self.link, pid, memory_bytes)

    async def texts_of(self, paths: Iterable[str]) -> dict[str, str]:
        """Returns the texts of those files that can be read."""
        commands = {path: f"cat -- {_q(path)}" for path in paths}
        if not commands:
            return {}
        found = await self.link.run_parts(commands)
        return {
            path: answer.output.decode("utf-8", "surrogateescape")
            for path, answer in found.items()
            if answer.status == 0
        }

    async def folders_among(self, paths: Iterable[str]) -> frozenset[str]:
        """Returns those paths that are folders."""
        return await places.those_that(self.link, "-d", paths)

    async def existing_among(self, paths: Iterable[str]) -> frozenset[str]:
        """Returns those paths where something is."""
        return await places.those_that(self.link, "-e", paths)

    async def missing_among(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Returns those paths where there is surely nothing."""
        return await places.missing_among(self.link, paths)

    async def program_file(self, name: str, search: str | None) -> str | None:
        """Returns the file of a program by its name or path."""
        path = "" if search is None else f"PATH={_q(search)}; "
        commands = {"given": f"{path}command -v {_q(name)}", "own": f"command -v {_q(name)}"}
        found = await self.link.run_parts(commands)
        files = (found[key].text for key in commands if found[key].status == 0)
        return next((file for file in files if file.startswith("/")), None)

    async def why_no_sockets(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Returns why sockets can't be made at these paths."""
        return await places.why_no_sockets(self.link, paths)

    async def why_no_folder(self, folder: Path, owner: Surroundings) -> tuple[str, ...]:
        """Returns why livemig's folder can't be made."""
        return await places.why_no_folder(self.link, str(folder), owner)

    async def why_no_start(self, program: Program) -> tuple[str, ...]:
        """Returns what is missing for a start as it is meant, or not allowed."""
        return await why_no_start(self.link, self.name, self.user_id, program)

    async def make_launch_folder(self, folder: Path, owner: tuple[int, int], run_id: str) -> None:
        """Makes the folder of a QEMU to be launched, of its user alone."""
        await launch_folder.make_folder(self.link, str(folder), self._given_to(owner), run_id)

    async def release_launch_folder(self, folder: Path) -> None:
        """Lets others look at it again."""
        with contextlib.suppress(HostError):
            await launch_folder.release_folder(self.link, str(folder))

    async def launch_claim(self, folder: Path) -> LaunchClaim | None:
        """Returns for whom a folder was made by `make_launch_folder`."""
        return await launch_folder.read_claim(self.link, str(folder))

    async def remove_launch_folder(self, folder: Path, run_id: str | None = None) -> None:
        """Removes a folder that `make_launch_folder` made."""
        await launch_folder.remove_folder(self.link, str(folder), run_id)

    async def remove_dead_socket(self, path: Path) -> None:
        """Removes a socket that nobody listens at any more."""
        await places.remove_dead_socket(self.link, str(path))

    async def read_end(self, path: Path, bytes_most: int) -> str:
        """Returns the end of a file's text; empty where it can't be read."""
        answer = await self.link.run(f"tail -c {bytes_most} -- {_q(str(path))} 2>/dev/null")
        return answer.output.decode("utf-8", "replace") if answer.status == 0 else ""

    async def start(self, program: Program, stderr_path: Path) -> RemoteProgram:
        """Starts a program that outlives livemig and its connection."""
        pid = await start(self.link, self.user_id, program, str(stderr_path))
        found = await self.link.run_parts({name: f"cat /proc/{pid}/{name}" for name in ("stat", "status")})
        if found["stat"].status != 0 or found["status"].status != 0:
            raise OSError("it ended at once")
        return RemoteProgram(self._held(pid, found["stat"].text, found["status"].text))

    async def make_private_folder(self, owner: tuple[int, int] | None, run_id: str) -> str:
        """Makes a new folder that only one user may enter."""
        return await places.make_private_folder(self.link, self._given_to(owner), run_id)

    async def write_secret(self, path: str, text: str, owner: tuple[int, int] | None) -> None:
        """Makes a file that only one user may read."""
        await places.write_secret(self.link, path, text, self._given_to(owner))

    async def remove_file(self, path: str) -> None:
        """Removes a file; does nothing when there is none."""
        await self.link.run(f"rm -f -- {_q(path)}")

    async def serve(
        self, path: str, owner: tuple[int, int] | None, connect: Callable[[], Awaitable[socket.socket]]
    ) -> RemoteTunnel:
        """Listens at a UNIX socket there."""
        return await RemoteTunnel.open(self.link, path, self._given_to(owner), connect)

    async def touch(self, address: str, port: int) -> None:
        """Connects to a TCP port through the host's sshd, and closes the connection at once."""
        (await self.link.open_tcp(address, port)).close()

    async def respond(self) -> None:
        """Does nothing in the shell there."""
        await self.link.run(":")

    async def cut_connections(self, address: str, port: int) -> None:
        """Cuts all TCP connections to an address and port, as far as the host's kernel and rights allow."""
        await self.link.run(f"ss --kill --tcp state connected dst {_q(address)} dport = {port}")

    async def remove_private_folders_of(self, run_id: str, temporary_folder: str) -> None:
        """Removes all that `make_private_folder` made for a run."""
        del temporary_folder
        await self.link.run(f'rm -rf -- "${{TMPDIR:-/tmp}}"/livemig-{_q(run_id)}-*')

    async def session_process(self) -> RemoteProcess | None:
        """Returns the process of its sshd that holds livemig's connections there: the shell's parent, if it is one."""
        found = (await self.link.run('read -r name </proc/$PPID/comm && echo "$PPID $name"')).text.split()
        if len(found) != 2 or not found[1].startswith("sshd"):
            return None
        return await self.process_of_pid(int(found[0]))

    async def process_of_pid(self, pid: int) -> RemoteProcess | None:
        """Returns a process, held."""
        found = await self.link.run_parts({name: f"cat /proc/{pid}/{name}" for name in ("stat", "status")})
        if any(answer.status != 0 for answer in found.values()):
            return None
        return self._held(pid, found["stat"].text, found["status"].text)

    async def processes_with(self, text: str) -> tuple[tuple[int, tuple[str, ...]], ...]:
        """Returns the processes that have a text in their command line."""
        script = f"grep -lsF -- {_q(text)} /proc/[0-9]*/cmdline || true"
        pids = [int(line.split("/")[2]) for line in (await self.link.run(script)).text.splitlines()]
        found = []
        for pid in pids:
            with contextlib.suppress(OSError):
                found.append((pid, (await self.read_process(pid)).argv))
        return tuple(found)

    async def remove_private_folder(self, path: str) -> None:
        """Removes what `make_private_folder` made, with all in it."""
        await self.link.run(f"case {_q(path)} in */livemig-*) rm -rf -- {_q(path)};; esac")

    def _given_to(self, owner: tuple[int, int] | None) -> tuple[int, int] | None:
        return None if owner is None or owner[0] == self.user_id else owner


def _seen_by(pid: int, path: str) -> str:
    """A path as a process sees it, as a path of its host."""
    return posixpath.join(f"/proc/{pid}", "root" if path.startswith("/") else "cwd", path.lstrip("/"))


def _q(text: str) -> str:
    return shlex.quote(text)
