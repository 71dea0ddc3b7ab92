"""What a running QEMU's command line says of itself, and which files and descriptors it needs looked at. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from livemig.qemu.command_line.config_file import options_of
from livemig.qemu.command_line.options import parse
from livemig.qemu.command_line.properties import KeyValues
from livemig.qemu.command_line.rewriting import Entry

MAIN_ID, SPARE_ID = "livemig-qmp", "livemig-spare"
"""Ids of the two monitors that livemig adds, and takes out again when it moves that guest on."""

NETWORK_OPTIONS = frozenset({"netdev", "nic", "net"})


def config_paths(arguments: Sequence[str]) -> tuple[str, ...]:
    """The files that ``-readconfig`` names: their text is to be in the request.

    Raises:
        CommandLineError: When the command line can't be read.
    """
    return tuple(each.value or "" for each in parse(arguments) if each.name == "readconfig")


def memory_paths(arguments: Sequence[str]) -> tuple[str, ...]:
    """The paths at which memory is kept: which of them are folders is to be in the request.

    Raises:
        CommandLineError: When the command line can't be read.
    """
    entries = [Entry(each) for each in parse(arguments) if each.name == "object"]
    return tuple(path for entry in entries if (path := entry.get("mem-path")) is not None)


def tap_descriptors(arguments: Sequence[str]) -> tuple[int, ...]:
    """The descriptors through which network back ends are reached: whose taps they are is to be in the request.

    Raises:
        CommandLineError: When the command line can't be read.
    """
    entries = [Entry(each) for each in parse(arguments) if each.name in NETWORK_OPTIONS]
    texts = [entry.get(key) or "" for entry in entries for key in ("fd", "fds")]
    return tuple(int(fd) for text in texts for fd in text.split(":") if fd.isdigit())


def device_ids(arguments: Sequence[str], config_files: Mapping[str, str]) -> frozenset[str]:
    """The ids of the devices that a command line makes, those in its config files among them.

    A primary of a failover pair is left out: it is hidden until the guest asks for it.

    Raises:
        CommandLineError: When the command line can't be read.
    """
    options = list(parse(arguments))
    for path in config_paths(arguments):
        options += options_of(config_files.get(path, ""), path)
    entries = [Entry(each) for each in options if each.name == "device"]
    return frozenset(
        identity for entry in entries if (identity := entry.get("id")) and entry.get("failover_pair_id") is None
    )


def launch_folder(arguments: Sequence[str]) -> str | None:
    """The folder that livemig made for a QEMU that it launched; None for any other."""
    for argument in arguments:
        if f"id={SPARE_ID}," in argument:
            path = KeyValues(argument, "backend").get("path")
            return posixpath.dirname(path) if path else None
    return None


def drops_privileges(arguments: Sequence[str]) -> bool:
    """Whether this QEMU was started with more rights than it runs with.

    Raises:
        CommandLineError: When the command line can't be read.
    """
    entries = [Entry(each) for each in parse(arguments)]
    return any(entry.name == "runas" or (entry.name == "run-with" and entry.get("user")) for entry in entries)
