"""The Linux guest moves between the lab's hosts: its sessions, its disk and its memory come along. Needs root."""

from __future__ import annotations

import pytest

import livemig
from livemig.core.event import Prepared
from livemig.lab.linux import records
from livemig.lab.linux.guest import LinuxSettings
from livemig.lab.linux.image import SOURCES, linux_image
from livemig.lab.linux.watching import Watching
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.two_hosts.layout import SECOND_GUEST_ADDRESS
from tests.lab.fixtures import lab_name
from tests.lab.moving import Travels, with_disk

MOVES = 10
pytestmark = pytest.mark.timeout(300)


async def test_sessions_memory_and_disk_survive_ten_moves() -> None:
    """There and back over SSH and TLS and a shaped link, busy, with two cards: no byte of any session is lost, repeated
    or reset, and every acknowledged block is on the disk.
    """
    async with (
        TwoHosts(lab_name(), rate_bytes_s=125e6) as two_hosts,
        Travels(two_hosts, with_disk(two_hosts, LinuxSettings(nic_count=2)), over_ssh=True) as travels,
        Watching(two_hosts.client, echo=4, stream=2, udp=1, journal=True) as watching,
        Watching(two_hosts.client, echo=1, address=SECOND_GUEST_ADDRESS) as second,
    ):
        for number in range(MOVES):
            report = await travels.move()
            assert (report.outcome, report.warnings) == ("completed", ()), (report.reason, report.warnings)
            assert any("TLS" in event.channel for event in travels.events if isinstance(event, Prepared))
            travels.check_journal(watching.acknowledged)
            assert travels.guest.host.name == "BA"[number % 2]
        flows = await watching.end() | {"second card": (await second.end())["echo1"]}
        await travels.check_guest()
        travels.check_journal(flows["journal"].received)
    for name, flow in flows.items():
        assert flow.problems == (), name
    for flow in (*(flows[f"echo{number}"] for number in range(1, 5)), flows["second card"]):
        assert flow.sent == flow.received > 100 * MOVES
    assert all(flows[name].received > 5 * MOVES for name in ("stream1", "stream2", "udp1", "journal"))


async def test_narrow_link_and_the_clock_over_ssh() -> None:
    """Memory takes the shaped link, no faster than it allows; the session beside it survives; the agent sets the clock
    through SSH.
    """
    rate_bytes_s = 25e6
    async with (
        TwoHosts(lab_name(), rate_bytes_s=rate_bytes_s) as two_hosts,
        Travels(two_hosts, LinuxSettings(agent=True), over_ssh=True) as travels,
        Watching(two_hosts.client, echo=1, stream=1) as watching,
    ):
        plan = livemig.Plan(downtime_limit_s=1.0, probation_s=0.3, set_guest_time=True)
        report = await travels.move(plan=plan)
        assert (report.outcome, report.warnings) == ("completed", ()), (report.reason, report.warnings)
        assert report.total_s is not None
        assert report.sent_bytes / report.total_s < 1.1 * rate_bytes_s
        flows = await watching.end()
        assert [flow.problems for flow in flows.values()] == [(), ()]
        assert flows["echo1"].sent == flows["echo1"].received
        await travels.check_guest()


def test_records_are_the_workloads() -> None:
    """Both sides derive a record alike, and speak by the same ports."""
    header = (SOURCES / "workload.h").read_text()
    for name in ("ECHO_PORT", "JOURNAL_PORT", "STREAM_PORT", "RECORD_BYTES", "BLOCK_BYTES"):
        assert f"{name} = {getattr(records, name)}" in header
    assert records.mix(1) == 0x5692161D100B05E5  # splitmix64's finaliser
    assert records.sequence_of(records.record(7)) == 7


def test_journal_sees_what_is_not_whole() -> None:
    """A torn or stale block is no block."""
    words = [records.mix(5 * records.BLOCK_BYTES + word) for word in range(3, 512)]
    block = bytearray(records._BLOCK.pack(records._MAGIC, 5, records._checksum(words), *words))
    assert records.journal_sequences(bytes(block) + bytes(4096)) == {5}
    block[4000] ^= 1
    assert records.journal_sequences(bytes(block)) == set()


def test_image_is_built_once() -> None:
    """The second time it is found."""
    first = linux_image()
    built_s = first.initramfs.stat().st_mtime
    assert linux_image().initramfs.stat().st_mtime == built_s
