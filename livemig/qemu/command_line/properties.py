"""The value of an option that has several properties: ``key=value,…`` or JSON. Edits keep all else as it was. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from livemig.core.errors import CommandLineError

IMPLIED_KEYS = {
    "accel": "accel",
    "acpitable": "",
    "action": "",
    "add-fd": "",
    "audio": "driver",
    "audiodev": "driver",
    "blockdev": "driver",
    "boot": "order",
    "chardev": "backend",
    "compat": "",
    "device": "driver",
    "display": "type",
    "drive": "",
    "fsdev": "fsdriver",
    "fw_cfg": "name",
    "icount": "shift",
    "iscsi": "",
    "M": "type",
    "m": "size",
    "machine": "type",
    "mon": "chardev",
    "msg": "timestamp",
    "name": "guest",
    "net": "type",
    "netdev": "type",
    "nic": "type",
    "numa": "type",
    "object": "qom-type",
    "option-rom": "romfile",
    "overcommit": "",
    "plugin": "file",
    "rtc": "base",
    "run-with": "",
    "sandbox": "enable",
    "semihosting-config": "",
    "smbios": "",
    "smp": "cpus",
    "spice": "",
    "tpmdev": "type",
    "trace": "enable",
    "virtfs": "fsdriver",
    "vnc": "vnc",
}
"""The options whose value is made of properties, and the key of a first part without one."""

_ON = frozenset({"on", "yes", "true", "y", "1", ""})
_SWITCHED_OFF = {"nowait": "wait", "noserver": "server"}
"""Old switches, and what they turn off."""

Rewrite = Callable[[str, str], str]
"""From a dotted key and its value to the value that is to stand there."""


class Properties(Protocol):
    """The properties of one option."""

    def get(self, key: str) -> str | None:
        """Returns a property as text, or None; a JSON boolean reads ``on`` or ``off``. Nested keys are dotted."""

    def set(self, key: str, value: str) -> None:
        """Gives a property a value, at its place when it has one."""

    def remove(self, key: str) -> None:
        """Takes a property out; does nothing when there is none."""

    def items(self) -> Iterator[tuple[str, str]]:
        """All properties with dotted keys, in their order."""

    def rewrite(self, change: Rewrite) -> None:
        """Changes the values for which `change` gives another."""

    def __str__(self) -> str: ...


def parse_properties(text: str, implied_key: str = "") -> Properties:
    """Reads an option's value.

    Raises:
        CommandLineError: When it begins as JSON and is none.
    """
    if text.startswith("{"):
        return JsonProperties(text)
    return KeyValues(text, implied_key)


def is_on(value: str | None) -> bool:
    """Whether a switch is on; None, a switch that is not there, is off."""
    return value is not None and value.lower() in _ON


class KeyValues:
    """``key=value,…`` with commas in values doubled, and perhaps an implied first key."""

    def __init__(self, text: str, implied_key: str = "") -> None:
        self._parts = [_split(part) for part in _parts(text)] if text else []
        self._implied = implied_key
        if self._parts and implied_key and self._parts[0][1] is None:
            self._parts[0] = (None, self._parts[0][0] or "")

    def get(self, key: str) -> str | None:
        """The last one counts, as with QEMU."""
        found = None
        for name, value in self.items():
            if name == key:
                found = value
        return found

    def set(self, key: str, value: str) -> None:
        """Puts it where the key stood last, or at the end."""
        places = [index for index, part in enumerate(self._parts) if self._key(part) == key]
        if not places:
            self._parts.append((key, value))
            return
        self._parts[places[-1]] = (self._parts[places[-1]][0] if self._is_implied(places[-1]) else key, value)

    def remove(self, key: str) -> None:
        """Takes out each of them."""
        self._parts = [part for part in self._parts if self._key(part) != key]

    def items(self) -> Iterator[tuple[str, str]]:
        """A switch without a value reads ``on``; QEMU's old ``nowait`` reads ``wait`` ``off``."""
        for part in self._parts:
            if part[1] is not None:
                yield self._key(part), part[1]
            elif part[0]:
                yield self._key(part), "off" if part[0] in _SWITCHED_OFF else "on"

    def rewrite(self, change: Rewrite) -> None:
        """A switch without a value is left alone."""
        self._parts = [part if part[1] is None else (part[0], change(self._key(part), part[1])) for part in self._parts]

    def __str__(self) -> str:
        return ",".join(_joined(self._named(part)) for part in self._parts)

    def _key(self, part: tuple[str | None, str | None]) -> str:
        if part[0] is None:
            return self._implied
        return _SWITCHED_OFF.get(part[0], part[0]) if part[1] is None else part[0]

    def _named(self, part: tuple[str | None, str | None]) -> tuple[str | None, str | None]:
        """An implied key is said where the value would else be read as key and value (a path with ``=`` in it)."""
        return (self._implied, part[1]) if part[0] is None and "=" in (part[1] or "") else part

    def _is_implied(self, index: int) -> bool:
        return self._parts[index][0] is None


