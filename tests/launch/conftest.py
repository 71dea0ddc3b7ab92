"""Fixtures for the tests of launching: on this machine, or with ``--two-hosts`` from one host to another."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.launch.bench import QEMU, Bench
from tests.launch.leftovers import end_stale, own_folder
from tests.ssh.host_bench import host_bench

OF_THIS_MACHINE = frozenset(
    (
        "test_a_deleted_working_folder_is_none",
        "test_a_destination_is_launched_from[secret]",
        "test_a_destination_without_memory_is_refused",
        "test_a_guest_with_shared_memory_in_a_file_moves_into_a_fresh_one",
        "test_a_monitor_whose_socket_was_passed_is_seen_through",
        "test_a_name_may_hold_any_byte",
        "test_a_process_of_somebody_else_is_refused",
        "test_a_relative_image_of_a_deleted_working_folder_is_named",
        "test_a_source_in_another_pid_namespace_is_not_taken_for_another_qemu",
        "test_a_source_in_another_pid_namespace_moves_into_a_given_command",
        "test_a_stranger_at_the_launched_ones_monitor_is_refused",
        "test_a_taken_port_is_named_or_left",
        "test_a_tap_by_name_needs_another",
        "test_file_backed_memory_on_one_host",
        "test_it_has_the_surroundings_of_its_source",
        "test_it_outlives_livemig",
        "test_it_runs_in_its_sources_network_namespace",
        "test_of_two_runs_at_once_to_one_place_one_moves",
        "test_one_name_in_two_folders_is_two_files",
        "test_one_that_dies_says_no_secret",
        "test_the_guest_moves_on_and_on",
    )
)
"""Their sources' working folders, users, namespaces, sockets or files are of this machine, and looked at on it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Between two hosts those are left out, and say why."""
    if config.getoption("two_hosts"):
        for item in items:
            if item.path.parent == Path(__file__).parent and item.name in OF_THIS_MACHINE:
                item.add_marker(pytest.mark.skip(reason="on one host: what it starts and looks at is of this machine"))


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_of_killed_runs() -> None:
    """A test run that was killed could not end what it had launched."""
    end_stale()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets; whatever a test launched in it is ended."""
    with own_folder() as path:
        yield path


@pytest.fixture
async def bench(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """Starts and launches QEMUs."""
    assert shutil.which(QEMU), f"{QEMU} is not installed"
    if request.config.getoption("two_hosts"):
        async with host_bench(monkeypatch) as made:
            yield made
        return
    bench = Bench(folder)
    try:
        yield bench
    finally:
        await bench.close()
