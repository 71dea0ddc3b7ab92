"""Guests and a rule to simulate with; holds no test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from livemig.core.action import Action, Cancel, SetBandwidth, SetDowntimeLimit
from livemig.core.inputs import CancelRequested, Input, Prepared, SourceStopped, StatusSeen
from livemig.core.phases import Phase
from livemig.core.policy import Decision
from livemig.core.trace import InputRecord
from livemig.simulation.simulate import SimulatedRun
from livemig.simulation.workloads import (
    BuiltinPhase,
    SimulatedGuest,
    builtin_guest,
)

MIB = 2**20
VERSIONS = ["7.2", "10.0", "11.1"]
TRACES = Path(__file__).parents[1] / "traces"


def guest_of(pattern: str = "random", *, memory: int = 64, **phase: float) -> SimulatedGuest:
    """A small built-in guest; sizes and rates in MiB."""
    parameters = {"working_set_bytes": 16, "dirty_rate_bytes_s": 40} | phase
    scaled: dict[str, Any] = {name: value * MIB if "bytes" in name else value for name, value in parameters.items()}
    return builtin_guest(
        BuiltinPhase(pattern=pattern, **scaled), memory_bytes=memory * MIB, fill_bytes=memory * 3 // 4 * MIB
    )


class Fixed:
    """A rule that sets what it is given and then never does anything."""

    def __init__(self, downtime_limit_s: float = 0.3, bandwidth_bytes_s: float | None = None) -> None:
        self._actions = (
            SetDowntimeLimit(downtime_limit_s=downtime_limit_s),
            SetBandwidth(bandwidth_bytes_s=bandwidth_bytes_s),
        )

    def step(self, seen: Input) -> Decision:
        """Sets it before it begins; heeds who cancels."""
        actions: tuple[Action, ...] = self._actions if isinstance(seen, Prepared) else ()
        if isinstance(seen, CancelRequested):
            actions = (Cancel(),)
        return Decision(phase=Phase.PRECOPY, actions=actions)


def said(run: SimulatedRun) -> list[str]:
    """What QEMU said, polls left out."""
    words = []
    for record in run.records:
        if isinstance(record, InputRecord):
            if isinstance(record.input, StatusSeen):
                words.append(record.input.status.value)
            elif isinstance(record.input, SourceStopped):
                words.append("STOP")
    return words
