"""The core of the engine's own suite, between two hosts over SSH and TLS: the same tests with another pair."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from livemig.lab.two_hosts import TwoHosts
from tests.engine.test_failures import (
    test_cancel_in_pre_switchover,
    test_cancel_in_setup,
    test_cancel_while_active,
    test_deadline_cancels,
    test_deadline_pauses,
    test_destination_hangs,
    test_destination_killed,
    test_guest_powers_off_half_way,
    test_guest_resets_in_probation,
    test_leaving_the_context_early_cancels,
    test_monitor_lost_while_moving,
    test_source_killed,
    test_source_killed_after_it_completed,
    test_tune_while_running,
)
from tests.engine.test_success import (
    test_guest_arrives_and_source_quits,
    test_guest_paused_by_somebody_on_the_way_arrives_paused,
    test_pause_before_switchover_asks_for_the_last_word,
    test_paused_guest_arrives_paused,
    test_source_is_kept_paused_when_asked,
    test_suspended_guest_arrives_suspended,
)
from tests.ssh.host_pair import HostPair

__all__ = [
    "test_cancel_in_pre_switchover",
    "test_cancel_in_setup",
    "test_cancel_while_active",
    "test_deadline_cancels",
    "test_deadline_pauses",
    "test_destination_hangs",
    "test_destination_killed",
    "test_guest_arrives_and_source_quits",
    "test_guest_paused_by_somebody_on_the_way_arrives_paused",
    "test_guest_powers_off_half_way",
    "test_guest_resets_in_probation",
    "test_leaving_the_context_early_cancels",
    "test_monitor_lost_while_moving",
    "test_pause_before_switchover_asks_for_the_last_word",
    "test_paused_guest_arrives_paused",
    "test_source_is_kept_paused_when_asked",
    "test_source_killed",
    "test_source_killed_after_it_completed",
    "test_suspended_guest_arrives_suspended",
    "test_tune_while_running",
]

pytestmark = pytest.mark.qemu


@pytest.fixture
async def pair(lab: TwoHosts) -> AsyncIterator[HostPair]:
    """A source on host A; livemig launches its destination on host B."""
    made = HostPair(lab)
    try:
        yield made
    finally:
        await made.stop()
