"""``python -m bench handover``: how long clients hear nothing beyond the downtime, announced or not. Needs root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self
from unittest.mock import patch

import click
import msgspec

import livemig
from bench.options import count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, Total, present
from bench.runner import run_benchmark
from livemig.core import event as events
from livemig.core.errors import LabError
from livemig.core.plan import SwitchoverMoment
from livemig.core.status import MigrationStatus
from livemig.engine.handover import ANNOUNCEMENT
from livemig.lab.linux.guest import LinuxGuest, LinuxSettings
from livemig.lab.linux.image import linux_image
from livemig.lab.linux.watching import Watching
from livemig.lab.two_hosts import TwoHosts
from livemig.qemu.monitor import Monitor

BEYOND_MEDIAN_LIMIT_S, BEYOND_P95_LIMIT_S = 0.015, 0.040
LAB_UP_LIMIT_S = 3.0
BEFORE_S, HEARD_BOUND_S, AFTER_S = 0.7, 60.0, 0.7
BARE_POLL_S, STOPPED_S = 0.02, 0.08
UNHEARD_BOUND_S = 20.0
"""Whoever hears nothing for so long is not waited for: 48 s were seen."""
_NOTE = (
    "a silence is seen up to 2 ms too long, one under 10 ms counts as none; memory goes over a UNIX socket: the data "
    "network is the clients'; under TCG the guest's first packet waits until its code is translated anew, as the moves "
    "by a bare QMP script show (migrate, poll each 2 ms, cont, QEMU's own announcement): livemig can't be quicker"
)
_MAC = "52:54:00:6c:6d:01"

Way = Literal["announced", "silent", "steered", "bare", "stopped"]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One move as its clients heard it, or one lab made.

    Attributes:
        way: How the network learned of the move: livemig's announcement, nothing, or the switch told by a hook as soon
            as the guest stood still, besides the announcement. ``bare``: moved by a script, announced by QEMU.
            ``stopped``: not moved at all, only stopped and continued.
        downtime_s: From the source's STOP to the destination's RESUME.
        qemu_downtime_s: QEMU's own figure.
        beyond_s: By flow: its longest silence less QEMU's downtime. ``unheard``: from RESUME to the first answer.
        lab_up_s: How long making the lab took; None of a move.
    """

    way: Way | None = None
    downtime_s: float | None = None
    qemu_downtime_s: float | None = None
    beyond_s: dict[str, float] = {}
    lab_up_s: float | None = None


