"""The fake QEMU's migration: a guest that dirties memory, a link, rounds and QEMU 10's states and events.

Simplified: memory goes out in slots of 10 ms, and dirty memory grows at a rate up to a working set.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .fake_qemu import FakeQemu

PAGE_BYTES = 4096
SLOT_S = 0.01
TERMINAL = {"none", "completed", "failed", "cancelled"}

_listening: dict[str, "FakeMigration"] = {}


@dataclass
class FakeGuest:
    """The guest's memory and the link.

    Attributes:
        total_bytes: Its memory.
        dirty_bytes_s: How fast it dirties memory.
        working_set_bytes: How much of it at most.
        link_bytes_s: What the link can do.
        device_s: How long the device state takes while the guest stands still.
        black_hole: The link swallows everything: counters freeze.
        black_hole_at_stop: The same, from the moment the guest stops.
        reject: The destination refuses the device state.
        status_word: Shown instead of the true status by ``query-migrate``.
    """

    total_bytes: int = 64 << 20
    dirty_bytes_s: float = 20e6
    working_set_bytes: int = 8 << 20
    link_bytes_s: float = 400e6
    device_s: float = 0.005
    black_hole: bool = False
    black_hole_at_stop: bool = False
    reject: bool = False
    status_word: str | None = None


class FakeMigration:
    """One QEMU's migration, outgoing or incoming."""

    def __init__(self, qemu: "FakeQemu", guest: FakeGuest) -> None:
        self.guest = guest
        self.status = "none"
        self.peer: FakeMigration | None = None
        self._qemu = qemu
        self._uri: str | None = None
        self._exit_on_error = True
        self._error: str | None = None
        self._remaining_bytes = 0
        self._sent_bytes = 0
        self._throughput_bytes_s = 0.0
        self._sync_count = 0
        self._started_s = 0.0
        self._total_s: float | None = None
        self._downtime_s: float | None = None
        self._go_on = asyncio.Event()
        self._ran_before = False

    @property
    def running(self) -> bool:
        """Whether an outgoing migration runs, so that capabilities are fixed."""
        return self.status not in TERMINAL and self._uri is None

    @property
    def connected(self) -> bool:
        """Whether a channel is open or listened on, so that it can be yanked."""
        return self.status not in TERMINAL

    def end(self) -> None:
        """The process ends: the peer notices."""
        if self._uri is not None:
            _listening.pop(self._uri, None)
        peer, self.peer = self.peer, None
        if peer is not None and peer.status not in TERMINAL:
            peer.fail("Unable to write to socket: Broken pipe")

    def listen(self, uri: str, *, exit_on_error: bool) -> None:
        self._uri, self._exit_on_error = uri, exit_on_error
        _listening[uri] = self
        self._set_status("setup")

    def start_outgoing(self, uri: str) -> None:
        from .fake_qemu import Refused

        if self.running:
            raise Refused("There's a migration process in progress")
        self.status, self._error, self._total_s, self._downtime_s = "none", None, None, None
        self._started_s = time.monotonic()
        self._sent_bytes, self._sync_count, self._throughput_bytes_s = 0, 0, 0.0
        self._set_status("setup")
        self._qemu.spawn(self._run(_listening.get(uri)))

    def cancel(self) -> None:
        if self.running and self.status != "cancelling":
            self._set_status("cancelling")
            self._break_off("cancelled", None)

    def fail(self, error: str) -> None:
        if self.status not in TERMINAL:
            self._break_off("failed", error)

    def proceed(self, state: str) -> None:
        from .fake_qemu import Refused

        if self.status != state:
            raise Refused(f"Migration not in expected state: {self.status}")
        self._go_on.set()

    def reply(self) -> dict[str, Any]:
        reply: dict[str, Any] = {} if self.status == "none" else {"status": self.status}
        if self.guest.status_word is not None and self.running:
            reply["status"] = self.guest.status_word
        if self._error is not None:
            reply["error-desc"] = self._error
        if self._uri is not None or self.status in {"none", "setup", "failed", "cancelled"}:
            return reply
        total_s = self._total_s if self._total_s is not None else time.monotonic() - self._started_s
        reply |= {"total-time": int(total_s * 1e3), "setup-time": 1, "ram": self._ram()}
        if self._downtime_s is None:
            reply["expected-downtime"] = self._qemu.parameters["downtime-limit"]
        else:
            reply["downtime"] = int(self._downtime_s * 1e3)
        return reply

    def _ram(self) -> dict[str, Any]:
        pages = self._sent_bytes // PAGE_BYTES
        return {
            "total": self.guest.total_bytes,
            "remaining": int(self._remaining_bytes),
            "transferred": self._sent_bytes,
            "precopy-bytes": self._sent_bytes,
            "downtime-bytes": 0,
            "postcopy-bytes": 0,
            "multifd-bytes": 0,
            "normal": pages,
            "normal-bytes": pages * PAGE_BYTES,
            "duplicate": 0,
            "page-size": PAGE_BYTES,
            "dirty-sync-count": self._sync_count,
            "dirty-pages-rate": 0,
            "dirty-sync-missed-zero-copy": 0,
            "mbps": self._throughput_bytes_s * 8 / 1e6,
            "pages-per-second": int(self._throughput_bytes_s / PAGE_BYTES),
            "postcopy-requests": 0,
        }

    def _set_status(self, status: str) -> None:
        self.status = status
        if self._qemu.capabilities["events"]:
            self._qemu.emit("MIGRATION", {"status": status})

    def _sync(self) -> None:
        self._sync_count += 1
        if self._qemu.capabilities["events"]:
            self._qemu.emit("MIGRATION_PASS", {"pass": self._sync_count})

    def _break_off(self, status: str, error: str | None) -> None:
        peer, self.peer = self.peer, None
        self._error = error
        if self._uri is not None:
            self._set_status("failed")
            if self._exit_on_error:
                self._qemu.spawn(self._qemu.die())
        else:
            if self._ran_before and self._qemu.run_state == "finish-migrate":
                self._qemu.set_run_state("running")
            self._set_status(status)
        if peer is not None:
            peer.peer = None
            peer.fail("load of migration failed: Input/output error")

    async def _run(self, destination: "FakeMigration | None") -> None:
        await asyncio.sleep(0.002)
        if self.status != "setup":
            return
        if destination is None:
            self.fail("Failed to connect to migration socket: Connection refused")
            return
        self.peer, destination.peer = destination, self
        destination._set_status("active")
        self._sync()
        self._set_status("active")
        self._remaining_bytes = self.guest.total_bytes
        if await self._precopy() and self.status == "active":  # or a cancel came in the last slot
            await self._switch_over(destination)

    async def _precopy(self) -> bool:
        round_started_s = time.monotonic()
        while self.status == "active":
            before_s = time.monotonic()
            await asyncio.sleep(SLOT_S)
            if self.guest.black_hole:
                continue
            slot_s = time.monotonic() - before_s
            cap = self._qemu.parameters["max-bandwidth"]
            self._throughput_bytes_s = min(self.guest.link_bytes_s, cap if cap >= 10 else self.guest.link_bytes_s)
            sent = int(min(self._remaining_bytes, self._throughput_bytes_s * slot_s))
            self._sent_bytes += sent
            self._remaining_bytes -= sent
            threshold = self._threshold_bytes()
            if self._remaining_bytes > threshold:
                continue
            now_s = time.monotonic()
            dirtied = self.guest.dirty_bytes_s * (now_s - round_started_s)
            if self._qemu.run_state == "running":
                self._remaining_bytes += int(min(dirtied, self.guest.working_set_bytes))
            round_started_s = now_s
            self._sync()
            if self._remaining_bytes <= threshold:
                return True
        return False

    def _threshold_bytes(self) -> float:
        parameters = self._qemu.parameters
        bandwidth_bytes_s: float = parameters["avail-switchover-bandwidth"] or self._throughput_bytes_s
        return bandwidth_bytes_s * float(parameters["downtime-limit"]) / 1e3

    async def _switch_over(self, destination: "FakeMigration") -> None:
        stopped_s = time.monotonic()
        self._ran_before = self._qemu.run_state == "running"
        self._qemu.set_run_state("finish-migrate")
        if self._qemu.capabilities["pause-before-switchover"]:
            self._set_status("pre-switchover")
            await self._go_on.wait()
            if self.status != "pre-switchover":
                return
        self._set_status("device")
        self._sync()
        while self.guest.black_hole_at_stop:
            await asyncio.sleep(SLOT_S)
        await asyncio.sleep(self._remaining_bytes / self.guest.link_bytes_s + self.guest.device_s)
        if self.status != "device":
            return
        if self.guest.reject:
            destination.fail("load of migration failed: Invalid argument")
            return
        self._sent_bytes += self._remaining_bytes
        self._remaining_bytes = 0
        self._downtime_s = time.monotonic() - stopped_s
        self._total_s = time.monotonic() - self._started_s
        self.peer = destination.peer = None
        destination._arrive()
        self._qemu.run_state = "postmigrate"
        self._set_status("completed")

    def _arrive(self) -> None:
        if self._qemu.autostart:
            self._qemu.set_run_state("running")
        else:
            self._qemu.run_state = "paused"
        self._set_status("completed")
