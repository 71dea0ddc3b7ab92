"""A namespace of the lab, and a host: a namespace with folders and processes of its own. Runs commands in them."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from livemig.core.errors import LabError
from livemig.lab.two_hosts.namespaces import NAMES_FOLDER, processes, run

_READY_BOUND_S = 30.0
_POLL_S = 0.005
_HOLD = """
set -e
mount --bind "$1/hosts/$2" "$1/private"
mount --bind "$1/shadow" /etc/shadow
hostname "$3"
: >"$1/$2.ready"
exec sleep infinity
"""
"""Makes a host see its own folder at the path at which the other one sees another, and accounts that a key opens even
where this machine's own root is locked. All of it ends with the last process of the host."""


class Namespace:
    """A network namespace of the lab.

    Attributes:
        name: ``client``, ``A`` or ``B``.
        namespace: What ``ip netns`` calls it.
    """

    def __init__(self, name: str, namespace: str) -> None:
        self.name = name
        self.namespace = namespace

    def argv(self, *command: str) -> list[str]:
        """Returns the command line that runs a command in here."""
        return ["nsenter", f"--net={NAMES_FOLDER / self.namespace}", "--", *command]

    async def run(self, *command: str, text: str = "") -> str:
        """Runs a command in here to its end, the text as its input, and returns what it printed.

        Raises:
            LabError: When it fails, or does not end within 30 s.
        """
        return await run(*self.argv(*command), text=text)


class Host(Namespace):
    """A host of the lab.

    Attributes:
        folder: Of the lab, the same path everywhere.
        data_address: Its address in the data network, for the migration.
        data_address_6: The same in IPv6.
        management_address: Where its sshd is for this machine.
        management_address_6: The same in IPv6.
    """

    def __init__(
        self, name: str, namespace: str, folder: Path, *, data: tuple[str, str], management: tuple[str, str]
    ) -> None:
        super().__init__(name, namespace)
        self.folder = folder
        self.data_address, self.data_address_6 = data
        self.management_address, self.management_address_6 = management

    @property
    def private_folder(self) -> Path:
        """Its own folder, as seen in here: the other host has another one at the same path."""
        return self.folder / "private"

    @property
    def private_folder_outside(self) -> Path:
        """The same folder, as this machine sees it."""
        return self.folder / "hosts" / self.name

    @property
    def shared_folder(self) -> Path:
        """The folder that both hosts share; the same path here and outside."""
        return self.folder / "shared"

    @property
    def holder_pid(self) -> int | None:
        """The process that holds its view of the file system, or None when it does not live."""
        try:
            pid = int((self.folder / f"{self.name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return pid if pid in processes(self.namespace) else None

    def argv(self, *command: str) -> list[str]:
        """Returns the command line that runs a command in here; it begins in ``/``.

        Raises:
            LabError: When the host is not up.
        """
        pid = self.holder_pid
        if pid is None:
            raise LabError(f"host {self.name} of the lab is not up: livemig lab up")
        return ["nsenter", "--target", str(pid), "--net", "--mount", "--uts", "--", *command]

    async def hold(self) -> None:
        """Starts the process that holds the host's view of the file system, and waits until that is made.

        Raises:
            LabError: When it can't be made; the reason is quoted.
        """
        errors_path = self.folder / f"{self.name}.stderr"
        outside = ["nsenter", f"--net={NAMES_FOLDER / self.namespace}", "--"]
        unshared = ["unshare", "--mount", "--uts", "--propagation", "private", "--"]
        script = ["sh", "-c", _HOLD, "sh", str(self.folder), self.name, f"host-{self.name.lower()}"]
        with errors_path.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *outside,
                *unshared,
                *script,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                start_new_session=True,  # it outlives the command that makes the lab, and its terminal
            )
        (self.folder / f"{self.name}.pid").write_text(f"{process.pid}\n")
        ready = self.folder / f"{self.name}.ready"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_BOUND_S):
                while not ready.exists() and process.returncode is None:  # noqa: ASYNC110  # a shell tells nobody
                    await asyncio.sleep(_POLL_S)
        if not ready.exists():
            words = errors_path.read_text(errors="replace").strip().replace("\n", "; ")
            raise LabError(f"host {self.name} can't be made: {words or 'no reason given'}")
