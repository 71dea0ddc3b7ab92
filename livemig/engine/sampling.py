"""Samples how a running guest dirties its memory, for a forecast, within a given time. Touches nothing else of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from livemig.core.dirty_sample import DirtySample
from livemig.core.errors import CommandError, LivemigError, MonitorLost
from livemig.core.units import format_duration, format_size
from livemig.qemu.dirty_rate import BLOCK_LEAST_BYTES, measure_dirtied
from livemig.qemu.monitor import Monitor

PERIOD_LEAST_S = 0.05
PERIOD_WHOLE_S = 1.0
"""Before QEMU 8.2 only whole seconds are measured."""
LONGEST_SHARE = 0.25
OVERHEAD_S = 0.02
"""What a measurement takes besides its period: hashing, polling."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        samples: One for each measurement.
        notes: What could not be measured, and why: the forecast is wider for it.
        duration_s: How long it took.
    """

    samples: tuple[DirtySample, ...] = ()
    notes: tuple[str, ...] = ()
    duration_s: float = 0.0


def sampling_periods(total_s: float, least_s: float = PERIOD_LEAST_S) -> tuple[float, ...]:
    """Returns the periods to measure, in order: doubling from the least, again and again while there is time.

    The longest takes a quarter of it. Rounds of short and long ones alternate, so that a guest that changes meanwhile
    does not look like one with another D(T).
    """
    ladder = []
    period_s = least_s
    while period_s <= max(total_s * LONGEST_SHARE, least_s):
        ladder.append(period_s)
        period_s *= 2
    periods: list[float] = []
    left_s = total_s
    while True:
        fitting = [one for one in ladder if one + OVERHEAD_S <= left_s]
        if not fitting:
            return tuple(periods)
        for one in fitting:
            if one + OVERHEAD_S <= left_s:
                periods.append(one)
                left_s -= one + OVERHEAD_S
        ladder = ladder[:-1] if len(ladder) > 4 else ladder


async def sample_guest(
    monitor: Monitor, *, total_s: float, memory_bytes: int, tell: Callable[[float, float], None] | None = None
) -> Sampling:
    """Measures for about so long; whatever QEMU refuses or makes no sense of is a note, and fewer samples.

    Args:
        monitor: Of the source, whose guest runs.
        total_s: How long it may take; 0 asks QEMU nothing.
        memory_bytes: The guest's memory.
        tell: Is told the seconds that have passed, and those that are meant.

    Raises:
        MonitorLost: When the monitor ends.
    """
    if total_s <= 0:
        return Sampling()
    if memory_bytes < BLOCK_LEAST_BYTES:
        size = format_size(memory_bytes)
        return Sampling(notes=(f"a guest of {size} is too small for QEMU to sample: the forecast is wider for it",))
    began_s = time.monotonic()
    samples: list[DirtySample] = []
    notes: list[str] = []
    periods = list(sampling_periods(total_s))
    while periods:
        period_s = periods.pop(0)
        passed_s = time.monotonic() - began_s
        if passed_s + period_s > total_s + OVERHEAD_S:
            continue
        if tell is not None:
            tell(passed_s, total_s)
        try:
            samples.append(await measure_dirtied(monitor, period_s, memory_bytes))
        except MonitorLost:
            raise
        except CommandError as error:
            if period_s < PERIOD_WHOLE_S and not samples and _only_whole_seconds(error):
                periods = list(sampling_periods(total_s - passed_s, PERIOD_WHOLE_S))
                continue
            notes.append(f"the guest can't be sampled any further: {error}")
            break
        except LivemigError as error:
            notes.append(f"a sample over {format_duration(period_s)} was left out: {error}")
            if len(notes) >= 3:
                break
    return Sampling(samples=tuple(samples), notes=tuple(notes), duration_s=time.monotonic() - began_s)


def _only_whole_seconds(error: CommandError) -> bool:
    return any(word in str(error) for word in ("calc-time-unit", "calc-time", "out of range"))
