"""Gathers what is known of a guest and its link before ``migrate``, and keeps what a run taught for the next.

Computes no forecast: `livemig.core.forecaster` does, from what is gathered here. Whatever can't be read is left out,
with a word about it: a forecast is never worth a refused migration.
"""

from __future__ import annotations

import asyncio
import hashlib
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from livemig.core.errors import HostError, LivemigError
from livemig.core.fixed_part import FixedPart, fixed_part
from livemig.core.foreknowledge import Foreknowledge
from livemig.core.outcome import Outcome
from livemig.core.past import PastMigration
from livemig.core.plan import Plan
from livemig.core.report import Report
from livemig.core.settings import guard_bytes_s
from livemig.core.status import RunState
from livemig.engine.history import History, guest_key, hosts_key, state_folder
from livemig.engine.sampling import Sampling, sample_guest
from livemig.engine.side import Side
from livemig.hosts.host import Host
from livemig.hosts.page_map import SEGMENT_COUNT

SWITCHOVER_LEAST_BYTES = 2 * 2**20
"""With less to send, what it was sent with drowns in the fixed part."""
FIXED_PART_S = 0.004
"""Of such a downtime, taken off to tell the link from it: the median of ``python -m bench switchover``, idle guests."""
SMALL_BYTES = 2**20
"""So little is sent in no time, whether it was sent before or not."""
GUARDED_S = 0.2
"""So long next to nothing is sent: see `livemig.core.policy`."""
FIRST_COPY_LEAST_S = 0.4
SAMPLES_KEPT = 24
"""Of a run's samples: the last rounds say least, and each is some hundred bytes."""


