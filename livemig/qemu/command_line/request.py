"""What a destination's command line is to be like: the user's wishes, and what must be known of the host. Pure data."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

import msgspec

from livemig.core.errors import PlanError


class Image(msgspec.Struct, frozen=True):
    """What is in a drive.

    Attributes:
        file: The image's file as QEMU names it; empty when there is no medium.
        format: The name of its format's driver; empty when there is no medium.
    """

    file: str
    format: str


_ID = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


class PathMap(msgspec.Struct, frozen=True):
    """One ``--map OLD=NEW``: a host path and all below it, or the exact name of a network interface or bridge.

    An absolute OLD means the file, however the command line writes it; a relative one what is written there.

    Attributes:
        old: At the source; an absolute path has no slash at its end.
        new: At the destination.
    """

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> PathMap:
        """Reads ``OLD=NEW``.

        Raises:
            PlanError: When a part is missing, or one is an absolute path and the other is not.
        """
        old, equals, new = text.partition("=")
        if not equals or not old or not new:
            raise PlanError(f"--map {text!r}: write OLD=NEW, two paths or two interface names")
        if old.startswith("/") and not new.startswith("/"):
            raise PlanError(f"--map {text!r}: write an absolute path after the equals sign too")
        return cls(posixpath.normpath(old), posixpath.normpath(new))

    def applied_to(self, path: str) -> str | None:
        """Returns the path at the destination, or None when this map does not speak of it."""
        if path == self.old:
            return self.new
        below = self.old if self.old.endswith("/") else f"{self.old}/"
        if path.startswith(below):
            return posixpath.join(self.new, path[len(below) :])
        return None


class Setting(msgspec.Struct, frozen=True):
    """One ``--dst-set ID.PROPERTY=VALUE``; since an id may hold dots, who it means is found in the command line.

    Attributes:
        target: ``ID.PROPERTY``.
        value: The new value.
    """

    target: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Reads ``ID.PROPERTY=VALUE``.

        Raises:
            PlanError: When it has another form.
        """
        target, equals, value = text.partition("=")
        if not equals or "." not in target.strip(".") or not _ID.fullmatch(target):
            raise PlanError(f"--dst-set {text!r}: write ID.PROPERTY=VALUE, such as net0.host_mtu=1500")
        return cls(target, value)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides how a source's command line is changed into its destination's.

    Attributes:
        qmp_path: Where the destination's monitor is to answer.
        folder: A folder of the new process alone, for its sockets, logs and pid file.
        machine_type: The source's machine type, concrete, such as ``pc-i440fx-10.0``; None leaves it as it stands.
        same_host: Whether the source runs beside it, so that what only one process can hold has to differ.
        keep_user: Whether it starts with the rights the source started with, so that ``-runas`` stays.
        maps: ``--map``.
        settings: ``--dst-set``.
        extra: ``--dst-args``.
        cwd: The working folder of both, for relative paths.
        busy_ports: TCP and UDP ports taken in the destination's network namespace.
        tap_names: The interface behind each tap descriptor of the source.
        config_files: The text of each file that ``-readconfig`` names.
        plugged: Arguments for what was plugged into the source since its start; an ellipsis is what can't be said.
        unplugged: Ids of devices of its command line that were taken out since.
        addresses: Where the devices are that stayed, by id and property, so that a gap before them moves none.
        generation_id: The guest's generation id; ``auto`` would give the destination another.
        images: What is in the source's drives now, by the name that QEMU has for each.
        folders: Which of `memory_paths` are folders (hugetlbfs), in which each process makes a file of its own.
    """

    qmp_path: str
    folder: str
    machine_type: str | None = None
    same_host: bool = True
    keep_user: bool = False
    maps: tuple[PathMap, ...] = ()
    settings: tuple[Setting, ...] = ()
    extra: tuple[str, ...] = ()
    cwd: str = "/"
    busy_ports: frozenset[int] = frozenset()
    tap_names: Mapping[int, str] = {}
    config_files: Mapping[str, str] = {}
    plugged: tuple[str, ...] = ()
    unplugged: frozenset[str] = frozenset()
    addresses: Mapping[str, Mapping[str, str]] = {}
    generation_id: str = ""
    images: Mapping[str, Image] = {}
    folders: frozenset[str] = frozenset()

    @property
    def spare_path(self) -> str:
        """Where the second monitor answers, for recovery."""
        return posixpath.join(self.folder, "spare.qmp")

    def absolute(self, path: str) -> str:
        """Returns a path as it is seen from anywhere."""
        return posixpath.normpath(posixpath.join(self.cwd, path))


class DestinationLine(msgspec.Struct, frozen=True, kw_only=True):
    """A command line to launch.

    Attributes:
        arguments: What follows the program's name.
        changes: What was changed and why, one line each, for a person.
        warnings: What may not be as the user thinks.
        sockets: Paths at which it makes sockets: nothing may be there yet.
        inputs: Files that must be there.
    """

    arguments: tuple[str, ...]
    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    sockets: tuple[str, ...]
    inputs: tuple[str, ...]


def parse_maps(texts: Iterable[str]) -> tuple[PathMap, ...]:
    """Reads all ``--map``, longest first.

    Raises:
        PlanError: When one can't be read, or two speak of the same path.
    """
    maps = [PathMap.parse(text) for text in texts]
    for index, one in enumerate(maps):
        for other in maps[:index]:
            if one.old == other.old and one.new != other.new:
                raise PlanError(f"--map {one.old} goes to both {other.new} and {one.new}: leave one out")
    return tuple(sorted(maps, key=lambda found: len(found.old), reverse=True))
