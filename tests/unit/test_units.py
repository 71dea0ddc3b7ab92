"""Sizes, rates and times as people write them: read right, refused with a hint, written so that they can be read."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemig.core.errors import PlanError
from livemig.core.units import (
    DURATION_UNITS_S,
    RATE_UNITS_BYTES_S,
    SIZE_UNITS_BYTES,
    format_duration,
    format_rate,
    format_size,
    parse_duration_s,
    parse_rate_bytes_s,
    parse_size_bytes,
)

PARSERS = {
    parse_duration_s: DURATION_UNITS_S,
    parse_size_bytes: SIZE_UNITS_BYTES,
    parse_rate_bytes_s: RATE_UNITS_BYTES_S,
}
parsers = pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_duration_s, "300ms", 0.3),
        (parse_duration_s, "1.5s", 1.5),
        (parse_duration_s, " 10 min ", 600),
        (parse_duration_s, ".5h", 1800),
        (parse_duration_s, "20us", 2e-5),
        (parse_duration_s, "0s", 0),
        (parse_size_bytes, "512MiB", 512 * 2**20),
        (parse_size_bytes, "1GB", 10**9),
        (parse_size_bytes, "0.5KiB", 512),
        (parse_rate_bytes_s, "100MiB/s", 100 * 2**20),
        (parse_rate_bytes_s, "1Gbit/s", 125e6),
        (parse_rate_bytes_s, "8bit/s", 1),
        (parse_rate_bytes_s, "10MB/s", 1e7),
    ],
)
def test_what_people_write_is_read(parse, text, value):
    """Decimal and binary units, spaces, fractions."""
    assert parse(text) == pytest.approx(value)


@parsers
@pytest.mark.parametrize("text", ["300", "1.5", " 7 "])
def test_a_bare_number_is_refused_with_a_hint(parse, text):
    """Nobody knows whether 300 means milliseconds or seconds: the message shows how to write it."""
    with pytest.raises(PlanError, match=re.escape(f"{text!r} has no unit: write a ") + r".+ like \d+"):
        parse(text)


@parsers
def test_an_unknown_unit_is_refused_with_all_known_ones(parse):
    """The message lists every unit that would do, so that a typo is mended at the first try."""
    with pytest.raises(PlanError) as caught:
        parse("5parsec")
    assert "'parsec' in '5parsec' is no unit of" in str(caught.value)
    assert f"use one of {', '.join(PARSERS[parse])}" in str(caught.value)


@parsers
@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "ms", "-5ms", "-1GiB/s", "+1s", "nan", "nans", "inf", "infs", "1e3s", "1,5s", "5 m s", "0x10s"],
)
def test_what_is_no_number_with_a_unit_is_refused(parse, text):
    """Negative, not a number, infinite, with an exponent, with a comma: refused, never guessed."""
    with pytest.raises(PlanError):
        parse(text)


@pytest.mark.parametrize(
    ("parse", "unit"), [(parse_duration_s, "s"), (parse_size_bytes, "B"), (parse_rate_bytes_s, "B/s")]
)
def test_what_is_too_large_is_refused(parse, unit):
    """What QEMU's 64 bits can't hold is refused, however many digits it has."""
    assert parse("9" * 18 + unit) == pytest.approx(1e18)
    for digits in (19, 25, 400):
        with pytest.raises(PlanError, match="is too large"):
            parse("9" + "9" * digits + unit)


def test_units_are_told_apart_by_case():
    """``Mbit`` is no ``mbit``, ``MB`` no ``mb``: a guess would be wrong by a factor of eight or a billion."""
    for text in ("5mbit/s", "5MBit/s", "5mb/s", "5Kbit/s"):
        with pytest.raises(PlanError, match="is no unit"):
            parse_rate_bytes_s(text)


@given(st.text(max_size=20))
@settings(max_examples=60, deadline=None)
def test_no_text_raises_anything_but_a_plan_error(text):
    """Whatever is typed becomes a finite number of at least 0, or one clear line."""
    for parse in PARSERS:
        try:
            value = parse(text)
        except PlanError:
            continue
        assert 0 <= value < math.inf


def test_every_unit_is_worth_what_it_is_everywhere():
    """Decimal and binary multiples, eight bits to a byte."""
    assert DURATION_UNITS_S == {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600}
    for power, letter in enumerate("KMGT", start=1):
        decimal = "k" if letter == "K" else letter
        assert SIZE_UNITS_BYTES[f"{letter}iB"] == RATE_UNITS_BYTES_S[f"{letter}iB/s"] == 1024**power
        assert SIZE_UNITS_BYTES[f"{decimal}B"] == RATE_UNITS_BYTES_S[f"{decimal}B/s"] == 1000**power
        if power < 4:
            assert RATE_UNITS_BYTES_S[f"{decimal}bit/s"] == 1000**power / 8
    assert SIZE_UNITS_BYTES["B"] == RATE_UNITS_BYTES_S["B/s"] == 8 * RATE_UNITS_BYTES_S["bit/s"] == 1
    assert (len(SIZE_UNITS_BYTES), len(RATE_UNITS_BYTES_S)) == (9, 13)


@parsers
@given(number=st.integers(0, 10**6), data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_number_in_each_unit_is_the_number_times_the_unit(parse, number, data):
    """No unit shadows another in reading."""
    unit = data.draw(st.sampled_from(list(PARSERS[parse])))
    factor = PARSERS[parse][unit]
    assert parse(f"{number}{unit}") == pytest.approx(number * factor, abs=0.5 if parse is parse_size_bytes else 1e-12)


@given(st.floats(1e-6, 99))
def test_a_time_survives_writing_and_reading(duration_s):
    """Three significant digits come back, with the unit that suits them."""
    assert parse_duration_s(format_duration(duration_s)) == pytest.approx(duration_s, rel=0.006, abs=0.6e-6)


@given(st.floats(0, 2**50))
def test_a_size_and_a_rate_survive_writing_and_reading(size_bytes):
    """One decimal of a binary unit comes back."""
    nearly = pytest.approx(size_bytes, rel=0.05, abs=0.6)
    assert parse_size_bytes(format_size(size_bytes)) == nearly
    assert parse_rate_bytes_s(format_rate(size_bytes)) == nearly


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.0, "0 us"),
        (0.00042, "420 us"),
        (0.012, "12.0 ms"),
        (0.3, "300 ms"),
        (2.0, "2.00 s"),
        (-2.5, "-2.50 s"),
        (100.0, "1 min 40 s"),
        (119.7, "2 min 0 s"),
        (3599.9, "60 min 0 s"),
        (-100.0, "-1 min 40 s"),
        (math.inf, "inf s"),
        (math.nan, "nan s"),
    ],
)
def test_times_are_written_for_people(duration_s, text):
    """Also those that no user may give, since a refusal must be able to name them."""
    assert format_duration(duration_s) == text


@given(st.floats())
def test_any_number_can_be_written(value):
    """Writing never fails, and no minute has sixty seconds."""
    assert format_size(value)
    assert format_rate(value).endswith("/s")
    assert " 60 s" not in format_duration(value)
