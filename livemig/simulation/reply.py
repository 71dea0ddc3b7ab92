"""What a simulated source answers to ``query-migrate``, as `livemig.qemu.migration_reply` would give it."""

from __future__ import annotations

from typing import Any

from livemig.core.observation import Observation
from livemig.core.status import MigrationStatus
from livemig.simulation.source_qemu import SourceQemu
from livemig.simulation.workloads import PAGE_BYTES

_BARE = (MigrationStatus.NONE, MigrationStatus.SETUP, MigrationStatus.CANCELLED)


def observe(source: SourceQemu, time_s: float) -> Observation:
    """Returns the reply that arrives at a time, in seconds since ``migrate``."""
    status = source.status
    if status is MigrationStatus.FAILING and not source.rules.says_failing:
        status = MigrationStatus.FAILED
    bare: dict[str, Any] = {"time_s": time_s, "status": status, "status_text": status.value}
    if status in _BARE:
        return Observation(**bare)
    if status is MigrationStatus.FAILED:
        return Observation(**bare, error_text="Unable to write to socket: Broken pipe")
    return Observation(**bare, **_times(source), **_counters(source), **_of_version(source))


def _times(source: SourceQemu) -> dict[str, Any]:
    completed = source.status is MigrationStatus.COMPLETED
    total_ms = source.total_ms if completed else source.clock_ms - source.started_ms
    times: dict[str, Any] = {"total_s": total_ms / 1000, "setup_s": source.setup_ms / 1000}
    if completed:
        times["downtime_s"] = source.downtime_ms / 1000
    else:
        times["expected_downtime_s"] = int(source.expected_downtime_ms) / 1000
    return times


def _counters(source: SourceQemu) -> dict[str, Any]:
    scan = source.scan
    return {
        "total_bytes": source.memory.page_count * source.page_bytes,
        "remaining_bytes": scan.remaining_bytes,
        "sent_bytes": source.sent_bytes,
        "zero_pages": scan.zero_pages,
        "normal_pages": scan.normal_pages,
        "normal_bytes": scan.normal_pages * PAGE_BYTES,
        "page_size_bytes": PAGE_BYTES,
        "dirty_sync_count": source.sync_count,
        "dirty_rate_pages_s": source.dirty_rate_pages_s,
        "throughput_bytes_s": source.slot_bytes_s,
        "pages_s": int(source.slot_pages_s),
        "postcopy_request_count": 0,
        "multifd_bytes": 0,
    }


def _of_version(source: SourceQemu) -> dict[str, Any]:
    rules = source.rules
    stopped_bytes = source.sent_bytes - source.stopped_at_bytes if source.stopped_at_bytes else 0
    fields: dict[str, Any] = {
        "precopy_bytes": source.sent_bytes - stopped_bytes,
        "downtime_bytes": stopped_bytes,
        "postcopy_bytes": 0,
        "missed_zero_copy_count": 0,
    }
    if not rules.takes_bandwidth:
        fields["skipped_pages"] = 0
    if rules.tells_pending:
        fields["pending_bytes"] = source.pending_bytes
    return fields
