"""Two QEMUs of two versions, and one guest that moves between them."""

from __future__ import annotations

from livemig.lab.heartbeat import Heartbeat
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.serial_lines import Beat
from livemig.lab.workload import Workload
from tests.engine.pair import MiB, Pair, migration_settings
from tests.versions.binaries import Version

LIGHT = Workload(working_set_bytes=4 * MiB, dirty_rate_bytes_s=4 * MiB, fill_bytes=16 * MiB)
MEMORY_BYTES = 64 * MiB


class VersionPair(Pair):
    """A source of one version and a destination of another."""

    _accelerator = ""
    _fault_count = 0

    async def start_on(
        self,
        source: Version,
        destination: Version,
        accelerator: str,
        *,
        workload: Workload = LIGHT,
        machine_type: str = "pc-i440fx-7.2",
    ) -> None:
        """Starts both; returns once the guest works and beats."""
        self._accelerator, self._fault_count, self.heartbeat = accelerator, 0, Heartbeat()
        self._settings = MachineSettings(
            workload=workload,
            memory_bytes=MEMORY_BYTES,
            binary=source.binary,
            accelerator=accelerator,
            machine_type=machine_type,
        )
        self.source = await self._machine(self._settings)
        await self.source.serial.wait_ready()
        await self.wait_on(destination)

    async def wait_on(self, version: Version) -> None:
        """Starts a new destination of that version, and notes both sides' settings."""
        self.destination = await self.waiting(binary=version.binary)
        self._before = {
            "source": await migration_settings(self.source),
            "destination": await migration_settings(self.destination),
        }

    async def swap_on(self, version: Version) -> None:
        """Makes the destination the source, and starts a new destination of that version."""
        self.source = self.destination
        await self.wait_on(version)

    async def assert_whole(self, side: str, *, lossy: bool = False) -> int:
        """Sees that the guest runs on one side alone, beats there and has all its memory.

        Returns:
            How many things are wrong that were right before, in pages or beats: 0 unless `lossy` lets that pass.
        """
        states = await self.run_states()
        other = "destination" if side == "source" else "source"
        assert states[side] == "running", states
        assert states[other] not in ("running", "suspended"), states
        machine: Machine = getattr(self, side)
        # Each byte of a page takes milliseconds where KVM emulates: there a sample of the bodies has to do.
        verdict = await machine.serial.ask_verdict(all_bodies=self._accelerator == "tcg")
        found, self._fault_count = verdict.fault_count - self._fault_count, verdict.fault_count
        assert lossy or found == 0, f"{found} pages wrong: {list(machine.serial.faults)[-3:]}"
        await machine.serial.next(Beat, timeout_s=5)
        assert lossy or self.heartbeat.problems == []
        return found + len(self.heartbeat.problems)
