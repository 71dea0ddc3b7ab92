"""``--dst-set ID.PROPERTY=VALUE`` on the options of a command line. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from livemig.core.errors import PlanError
from livemig.qemu.command_line.request import Setting
from livemig.qemu.command_line.rewriting import Entry

_WITH_ID = frozenset(
    {"device", "netdev", "nic", "drive", "blockdev", "chardev", "object", "audiodev", "fsdev", "tpmdev"}
)
_MACHINE = frozenset({"machine", "M"})


def apply_settings(settings: Sequence[Setting], entries: Sequence[Entry]) -> list[str]:
    """Applies all settings and returns what was changed, for a person.

    Raises:
        PlanError: When nothing has that id (the nearest one is suggested), or its JSON no place for the property.
    """
    changes = []
    for setting in settings:
        entry, key = _found(setting, entries)
        changes.append(f"--dst-set {setting.target}: {entry.properties.get(key)} -> {setting.value}")
        try:
            entry.decide(key, setting.value)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise PlanError(f"--dst-set {setting.target}: there is no place for it in {entry.option.text}") from error
    return changes


def _found(setting: Setting, entries: Sequence[Entry]) -> tuple[Entry, str]:
    """The longest id that the target begins with: an id may hold dots itself."""
    candidates = {identity: entry for entry in entries for identity in _identities(entry)}
    fitting = [identity for identity in candidates if setting.target.startswith(f"{identity}.")]
    if fitting:
        identity = max(fitting, key=len)
        return candidates[identity], setting.target[len(identity) + 1 :]
    wanted = setting.target.partition(".")[0]
    near = difflib.get_close_matches(wanted, candidates, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(candidates)) or 'no ids'}"
    raise PlanError(f"--dst-set {setting.target}: nothing in the source's command line has the id {wanted!r}; {hint}")


def _identities(entry: Entry) -> list[str]:
    if entry.name in _MACHINE:
        return ["machine"]
    if entry.name not in _WITH_ID:
        return []
    return [found for key in ("id", "node-name") if (found := entry.get(key))]
