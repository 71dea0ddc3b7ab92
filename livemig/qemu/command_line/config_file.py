"""``-readconfig``: a config file turned into the options it stands for, so that they can be changed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from livemig.core.errors import CommandLineError
from livemig.qemu.command_line.options import REMEDY, Option, option
from livemig.qemu.command_line.properties import escaped

_OPTION_OF_GROUP = {
    "accel": "accel",
    "action": "action",
    "audiodev": "audiodev",
    "boot-opts": "boot",
    "chardev": "chardev",
    "device": "device",
    "drive": "drive",
    "fsdev": "fsdev",
    "fw_cfg": "fw_cfg",
    "global": "global",
    "icount": "icount",
    "iscsi": "iscsi",
    "machine": "machine",
    "memory": "m",
    "mon": "mon",
    "msg": "msg",
    "name": "name",
    "net": "net",
    "netdev": "netdev",
    "nic": "nic",
    "numa": "numa",
    "object": "object",
    "option-rom": "option-rom",
    "overcommit": "overcommit",
    "rtc": "rtc",
    "run-with": "run-with",
    "sandbox": "sandbox",
    "semihosting-config": "semihosting-config",
    "smp-opts": "smp",
    "spice": "spice",
    "tpmdev": "tpmdev",
    "trace": "trace",
    "vnc": "vnc",
}
_GROUP = re.compile(r'\[([^\s"\]]+)(?:\s+"([^"]*)")?\]')
_ENTRY = re.compile(r'\s*([^\s=]+)\s*=\s*"([^"]*)"\s*')


def options_of(text: str, path: str) -> list[Option]:
    """Returns the options that a config file stands for, in its order.

    Raises:
        CommandLineError: When it can't be read, or has a group without an option of its own.
    """
    return [_option(group, entries, path) for group, entries in _groups(text, path)]


def _groups(text: str, path: str) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    group: str | None = None
    entries: list[tuple[str, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        heading, entry = _GROUP.match(line), _ENTRY.fullmatch(line)
        if heading:
            if group is not None:
                yield group, entries
            group, entries = heading[1], [("id", heading[2])] if heading[2] is not None else []
        elif entry and group is not None:
            entries.append((entry[1], entry[2]))
        else:
            message = f"-readconfig {path}: line {number} can't be read ({line.strip()!r}): {REMEDY}"
            raise CommandLineError(message, argument=path)
    if group is not None:
        yield group, entries


def _option(group: str, entries: list[tuple[str, str]], path: str) -> Option:
    name = _OPTION_OF_GROUP.get(group)
    if name is None:
        message = f"-readconfig {path}: livemig does not know its group [{group}]: {REMEDY}"
        raise CommandLineError(message, argument=path)
    if name == "global":
        found = dict(entries)
        if "driver" in found and "property" in found:
            entries = [(key, found[key]) for key in ("driver", "property", "value") if key in found]
        else:
            return option(name, ",".join(f"{key}={value}" for key, value in entries))
    return option(name, ",".join(f"{key}={escaped(value)}" for key, value in entries))
