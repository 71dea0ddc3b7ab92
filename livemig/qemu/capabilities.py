"""Sets a QEMU's migration capabilities, parameters and objects, and puts back everything that was changed."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from livemig.core.errors import CommandError
from livemig.qemu.introspection import query_capabilities, query_parameters
from livemig.qemu.migration_units import (
    to_avail_switchover_bandwidth,
    to_downtime_limit_ms,
    to_max_bandwidth,
)
from livemig.qemu.monitor import Monitor

_UNSET: Mapping[str, Any] = {
    "tls-creds": "",
    "tls-hostname": "",
    "tls-authz": "",
    "block-bitmap-mapping": [],
    "cpr-exec-command": [],
}
"""What means "unset" for the parameters that ``query-migrate-parameters`` leaves out while they are unset."""


class Changes(msgspec.Struct, kw_only=True):
    """What was changed in a QEMU: enough for any process to put it back.

    Attributes:
        capabilities: Each changed capability with its value before.
        parameters: Each changed parameter with its value before, in QEMU's units.
        object_ids: IDs of the objects added, in that order.
    """

    capabilities: dict[str, bool] = msgspec.field(default_factory=dict)
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    object_ids: list[str] = msgspec.field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.capabilities or self.parameters or self.object_ids)


class MigrationSettings:
    """One QEMU's migration settings while livemig uses it.

    What is changed is remembered before the command is sent, so that it is put back also if the answer never
    came.
    """

    def __init__(self, monitor: Monitor, changes: Changes | None = None) -> None:
        """Sends nothing.

        Args:
            monitor: The QEMU's monitor.
            changes: What a process that died had changed, to put it back.
        """
        self.changes = changes or Changes()
        """What `restore` will put back."""
        self._monitor = monitor
        self._parameters_before: dict[str, Any] | None = None

    async def set_capabilities(self, capabilities: Mapping[str, bool]) -> None:
        """Sets capabilities, those that have another value; refused by QEMU while a migration runs.

        Raises:
            CommandError: QEMU refused: an unknown one, a contradiction, or a migration that runs. None was
                changed.
            LivemigError: As `Monitor.execute`.
        """
        before = await query_capabilities(self._monitor)
        changed = {name: on for name, on in capabilities.items() if before.get(name) != on}
        if not changed:
            return
        remembered = dict(self.changes.capabilities)
        for name in changed:
            if name in before:
                self.changes.capabilities.setdefault(name, before[name])
        try:
            await self._send_capabilities(changed)
        except CommandError:
            self.changes.capabilities = remembered
            raise

    async def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Sets parameters, in QEMU's names and units, at any time; some have no effect while one runs.

        Raises:
            CommandError: QEMU refused one of them, and changed none.
            LivemigError: As `Monitor.execute`.
        """
        if self._parameters_before is None:
            self._parameters_before = await query_parameters(self._monitor)
        remembered = dict(self.changes.parameters)
        for name, value in parameters.items():
            before = self._parameters_before.get(name, _UNSET.get(name))
            if before != value:
                self.changes.parameters.setdefault(name, before)
        try:
            await self._monitor.execute("migrate-set-parameters", dict(parameters))
        except CommandError:
            self.changes.parameters = remembered
            raise

    async def set_downtime_limit(self, downtime_limit_s: float) -> None:
        """Sets ``downtime-limit`` from seconds, rounded down; effective within 105 ms.

        Raises:
            PlanError: Under 1 ms or over 2000 s.
            LivemigError: As `set_parameters`.
        """
        await self.set_parameters({"downtime-limit": to_downtime_limit_ms(downtime_limit_s)})

    async def set_bandwidth(self, bandwidth_bytes_s: float | None) -> None:
        """Sets ``max-bandwidth`` from bytes per second, None being unlimited; effective at once.

        Raises:
            PlanError: Under 10 B/s.
            LivemigError: As `set_parameters`.
        """
        await self.set_parameters({"max-bandwidth": to_max_bandwidth(bandwidth_bytes_s)})

    async def set_switchover_bandwidth(self, bandwidth_bytes_s: float | None) -> None:
        """Sets ``avail-switchover-bandwidth`` from bytes per second, None being QEMU's estimate; not in 7.2.

        Raises:
            PlanError: Under 1000 B/s.
            LivemigError: As `set_parameters`.
        """
        value = to_avail_switchover_bandwidth(bandwidth_bytes_s)
        await self.set_parameters({"avail-switchover-bandwidth": value})

    async def add_object(self, kind: str, identity: str, properties: Mapping[str, Any]) -> None:
        """Adds an object such as ``tls-creds-psk``; `restore` deletes it.

        Raises:
            CommandError: QEMU refused: the ID is taken, or a property is wrong.
            LivemigError: As `Monitor.execute`.
        """
        self.changes.object_ids.append(identity)
        try:
            await self._monitor.execute("object-add", {"qom-type": kind, "id": identity, **properties})
        except CommandError:
            self.changes.object_ids.remove(identity)
            raise

    async def restore(self) -> tuple[str, ...]:
        """Puts back everything that was changed, and forgets what was put back. Can be repeated.

        Not while a migration runs: QEMU then refuses to change capabilities.

        Returns:
            One line for each thing that could not be put back, with QEMU's words; they stay in `changes`.

        Raises:
            MonitorTimeout: No answer; nothing is known of the rest, which stays in `changes`.
            MonitorLost: As before; a QEMU that is gone needs nothing put back.
        """
        failures = await self._restore_parameters()
        failures += await self._restore_objects()
        failures += await self._restore_capabilities()
        return tuple(failures)

    async def _restore_parameters(self) -> list[str]:
        changed = self.changes.parameters
        if not changed:
            return []
        try:
            await self._monitor.execute("migrate-set-parameters", dict(changed))
        except CommandError:
            return await self._restore_each_parameter()
        changed.clear()
        return []

    async def _restore_each_parameter(self) -> list[str]:
        failures = []
        for name, value in tuple(self.changes.parameters.items()):
            try:
                await self._monitor.execute("migrate-set-parameters", {name: value})
            except CommandError as error:
                failures.append(f"parameter {name} was not put back to {value!r}: {error.description}")
            else:
                del self.changes.parameters[name]
        return failures

    async def _restore_objects(self) -> list[str]:
        failures = []
        for identity in reversed(tuple(self.changes.object_ids)):
            try:
                await self._monitor.execute("object-del", {"id": identity})
            except CommandError as error:
                if "not found" not in error.description:
                    failures.append(f"object {identity} was not deleted: {error.description}")
                    continue
            self.changes.object_ids.remove(identity)
        return failures

    async def _restore_capabilities(self) -> list[str]:
        changed = self.changes.capabilities
        if not changed:
            return []
        try:
            await self._send_capabilities(changed)
        except CommandError as error:
            return [f"capabilities {', '.join(changed)} were not put back: {error.description}"]
        changed.clear()
        return []

    async def _send_capabilities(self, capabilities: Mapping[str, bool]) -> None:
        states: Iterable[dict[str, Any]] = ({"capability": name, "state": on} for name, on in capabilities.items())
        await self._monitor.execute("migrate-set-capabilities", {"capabilities": list(states)})
