"""Sampling by a QEMU that refuses, lies or never ends: fewer samples, a line that says so, and nothing is raised."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from livemig.core.foreknowledge import Foreknowledge
from livemig.core.plan import Plan
from livemig.core.what_if import forecast_start
from livemig.engine.sampling import Sampling, sample_guest
from livemig.qemu import dirty_rate
from livemig.qemu.monitor import Monitor

from .fake_qemu import FakeQemu, Refused

MiB = 2**20
MEMORY_BYTES = 256 * MiB
TOTAL_S = 1.0

Change = Callable[[dict[str, Any], int], dict[str, Any]]


class SamplingQemu(FakeQemu):
    """Measures a steady 4 MiB/s, and says it as `change` has it, by the number of the measurement.

    Attributes:
        refusal: What ``calc-dirty-rate`` is refused with; empty takes it.
    """

    def __init__(self, path: Path, change: Change = lambda reply, _number: reply) -> None:
        super().__init__(path)
        self.refusal = ""
        self._change = change
        self._count = 0
        self._reply: dict[str, Any] = {
            "status": "unstarted",
            "start-time": 0,
            "calc-time": 0,
            "sample-pages": 512,
            "mode": "page-sampling",
        }

    def _do_calc_dirty_rate(self, **arguments: Any) -> dict[str, Any]:
        if self.refusal:
            raise Refused(self.refusal)
        self._count += 1
        reply = {
            "status": "measured",
            "start-time": self._count,
            "calc-time": arguments["calc_time"],
            "sample-pages": arguments["sample_pages"],
            "mode": "page-sampling",
            "dirty-rate": 4,
        }
        self._reply = self._change(reply, self._count)
        return {}

    def _do_query_dirty_rate(self, calc_time_unit: str = "second") -> dict[str, Any]:
        assert calc_time_unit == "millisecond"
        return self._reply


async def sampled(qemu: SamplingQemu, memory_bytes: int = MEMORY_BYTES) -> Sampling:
    """Samples its guest, as a plan does."""
    async with qemu, await Monitor.connect(qemu.path) as monitor:
        return await sample_guest(monitor, total_s=TOTAL_S, memory_bytes=memory_bytes)


def width(found: Sampling) -> float:
    """How far apart the ends of the forecast's 90 % interval of the time are, over its middle."""
    plan = Plan(bandwidth_bytes_s=100.0 * MiB)
    forecast = forecast_start(plan, MEMORY_BYTES, Foreknowledge(samples=found.samples, same_host=True, seed=1))
    assert forecast.total_s is not None
    least, middle, most = forecast.total_s
    return (most - least) / middle


async def test_an_honest_one_is_believed(socket_path: Path) -> None:
    """What the others are held against: many samples and no note."""
    found = await sampled(SamplingQemu(socket_path))
    assert len(found.samples) > 5
    assert found.notes == ()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda reply, _: {**reply, "dirty-rate": -1}, id="below nothing"),
        pytest.param(lambda reply, _: {**reply, "dirty-rate": 10**12}, id="more than there is"),
        pytest.param(lambda reply, _: {**reply, "dirty-rate": None}, id="no rate"),
        pytest.param(lambda reply, _: {**reply, "dirty-rate": "much"}, id="a word"),
        pytest.param(lambda reply, _: {**reply, "calc-time": 0}, id="no time"),
        pytest.param(lambda reply, _: {**reply, "calc-time": 10**6}, id="a time that has not passed"),
        pytest.param(lambda reply, number: {**reply, "start-time": -number}, id="older and older"),
        pytest.param(lambda reply, _: {**reply, "sample-pages": 7}, id="another measurement"),
        pytest.param(lambda _reply, _: {"status": "measured"}, id="half a reply"),
    ],
)
async def test_figures_that_can_not_be_are_left_out(socket_path: Path, change: Change) -> None:
    """Said once, not tried for ever; the forecast is as wide as without any."""
    honest = await sampled(SamplingQemu(socket_path))
    socket_path.unlink()
    found = await sampled(SamplingQemu(socket_path, change))
    assert len(found.samples) <= 1  # the first of those that get older is as good as any
    assert any("was left out" in note for note in found.notes)
    assert "the guest is not sampled any further" in found.notes
    assert len(found.notes) <= 4
    assert width(found) > width(honest)


async def test_one_that_refuses_is_not_asked_for_ever(socket_path: Path) -> None:
    qemu = SamplingQemu(socket_path)
    qemu.refusal = "dirty rate measurement is not supported here"
    found = await sampled(qemu)
    assert found.samples == ()
    assert any("was refused: dirty rate measurement is not supported here" in note for note in found.notes)
    assert sum(name == "calc-dirty-rate" for name, _ in qemu.commands) == 3


async def test_one_without_the_command_is_said(socket_path: Path) -> None:
    qemu = SamplingQemu(socket_path)
    qemu.faults.errors["query-dirty-rate"] = ("CommandNotFound", "The command query-dirty-rate has not been found")
    found = await sampled(qemu)
    assert found.samples == ()
    (note,) = found.notes
    assert "can't be sampled any further" in note


async def test_one_that_never_ends_is_given_up(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured before stays."""
    monkeypatch.setattr(dirty_rate, "FINISH_BOUND_S", 0.2)
    found = await sampled(
        SamplingQemu(socket_path, lambda reply, number: {**reply, "status": "measuring"} if number > 3 else reply)
    )
    assert len(found.samples) == 3
    (note,) = found.notes
    assert "has not ended" in note


async def test_a_quiet_guest_is_said_to_be_one(socket_path: Path) -> None:
    """No page was seen to change: that is a measurement, too, and how little it may be is left open."""
    found = await sampled(SamplingQemu(socket_path, lambda reply, _: {**reply, "dirty-rate": 0}))
    assert len(found.samples) > 5
    assert all(sample.deviation_pages > 0 for sample in found.samples)
    assert found.notes == ("the guest was too quiet to sample: no page was seen to change",)


async def test_a_small_guest_is_said_to_be_one(socket_path: Path) -> None:
    """One whose pages are few, and one that QEMU leaves out altogether, which is not even asked about."""
    small = await sampled(SamplingQemu(socket_path), 16 * MiB)
    assert any("so small that few of its pages were sampled" in note for note in small.notes)
    socket_path.unlink()
    tiny = SamplingQemu(socket_path)
    found = await sampled(tiny, 64 * 2**10)
    assert found.samples == ()
    assert "too small for QEMU to sample" in found.notes[0]
    assert tiny.commands == []
