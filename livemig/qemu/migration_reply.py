"""``query-migrate``'s reply in QEMU's names and units, and the one place where it becomes an `Observation`.

Asks nothing itself. Fields that a newer QEMU adds are passed over; a known field of the wrong kind is a
`ReplyError`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from livemig.core.errors import ReplyError
from livemig.core.observation import CompressionThreads, Observation, SocketAddress, XbzrleCache
from livemig.core.status import MigrationStatus

MILLISECOND_S = 1e-3
MICROSECOND_S = 1e-6
NANOSECOND_S = 1e-9
MEGABIT_BYTES = 1e6 / 8
"""QEMU's ``mbps`` counts 10^6 bits."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Number = Annotated[float, msgspec.Meta(ge=0, le=1e300)]


class RamReply(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """QEMU's ``MigrationStats``."""

    transferred: _Count | None = None
    remaining: _Count | None = None
    total: _Count | None = None
    duplicate: _Count | None = None
    skipped: _Count | None = None
    normal: _Count | None = None
    normal_bytes: _Count | None = None
    dirty_pages_rate: _Count | None = None
    mbps: _Number | None = None
    dirty_sync_count: _Count | None = None
    postcopy_requests: _Count | None = None
    page_size: _Count | None = None
    multifd_bytes: _Count | None = None
    pages_per_second: _Count | None = None
    precopy_bytes: _Count | None = None
    downtime_bytes: _Count | None = None
    postcopy_bytes: _Count | None = None
    dirty_sync_missed_zero_copy: _Count | None = None


class XbzrleReply(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """QEMU's ``XBZRLECacheStats``."""

    cache_size: _Count
    encoded_bytes: _Count = msgspec.field(name="bytes")
    pages: _Count
    cache_miss: _Count
    cache_miss_rate: _Number
    encoding_rate: _Number | None = None
    overflow: _Count


class CompressionReply(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """QEMU's ``CompressionStats``; gone in 9.1."""

    pages: _Count
    busy: _Count
    busy_rate: _Number
    compressed_size: _Count
    compression_rate: _Number


class VfioReply(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """QEMU's ``VfioStats``."""

    transferred: _Count


class SocketAddressReply(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """QEMU's ``SocketAddress``, all branches in one."""

    type: str
    host: str | None = None
    port: str | None = None
    path: str | None = None
    cid: str | None = None
    descriptor: str | None = msgspec.field(default=None, name="str")


class MigrationReply(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """QEMU's ``MigrationInfo`` of 7.2, 10.0 and 11.1 in one."""

    status: str | None = None
    ram: RamReply = RamReply()
    disk: RamReply = RamReply()
    vfio: VfioReply | None = None
    xbzrle_cache: XbzrleReply | None = None
    compression: CompressionReply | None = None
    remaining: _Count | None = None
    total_time: _Count | None = None
    expected_downtime: _Count | None = None
    downtime: _Count | None = None
    setup_time: _Count | None = None
    cpu_throttle_percentage: _Count | None = None
    error_desc: str | None = None
    blocked_reasons: tuple[str, ...] = ()
    postcopy_blocktime: _Count | None = None
    postcopy_vcpu_blocktime: tuple[_Count, ...] | None = None
    postcopy_latency: _Count | None = None
    postcopy_latency_dist: tuple[_Count, ...] | None = None
    postcopy_vcpu_latency: tuple[_Count, ...] | None = None
    postcopy_non_vcpu_latency: _Count | None = None
    socket_address: tuple[SocketAddressReply, ...] = ()
    dirty_limit_throttle_time_per_round: _Count | None = None
    dirty_limit_ring_full_time: _Count | None = None


def to_observation(reply: Any, time_s: float) -> Observation:
    """Turns the decoded JSON of a ``query-migrate`` reply into an `Observation` in SI units.

    Args:
        reply: What QEMU returned.
        time_s: When it arrived, in seconds on the engine's monotonic clock.

    Raises:
        ReplyError: When a known field is not what QEMU's schema says. Nothing follows for the migration
            itself.
    """
    try:
        return _convert(msgspec.convert(reply, MigrationReply), time_s)
    except msgspec.ValidationError as error:
        raise ReplyError(f"query-migrate's reply makes no sense: {error}", command="query-migrate") from error


def _convert(reply: MigrationReply, time_s: float) -> Observation:
    ram = reply.ram
    return Observation(
        time_s=time_s,
        status=MigrationStatus.NONE if reply.status is None else MigrationStatus(reply.status),
        status_text=reply.status or "",
        total_s=_scaled(reply.total_time, MILLISECOND_S),
        setup_s=_scaled(reply.setup_time, MILLISECOND_S),
        downtime_s=_scaled(reply.downtime, MILLISECOND_S),
        expected_downtime_s=_scaled(reply.expected_downtime, MILLISECOND_S),
        error_text=reply.error_desc,
        blocked_reasons=reply.blocked_reasons,
        total_bytes=ram.total,
        remaining_bytes=ram.remaining,
        pending_bytes=reply.remaining,
        sent_bytes=ram.transferred,
        precopy_bytes=ram.precopy_bytes,
        downtime_bytes=ram.downtime_bytes,
        postcopy_bytes=ram.postcopy_bytes,
        multifd_bytes=ram.multifd_bytes,
        zero_pages=ram.duplicate,
        normal_pages=ram.normal,
        normal_bytes=ram.normal_bytes,
        skipped_pages=ram.skipped,
        page_size_bytes=ram.page_size,
        dirty_sync_count=ram.dirty_sync_count,
        dirty_rate_pages_s=ram.dirty_pages_rate,
        throughput_bytes_s=_scaled(ram.mbps, MEGABIT_BYTES),
        pages_s=ram.pages_per_second,
        postcopy_request_count=ram.postcopy_requests,
        missed_zero_copy_count=ram.dirty_sync_missed_zero_copy,
        throttle_percent=reply.cpu_throttle_percentage,
        dirty_limit_throttle_s=_scaled(reply.dirty_limit_throttle_time_per_round, MICROSECOND_S),
        dirty_limit_ring_full_s=_scaled(reply.dirty_limit_ring_full_time, MICROSECOND_S),
        xbzrle=None if reply.xbzrle_cache is None else _xbzrle(reply.xbzrle_cache),
        compression=None if reply.compression is None else _compression(reply.compression),
        vfio_bytes=None if reply.vfio is None else reply.vfio.transferred,
        disk_total_bytes=reply.disk.total,
        disk_remaining_bytes=reply.disk.remaining,
        disk_sent_bytes=reply.disk.transferred,
        postcopy_blocktime_s=_scaled(reply.postcopy_blocktime, MILLISECOND_S),
        postcopy_vcpu_blocktimes_s=_all_scaled(reply.postcopy_vcpu_blocktime, MILLISECOND_S),
        postcopy_latency_s=_scaled(reply.postcopy_latency, NANOSECOND_S),
        postcopy_latency_counts=reply.postcopy_latency_dist,
        postcopy_vcpu_latencies_s=_all_scaled(reply.postcopy_vcpu_latency, NANOSECOND_S),
        postcopy_non_vcpu_latency_s=_scaled(reply.postcopy_non_vcpu_latency, NANOSECOND_S),
        socket_addresses=tuple(_socket_address(address) for address in reply.socket_address),
    )


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _all_scaled(values: Sequence[float] | None, unit: float) -> tuple[float, ...] | None:
    return None if values is None else tuple(value * unit for value in values)


def _xbzrle(reply: XbzrleReply) -> XbzrleCache:
    return XbzrleCache(
        cache_size_bytes=reply.cache_size,
        sent_bytes=reply.encoded_bytes,
        page_count=reply.pages,
        miss_count=reply.cache_miss,
        miss_ratio=reply.cache_miss_rate,
        encoding_ratio=reply.encoding_rate,
        overflow_count=reply.overflow,
    )


def _compression(reply: CompressionReply) -> CompressionThreads:
    return CompressionThreads(
        page_count=reply.pages,
        busy_count=reply.busy,
        busy_ratio=reply.busy_rate,
        compressed_bytes=reply.compressed_size,
        compression_ratio=reply.compression_rate,
    )


def _socket_address(reply: SocketAddressReply) -> SocketAddress:
    port = reply.port or ""
    return SocketAddress(
        kind=reply.type,
        host=reply.host,
        port=int(port) if port.isascii() and port.isdigit() and len(port) <= 10 else None,
        path=reply.path,
        cid=reply.cid,
        descriptor=reply.descriptor,
    )
