"""Which memory a guest ever touched, read on another host by its shell: the same as is read there, or nothing known."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import livemig
from livemig.hosts import page_map
from livemig.hosts.ssh.host import RemoteHost
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.workload import Workload
from tests.engine.pair import MiB
from tests.ssh.between import Between

pytestmark = pytest.mark.qemu

MEMORY_BYTES = 192 * MiB
FILLED = Workload(dirty_rate_bytes_s=0, fill_bytes=96 * MiB)
SHARED = ("-object", f"memory-backend-memfd,id=ram,size={MEMORY_BYTES},share=on", "-machine", "memory-backend=ram")
NOBODY = """#!/bin/sh
exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c "$SSH_ORIGINAL_COMMAND"
"""


@pytest.mark.parametrize("arguments", [(), SHARED])
async def test_it_is_what_the_host_itself_reads(between: Between, arguments: tuple[str, ...]) -> None:
    """Private and shared memory; `plan` uses it, and a guest that is next to idle is sent that much and little more."""
    await between.start(FILLED, *arguments, memory_bytes=MEMORY_BYTES)
    expected = page_map.touched_shares(between.source.pid, MEMORY_BYTES)
    host = await RemoteHost.connect("ssh://A", "A", None, None)
    try:
        shares = await host.touched_shares(between.source.pid, MEMORY_BYTES)
    finally:
        await host.close()
    assert len(shares) == page_map.SEGMENT_COUNT
    assert max(abs(one - other) for one, other in zip(shares, expected, strict=True)) < 0.01
    touched_bytes = sum(shares) / len(shares) * MEMORY_BYTES
    assert 96 * MiB <= touched_bytes < 120 * MiB
    found = await livemig.plan_migration(
        livemig.Plan(bandwidth_bytes_s=100.0 * MiB), source=between.address(between.lab.a)
    )
    assert found.forecast is not None
    assert "taken as touched" not in found.forecast.basis
    assert found.forecast.sent_bytes is not None
    assert 0.9 * touched_bytes < found.forecast.sent_bytes[1] < 1.1 * touched_bytes


async def test_of_a_process_that_is_not_there_nothing_is_known(lab: TwoHosts) -> None:
    del lab
    host = await RemoteHost.connect("ssh://A", "A", None, None)
    try:
        assert await host.touched_shares(2**22 + 5, MEMORY_BYTES) == ()
    finally:
        await host.close()


async def test_where_it_may_not_be_read_all_memory_is_taken_as_touched(between: Between) -> None:
    """Whoever is logged in is another user than QEMU's: the forecast says what it lacks, and is of all the memory."""
    await between.start(FILLED, memory_bytes=MEMORY_BYTES)
    lab = between.lab
    await _log_in_by(lab, NOBODY)
    host = await RemoteHost.connect("ssh://A", "A", None, None)
    try:
        assert host.user_id == 65534 != os.getuid()
        assert await host.touched_shares(between.source.pid, MEMORY_BYTES) == ()
    finally:
        await host.close()
    found = await livemig.plan_migration(livemig.Plan(bandwidth_bytes_s=100.0 * MiB), source=between.address(lab.a))
    assert found.forecast is not None
    assert "all memory taken as touched" in found.forecast.basis
    assert found.forecast.sent_bytes is not None
    assert found.forecast.sent_bytes[1] > 0.9 * MEMORY_BYTES


async def _log_in_by(lab: TwoHosts, program: str) -> None:
    """Lets whoever logs in at the first host come by a program."""
    shell = Path(lab.folder) / "login-shell"
    shell.write_text(program)
    shell.chmod(0o755)
    config = Path(lab.folder) / "A.sshd_config"
    config.write_text(f"{config.read_text()}\nForceCommand {shell}\n")
    lab.kill_sshd(lab.a)
    await lab.start_sshd(lab.a)
