"""Sizes, rates and times as people write them, to and from SI base units.

A bare number is refused with a hint: nobody knows whether 300 means milliseconds or seconds.
"""

import math
import re
from collections.abc import Mapping

from livemig.core.errors import PlanError

DURATION_UNITS_S: Mapping[str, float] = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
}
SIZE_UNITS_BYTES: Mapping[str, float] = {
    "B": 1,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
BIT_RATE_UNITS_BYTES_S: Mapping[str, float] = {
    "bit/s": 1 / 8,
    "kbit/s": 1e3 / 8,
    "Mbit/s": 1e6 / 8,
    "Gbit/s": 1e9 / 8,
}
RATE_UNITS_BYTES_S: Mapping[str, float] = {
    **{f"{unit}/s": size for unit, size in SIZE_UNITS_BYTES.items()},
    **BIT_RATE_UNITS_BYTES_S,
}

_QUANTITY = re.compile(r"\s*(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>[A-Za-z/]*)\s*\Z")


def parse_duration_s(text: str) -> float:
    """Reads a time such as ``300ms``, ``1.5s`` or ``10min`` into seconds.

    Raises:
        PlanError: When it has no unit, an unknown one, or no number.
    """
    return _parse(text, DURATION_UNITS_S, what="a time", example="300ms, 1.5s, 10min")


def parse_size_bytes(text: str) -> int:
    """Reads a size such as ``512MiB`` or ``1GB`` into bytes.

    Raises:
        PlanError: When it has no unit, an unknown one, or no number.
    """
    return round(_parse(text, SIZE_UNITS_BYTES, what="a size", example="512MiB, 2GiB"))


def parse_rate_bytes_s(text: str) -> float:
    """Reads a rate such as ``100MiB/s`` or ``1Gbit/s`` into bytes per second.

    Raises:
        PlanError: When it has no unit, an unknown one, or no number.
    """
    return _parse(text, RATE_UNITS_BYTES_S, what="a rate", example="100MiB/s, 1Gbit/s")


def _parse(text: str, units: Mapping[str, float], *, what: str, example: str) -> float:
    match = _QUANTITY.match(text)
    if match is None:
        raise PlanError(f"{text!r} is not {what}: write it like {example}")
    number, unit = match["number"], match["unit"]
    if not unit:
        raise PlanError(f"{text!r} has no unit: write {what} like {example}")
    factor = units.get(unit)
    if factor is None:
        raise PlanError(f"{unit!r} in {text!r} is no unit of {what}: use one of {', '.join(units)}")
    value = float(number) * factor
    if value > 2**63:
        raise PlanError(f"{text!r} is too large")
    return value


def format_duration(duration_s: float) -> str:
    """Writes a time in seconds with three significant digits and the unit that suits it."""
    magnitude_s = abs(duration_s)
    if not math.isfinite(duration_s):
        return f"{duration_s} s"
    if magnitude_s < 0.001:
        return f"{duration_s * 1e6:.0f} us"
    if magnitude_s < 0.1:
        return f"{duration_s * 1e3:.1f} ms"
    if magnitude_s < 1:
        return f"{duration_s * 1e3:.0f} ms"
    if magnitude_s < 100:
        return f"{duration_s:.2f} s"
    minutes, seconds = divmod(round(magnitude_s), 60)
    return f"{'-' if duration_s < 0 else ''}{minutes} min {seconds} s"


def format_size(size_bytes: float) -> str:
    """Writes a size in bytes with a binary unit."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_rate(rate_bytes_s: float) -> str:
    """Writes a rate in bytes per second with a binary unit."""
    return f"{format_size(rate_bytes_s)}/s"


def format_bit_rate(rate_bytes_s: float) -> str:
    """Writes a rate in bytes per second as a link's: in bits, with a decimal unit."""
    value = rate_bytes_s * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} Gbit/s"
