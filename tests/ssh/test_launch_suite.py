"""The core of launching's own suite, from one host to the other over SSH: the same tests with another bench."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.launch.bench import Bench
from tests.launch.test_changed_since_start import (
    image,
    test_a_snapshot_that_was_taken_is_the_disk,
    test_two_files_for_one_disk_are_refused,
    test_what_was_plugged_in_moves_on_and_on,
)
from tests.launch.test_failures import (
    test_of_two_launches_at_once_one_is_refused,
    test_one_that_dies_at_once_is_quoted,
    test_one_that_is_cancelled_is_gone,
    test_one_that_never_answers_is_ended,
)
from tests.launch.test_surroundings import test_it_runs_as_its_sources_user
from tests.ssh.host_bench import host_bench

__all__ = [
    "image",
    "test_a_snapshot_that_was_taken_is_the_disk",
    "test_it_runs_as_its_sources_user",
    "test_of_two_launches_at_once_one_is_refused",
    "test_one_that_dies_at_once_is_quoted",
    "test_one_that_is_cancelled_is_gone",
    "test_one_that_never_answers_is_ended",
    "test_two_files_for_one_disk_are_refused",
    "test_what_was_plugged_in_moves_on_and_on",
]

pytestmark = pytest.mark.qemu


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Starts sources on host A, and launches from them on host B."""
    async with host_bench(monkeypatch) as made:
        yield made