class Foresight:
    """What is known before a run, and what is kept after it.

    Attributes:
        known: What was gathered.
        notes: What could not be, and why.
        sampled_s: How long the guest was sampled.
    """

    def __init__(self, plan: Plan, source: Side, destination: Side | None, seed: int) -> None:
        """Reads nothing yet."""
        self.known = Foreknowledge(seed=seed)
        self.notes: tuple[str, ...] = ()
        self.sampled_s = 0.0
        self._plan, self._source, self._destination = plan, source, destination
        self._history = History(state_folder())
        self._given: Sampling | None = None
        self._sampled_at_s: float | None = None
        self._guest = self._hosts = ""

    async def remember(self) -> None:
        """Reads the history and how much of the guest's memory was ever touched; asks QEMU for its names alone."""
        source, there = self._source, self._destination or self._source
        uuid = await self._ask("query-uuid", "UUID")
        self._guest = guest_key(uuid, source.facts.guest_name, source.facts.memory_bytes)
        self._hosts = hosts_key(
            _host_name(source.host), source.facts.version, _host_name(there.host), there.facts.version
        )
        past, notes = await asyncio.to_thread(self._history.matching, self._guest, self._hosts)
        touched = await self._touched_shares()
        self.notes += notes
        self.known = Foreknowledge(
            guest=self._guest,
            hosts=self._hosts,
            touched_shares=touched,
            past=past,
            same_host=source.process is not None and source.host.identity.is_same_host(there.host.identity),
            seed=self.known.seed,
        )

    def fixed_part(self, plan: Plan) -> FixedPart:
        """Returns what of the limit is kept for the fixed part of the downtime, once the history was read."""
        return fixed_part(plan, self.known.past, self.known.hosts)

    def use(self, sampling: Sampling) -> None:
        """Takes what the guest was sampled before: `sample` then asks QEMU nothing."""
        self._given = sampling

    async def sample(self, tell: Callable[[float, float], None] | None = None) -> None:
        """Samples the running guest for as long as the plan says.

        Raises:
            MonitorLost: When the source's monitor ends.
        """
        if self._source.facts.run_state is not RunState.RUNNING:
            return
        found = self._given
        if found is None:
            found = await sample_guest(
                self._source.monitor,
                total_s=self._plan.sample_s,
                memory_bytes=self._source.facts.memory_bytes,
                touched_bytes=self._touched_bytes(),
                tell=tell,
            )
            self._sampled_at_s = time.monotonic()
        self.notes += found.notes
        self.sampled_s = found.duration_s
        self.known = msgspec.structs.replace(self.known, samples=found.samples)

    def known_now(self) -> Foreknowledge:
        """Returns what was gathered, for a migration that begins now."""
        if self._sampled_at_s is None:
            return self.known
        return msgspec.structs.replace(self.known, sampled_before_s=time.monotonic() - self._sampled_at_s)

    async def keep(
        self, report: Report, *, switchover_sent_bytes: int | None, throughput_bytes_s: float | None
    ) -> tuple[str, ...]:
        """Adds what a run taught to the history; returns what was not said before and speaks against that."""
        if not report.rounds and report.outcome is not Outcome.COMPLETED:
            return ()
        record = self._record(report, switchover_sent_bytes, throughput_bytes_s)
        notes = await asyncio.to_thread(self._history.append, record)
        return tuple(note for note in notes if note not in self.notes)

    def _record(
        self, report: Report, switchover_sent_bytes: int | None, throughput_bytes_s: float | None
    ) -> PastMigration:
        downtime = report.downtime
        switchover_bytes_s = None
        if (
            downtime is not None
            and switchover_sent_bytes is not None
            and switchover_sent_bytes > SWITCHOVER_LEAST_BYTES
        ):
            switchover_bytes_s = switchover_sent_bytes / max(downtime.total_s - FIXED_PART_S, 1e-3)
        completed = report.outcome is Outcome.COMPLETED
        return PastMigration(
            guest=self._guest,
            hosts=self._hosts,
            ended_at=datetime.now(UTC).isoformat(timespec="seconds"),
            completed=completed,
            memory_bytes=self._source.facts.memory_bytes,
            touched_shares=self.known.touched_shares,
            bandwidth_bytes_s=report.plan.bandwidth_bytes_s,
            downtime_limit_s=report.plan.downtime_limit_s,
            samples=report.samples[:SAMPLES_KEPT],
            throughput_bytes_s=throughput_bytes_s if report.plan.bandwidth_bytes_s is None else None,
            switchover_bytes_s=switchover_bytes_s if report.rounds else None,
            rest_bytes=switchover_sent_bytes if report.rounds or (switchover_sent_bytes or 0) < SMALL_BYTES else None,
            fresh_bytes_s=_fresh_bytes_s(report, self._source.facts.memory_bytes),
            fixed_downtime_s=report.fixed_downtime_found_s,
            total_s=report.total_s if completed else None,
            downtime_s=None if downtime is None else downtime.total_s,
            sent_bytes=report.sent_bytes,
            forecasts=report.forecasts,
        )

    async def _ask(self, command: str, field: str) -> str:
        try:
            return str((await self._source.monitor.execute(command)).get(field, ""))
        except LivemigError:
            return ""

    def _touched_bytes(self) -> int | None:
        shares = self.known.touched_shares
        return round(sum(shares) / SEGMENT_COUNT * self._source.facts.memory_bytes) if shares else None

    async def _touched_shares(self) -> tuple[float, ...]:
        process = self._source.process
        if process is None:
            return ()
        try:
            return await self._source.host.touched_shares(process.pid, self._source.facts.memory_bytes)
        except HostError:
            return ()  # whatever needs the host next says so


def _fresh_bytes_s(report: Report, memory_bytes: int) -> float | None:
    """What the first copy went with, once the guard of its first slot was gone; None when it was too short to tell."""
    if not report.rounds or report.rounds[0].number != 1:
        return None
    first = report.rounds[0]
    going_s = first.start_s + first.duration_s - (GUARDED_S if guard_bytes_s(memory_bytes) is not None else 0.0)
    return first.sent_bytes / going_s if going_s > FIRST_COPY_LEAST_S else None


def _host_name(host: Host) -> str:
    """A name that outlives a change of this host's own; hashed, since a machine id is nobody else's to know."""
    if not host.is_local:
        return host.name
    try:
        identity = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        identity = b""
    return hashlib.sha256(identity or platform.node().encode()).hexdigest()[:12]
