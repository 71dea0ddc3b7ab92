"""``calc-dirty-rate`` as a measurement of D(T): asks, waits, and says how many pages, and how far off. Plans nothing.

Page sampling alone: QEMU hashes some pages, waits, and hashes them again (migration/dirtyrate.c). It needs no
accelerator's help, slows nothing down, and counts a page once however often it was written: D(T), not a rate times T.
"""

from __future__ import annotations

import asyncio
import time
from math import sqrt

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.errors import CommandError, ReplyError
from livemig.qemu.monitor import Monitor

PAGES_PER_MIB = 256
BLOCK_LEAST_BYTES = 128 * 2**20
"""QEMU leaves smaller RAM blocks out (MIN_RAMBLOCK_SIZE)."""
SAMPLED_PAGES_MOST = 32768
"""Over all of the guest: hashed twice, at some microseconds each, while it runs."""
PER_GIB_LEAST, PER_GIB_MOST = 128, 16384
POLL_S = 0.01
BEYOND_BOUND_S = 10.0
"""How much longer than asked a measurement may take: a large guest's pages are hashed first."""


MILLISECONDS = {"calc-time-unit": "millisecond"}
"""Since QEMU 8.2; whole seconds before."""


class _Reply(msgspec.Struct, rename="kebab"):
    status: str
    calc_time: int
    dirty_rate: int | None = None


async def measure_dirtied(monitor: Monitor, period_s: float, memory_bytes: int) -> DirtySample:
    """Measures how many distinct pages the guest dirties within about so long.

    Args:
        monitor: Of the source.
        period_s: How long; whole seconds before QEMU 8.2.
        memory_bytes: The guest's memory, all in blocks that QEMU samples.

    Raises:
        CommandError: When QEMU refuses, or measures for somebody else already.
        ReplyError: When what it measured can't be.
        LivemigError: When it does not answer, or never ends.
    """
    per_gib = sampled_pages_per_gib(memory_bytes)
    unit = await _begin(monitor, period_s, per_gib)
    reply = await _result(monitor, period_s, unit)
    unit_s = 0.001 if unit else 1.0
    return dirty_sample(
        rate_mib_s=reply.dirty_rate or 0,
        period_s=max(reply.calc_time * unit_s, 0.001),
        memory_bytes=memory_bytes,
        sampled_page_count=max(per_gib * memory_bytes / 2**30, 1.0),
    )


def sampled_pages_per_gib(memory_bytes: int) -> int:
    """Returns QEMU's ``sample-pages``: as many as is cheap for a guest of that size."""
    wanted = SAMPLED_PAGES_MOST * 2**30 // max(memory_bytes, 1)
    return min(max(wanted, PER_GIB_LEAST), PER_GIB_MOST)


def dirty_sample(*, rate_mib_s: int, period_s: float, memory_bytes: int, sampled_page_count: float) -> DirtySample:
    """Turns QEMU's whole number of MiB/s into distinct pages and their standard deviation.

    The rate is rounded down, which half a unit makes up for; the share of pages has the variance of a draw, with one
    more of each kind than was seen (Laplace), since to find none dirty among some does not prove that none is.

    Raises:
        ReplyError: When more was dirtied than there is.
    """
    page_count = memory_bytes / 4096
    unit_pages = PAGES_PER_MIB * period_s
    pages = (rate_mib_s + (0.5 if rate_mib_s > 0 else 0.25)) * unit_pages
    if rate_mib_s < 0 or pages > 1.05 * page_count + 2 * unit_pages:
        raise ReplyError(
            f"QEMU says that the guest dirties {rate_mib_s} MiB/s over {period_s} s, more than it has",
            command="calc-dirty-rate",
        )
    share = min(pages / page_count, 1.0)
    smoothed = (share * sampled_page_count + 1) / (sampled_page_count + 2)
    variance = page_count**2 * smoothed * (1 - smoothed) / sampled_page_count + unit_pages**2 / 12
    return DirtySample(
        periods_s=(period_s,),
        weights=(1.0,),
        dirtied_pages=min(pages, page_count),
        deviation_pages=sqrt(variance),
    )


async def _begin(monitor: Monitor, period_s: float, per_gib: int) -> dict[str, str]:
    """Starts a measurement; returns what names the unit in which QEMU tells how long it took."""
    try:
        await monitor.execute(
            "calc-dirty-rate", {"calc-time": round(period_s * 1000), "sample-pages": per_gib, **MILLISECONDS}
        )
    except CommandError as error:
        if period_s < 1 or "calc-time-unit" not in str(error):
            raise
        await monitor.execute("calc-dirty-rate", {"calc-time": round(period_s), "sample-pages": per_gib})
        return {}
    return MILLISECONDS


async def _result(monitor: Monitor, period_s: float, unit: dict[str, str]) -> _Reply:
    give_up_s = time.monotonic() + period_s + BEYOND_BOUND_S
    await asyncio.sleep(period_s)
    while True:
        reply = await monitor.execute("query-dirty-rate", unit or None)
        try:
            found = msgspec.convert(reply, _Reply)
        except msgspec.ValidationError as error:
            raise ReplyError(f"query-dirty-rate makes no sense: {error}", command="query-dirty-rate") from error
        if found.status == "measured":
            return found
        if time.monotonic() > give_up_s:
            raise ReplyError(
                f"QEMU's measurement of {period_s} s has not ended {BEYOND_BOUND_S:.0f} s after its time",
                command="calc-dirty-rate",
            )
        await asyncio.sleep(POLL_S)
