"""What all changes to a command line share: mapped paths, fresh sockets and ports, refusals, collisions. Pure."""

from __future__ import annotations

import posixpath
import re

from livemig.core.errors import PlanError
from livemig.qemu.command_line.options import Option
from livemig.qemu.command_line.properties import IMPLIED_KEYS, KeyValues, Properties, parse_properties
from livemig.qemu.command_line.request import Request

SOCKET_PATH_BYTES_MOST = 107
PORT_MOST = 65535

_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]*:")
_LOCAL_PREFIX = re.compile(
    r"(file:(?://)?|host_device:|host_cdrom:|fat:(?:rw:|floppy:|\d+:)*|nbd:unix:)(.*)", re.DOTALL
)
_SOCKET_IN_URL = re.compile(r"(nbd\+unix:.*[?&]socket=)([^&]+)(.*)", re.DOTALL)


class Entry:
    """An option while it is changed.

    Attributes:
        option: As it stood in the source's command line.
        name: Its name, changed or not.
        properties: Its properties; none when its value is one text.
        settled: Properties that were decided, by ``--dst-set`` or since: nothing else changes them.
    """

    def __init__(self, option: Option) -> None:
        """Reads the value.

        Raises:
            CommandLineError: When it begins as JSON and is none.
        """
        self.option = option
        self.name = option.name
        self.settled: set[str] = set()
        self.properties: Properties = KeyValues("")
        self._text = option.value
        self._structured = option.value is not None and option.name in IMPLIED_KEYS
        if self._structured:
            self.properties = parse_properties(option.value or "", IMPLIED_KEYS[option.name])

    @property
    def value(self) -> str | None:
        """The value as it will stand."""
        return str(self.properties) if self._structured else self._text

    def replace(self, value: str, name: str | None = None) -> None:
        """Gives it another value, and perhaps another name."""
        self.name = name or self.name
        self._text, self._structured, self.properties = value, False, KeyValues("")

    def get(self, key: str) -> str | None:
        """Returns a property, or None."""
        return self.properties.get(key)

    def decide(self, key: str, value: str) -> None:
        """Gives a property its value at the destination, once and for all."""
        self.properties.set(key, value)
        self.settled.add(key)

    def is_open(self, key: str) -> bool:
        """Whether it has this property, and nothing decided it yet."""
        return key not in self.settled and self.properties.get(key) is not None

    @property
    def result(self) -> Option:
        """The option of the destination."""
        if (self.name, self.value) == (self.option.name, self.option.value):
            return self.option
        return Option(self.name, self.value, self.option.flag if self.name == self.option.name else f"-{self.name}")


