"""Recorded replies of three QEMU versions become observations; nothing else does, and nothing else is raised."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.core.errors import ReplyError
from livemig.core.observation import CompressionThreads, Observation, SocketAddress, XbzrleCache
from livemig.core.status import MigrationStatus
from livemig.qemu.migration_reply import MigrationReply, RamReply, to_observation

RECORDED: dict[str, str] = {
    "7.2 xbzrle": """{"expected-downtime": 6085, "xbzrle-cache": {"encoding-rate": 678.8950276243094,
        "bytes": 56954746, "cache-size": 134217728, "cache-miss-rate": 0, "pages": 9410765, "overflow": 0,
        "cache-miss": 24577}, "status": "active", "setup-time": 1, "total-time": 12000, "ram": {"remaining": 0,
        "total": 134750208, "transferred": 334501863, "normal": 49265, "duplicate": 8210,
        "dirty-pages-rate": 1449970, "mbps": 132.3446153846154, "pages-per-second": 1181586,
        "dirty-sync-count": 385, "precopy-bytes": 334501863, "downtime-bytes": 0, "postcopy-bytes": 0,
        "multifd-bytes": 0, "postcopy-requests": 0}}""",
    "7.2 compress": """{"compression": {"compression-rate": 0, "busy": 0, "compressed-size": 548794,
        "pages": 6916, "busy-rate": 0}, "status": "completed", "setup-time": 6, "downtime": 4,
        "total-time": 459, "ram": {"remaining": 0, "total": 134750208, "transferred": 883015, "normal": 5,
        "duplicate": 28746, "dirty-pages-rate": 0, "mbps": 17.57146136865342, "pages-per-second": 84572,
        "dirty-sync-count": 4, "precopy-bytes": 869731, "downtime-bytes": 13284, "postcopy-bytes": 0,
        "multifd-bytes": 0, "postcopy-requests": 0}}""",
    "7.2 postcopy": """{"expected-downtime": 300, "status": "postcopy-active", "setup-time": 4,
        "total-time": 1603, "ram": {"remaining": 133443584, "total": 134750208, "transferred": 67430877,
        "normal": 16430, "duplicate": 223, "dirty-pages-rate": 10202, "mbps": 335.8728,
        "pages-per-second": 10230, "dirty-sync-count": 2, "precopy-bytes": 67172310, "downtime-bytes": 0,
        "postcopy-bytes": 258567, "multifd-bytes": 0, "postcopy-requests": 0}}""",
    "10.0 active": """{"expected-downtime": 300, "status": "active", "setup-time": 1, "total-time": 21,
        "ram": {"remaining": 127414272, "total": 134750208, "transferred": 6305960, "normal": 1567,
        "duplicate": 223, "dirty-pages-rate": 0, "mbps": 0, "pages-per-second": 0, "dirty-sync-count": 1,
        "precopy-bytes": 6432990, "downtime-bytes": 0, "postcopy-bytes": 0, "multifd-bytes": 0,
        "postcopy-requests": 0}}""",
    "10.0 completed": """{"status": "completed", "setup-time": 1, "downtime": 7, "total-time": 242,
        "ram": {"remaining": 0, "total": 134750208, "transferred": 34376226, "normal": 8286,
        "duplicate": 28687, "dirty-pages-rate": 0, "mbps": 1141.1195352697096, "pages-per-second": 20480,
        "dirty-sync-count": 3, "precopy-bytes": 17540235, "downtime-bytes": 16723807, "postcopy-bytes": 0,
        "multifd-bytes": 0, "postcopy-requests": 0}}""",
    "10.0 listening": """{"status": "setup", "socket-address": [{"port": "37255", "ipv4": true,
        "host": "127.0.0.1", "type": "inet"}]}""",
    "11.1 xbzrle": """{"expected-downtime": 4513, "xbzrle-cache": {"encoding-rate": 678.8950276243094,
        "bytes": 61678175, "cache-size": 134217728, "cache-miss-rate": 0, "pages": 10226617, "overflow": 0,
        "cache-miss": 24577}, "remaining": 100667392, "status": "active", "setup-time": 1,
        "total-time": 12001, "ram": {"remaining": 81674240, "total": 134750208, "transferred": 345725070,
        "normal": 49265, "duplicate": 8210, "dirty-pages-rate": 1464369, "mbps": 178.42014814814814,
        "pages-per-second": 1592953, "dirty-sync-count": 419, "precopy-bytes": 345752364,
        "downtime-bytes": 0, "postcopy-bytes": 0, "multifd-bytes": 0, "postcopy-requests": 0}}""",
    "11.1 postcopy": """{"remaining": 64495616, "status": "postcopy-active", "setup-time": 1, "downtime": 1,
        "total-time": 1655, "ram": {"remaining": 64495616, "total": 134750208, "transferred": 106945702,
        "normal": 26036, "duplicate": 7469, "dirty-pages-rate": 10202, "mbps": 332.872396039604,
        "pages-per-second": 10138, "dirty-sync-count": 18, "precopy-bytes": 67242087, "downtime-bytes": 0,
        "postcopy-bytes": 39677028, "multifd-bytes": 0, "postcopy-requests": 202}}""",
}
"""As the three QEMUs sent them, less the fields that never changed."""

EVERYTHING: dict[str, Any] = {
    "status": "active",
    "ram": {
        "transferred": 1,
        "remaining": 2,
        "total": 3,
        "duplicate": 4,
        "skipped": 5,
        "normal": 6,
        "normal-bytes": 7,
        "dirty-pages-rate": 8,
        "mbps": 9.0,
        "dirty-sync-count": 10,
        "postcopy-requests": 11,
        "page-size": 4096,
        "multifd-bytes": 13,
        "pages-per-second": 14,
        "precopy-bytes": 15,
        "downtime-bytes": 16,
        "postcopy-bytes": 17,
        "dirty-sync-missed-zero-copy": 18,
    },
    "disk": {"transferred": 19, "remaining": 20, "total": 21},
    "vfio": {"transferred": 22},
    "xbzrle-cache": {
        "cache-size": 1,
        "bytes": 2,
        "pages": 3,
        "cache-miss": 4,
        "cache-miss-rate": 0.5,
        "encoding-rate": 18446744073709551615,
        "overflow": 7,
    },
    "compression": {
        "pages": 1,
        "busy": 2,
        "busy-rate": 0.5,
        "compressed-size": 4,
        "compression-rate": 2.5,
    },
    "remaining": 23,
    "total-time": 2400,
    "expected-downtime": 25,
    "downtime": 26,
    "setup-time": 27,
    "cpu-throttle-percentage": 28,
    "error-desc": "e",
    "blocked-reasons": ["because"],
    "postcopy-blocktime": 29,
    "postcopy-vcpu-blocktime": [30, 31],
    "postcopy-latency": 32000,
    "postcopy-latency-dist": [1, 2],
    "postcopy-vcpu-latency": [33000],
    "postcopy-non-vcpu-latency": 34000,
    "socket-address": [
        {"type": "inet", "host": "::1", "port": "4444", "ipv6": True},
        {"type": "unix", "path": "/run/m"},
        {"type": "vsock", "cid": "3", "port": "99"},
        {"type": "fd", "str": "channel"},
        {"type": "inet", "host": "h", "port": "ssh"},
    ],
    "dirty-limit-throttle-time-per-round": 35,
    "dirty-limit-ring-full-time": 36,
    "a-field-of-tomorrow": {"x": 1},
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_replies(name: str) -> None:
    reply = json.loads(RECORDED[name])
    seen = to_observation(reply, 3.5)
    assert seen.time_s == 3.5
    assert seen.status_text == seen.status == reply["status"]
    assert seen.status is not MigrationStatus.UNKNOWN
    if "ram" not in reply:
        return
    ram = reply["ram"]
    assert seen.total_s == pytest.approx(reply["total-time"] / 1000)
    assert seen.setup_s == pytest.approx(reply["setup-time"] / 1000)
    assert seen.throughput_bytes_s == pytest.approx(ram["mbps"] * 125_000)
    assert seen.sent_bytes == ram["transferred"]
    assert seen.zero_pages == ram["duplicate"]
    assert seen.dirty_sync_count == ram["dirty-sync-count"]
    assert seen.pending_bytes == reply.get("remaining")


def test_every_field_of_three_versions() -> None:
    seen = to_observation(EVERYTHING, 1.0)
    assert seen == Observation(
        time_s=1.0,
        status=MigrationStatus.ACTIVE,
        status_text="active",
        total_s=2400 * 1e-3,
        setup_s=27 * 1e-3,
        downtime_s=26 * 1e-3,
        expected_downtime_s=25 * 1e-3,
        error_text="e",
        blocked_reasons=("because",),
        total_bytes=3,
        remaining_bytes=2,
        pending_bytes=23,
        sent_bytes=1,
        precopy_bytes=15,
        downtime_bytes=16,
        postcopy_bytes=17,
        multifd_bytes=13,
        zero_pages=4,
        normal_pages=6,
        normal_bytes=7,
        skipped_pages=5,
        page_size_bytes=4096,
        dirty_sync_count=10,
        dirty_rate_pages_s=8,
        throughput_bytes_s=1_125_000.0,
        pages_s=14,
        postcopy_request_count=11,
        missed_zero_copy_count=18,
        throttle_percent=28,
        dirty_limit_throttle_s=35 * 1e-6,
        dirty_limit_ring_full_s=36 * 1e-6,
        xbzrle=XbzrleCache(
            cache_size_bytes=1,
            sent_bytes=2,
            page_count=3,
            miss_count=4,
            miss_ratio=0.5,
            encoding_ratio=2.0**64,
            overflow_count=7,
        ),
        compression=CompressionThreads(
            page_count=1, busy_count=2, busy_ratio=0.5, compressed_bytes=4, compression_ratio=2.5
        ),
        vfio_bytes=22,
        disk_total_bytes=21,
        disk_remaining_bytes=20,
        disk_sent_bytes=19,
        postcopy_blocktime_s=29 * 1e-3,
        postcopy_vcpu_blocktimes_s=(30 * 1e-3, 31 * 1e-3),
        postcopy_latency_s=32000 * 1e-9,
        postcopy_latency_counts=(1, 2),
        postcopy_vcpu_latencies_s=(33000 * 1e-9,),
        postcopy_non_vcpu_latency_s=34000 * 1e-9,
        socket_addresses=(
            SocketAddress(kind="inet", host="::1", port=4444),
            SocketAddress(kind="unix", path="/run/m"),
            SocketAddress(kind="vsock", cid="3", port=99),
            SocketAddress(kind="fd", descriptor="channel"),
            SocketAddress(kind="inet", host="h"),
        ),
    )


def test_no_field_of_the_reply_is_forgotten() -> None:
    """Each field of QEMU's, set alone, shows in the observation."""
    nothing = to_observation({}, 0.0)
    for name in MigrationReply.__struct_encode_fields__:
        assert to_observation({name: EVERYTHING[name]}, 0.0) != nothing, name
    for name in RamReply.__struct_encode_fields__:
        assert to_observation({"ram": {name: EVERYTHING["ram"][name]}}, 0.0) != nothing, name


