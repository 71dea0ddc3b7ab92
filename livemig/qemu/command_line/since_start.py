"""Brings a command line up to what its QEMU is by now: devices plugged in and out since the start, ``-set``. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from livemig.core.errors import CommandLineError
from livemig.qemu.command_line.options import Option, parse
from livemig.qemu.command_line.properties import escaped
from livemig.qemu.command_line.rewriting import Entry, Rewriting

_UNREADABLE = "…"


def with_hotplug(entries: Sequence[Entry], rewriting: Rewriting) -> list[Entry]:
    """Returns the options less what was unplugged, and with what was plugged in.

    What was plugged in comes last and names its bus. QEMU makes the devices given as JSON after all others, so that
    such a bus would not be there yet: these are written the other way then, in the same order.
    """
    request = rewriting.request
    if not (request.plugged or request.unplugged):
        return list(entries)
    found = [entry for entry in entries if not _is_unplugged(entry, rewriting)]
    found = _json_devices_last(found)
    for entry in found:
        _keep_in_place(entry, rewriting)
    return [*found, *_plugged(found, rewriting)]


def with_set_options(entries: Iterable[Entry]) -> list[Entry]:
    """Returns the options with each ``-set GROUP.ID.PROPERTY=VALUE`` put into the one it speaks of.

    QEMU applies it there at once, so that all that holds for that property holds for its value. One that speaks of
    nothing seen here (a drive made by ``-hda``) stays.
    """
    found: list[Entry] = []
    for entry in entries:
        target = _target(entry, found)
        if target is None:
            found.append(entry)
        else:
            target[0].properties.set(target[1], target[2])
    return found


def _target(entry: Entry, before: Sequence[Entry]) -> tuple[Entry, str, str] | None:
    if entry.name != "set" or entry.value is None:
        return None
    place, equals, value = entry.value.partition("=")
    parts = place.split(".", 2)
    if len(parts) != 3 or not equals:
        return None
    for candidate in reversed(before):
        if candidate.name == parts[0] and candidate.get("id") == parts[1]:
            return candidate, parts[2], value
    return None


def _is_unplugged(entry: Entry, rewriting: Rewriting) -> bool:
    identity = entry.get("id") if entry.name == "device" else None
    if identity is None or identity not in rewriting.request.unplugged:
        return False
    rewriting.changes.append(f"{entry.option.text}: dropped, since it was unplugged")
    return True


def _json_devices_last(entries: Sequence[Entry]) -> list[Entry]:
    """Rewrites the devices given as JSON up to the first with a list in it, which has no other form."""
    kept: list[Entry] = []
    rewritten: list[Entry] = []
    can_go_on = True
    for entry in entries:
        is_json = entry.name == "device" and (entry.value or "").startswith("{")
        flat = _flat(json.loads(entry.value or "")) if is_json and can_go_on else None
        can_go_on = can_go_on and not (is_json and flat is None)
        if flat is None:
            kept.append(entry)
        else:
            rewritten.append(Entry(Option("device", flat, entry.option.flag)))
    return kept + rewritten


def _flat(tree: dict[str, object]) -> str | None:
    if not isinstance(tree.get("driver"), str) or any(isinstance(value, (dict, list)) for value in tree.values()):
        return None
    parts = [escaped(str(tree["driver"]))]
    parts += [f"{key}={escaped(_text(key, value))}" for key, value in tree.items() if key != "driver"]
    return ",".join(parts)


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if key == "addr" and isinstance(value, int):
        return f"{value >> 3:x}.{value & 7}"  # as a number it is slot and function in one
    return str(value)


def _keep_in_place(entry: Entry, rewriting: Rewriting) -> None:
    """Names the place of a device that stayed: QEMU would give it the gap of one that was unplugged before it."""
    identity = entry.get("id") if entry.name == "device" else None
    if identity is None or (entry.value or "").startswith("{"):
        return
    for key, value in rewriting.request.addresses.get(identity, {}).items():
        if entry.get(key) is None:
            entry.properties.set(key, value)
            rewriting.changed(f"-device {identity} {key}", "by order", value)


def _plugged(entries: Sequence[Entry], rewriting: Rewriting) -> list[Entry]:
    """What was plugged in since the start, less the back ends that the line has anyhow, or that the user gives."""
    there = {name for entry in entries for name in _names(entry)} | _names_given(rewriting.request.extra)
    found = []
    for each in parse(rewriting.request.plugged):
        entry = Entry(each)
        if there & set(_names(entry)):
            continue
        if _UNREADABLE in each.text:
            rewriting.refuse(
                each.text,
                f"it was plugged in, and QEMU does not tell what stands for {_UNREADABLE}: give it whole with "
                "--dst-args, or use --dst-command",
            )
        rewriting.changes.append(f"{each.text}: added, since it was plugged in")
        found.append(entry)
    return found


def _names(entry: Entry) -> list[tuple[str, str]]:
    return [(entry.name, name) for key in ("node-name", "id") if (name := entry.get(key))]


def _names_given(extra: Sequence[str]) -> set[tuple[str, str]]:
    try:
        return {name for each in parse(extra) for name in _names(Entry(each))}
    except CommandLineError:
        return set()  # said where the line is made


def map_override(entry: Entry, rewriting: Rewriting) -> None:
    """Maps the full path that is the value of a ``-global``, in either of its forms, or of a ``-set`` that stayed."""
    text = entry.value or ""
    before, equals, value = text.partition("value=" if text.startswith("driver=") else "=")
    if value.startswith("/"):
        new = rewriting.mapped(value)
        rewriting.changed(f"-{entry.name} {before.rstrip(',')}", value, new)
        entry.replace(f"{before}{equals}{new}")