class Rewriting:
    """One command line being changed.

    Attributes:
        request: What is wanted.
        changes: What was changed, for a person.
        warnings: What may not be as the user thinks.
        refusals: Why it can't be launched, each with the remedy.
        sockets: Where sockets will be made.
        inputs: Files that must be there.
        moved_ports: Ports that were taken, and by which option they were wanted.
        backends: Chardevs behind which another process keeps a part of the machine (vhost-user, swtpm), and its name.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.changes: list[str] = []
        self.warnings: list[str] = []
        self.refusals: list[str] = []
        self.sockets: list[str] = []
        self.inputs: list[str] = []
        self.backends: dict[str, str] = {}
        self._origins: dict[str, str] = {}
        self._own_names: dict[str, str] = {}
        self._ports: set[int] = set()
        self.moved_ports: list[tuple[str, int]] = []
        self._used_maps: set[str] = set()

    def refuse(self, what: str, reason: str) -> None:
        """Notes why the line can't be launched; the reason ends with the remedy."""
        self.refusals.append(f"{what}: {reason}")

    def changed(self, what: str, old: str, new: str) -> None:
        """Notes a change."""
        if old != new:
            self.changes.append(f"{what}: {old} -> {new}")

    def mapped(self, path: str, *, relative: bool = True) -> str:
        """Returns a host path as it is at the destination: mapped, or as it stood.

        Args:
            path: As it stands in the command line.
            relative: Whether it is surely a path, so that one without a slash at its front is meant from the cwd.
        """
        if not path or not (relative or path.startswith("/")):
            return path
        new = self._by_map(path)
        if new is None:
            self.claim(path, path)
            return path
        self.claim(path, new)
        return new

    def mapped_name(self, name: str) -> str:
        """Returns the name of an interface or bridge, mapped or as it stood."""
        for each in self.request.maps:
            if each.old == name:
                self._used_maps.add(each.old)
                return each.new
        return name

    def mapped_text(self, text: str, *, relative: bool) -> str:
        """Returns a value that may be a path, or hold one as QEMU's file names do (``file:``, ``json:``)."""
        if text.startswith("json:"):
            return f"json:{self._mapped_json(text[5:])}"
        in_url = _SOCKET_IN_URL.fullmatch(text)
        if in_url:
            return f"{in_url[1]}{self.mapped(in_url[2])}{in_url[3]}"
        prefixed = _LOCAL_PREFIX.fullmatch(text)
        if prefixed:
            path, colon, rest = prefixed[2].partition(":") if prefixed[1].startswith("nbd") else (prefixed[2], "", "")
            return f"{prefixed[1]}{self.mapped(path)}{colon}{rest}"
        if _PROTOCOL.match(text.partition("/")[0]):
            return text
        return self.mapped(text, relative=relative)

    def own_path(self, path: str, name: str, what: str) -> str:
        """Returns where this process keeps a file that only one can hold: mapped, or a fresh one in its folder."""
        new = self._by_map(path)
        if new is None:
            new = posixpath.join(self.request.folder, self._own_name(name, path)) if self.request.same_host else path
        self.claim(path, new)
        self.changed(what, path, new)
        return new

    def own_socket(self, path: str, name: str, what: str) -> str:
        """Returns where this process makes a socket."""
        new = self.own_path(path, name, what)
        self.makes_socket(new, what)
        return new

    def fresh_socket(self, name: str, what: str) -> str:
        """Returns where this process makes a socket that had no path before."""
        path = posixpath.join(self.request.folder, self._own_name(name, name))
        self.makes_socket(path, what)
        return path

    def makes_socket(self, path: str, what: str) -> None:
        """Notes a socket that will be made."""
        if len(path.encode("utf-8", "surrogateescape")) > SOCKET_PATH_BYTES_MOST:
            self.refuse(what, f"the socket path {path} is too long: choose a shorter --dst-qmp or --map")
        absolute = self.request.absolute(path)
        if absolute in self.sockets:
            self.refuse(what, f"two sockets would be made at {path}: give each its own with --map")
        self.sockets.append(absolute)

    def own_port(self, port: int, what: str) -> int:
        """Returns a port to listen on: the same, or the next free one."""
        new = port
        while new in self.request.busy_ports or new in self._ports:
            new += 1
        if new > PORT_MOST:
            self.refuse(what, f"no free port from {port} on: end what listens there, or change it with --dst-set")
        self._ports.add(new)
        if new != port:
            self.moved_ports.append((what, port))
            self.changed(what, f"port {port}", f"port {new}")
        return new

    @property
    def taken_ports(self) -> frozenset[int]:
        """The ports that are taken, those of this command line included."""
        return self.request.busy_ports | self._ports

    def is_mapped(self, path: str) -> bool:
        """Whether a ``--map`` leads this path elsewhere."""
        new = self._by_map(path)
        return new is not None and self.request.absolute(new) != self.request.absolute(path)

    def needs(self, path: str) -> None:
        """Notes a file without which QEMU can't start."""
        self.inputs.append(self.request.absolute(path))

    def claim(self, old: str, new: str) -> None:
        """Notes that the file `old` is `new` at the destination.

        Raises:
            PlanError: When another file is `new` already.
        """
        origin, target = self.request.absolute(old), self.request.absolute(new)
        before = self._origins.setdefault(target, origin)
        if before != origin:
            raise PlanError(
                f"{before} and {origin} would both be {target} at the destination: give each a --map of its own"
            )

    def unused_maps(self) -> list[str]:
        """The maps that matched nothing."""
        return [each.old for each in self.request.maps if each.old not in self._used_maps]

    def _by_map(self, path: str) -> str | None:
        for each in self.request.maps:
            as_written = posixpath.normpath(path) if path else path
            new = each.applied_to(self.request.absolute(path) if each.old.startswith("/") else as_written)
            if new is not None:
                self._used_maps.add(each.old)
                return new
        return None

    def _own_name(self, name: str, path: str) -> str:
        """A file name that is the same in every launch of this line, so that nothing grows from move to move."""
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        stem, dot, suffix = name.rpartition(".")
        count = 1
        while self._own_names.setdefault(name, path) != path:
            count += 1
            name = f"{stem}-{count}{dot}{suffix}"
        return name

    def _mapped_json(self, text: str) -> str:
        properties = parse_properties(text)
        properties.rewrite(
            lambda key, value: (
                value if is_node_name("blockdev", key) else self.mapped_text(value, relative=is_path_key(key))
            )
        )
        return str(properties)


PATH_KEYS = frozenset(
    {"filename", "file", "path", "mem-path", "dir", "logfile", "input-path", "sock", "events", "backing", "addr.path"}
)


def is_node_name(option_name: str, key: str) -> bool:
    """Whether the value of a block option's (dotted) key names another node: a file's name is in `filename` then."""
    if option_name not in ("blockdev", "drive") or key.rpartition(".")[2] not in ("file", "backing"):
        return False
    return option_name == "blockdev" or key != "file"


def is_path_key(key: str) -> bool:
    """Whether the value of a (dotted) key is a path wherever QEMU has that key."""
    return key.rpartition(".")[2] in PATH_KEYS