def test_what_qemu_does_not_give_is_none() -> None:
    seen = to_observation({}, 0.0)
    assert seen == Observation(time_s=0.0, status=MigrationStatus.NONE)
    assert seen.remaining_bytes is None
    assert seen.downtime_s is None


@pytest.mark.parametrize("status", [status for status in MigrationStatus if status is not MigrationStatus.UNKNOWN])
def test_every_status(status: MigrationStatus) -> None:
    seen = to_observation({"status": str(status)}, 0.0)
    assert seen.status is status
    assert seen.status_text == str(status)


@given(st.text())
def test_an_unknown_status_is_kept_and_unknown(word: str) -> None:
    seen = to_observation({"status": word}, 0.0)
    assert seen.status_text == word
    assert seen.status is (MigrationStatus(word) if word in set(MigrationStatus) else MigrationStatus.UNKNOWN)


@pytest.mark.parametrize("name", RECORDED)
def test_an_observation_survives_a_trace(name: str) -> None:
    seen = to_observation(json.loads(RECORDED[name]), 3.5)
    assert msgspec.json.decode(msgspec.json.encode(seen), type=Observation) == seen


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        "active",
        {"status": 1},
        {"ram": []},
        {"ram": {"remaining": "1"}},
        {"ram": {"remaining": -1}},
        {"ram": {"remaining": 1.5}},
        {"ram": {"remaining": True}},
        {"ram": {"remaining": 2**63}},
        {"ram": {"remaining": 10**40}},
        {"ram": {"mbps": float("nan")}},
        {"ram": {"mbps": float("inf")}},
        {"downtime": None, "blocked-reasons": [1]},
        {"xbzrle-cache": {}},
        {"socket-address": [{}]},
    ],
)
def test_garbage_is_refused(reply: object) -> None:
    with pytest.raises(ReplyError) as caught:
        to_observation(reply, 0.0)
    assert caught.value.command == "query-migrate"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_KNOWN_NAMES = st.sampled_from([*MigrationReply.__struct_encode_fields__, "tomorrow"])
_RAM_NAMES = st.sampled_from([*RamReply.__struct_encode_fields__, "tomorrow"])


@given(
    _JSON
    | st.dictionaries(_KNOWN_NAMES, _JSON, max_size=4)
    | st.fixed_dictionaries({"ram": st.dictionaries(_RAM_NAMES, _JSON, max_size=4)})
)
def test_garbage_raises_nothing_but_the_mapped_error(reply: Any) -> None:
    try:
        seen = to_observation(reply, 0.0)
    except ReplyError:
        return
    assert isinstance(seen, Observation)
    msgspec.json.encode(seen)  # whatever is let through fits into a trace
