"""The lab of two hosts: made, found again, looked at, and removed without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from livemig.core.errors import LabError
from livemig.core.units import format_bit_rate
from livemig.lab.two_hosts import login, namespaces, record
from livemig.lab.two_hosts.host import Host, Namespace
from livemig.lab.two_hosts.layout import (
    CLIENT,
    HOST_NAMES,
    LAB_INDEXES,
    MANAGEMENT_PREFIX,
    SWITCH,
    Layout,
    check_name,
)
from livemig.lab.two_hosts.record import Owner, Record

_TUN = Path("/dev/net/tun")
_IPV6_DISABLED = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")


class Started(StrEnum):
    """How a lab came to be up."""

    MADE = "made"
    MADE_ANEW = "made-anew"
    """What a crash had left of it was removed first."""
    WAS_UP = "was-up"


class HostStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A host of the lab.

    Attributes:
        name: ``A`` or ``B``.
        up: Whether it is there.
        sshd: Whether its sshd runs.
        processes: What else runs on it: pid and name.
    """

    name: str
    up: bool
    sshd: bool
    processes: tuple[tuple[int, str], ...]


class TwoHosts:
    """Two hosts A and B, a client and a switch, in network namespaces of this machine. Needs root.

    As an async context manager it ends with its block, and what a killed process left is removed by the next lab that
    is started. Made by `start` alone it stays until `stop`, whichever process calls that.

    Attributes:
        name: Tells it from other labs on this machine.
        folder: Where it has its files: the same path on both hosts and outside.
    """

    def __init__(self, name: str = "lab", *, rate_bytes_s: float | None = None) -> None:
        """Names the lab; makes nothing.

        Args:
            name: 1 to 12 of a-z, 0-9 and -.
            rate_bytes_s: What each host's data link carries in each direction; None is unlimited.

        Raises:
            PlanError: When the name or the rate can't be.
        """
        check_name(name)
        self.name = name
        self.folder = record.folder_of(name)
        self._wanted = Layout(name=name, index=LAB_INDEXES[0], rate_bytes_s=rate_bytes_s)
        self._layout: Layout | None = None

    @classmethod
    def opened(cls, name: str = "lab") -> TwoHosts:
        """Finds a lab that is up.

        Raises:
            LabError: When there is none of that name.
        """
        check_name(name)
        found = record.read(name)
        if found is None:
            others = record.names()
            there = f"; there is: {', '.join(others)}" if others else ""
            raise LabError(f"no lab {name} is up{there}: livemig lab up --name {name}")
        lab = cls(name, rate_bytes_s=found.layout.rate_bytes_s)
        lab._layout = found.layout
        return lab

    @property
    def layout(self) -> Layout:
        """What it is made of.

        Raises:
            LabError: When it is not up.
        """
        if self._layout is None:
            raise LabError(f"the lab {self.name} is not up")
        return self._layout

    @property
    def a(self) -> Host:
        """Host A."""
        return self.host("A")

    @property
    def b(self) -> Host:
        """Host B."""
        return self.host("B")

    @property
    def client(self) -> Namespace:
        """The client, on the same network as the guest."""
        return Namespace(CLIENT, self.layout.namespace(CLIENT))

    @property
    def home_folder(self) -> Path:
        """With ``HOME`` set to this, livemig's SSH knows the hosts by their names; ``ssh`` itself needs ``-F``."""
        return login.home_folder(self.folder)

    @property
    def user_key_path(self) -> Path:
        """The private key that every account of both hosts accepts."""
        return login.user_key_path(self.folder)

    @property
    def known_hosts_path(self) -> Path:
        """Both hosts' public keys."""
        return login.known_hosts_path(self.folder)

    @property
    def ssh_config_path(self) -> Path:
        """For ``ssh -F``."""
        return login.ssh_config_path(self.folder)

    def host(self, name: str) -> Host:
        """Returns host ``A`` or ``B``."""
        layout = self.layout
        return Host(
            name,
            layout.namespace(name),
            self.folder,
            data=(layout.data_address(name), layout.data_address_6(name)),
            management=(layout.management_address(name), layout.management_address_6(name)),
        )

    async def start(self, *, owner: Owner | None = None) -> Started:
        """Makes the lab. One of that name that is up already is left as it is; a crashed one's remains go first.

        Args:
            owner: The process with which it ends; None when it stays until `stop`.

        Raises:
            LabError: When it can't be made; nothing of it is left then.
        """
        check_machine()
        async with record.locked():
            try:
                await self._sweep()
                left = record.read(self.name)
                if left is not None:
                    self._layout = left.layout
                    if self._is_sound(left):
                        self._refuse_other(left, owner)
                        return Started.WAS_UP
                    await self._remove(left.layout)
                await self._make(owner)
            finally:
                record.forget_all(login.PRIVILEGE_SEPARATION_FOLDER)
        return Started.MADE if left is None else Started.MADE_ANEW

    async def stop(self) -> bool:
        """Ends everything that runs in the lab and removes it; returns whether there was one.

        Raises:
            LabError: When something does not go.
        """
        _check_root()
        async with record.locked():
            try:
                left = record.read(self.name)
                if left is not None:
                    await self._remove(left.layout)
            finally:
                record.forget_all(login.PRIVILEGE_SEPARATION_FOLDER)
        self._layout = None
        return left is not None

    def status(self) -> list[HostStatus]:
        """Says what each host is doing."""
        return [self._host_status(self.host(name)) for name in HOST_NAMES]

    async def start_sshd(self, host: Host) -> None:
        """Starts a host's sshd again after `kill_sshd`."""
        await login.start_sshd(host, self.folder)

    def kill_sshd(self, host: Host) -> None:
        """Kills a host's sshd and all its sessions."""
        login.kill_sshd(host, self.folder)

    async def cut(self, host: Host, network: str) -> None:
        """Takes a host off the ``data`` or ``management`` network at the switch: what is sent vanishes unseen."""
        await self._set_port(host, network, "down")

    async def mend(self, host: Host, network: str) -> None:
        """Puts it back."""
        await self._set_port(host, network, "up")

    async def __aenter__(self) -> Self:
        await self.start(owner=Owner.of(os.getpid()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.shield(self.stop())

    async def _make(self, owner: Owner | None) -> None:
        layout = msgspec.structs.replace(self._wanted, index=await _free_index(), with_ipv6=_has_ipv6())
        taken = namespaces.taken(layout)
        if taken:
            raise LabError(
                f"{', '.join(taken)}: not of a lab of livemig's; choose another --name, or remove what is there "
                "with `ip netns delete` and `ip link delete`"
            )
        Record(layout=layout, owner=owner).write()
        self._layout = layout
        try:
            await self._fill(layout)
        except BaseException:
            await asyncio.shield(self._remove(layout))
            self._layout = None
            raise
        Record(layout=layout, owner=owner, complete=True).write()

    async def _fill(self, layout: Layout) -> None:
        for folder in ("private", "shared", "hosts/A", "hosts/B"):
            (self.folder / folder).mkdir(parents=True)
        if not login.PRIVILEGE_SEPARATION_FOLDER.exists():
            login.PRIVILEGE_SEPARATION_FOLDER.mkdir(mode=0o755)
            record.note_sshd_folder()
        await namespaces.make(layout)
        await login.make_keys(self.folder, layout)
        for host in (self.a, self.b):
            await host.hold()
            await login.start_sshd(host, self.folder)

    async def _remove(self, layout: Layout) -> None:
        await namespaces.remove(layout)
        shutil.rmtree(record.folder_of(layout.name))

    async def _sweep(self) -> None:
        """Removes labs whose owner has ended without doing so."""
        for name in record.names():
            found = record.read(name)
            if found is not None and found.owner is not None and not found.owner.lives:
                with contextlib.suppress(LabError):  # not ours to fail for; `lab down --name` says why
                    await self._remove(found.layout)

    def _is_sound(self, left: Record) -> bool:
        return left.complete and all(host.up and host.sshd for host in self.status())

    def _refuse_other(self, left: Record, owner: Owner | None) -> None:
        """An existing lab is as good as a new one, unless it is somebody's or another than was asked for."""
        if owner is not None or left.owner is not None:
            raise LabError(f"a lab {self.name} is up already: choose another name, or livemig lab down")
        wanted, there = self._wanted.rate_bytes_s, left.layout.rate_bytes_s
        if wanted != there:
            shown = "no limit" if there is None else format_bit_rate(there)
            raise LabError(f"the lab {self.name} is up with another rate ({shown}): livemig lab down first")

    def _host_status(self, host: Host) -> HostStatus:
        holder, sshd = host.holder_pid, login.sshd_pid(host, self.folder)
        others = []
        for pid in namespaces.processes(host.namespace):
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if pid not in (holder, sshd) and not name.startswith("sshd"):
                    others.append((pid, name))
        return HostStatus(name=host.name, up=holder is not None, sshd=sshd is not None, processes=tuple(sorted(others)))

    async def _set_port(self, host: Host, network: str, state: str) -> None:
        port = f"{host.name.lower()}-{network}"
        await namespaces.run("ip", "-n", self.layout.namespace(SWITCH), "link", "set", port, state)


def check_machine() -> None:
    """Says what this machine lacks for a lab, before anything is made.

    Raises:
        LabError: Naming it, and what to do.
    """
    _check_root()
    if not _TUN.exists():
        raise LabError(f"{_TUN} is missing: modprobe tun, or let the container have that device")
    for tool in ("ip", "tc", "nsenter", "unshare", "setpriv", "mount", "hostname", "sshd", "ssh-keygen"):
        namespaces.find(tool)


def _check_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes network namespaces, which needs root: run it with sudo")


def _has_ipv6() -> bool:
    return _IPV6_DISABLED.exists() and _IPV6_DISABLED.read_text().strip() == "0"


async def _free_index() -> int:
    """Chooses the management network: one that neither a lab nor this machine's own routes use."""
    used, known = record.used_indexes(), await namespaces.machine_addresses()
    for index in LAB_INDEXES:
        if index not in used and f"{MANAGEMENT_PREFIX}.{index}." not in known:
            return index
    raise LabError("no network is left in 198.18.0.0/16 for another lab: livemig lab down one of them")
