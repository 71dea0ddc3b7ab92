"""`livemig demo` as a newcomer runs it, on real QEMU."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.cli.command_line import finish, livemig, read_until, start

pytestmark = pytest.mark.qemu

SMALL = ("--memory", "64MiB", "--working-set", "8MiB", "--dirty-rate", "20MiB/s", "--probation", "100ms")


def qemus_of(folder: Path) -> list[str]:
    """The command lines of QEMUs whose sockets are below a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "qemu" in words[0] and any(str(folder) in word for word in words):
                found.append(" ".join(words))
    return found


async def test_text(tmp_path: Path) -> None:
    """It introduces the guest, moves it, and shows the blackout beside QEMU's downtime; nothing is left behind."""
    ran = await livemig("demo", *SMALL, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert (ran.code, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0].startswith("a guest of 64.0 MiB (tcg) rewrites 8.0 MiB at 20.0 MiB/s")
    assert lines[1].startswith("run ")
    for words in (
        "completed: ",
        "downtime ",
        "QEMU's own figure",
        "pages checked, as the guest wrote them",
        "blackout ",
    ):
        assert words in ran.stdout
    assert qemus_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


async def test_json_ends_with_ended(tmp_path: Path) -> None:
    """Nothing but JSON, the guest's own check included, and `ended` is the last."""
    ran = await livemig("demo", "--json", *SMALL, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.objects[0] == {"event": "started", "id": ran.ended["id"]}
    assert (ran.ended["outcome"], ran.ended["running_on"]) == ("completed", "destination")
    checked = ran.objects[-2]
    assert checked["event"] == "guest-checked"
    assert (checked["bad_count"], checked["problems"], checked["page_count"] > 8192) == (0, [], True)
    assert 0 < checked["blackout_s"] < 5


@pytest.mark.parametrize("event", ["starting", "started", "progressed", "destination-running"])
async def test_interrupt_leaves_no_qemu(tmp_path: Path, event: str) -> None:
    """Ctrl-C while the guest boots, before it moves, while it does, after: the contract's code, and both are gone."""
    process = await start(
        *("demo", "--json", *SMALL, "--bandwidth", "40MiB/s", "--probation", "10s"),
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    if event == "starting":
        async with asyncio.timeout(10):
            while not qemus_of(tmp_path):
                await asyncio.sleep(0.01)
    else:
        await read_until(process, event)
    process.send_signal(signal.SIGINT)
    ran = await finish(process, timeout_s=20)

    after = event == "destination-running"
    assert ran.code == (0 if after else 130), ran
    assert ran.ended["outcome"] == ("completed" if after else "cancelled")
    assert qemus_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


async def test_without_qemu() -> None:
    """QEMU is not installed: said in one line, and in the last object."""
    ran = await livemig("demo", "--json", env={**os.environ, "PATH": "/nonexistent"})
    assert ran.code == 2
    assert "is not installed" in ran.complaint
    assert ran.ended["outcome"] == "refused"