class JsonProperties:
    """A JSON object, as ``-device``, ``-object``, ``-netdev``, ``-blockdev`` and others take one."""

    def __init__(self, text: str) -> None:
        try:
            self._tree = json.loads(text)
        except ValueError as error:
            raise CommandLineError(f"{text!r} is no JSON that can be read: {error}", argument=text) from error
        self._text: str | None = text

    def get(self, key: str) -> str | None:
        """Looks for the key itself, then along its dots."""
        return dict(self.items()).get(key)

    def set(self, key: str, value: str) -> None:
        """Keeps the kind of a value that was there; a new one gets the kind it looks like."""
        tree, last = self._place(key)
        there = isinstance(tree, list) or last in tree
        tree[last] = _like(tree[last] if there else None, value)
        self._text = None

    def remove(self, key: str) -> None:
        """Takes out the whole branch."""
        if not any(name == key or name.startswith(f"{key}.") for name, _ in self.items()):
            return
        tree, last = self._place(key)
        del tree[last]
        self._text = None

    def items(self) -> Iterator[tuple[str, str]]:
        """Leaves only; the members of a list have their index as key."""
        yield from _leaves(self._tree, "")

    def rewrite(self, change: Rewrite) -> None:
        """Offers strings only."""
        tree = _rewritten(self._tree, "", change)
        if tree != self._tree:
            self._tree, self._text = tree, None

    def __str__(self) -> str:
        if self._text is None:
            self._text = json.dumps(self._tree, separators=(",", ":"), ensure_ascii=False)
        return self._text

    def _place(self, key: str) -> tuple[Any, Any]:
        tree: Any = self._tree
        while True:
            if _holds(tree, key) or "." not in key:
                return tree, int(key) if isinstance(tree, list) else key
            first, key = key.split(".", 1)
            tree = tree[int(first)] if isinstance(tree, list) else tree.setdefault(first, {})


def escaped(value: str) -> str:
    """Returns a value as it stands within ``key=value``: its commas doubled."""
    return value.replace(",", ",,")


def _parts(text: str) -> Iterator[str]:
    position = 0
    while True:
        end = position
        while end < len(text) and (text[end] != "," or text[end : end + 2] == ",,"):
            end += 2 if text[end] == "," else 1
        yield text[position:end]
        position = end + 1
        if position > len(text):
            return


def _split(part: str) -> tuple[str | None, str | None]:
    key, equals, value = part.partition("=")
    if not equals:
        return part.replace(",,", ","), None
    return key, value.replace(",,", ",")


def _joined(part: tuple[str | None, str | None]) -> str:
    key, value = part
    if key is None:
        return escaped(value or "")
    return escaped(key) if value is None else f"{key}={escaped(value)}"


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _leaves(value, f"{prefix}.{index}" if prefix else str(index))
    elif isinstance(tree, bool):
        yield prefix, "on" if tree else "off"
    else:
        yield prefix, "" if tree is None else str(tree)


def _rewritten(tree: Any, prefix: str, change: Rewrite) -> Any:
    if isinstance(tree, dict):
        return {key: _rewritten(value, f"{prefix}.{key}" if prefix else key, change) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_rewritten(value, f"{prefix}.{index}", change) for index, value in enumerate(tree)]
    return change(prefix, tree) if isinstance(tree, str) else tree


def _holds(tree: Any, key: Any) -> bool:
    return isinstance(tree, dict) and key in tree


def _like(old: Any, value: str) -> Any:
    if isinstance(old, str):
        return value
    if isinstance(old, bool) or (old is None and value in ("on", "off", "true", "false")):
        return is_on(value)
    try:
        return json.loads(value)
    except ValueError:
        return value