@click.command(short_help="How long clients hear nothing beyond the downtime.")
@count_option(20, "moves of each kind")
@shared_options
def handover(*, count: int, qemu: str, as_json: bool, output: Path | None) -> None:
    """Move the Linux guest between the lab's hosts while clients talk to it; compare their silence with the downtime.

    The clients: a TCP stream from the guest, records echoed over TCP, datagrams echoed. Of each silence QEMU's own
    figure of the downtime is taken off. To reach, for the stream: median within 15 ms, p95 within 40 ms; `lab up`
    within 3 s. A TCP client that sends may be silent until its own TCP tries again (200 ms on Linux), unless nothing
    that it sent was lost, as when a hook tells the switch at STOP. Without any announcement, one move for each
    four announced ones, the echoes show how long the network believes the old place. For comparison the guest is
    also moved by a bare QMP script, and only stopped and continued where it is.
    """
    run_benchmark(
        "handover",
        {"count": count},
        measure=partial(_measure, count, qemu),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(count: int, qemu: str, samples: list[Sample]) -> None:
    image = await asyncio.to_thread(linux_image)
    silent_count = max(1, count // 4)
    with Progress("moves", 4 * count + 3 * silent_count) as progress:
        lab = TwoHosts(f"bench-{os.getpid() % 10**5}")
        began_s = time.monotonic()
        async with lab:
            samples.append(Sample(lab_up_s=time.monotonic() - began_s))
            async with _Moves(lab, LinuxGuest(lab.a, image, LinuxSettings(binary=qemu)), progress, samples) as moves:
                await moves.make(count, "announced", stream=1)
                await moves.make(count, "bare", stream=1)
                await moves.make(silent_count, "stopped", stream=1)
                await moves.make(count, "announced", echo=1, udp=1)
                await moves.make(count, "steered", echo=1, udp=1)
                await moves.make(silent_count, "silent", echo=1, udp=1)
                await moves.make_unheard(silent_count)


class _Moves:
    """The guest, moved there and back by paths that every process of this machine sees."""

    def __init__(self, lab: TwoHosts, guest: LinuxGuest, progress: Progress, samples: list[Sample]) -> None:
        self._lab, self._guest, self._progress, self._samples = lab, guest, progress, samples
        self._stack = AsyncExitStack()

    async def make(self, count: int, way: Way, **flows: int) -> None:
        """Makes moves of one kind while those flows go on."""
        counts = {"echo": 0, "stream": 0, "udp": 0, **flows}
        async with Watching(
            self._lab.client, echo=counts["echo"], stream=counts["stream"], udp=counts["udp"]
        ) as watching:
            for _ in range(count):
                await asyncio.sleep(BEFORE_S)
                with _announcing(on=way != "silent"):
                    self._samples.append(await self._move(way, watching, flows))
                self._progress.step()

    async def make_unheard(self, count: int) -> None:
        """Makes unannounced moves while nobody talks to the guest, and sees when a client that then asks is answered.

        A packet on its way to the guest as it stops is answered from the new host, which tells the switch by chance.
        """
        for _ in range(count):
            with _announcing(on=False):
                report, (_, resumed_s) = await self._migrate("silent")
            heard_s = resumed_s + UNHEARD_BOUND_S
            async with Watching(self._lab.client, udp=1) as watching:
                with contextlib.suppress(LabError):
                    heard_s = await watching.wait_heard(resumed_s, UNHEARD_BOUND_S)
                await _announce_by_hand(self._guest)
                await watching.wait_heard(heard_s, HEARD_BOUND_S)
            self._samples.append(
                Sample(
                    way="silent",
                    qemu_downtime_s=report.qemu_downtime_s,
                    downtime_s=None if report.downtime is None else report.downtime.total_s,
                    beyond_s={"unheard": heard_s - resumed_s},
                )
            )
            self._progress.step()

    async def _move(self, way: Way, watching: Watching, flows: dict[str, int]) -> Sample:
        total_s = None
        if way == "bare":
            downtime_s, switchover_s = await self._migrate_bare()
        elif way == "stopped":
            downtime_s, switchover_s = await self._stop_for_a_while()
        else:
            report, switchover_s = await self._migrate(way)
            downtime_s = report.qemu_downtime_s or 0.0
            total_s = None if report.downtime is None else report.downtime.total_s
        await watching.wait_heard(switchover_s[1], HEARD_BOUND_S)
        await asyncio.sleep(AFTER_S)
        silences_s = {kind: watching.longest_s(f"{kind}1", *switchover_s) for kind in flows}
        beyond_s = {kind: silence_s - downtime_s for kind, silence_s in silences_s.items()}
        return Sample(way=way, downtime_s=total_s, qemu_downtime_s=downtime_s, beyond_s=beyond_s)

    async def _migrate_bare(self) -> tuple[float, tuple[float, float]]:
        """Moves the guest as a script would; returns QEMU's downtime, and between when the guest stood still."""
        waiting = await self._waiting()
        address = f"unix:{self._lab.a.shared_folder}/bare.sock"
        async with (
            await Monitor.connect(str(self._guest.qmp_path_outside), name="source") as source,
            await Monitor.connect(str(waiting.qmp_path_outside), name="destination") as destination,
        ):
            await destination.execute("migrate-incoming", {"uri": address})
            await source.execute("migrate-set-parameters", {"max-bandwidth": 0})
            await source.execute("migrate", {"uri": address})
            async with asyncio.timeout(HEARD_BOUND_S):
                while (found := await source.query_migrate()).status is not MigrationStatus.COMPLETED:
                    await asyncio.sleep(0.002)
            downtime_s = found.downtime_s or 0.0
            stopped_s = time.monotonic() - downtime_s - BARE_POLL_S
            await destination.execute("cont")
            resumed_s = time.monotonic()
            await source.execute("quit")
        await self._guest.stop()
        self._guest = waiting
        return downtime_s, (stopped_s, resumed_s)

    async def _stop_for_a_while(self) -> tuple[float, tuple[float, float]]:
        """Stops the guest and continues it where it is; returns for how long, and between when."""
        async with await Monitor.connect(str(self._guest.qmp_path_outside), name="bench") as monitor:
            await monitor.execute("stop")
            stopped_s = time.monotonic()
            await asyncio.sleep(STOPPED_S)
            await monitor.execute("cont")
            resumed_s = time.monotonic()
        return resumed_s - stopped_s, (stopped_s, resumed_s)

    async def _waiting(self) -> LinuxGuest:
        """Starts a QEMU on the other host, which waits for the guest."""
        other = self._lab.b if self._guest.host.name == "A" else self._lab.a
        return await self._stack.enter_async_context(self._guest.on(other, incoming=True))

    async def _migrate(self, way: Way) -> tuple[livemig.Report, tuple[float, float]]:
        """Moves the guest to the other host; returns the report, and when it stopped and resumed, monotonic."""
        waiting = await self._waiting()
        stopped_s = resumed_s = 0.0
        source, destination = str(self._guest.qmp_path_outside), str(waiting.qmp_path_outside)
        async with livemig.migrate(self._plan(way, waiting), source=source, destination=destination) as migration:
            async for event in migration:
                if isinstance(event, events.SourceStopped):
                    stopped_s = time.monotonic()
                elif isinstance(event, events.DestinationRunning):
                    resumed_s = time.monotonic()
        report = migration.report
        if report.outcome is not livemig.Outcome.COMPLETED or report.downtime is None:
            raise livemig.LivemigError(f"a move ended as {report.outcome}: {report.reason}")
        self._guest = waiting
        return report, (stopped_s, resumed_s)

    def _plan(self, way: Way, waiting: LinuxGuest) -> livemig.Plan:
        plan = livemig.Plan(probation_s=0.1)
        if way != "steered":
            return plan
        port = f"{waiting.host.name.lower()}-data"
        hook = ("bridge", "-n", self._lab.layout.namespace("switch"), "fdb", "replace", _MAC, "dev", port, "master")
        return msgspec.structs.replace(
            plan, on_switchover=(*hook, "dynamic"), switchover_moment=SwitchoverMoment.STOPPED
        )

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._guest)
        await self._guest.wait_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


async def _announce_by_hand(guest: LinuxGuest) -> None:
    """Tells the network where the guest is, so that the next move begins as every other."""
    async with await Monitor.connect(str(guest.qmp_path_outside), name="bench") as monitor:
        await monitor.execute("announce-self", ANNOUNCEMENT)


@contextmanager
def _announcing(*, on: bool) -> Iterator[None]:
    """Leaves livemig's announcement out, to see what it is good for."""

    async def nothing(_side: Any) -> None:
        return

    with contextlib.nullcontext() if on else patch("livemig.engine.finish.announce", nothing):
        yield


def _conclude(samples: list[Sample]) -> Conclusion:
    def beyond(way: Way, kind: str, label: str) -> Figure | None:
        values = (sample.beyond_s.get(kind) for sample in samples if sample.way == way)
        return Figure.of(f"{way}_{kind}_beyond_s", label, values)

    stream = beyond("announced", "stream", "TCP stream, beyond the downtime")
    lab_up = Figure.of("lab_up_s", "making the lab", (sample.lab_up_s for sample in samples))
    return Conclusion(
        figures=present(
            Figure.of("downtime_s", "downtime (STOP to RESUME)", (sample.downtime_s for sample in samples)),
            stream,
            beyond("bare", "stream", "TCP stream, moved by a bare QMP script"),
            beyond("stopped", "stream", "TCP stream, only stopped and continued"),
            beyond("announced", "udp", "UDP echo, beyond the downtime"),
            beyond("announced", "echo", "TCP echo, beyond the downtime"),
            beyond("steered", "udp", "UDP echo, switch told at STOP"),
            beyond("steered", "echo", "TCP echo, switch told at STOP"),
            beyond("silent", "udp", "UDP echo, not announced"),
            beyond("silent", "echo", "TCP echo, not announced"),
            beyond("silent", "unheard", "first answer, not announced (20 s: none)"),
            lab_up,
        ),
        totals=(Total("move_count", "moves", sum(sample.way not in (None, "stopped") for sample in samples)),),
        targets=(
            *Target.of(stream, "median", BEYOND_MEDIAN_LIMIT_S),
            *Target.of(stream, "p95", BEYOND_P95_LIMIT_S),
            *Target.of(lab_up, "maximum", LAB_UP_LIMIT_S),
        ),
        notes=(_NOTE,),
        samples=tuple(samples),
    )
