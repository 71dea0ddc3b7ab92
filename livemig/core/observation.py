"""One ``query-migrate`` reply and its time, in SI units. Pure data: `livemig.qemu.migration_reply` makes it.

Every field that QEMU 7.2, 10.0 and 11.1 know is here; a field is None when QEMU gave none. Which fields come
depends on the status: ``setup`` and ``cancelled`` have the status alone, ``failed`` adds the error, the
others have all.
"""

import msgspec

from livemig.core.status import MigrationStatus


class XbzrleCache(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Delta compression's cache; present while the capability ``xbzrle`` is on.

    Attributes:
        cache_size_bytes: Size of the cache.
        sent_bytes: What the encoded pages took on the wire.
        page_count: Pages sent encoded. A page changed by a few bytes counts as one, so rates derived from it
            are huge.
        miss_count: Pages not found in the cache, sent whole.
        miss_ratio: Misses over pages in the last sync period longer than 1 s, not over all.
        encoding_ratio: Size before over size after encoding, in that same period. 2^64 when nothing was left
            to send.
        overflow_count: Pages whose delta was larger than the page, sent whole.
    """

    cache_size_bytes: int
    sent_bytes: int
    page_count: int
    miss_count: int
    miss_ratio: float
    encoding_ratio: float | None = None
    overflow_count: int


class CompressionThreads(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The old ``compress`` capability; 7.2 only.

    Attributes:
        page_count: Pages compressed and sent.
        busy_count: How often no thread was free.
        busy_ratio: That, per page, in the last sync period.
        compressed_bytes: Size after compression.
        compression_ratio: Size before over size after.
    """

    page_count: int
    busy_count: int
    busy_ratio: float
    compressed_bytes: int
    compression_ratio: float


class SocketAddress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a destination listens, as QEMU bound it; only given for ``tcp:``.

    Attributes:
        kind: ``inet``, ``unix``, ``vsock`` or ``fd``.
        host: Host of ``inet``.
        port: Port of ``inet`` or ``vsock``: the one that QEMU got when asked for port 0.
        path: Path of ``unix``.
        cid: Context ID of ``vsock``.
        descriptor: Name or number of ``fd``.
    """

    kind: str
    host: str | None = None
    port: int | None = None
    path: str | None = None
    cid: str | None = None
    descriptor: str | None = None


class Observation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What QEMU said of its migration at one moment.

    Attributes:
        time_s: When the reply arrived, on the engine's monotonic clock.
        status: QEMU's status; ``NONE`` when it gave none, ``UNKNOWN`` when this livemig does not know it:
            keep observing.
        status_text: QEMU's own word for the status, also of an unknown one; empty when it gave none.
        total_s: Time since the migration started, or its whole time once it ended. 0 in 7.2 right after
            ``completed``: the state is set before the times, so ask again.
        setup_s: From the start of QEMU's migration thread to its first iteration.
        downtime_s: From just before the source stops to the source's completion, as QEMU measures it. Waiting
            in ``pre-switchover`` is included; time stopped by anybody else is not. Of post-copy only the stop
            itself. 0 in 7.2 right after ``completed``.
        expected_downtime_s: QEMU's guess. Equals ``downtime-limit`` until first computed, for two syncs on
            7.2 and 10.0.
        error_text: QEMU's words for a failure; often only "Broken pipe": the reason is in the destination's
            stderr. 7.2 has it on the source alone, and may have none at all.
        blocked_reasons: Why QEMU would refuse ``migrate``, in any status.

        total_bytes: Migratable memory, with video memory and ROMs.
        remaining_bytes: Dirty pages in the migration bitmap at this moment. Without what the guest dirtied
            since the last sync, so a saw-tooth: decide at the boundary of a round. 0 after completion.
        pending_bytes: Memory and devices at QEMU's own last look, up to a slot (100 ms) old; 11.1 only.
        sent_bytes: Everything sent. 7.2: memory alone, and counted before compression with multifd; 10.0 and
            later: on the wire, with headers and device state.
        precopy_bytes: Sent while the guest ran, without multifd's.
        downtime_bytes: Sent while the guest stood still, without multifd's: 0 with multifd.
        postcopy_bytes: Sent in post-copy, without multifd's.
        multifd_bytes: Sent by multifd, in none of the three above; before compression in 7.2.
        zero_pages: Pages found to be zero (QEMU's ``duplicate``).
        normal_pages: Pages sent whole.
        normal_bytes: That times the page size: before compression.
        skipped_pages: 7.2 only, always 0.
        page_size_bytes: Size of a page in all the counts of pages.
        dirty_sync_count: Bitmap syncs so far, 1 after setup. Ends a round, with exceptions: 11.1 leaves out
            the last sync and, with ``postcopy-ram`` on, syncs each 100 ms; auto-converge of 9.2 and later
            adds one each 5 s.
        dirty_rate_pages_s: Pages that were clean and became dirty, by second. **Not** the guest's dirty rate:
            a page not yet resent counts once, so it is bounded by the rate of sending. 0 until the first sync
            more than 1 s after the previous, and old in between.
        throughput_bytes_s: Over the last slot of 100 ms or more, so under a rate limit it reads the limit;
            after completion the average.
        pages_s: Pages sent in the last slot, by second, zero pages included.
        postcopy_request_count: Pages that the destination asked for.
        missed_zero_copy_count: Syncs at which zero-copy had copied after all, summed over the channels.

        throttle_percent: How much of the guest's CPU time auto-converge takes; None unless it does.
        dirty_limit_throttle_s: Longest throttling of a vCPU in a round of the dirty ring; ``dirty-limit``
            only.
        dirty_limit_ring_full_s: Mean time to fill the dirty ring, 0 for a guest that dirties nothing;
            ``dirty-limit`` only.
        xbzrle: Statistics of the delta cache.
        compression: Statistics of 7.2's ``compress``.
        vfio_bytes: Sent for VFIO devices.
        disk_total_bytes: 7.2's block migration, which livemig never uses; so are the next two.
        disk_remaining_bytes: What it has left.
        disk_sent_bytes: What it has sent.

        postcopy_blocktime_s: On the destination: time in which all vCPUs waited for pages.
        postcopy_vcpu_blocktimes_s: The same for each vCPU.
        postcopy_latency_s: Mean time until a page fault was answered; 11.1, not stable in QEMU.
        postcopy_latency_counts: Faults answered within [2^n, 2^(n+1)) microseconds, for n from 0; 11.1.
        postcopy_vcpu_latencies_s: Mean by vCPU; 11.1.
        postcopy_non_vcpu_latency_s: Mean over the faults of other threads; 11.1.
        socket_addresses: Where a destination listens.
    """

    time_s: float
    status: MigrationStatus
    status_text: str = ""
    total_s: float | None = None
    setup_s: float | None = None
    downtime_s: float | None = None
    expected_downtime_s: float | None = None
    error_text: str | None = None
    blocked_reasons: tuple[str, ...] = ()

    total_bytes: int | None = None
    remaining_bytes: int | None = None
    pending_bytes: int | None = None
    sent_bytes: int | None = None
    precopy_bytes: int | None = None
    downtime_bytes: int | None = None
    postcopy_bytes: int | None = None
    multifd_bytes: int | None = None
    zero_pages: int | None = None
    normal_pages: int | None = None
    normal_bytes: int | None = None
    skipped_pages: int | None = None
    page_size_bytes: int | None = None
    dirty_sync_count: int | None = None
    dirty_rate_pages_s: int | None = None
    throughput_bytes_s: float | None = None
    pages_s: int | None = None
    postcopy_request_count: int | None = None
    missed_zero_copy_count: int | None = None

    throttle_percent: int | None = None
    dirty_limit_throttle_s: float | None = None
    dirty_limit_ring_full_s: float | None = None
    xbzrle: XbzrleCache | None = None
    compression: CompressionThreads | None = None
    vfio_bytes: int | None = None
    disk_total_bytes: int | None = None
    disk_remaining_bytes: int | None = None
    disk_sent_bytes: int | None = None

    postcopy_blocktime_s: float | None = None
    postcopy_vcpu_blocktimes_s: tuple[float, ...] | None = None
    postcopy_latency_s: float | None = None
    postcopy_latency_counts: tuple[int, ...] | None = None
    postcopy_vcpu_latencies_s: tuple[float, ...] | None = None
    postcopy_non_vcpu_latency_s: float | None = None
    socket_addresses: tuple[SocketAddress, ...] = ()
