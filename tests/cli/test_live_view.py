"""The live view as it stands on a terminal, on real QEMU at two widths, and where there is none."""

from __future__ import annotations

import asyncio
import os
import re
import signal

import pytest

from tests.cli.command_line import Screen, run_arguments
from tests.engine.pair import HOT, Pair

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize("columns", [80, 40])
async def test_view_on_a_terminal(pair: Pair, columns: int) -> None:
    """All that matters is on the screen while it runs; at the end only the closing lines stand there."""
    await pair.start(HOT)
    screen = Screen(columns)
    limits = ("--bandwidth", "60MiB/s", "--downtime-limit", "310ms", "--deadline", "2500ms")
    ending = ("--at-deadline", "pause", "--keep-trying")
    assert await screen.run(*run_arguments(pair, *limits, *ending)) == 0

    middle = [" ".join(picture.split()) for picture in screen.pictures if "round" in picture and "dirtied" in picture]
    assert len(middle) > 3
    everything = "\n".join(middle)
    assert "copying memory, the guest runs" in re.sub(r"\d+(\.\d+)? m?s elapsed ", "", everything)
    for pattern in (
        r"sending \d+\.\d MiB/s",
        r"dirtied \d+\.\d [KM]iB/s",
        r"left \d+\.\d MiB",
        r"sent \d+\.\d MiB, round [1-9]",
        r"time left \d+(\.\d+)? m?s( to \d+(\.\d+)? m?s)?",
        r"downtime .{4,9} of 310 ms allowed",
        r"\d+(\.\d+)? m?s elapsed",
        r"QEMU counts: bandwidth 60\.0 MiB/s",
        r"the deadline of 2\.50 s has come",
    ):
        assert re.search(pattern, everything), pattern
    progress = [int(number) for number in re.findall(r"(\d+)%", everything)]
    assert progress == sorted(progress)
    assert progress[-1] > progress[0]
    assert any("probation" in picture and "100%" in picture for picture in screen.pictures)
    assert all(len(line) <= columns for picture in screen.pictures for line in picture.splitlines())

    last = screen.picture
    assert screen.cursor_shown
    assert last.startswith("run ")
    assert "elapsed" not in last
    assert "━" not in last
    words = " ".join(last.split())
    assert "completed: the guest runs at the destination" in words
    assert re.search(r"downtime \d+(\.\d+)? m?s \(limit 310 ms", words)
    await pair.assert_runs_only("destination")


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}, {"LC_ALL": "en_US.latin1"}])
async def test_plain_lines_where_a_view_is_not_wanted(pair: Pair, environment: dict[str, str]) -> None:
    """Without colours, a cursor or its characters: lines, and not one escape sequence."""
    await pair.start()
    screen = Screen(80)
    environment |= {"PYTHONIOENCODING": "latin-1"} if "LC_ALL" in environment else {}
    assert await screen.run(*run_arguments(pair, "--bandwidth", "60MiB/s"), env=environment) == 0
    assert "\x1b" not in screen.raw
    assert screen.raw.isascii()
    assert "round 1: sent" in " ".join(screen.picture.split())


async def test_interrupt_on_a_terminal(pair: Pair) -> None:
    """Ctrl-C leaves the terminal as it was, and says where the guest is."""
    await pair.start()
    screen = Screen(80)

    async def interrupt(pid: int) -> None:
        async with asyncio.timeout(20):
            while not any("dirtied" in picture for picture in screen.pictures):
                await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGINT)

    assert await screen.run(*run_arguments(pair, "--bandwidth", "20MiB/s"), on_start=interrupt) == 130
    assert screen.cursor_shown
    words = " ".join(screen.picture.split())
    assert "cancelled: " in words
    assert "SIGINT received" in words
    assert "━" not in words
    await pair.assert_runs_only("source")


async def test_refusal_on_a_terminal(pair: Pair) -> None:
    """One line after the id, and the cursor is there again."""
    await pair.start()
    screen = Screen(200)
    waiting = str(pair.destination.qmp_path)
    assert await screen.run("run", "--src-qmp", f"{waiting}-missing", "--dst-qmp", waiting) == 2
    assert screen.cursor_shown
    lines = [line for line in screen.picture.splitlines() if line]
    assert len(lines) == 2
    assert lines[1].startswith("livemig: --src-qmp ")
