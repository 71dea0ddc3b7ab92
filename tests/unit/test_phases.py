"""Every phase meets every status; and what QEMU was seen to do is legal."""

from __future__ import annotations

import itertools

import pytest

from livemig.core.errors import PolicyError
from livemig.core.phases import TRANSITIONS, Phase, next_phase
from livemig.core.status import MigrationStatus

# The source's statuses as recorded from 7.2, 10.0 and 11.1 (reference/observed), each once.
OBSERVED = [
    "setup active completed",
    "setup active device completed",
    "setup active pre-switchover device completed",
    "setup active pre-switchover device cancelling cancelled",
    "setup active pre-switchover cancelling cancelled",
    "setup active cancelling cancelled",
    "setup cancelling cancelled",
    "setup failed",
    "setup active failed",
    "setup active failing failed",
    "setup active failing failing failed",
    "setup active device failed",
    "setup active postcopy-active cancelling cancelled",
    "setup active device postcopy-active completed",
    "setup active device postcopy-device postcopy-active completed",
    "setup active postcopy-active postcopy-paused postcopy-recover postcopy-active completed",
    "setup active device postcopy-active postcopy-paused postcopy-recover-setup postcopy-active completed",
]
ENDS = {"completed": Phase.COMPLETED, "cancelled": Phase.CANCELLED, "failed": Phase.FAILED}


@pytest.mark.parametrize("words", OBSERVED)
def test_what_qemu_was_seen_to_do_is_legal_whatever_a_poll_skips(words):
    statuses = [MigrationStatus(word) for word in words.split()]
    for kept in itertools.product((True, False), repeat=len(statuses) - 1):
        phase = Phase.SETUP
        for status, seen in zip(statuses, (*kept, True), strict=True):
            if seen:
                phase = next_phase(phase, status)
        assert phase is ENDS[words.split()[-1]]


@pytest.mark.parametrize("phase", Phase)
def test_an_unknown_status_stays_where_it_is(phase):
    assert next_phase(phase, MigrationStatus("what-comes-next")) is phase
    assert next_phase(phase, MigrationStatus.COLO) is phase


@pytest.mark.parametrize("phase", Phase)
def test_every_status_leads_somewhere_or_raises_with_its_facts(phase):
    for status in MigrationStatus:
        if status in TRANSITIONS[phase]:
            assert isinstance(next_phase(phase, status), Phase)
            continue
        with pytest.raises(PolicyError) as caught:
            next_phase(phase, status)
        assert (caught.value.phase, caught.value.status) == (phase, status)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase.terminal])
def test_a_terminal_phase_leads_nowhere(phase):
    assert set(TRANSITIONS[phase].values()) == {phase}


@pytest.mark.parametrize("phase", [phase for phase in Phase if not phase.terminal])
def test_from_any_other_phase_cancelled_and_failed_are_reached(phase):
    assert next_phase(phase, MigrationStatus.CANCELLED) is Phase.CANCELLED
    assert next_phase(phase, MigrationStatus.FAILED) is Phase.FAILED


@pytest.mark.parametrize(
    ("phase", "status"),
    [
        (Phase.PRECOPY, "setup"),
        (Phase.PRECOPY, "none"),
        (Phase.SWITCHOVER, "setup"),
        (Phase.POSTCOPY, "active"),
        (Phase.FAILING, "completed"),
        (Phase.FAILING, "active"),
        (Phase.COMPLETED, "failed"),
        (Phase.CANCELLED, "active"),
    ],
)
def test_what_qemu_can_not_do_is_illegal(phase, status):
    with pytest.raises(PolicyError):
        next_phase(phase, MigrationStatus(status))
