"""A sleeping guest is refused where a QEMU before 9.0 would lose it: preflight alone, no QEMU."""

from __future__ import annotations

import msgspec
import pytest

from livemig.core.observation import Observation
from livemig.core.status import MigrationStatus, RunState
from livemig.engine.preflight import refusals
from livemig.engine.side import Facts

ASLEEP = Facts(
    vcpu_count=1,
    version="10.0.2",
    guest_name="guest",
    run_state=RunState.SUSPENDED,
    observation=Observation(time_s=0.0, status=MigrationStatus.NONE, status_text="none"),
    memory_bytes=2**28,
    thread_ids=(100,),
)
WAITING = msgspec.structs.replace(ASLEEP, run_state=RunState.INMIGRATE, thread_ids=(200,))


@pytest.mark.parametrize(
    ("source", "destination", "refused"),
    [
        ("9.0.0", "11.1.3", ()),
        ("8.2.7", "9.0.0", ("source",)),
        ("10.0.2", "7.2.22", ("destination",)),
        ("7.2.22", "7.2.22", ("source", "destination")),
    ],
)
def test_each_old_side_is_named_with_the_remedy(source: str, destination: str, refused: tuple[str, ...]) -> None:
    """One line for each side that can't keep it asleep."""
    found = refusals(
        msgspec.structs.replace(ASLEEP, version=source), msgspec.structs.replace(WAITING, version=destination)
    )
    assert len(found) == len(refused)
    for line, side in zip(found, refused, strict=True):
        assert f"the {side} is QEMU" in line
        assert "system_wakeup" in line


def test_a_guest_that_is_awake_may_move() -> None:
    """Between the same QEMUs."""
    awake = msgspec.structs.replace(ASLEEP, version="7.2.22", run_state=RunState.RUNNING)
    assert refusals(awake, msgspec.structs.replace(WAITING, version="7.2.22")) == ()
