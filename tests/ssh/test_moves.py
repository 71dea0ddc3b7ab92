"""A guest moves from host to host: by TLS, through SSH, in clear text; from here and from either host."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

import livemig
from livemig.core.event import Prepared
from livemig.core.plan import Security
from tests.ssh.between import QUICK, Between

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize(
    ("security", "words"), [("auto", "TLS over TCP"), ("ssh", "through livemig's SSH"), ("none", "clear text")]
)
async def test_a_guest_moves(between: Between, tmp_path: Path, security: str, words: str) -> None:
    """Its memory arrives as it was, the source is gone, and neither key nor socket stays behind."""
    await between.start()
    trace = tmp_path / "trace"
    plan = msgspec.structs.replace(QUICK, security=Security(security))
    keys = asyncio.create_task(_keys_seen())
    report, seen = await between.migrate(plan, trace_path=trace)
    assert report.outcome == "completed", report.reason
    (prepared,) = [event for event in seen if isinstance(event, Prepared)]
    assert words in prepared.channel
    await between.assert_arrived()
    keys.cancel()
    found = await asyncio.gather(keys, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    own_keys = {key for folder, key in SEEN_KEYS.items() if report.id in folder}
    assert bool(own_keys) is (security == "auto")
    for key in own_keys:
        assert key not in trace.read_text()
        assert key not in repr(seen)
        assert not _in_any_command_line(key)
    SEEN_KEYS.clear()


SEEN_KEYS: dict[str, str] = {}
"""By folder, whose name has the run's id in it: others may migrate on this machine meanwhile."""


async def _keys_seen() -> None:
    """Looks for key files while they are there; both hosts see this machine's /tmp."""
    while True:
        for path in Path("/tmp").glob("livemig-*/keys.psk"):
            try:
                text = path.read_text().strip().partition(":")[2]
                mode = path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777
            except OSError:
                continue
            if text:
                SEEN_KEYS[path.parent.name] = text
                assert mode == (0o600, 0o700)
        await asyncio.sleep(0.005)


def _in_any_command_line(text: str) -> bool:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return any(text.encode() in each for each in found)


@pytest.mark.parametrize("where", ["source", "destination"])
async def test_livemig_may_run_on_either_host(between: Between, where: str) -> None:
    """The host it runs on is then named by a path alone."""
    await between.start()
    path = f"{between.lab.a.private_folder}/vm.qmp"
    host = between.lab.a if where == "source" else between.lab.b
    code, lines, errors = await between.run(
        "--downtime-limit", "1s", "--probation", "100ms", host=host, **{where: path}
    )
    assert code == 0, (lines[-1:], errors)
    assert any("TLS over TCP" in line.get("channel", "") for line in lines)
    await between.assert_arrived()


async def test_livemig_may_run_on_a_third_host(between: Between) -> None:
    """One that is neither: it knows both by their SSH alone, and memory goes straight from one to the other."""
    await between.start()
    lab = between.lab
    source, destination = (between.address(host, host.data_address) for host in (lab.a, lab.b))
    code, lines, errors = await between.run(
        "--downtime-limit", "1s", "--probation", "100ms", host=lab.client, source=source, destination=destination
    )
    assert code == 0, (lines[-1:], errors)
    channels = [line["channel"] for line in lines if "channel" in line]
    assert channels == [f"TLS over TCP to {lab.b.data_address}, with a key made for this migration"]
    assert (lines[-1]["outcome"], lines[-1]["running_on"]) == ("completed", "destination")
    await between.assert_arrived()


async def test_ipv6(between: Between) -> None:
    """Its address is taken from the SSH connection, and bound."""
    await between.start()
    source, destination = (
        between.address(host, f"[{host.management_address_6}]") for host in (between.lab.a, between.lab.b)
    )
    report, seen = await between.migrate(source=source, destination=destination)
    assert report.outcome == "completed", report.reason
    (prepared,) = [event for event in seen if isinstance(event, Prepared)]
    assert between.lab.b.management_address_6 in prepared.channel
    await between.assert_arrived()


async def test_the_address_can_be_chosen(between: Between) -> None:
    await between.start()
    plan = msgspec.structs.replace(QUICK, migrate_address=between.lab.b.data_address)
    report, seen = await between.migrate(plan)
    assert report.outcome == "completed", report.reason
    assert any(between.lab.b.data_address in event.channel for event in seen if isinstance(event, Prepared))


async def test_a_plan_launches_nothing(between: Between) -> None:
    await between.start()
    found = await livemig.plan_migration(
        livemig.Plan(), source=between.address(between.lab.a), destination=between.address(between.lab.b)
    )
    assert found.movable
    assert found.destination_command
    await between.assert_stayed()
