"""What this QEMU can do, asked of itself and never derived from its version. Changes nothing."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from livemig.core.errors import ReplyError
from livemig.qemu.monitor import Monitor

_Decoded = TypeVar("_Decoded")
_ArgumentsByCommand = Mapping[str, frozenset[str]]

_arguments_by_binary: dict[str, _ArgumentsByCommand] = {}
"""Schemas read in this process: reading one takes 50 to 100 ms, and a binary's never changes."""


class _Capability(msgspec.Struct, frozen=True):
    capability: str
    state: bool


class _Named(msgspec.Struct, frozen=True):
    name: str


class _SchemaEntry(msgspec.Struct, frozen=True, rename="kebab"):
    name: str
    meta_type: str
    arg_type: str | None = None
    members: tuple[Any, ...] = ()


class Introspection:
    """Answers what the QEMU behind a monitor can do; asks each thing once."""

    def __init__(self, monitor: Monitor, *, binary: str | None = None) -> None:
        """Asks nothing yet.

        Args:
            monitor: The QEMU's monitor.
            binary: Identity of the QEMU's executable on its host (device, inode, change time), under which
                its schema is remembered in this process; None remembers it in this object alone.
        """
        self._monitor = monitor
        self._binary = binary
        self._capabilities: Mapping[str, bool] | None = None
        self._parameters: Mapping[str, Any] | None = None
        self._commands: frozenset[str] | None = None
        self._arguments: _ArgumentsByCommand | None = None

    async def has_capability(self, name: str) -> bool:
        """Whether ``migrate-set-capabilities`` knows this capability.

        Raises:
            LivemigError: As `Monitor.execute`.
        """
        if self._capabilities is None:
            self._capabilities = await query_capabilities(self._monitor)
        return name in self._capabilities

    async def has_parameter(self, name: str) -> bool:
        """Whether ``migrate-set-parameters`` knows it; ``block-bitmap-mapping`` is hidden while unset.

        Raises:
            LivemigError: As `Monitor.execute`.
        """
        if self._parameters is None:
            self._parameters = await query_parameters(self._monitor)
        return name in self._parameters

    async def has_command(self, name: str) -> bool:
        """Whether this QEMU has this QMP command.

        Raises:
            LivemigError: As `Monitor.execute`.
        """
        if self._commands is None:
            reply = await self._monitor.execute("query-commands")
            commands = _decode(reply, tuple[_Named, ...], "query-commands")
            self._commands = frozenset(command.name for command in commands)
        return name in self._commands

    async def has_argument(self, command: str, argument: str) -> bool:
        """Whether a command has an argument, such as ``exit-on-error`` of ``migrate-incoming``.

        Reads the whole schema, 50 to 100 ms, unless this binary's is known: ask only where it matters.

        Raises:
            LivemigError: As `Monitor.execute`.
        """
        if self._arguments is None and self._binary is not None:
            self._arguments = _arguments_by_binary.get(self._binary)
        if self._arguments is None:
            self._arguments = await _query_arguments(self._monitor)
            if self._binary is not None:
                _arguments_by_binary[self._binary] = self._arguments
        return argument in self._arguments.get(command, frozenset())


async def query_capabilities(monitor: Monitor) -> dict[str, bool]:
    """Asks for all migration capabilities and whether each is on.

    Raises:
        LivemigError: As `Monitor.execute`.
    """
    command = "query-migrate-capabilities"
    capabilities = _decode(await monitor.execute(command), tuple[_Capability, ...], command)
    return {capability.capability: capability.state for capability in capabilities}


async def query_parameters(monitor: Monitor) -> dict[str, Any]:
    """Asks for all migration parameters, in QEMU's names and units.

    An unset string such as ``tls-creds`` reads "".

    Raises:
        LivemigError: As `Monitor.execute`.
    """
    command = "query-migrate-parameters"
    return _decode(await monitor.execute(command), dict[str, Any], command)


async def _query_arguments(monitor: Monitor) -> _ArgumentsByCommand:
    entries = _decode(await monitor.execute("query-qmp-schema"), tuple[_SchemaEntry, ...], "query-qmp-schema")
    by_name = {entry.name: entry for entry in entries}
    arguments = {}
    for entry in entries:
        if entry.meta_type == "command" and entry.arg_type in by_name:
            members = by_name[entry.arg_type].members
            arguments[entry.name] = frozenset(
                member["name"] for member in members if isinstance(member, dict) and "name" in member
            )
    return arguments


def _decode(reply: Any, kind: type[_Decoded], command: str) -> _Decoded:
    try:
        return msgspec.convert(reply, kind)
    except msgspec.ValidationError as error:
        raise ReplyError(f"{command}'s reply makes no sense: {error}", command=command) from error
