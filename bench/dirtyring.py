"""``python -m bench dirtyring``: KVM's dirty ring loses guest writes in a migration, livemig or not.

Both QEMUs are driven by bare QMP, with the fewest commands that move a guest, so that nothing of livemig's engine can
be the cause. Each run is a new guest: what one lost does not count for the next.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import click
import msgspec

from bench.options import MIB, count_option, shared_options
from bench.progress import Progress
from bench.result import Conclusion, Figure, Total, present
from bench.runner import run_benchmark
from livemig.cli.options import RATE
from livemig.core.errors import GuestError
from livemig.lab.machine import Machine, MachineSettings
from livemig.lab.workload import Workload
from livemig.qemu.monitor import Monitor

RING_SIZES_COUNT = (4096, 65536)
MEMORY_BYTES = 64 * MIB
WORKLOAD = Workload(working_set_bytes=8 * MIB, dirty_rate_bytes_s=4 * MIB)
CAPABILITIES = ("events", "return-path")
COMPLETION_BOUND_S = 60.0
VERDICT_BOUND_S = 120.0


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """One guest moved once.

    Attributes:
        accelerator: What followed ``-accel``.
        bad_page_count: Pages that were not as the guest had written them.
        checked_page_count: Pages that it looked at.
        round_count: Passes over dirty memory.
    """

    accelerator: str
    bad_page_count: int
    checked_page_count: int
    round_count: int


@click.command(short_help="KVM's dirty ring loses writes: by bare QMP.")
@count_option(8, "guests for each accelerator")
@click.option(
    "--ring-size",
    "ring_sizes",
    type=click.IntRange(min=1024),
    multiple=True,
    default=RING_SIZES_COUNT,
    show_default=True,
    help="KVM's dirty-ring-size, a power of two. Can be given several times.",
)
@click.option(
    "--bandwidth",
    type=RATE,
    default="10MiB/s",
    show_default=True,
    help="Cap on what is sent while the guest runs. A migration that is over at once has no time to lose a write.",
)
@shared_options
def dirtyring(
    *,
    count: int,
    ring_sizes: tuple[int, ...],
    bandwidth: float,
    qemu: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Move guests under KVM with its dirty bitmap and with its dirty ring, and count pages that arrive stale.

    By bare QMP, without livemig's engine. Losses are what this shows: they don't make it fail.
    """
    accelerators = ("kvm", *(f"kvm,dirty-ring-size={size}" for size in ring_sizes))
    run_benchmark(
        "dirtyring",
        {"count": count, "accelerators": "; ".join(accelerators), "bandwidth_bytes_s": bandwidth},
        measure=partial(_measure, accelerators, count, round(bandwidth), qemu),
        conclude=partial(_conclude, accelerators),
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(
    accelerators: tuple[str, ...], count: int, bandwidth_bytes_s: int, qemu: str, samples: list[Crossing]
) -> None:
    with Progress("guests", count * len(accelerators)) as progress:
        for _ in range(count):
            for accelerator in accelerators:
                settings = MachineSettings(
                    workload=WORKLOAD, memory_bytes=MEMORY_BYTES, binary=qemu, accelerator=accelerator
                )
                samples.append(await _cross(settings, bandwidth_bytes_s))
                progress.step()


async def _cross(settings: MachineSettings, bandwidth_bytes_s: int) -> Crossing:
    with tempfile.TemporaryDirectory(prefix="livemig-bench-") as folder:
        source = Machine(settings, folder=Path(folder), name="source")
        waiting = msgspec.structs.replace(settings, incoming="defer", paused=True)
        destination = Machine(waiting, folder=Path(folder), name="destination")
        async with source, destination:
            await source.serial.wait_ready()
            round_count = await _migrate(source, destination, f"unix:{folder}/channel", bandwidth_bytes_s)
            verdict = await destination.serial.ask_verdict(timeout_s=VERDICT_BOUND_S)
    return Crossing(
        accelerator=settings.accelerator,
        bad_page_count=verdict.fault_count,
        checked_page_count=verdict.page_count,
        round_count=round_count,
    )


async def _migrate(source: Machine, destination: Machine, uri: str, bandwidth_bytes_s: int) -> int:
    """The fewest commands that move a guest; returns the passes over dirty memory."""
    capabilities = {"capabilities": [{"capability": name, "state": True} for name in CAPABILITIES]}
    async with (
        await Monitor.connect(str(source.qmp_path), name="source") as at_source,
        await Monitor.connect(str(destination.qmp_path), name="destination") as at_destination,
    ):
        for monitor in (at_source, at_destination):
            await monitor.execute("migrate-set-capabilities", capabilities)
        await at_source.execute("migrate-set-parameters", {"max-bandwidth": bandwidth_bytes_s})
        await at_destination.execute("migrate-incoming", {"uri": uri})
        with at_source.subscribe("MIGRATION") as left, at_destination.subscribe("MIGRATION") as arrived:
            await at_source.execute("migrate", {"uri": uri})
            for stream in (left, arrived):
                await stream.wait_for(
                    "MIGRATION",
                    timeout_s=COMPLETION_BOUND_S,
                    where=lambda event: event.data["status"] in ("completed", "failed"),
                )
        figures = await at_source.query_migrate()
        if str(figures.status) != "completed":
            raise GuestError(f"the guest did not arrive: {figures.error_text or figures.status}")
        await at_destination.execute("cont")
        return figures.dirty_sync_count or 0


def _conclude(accelerators: tuple[str, ...], samples: list[Crossing]) -> Conclusion:
    figures: list[Figure | None] = []
    totals: list[Total] = []
    for accelerator in accelerators:
        bad_page_counts = [sample.bad_page_count for sample in samples if sample.accelerator == accelerator]
        name = accelerator.replace(",dirty-ring-size=", "_dirty_ring_")
        figures.append(Figure.of(f"{name}_bad_page_count", f"bad pages, {accelerator}", bad_page_counts))
        losers_count = sum(count > 0 for count in bad_page_counts)
        totals.append(
            Total(f"{name}_guest_with_bad_pages_count", f"guests with bad pages, {accelerator}", losers_count)
        )
    pages = max(sample.checked_page_count for sample in samples)
    note = f"each guest checked {pages} pages after it arrived; it rewrote {WORKLOAD.working_set_bytes // MIB} MiB"
    return Conclusion(figures=present(*figures), totals=tuple(totals), notes=(note,), samples=tuple(samples))
