"""SSH is lost to one host or both, at a moment drawn from a seed: closed or silent, for a while or until all is over.

Sometimes livemig is killed with it. One guest runs once the ways are there again, and recovery has
nothing more to do. Play one again by its seed: ``-k 'seed-7'``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

import livemig
from livemig.lab.serial_lines import Beat
from livemig.lab.workload import Workload
from tests.cli.command_line import read_until
from tests.engine.pair import MiB, run_state, spawn_livemig
from tests.ssh.between import Between

pytestmark = [pytest.mark.qemu, pytest.mark.timeout(400)]

GENTLE = Workload(working_set_bytes=4 * MiB, dirty_rate_bytes_s=MiB, fill_bytes=32 * MiB)
SEEDS = (0, 1, 3, 4, 6, 7, 8)
POINTS = ("prepared", "progressed", "source-stopped", "destination-running")
RUN_BOUND_S = 200.0


@dataclass(frozen=True)
class Loss:
    """What happens.

    Attributes:
        hosts: The hosts that are lost.
        silent: Whether what is sent vanishes; else the connections are closed and new ones refused.
        point: At which of the run's events.
        after_s: How long after it.
        away_s: For how long; None until the run has ended.
        kill: Whether livemig, engine and parent, is killed in that moment.
    """

    hosts: tuple[str, ...]
    silent: bool
    point: str
    after_s: float
    away_s: float | None
    kill: bool


def draw(seed: int) -> Loss:
    """Draws a loss; the first seeds have each point once with each side."""
    chance = random.Random(seed)
    hosts = [("a",), ("b",), ("a", "b")]
    kill = chance.random() < 0.4
    return Loss(
        hosts=hosts[seed % 2] if seed < 2 * len(POINTS) else chance.choice(hosts),
        silent=chance.random() < 0.4,
        point=POINTS[seed // 2 % len(POINTS)],
        after_s=chance.choice((0.0, chance.uniform(0, 0.2))),
        away_s=None if chance.random() < (0.6 if kill else 0.2) else round(chance.uniform(0.1, 4.0), 2),
        kill=kill,
    )


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"seed-{seed}")
async def test_whatever_is_lost_one_guest_runs(between: Between, seed: int) -> None:
    """As it says."""
    loss = draw(seed)
    await between.start(GENTLE, memory_bytes=64 * MiB)
    addresses = ("--src-qmp", between.address(between.lab.a), "--dst-qmp", between.address(between.lab.b))
    limits = ("--downtime-limit", "1s", "--probation", "300ms", "--bandwidth", "20MiB/s", "--keep-trying")
    process = await spawn_livemig("run", "--json", *addresses, *limits, limit=2**22)
    run_id = str((await read_until(process, loss.point))[0]["id"])
    between._run_ids.append(run_id)
    await asyncio.sleep(loss.after_s)
    await lose(between, loss)
    if loss.kill:
        kill_all(process.pid)
    returning = None if loss.away_s is None else asyncio.create_task(come_back_after(between, loss, loss.away_s))
    async with asyncio.timeout(RUN_BOUND_S):
        await process.communicate()
    if returning is not None:
        await returning
    else:
        for one in await livemig.recover():  # what is out of reach must not be guessed at
            assert one.ending.running_on is not livemig.RunningOn.NONE, (loss, one)
        await come_back(between, loss)
    for _ in range(2):
        found = await livemig.recover()
        assert all(one.ending.outcome is not livemig.Outcome.UNKNOWN and one.ending.left == () for one in found), (
            loss,
            found,
        )
    assert not found
    await assert_one_guest(between, loss)


async def assert_one_guest(between: Between, loss: Loss) -> None:
    """It runs on one host, its memory as it was, and nothing of the run is left."""
    source = await run_state(between.source)
    if source == "running":
        await between.assert_stayed()
        return
    assert source in ("gone", "postmigrate"), (loss, source)
    await between._attach()
    assert await run_state(between.destination) == "running", loss
    verdict = await between.destination.serial.ask_verdict()
    assert verdict.good, (loss, verdict)
    await between.destination.serial.next(Beat, timeout_s=20)
    assert between.heartbeat.problems == []
    assert between.leftovers() == []


async def lose(between: Between, loss: Loss) -> None:
    """Closes, or silences, all SSH with the hosts."""
    for name in loss.hosts:
        host = getattr(between.lab, name)
        if loss.silent:
            await between.lab.cut(host, "management")
        else:
            between.lab.kill_sshd(host)


async def come_back(between: Between, loss: Loss) -> None:
    """Makes it possible again."""
    for name in loss.hosts:
        host = getattr(between.lab, name)
        if loss.silent:
            await between.lab.mend(host, "management")
        else:
            await between.lab.start_sshd(host)


async def come_back_after(between: Between, loss: Loss, delay_s: float) -> None:
    """The same a while later."""
    await asyncio.sleep(delay_s)
    await come_back(between, loss)


def kill_all(pid: int) -> None:
    """Kills a command line and its engine."""
    engines = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, engines)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
