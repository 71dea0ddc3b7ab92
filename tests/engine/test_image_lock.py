"""Somebody else holds the lock of the guest's disk when the destination is to take it: that is seen and undone."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import livemig
from livemig.core.outcome import Step
from livemig.engine.settle import Settlement
from livemig.lab.machine import Machine, MachineSettings
from tests.engine.pair import LOADED, MiB, Pair

pytestmark = pytest.mark.qemu

SIZE_BYTES = 8 * MiB
UNSHARED_WRITE_OFFSET = 201
"""QEMU's lock byte of who lets nobody else write (file-posix.c: 200 for what is not shared, and 1 for writing)."""


def image(folder: Path, form: str) -> Path:
    """Makes an empty disk image."""
    path = folder / f"disk.{form}"
    subprocess.run(["qemu-img", "create", "-q", "-f", form, path, str(SIZE_BYTES)], check=True)
    return path


def disk(path: Path, form: str, *, shared: bool = False) -> tuple[str, ...]:
    """The arguments for a disk, which others may write to at the same time or not."""
    share = "on" if shared else "off"
    drive = f"file={path},format={form},if=none,id=disk0"
    return ("-drive", drive, "-device", f"virtio-blk-pci,drive=disk0,id=vd0,share-rw={share}")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds the lock that keeps every QEMU from writing to an image, as a backup's program might."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, UNSHARED_WRITE_OFFSET, 1, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        yield
    finally:
        os.close(descriptor)


async def assert_undone(pair: Pair, report: livemig.Report) -> None:
    """The guest goes on where it was, whole, and the lock is named as the reason."""
    assert (report.outcome, report.running_on) == (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE), report
    assert "lock" in report.reason
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
    assert (await pair.run_states())["destination"] == "gone"


async def test_a_third_qemu_holds_the_disk(waiting_pair: Pair, tmp_path: Path) -> None:
    """The source lets it write too; the destination would not: it never runs, and the guest goes on where it was."""
    pair, path = waiting_pair, image(tmp_path, "raw")
    await pair.start(
        LOADED, source_arguments=disk(path, "raw", shared=True), destination_arguments=disk(path, "raw", shared=False)
    )
    third = MachineSettings(paused=True, extra_arguments=disk(path, "raw", shared=True))
    async with Machine(third, folder=pair.folder, name="third"):
        report, _ = await pair.migrate()
        await assert_undone(pair, report)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
async def test_a_lock_that_is_off_in_time(
    waiting_pair: Pair, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps the destination from taking the disk, and is off when the source takes it back."""
    pair, path = waiting_pair, image(tmp_path, form)
    await pair.start(LOADED, source_arguments=disk(path, form), destination_arguments=disk(path, form))
    with ExitStack() as holding:
        holding.enter_context(held(path))
        perform = Settlement._perform

        async def let_go_first(self: Settlement, step: Step) -> None:
            if step is Step.CONTINUE_SOURCE:
                holding.close()
            await perform(self, step)

        monkeypatch.setattr(Settlement, "_perform", let_go_first)
        report, _ = await pair.migrate()
    await assert_undone(pair, report)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
async def test_a_lock_that_keeps_both_out(waiting_pair: Pair, tmp_path: Path, form: str) -> None:
    """Then the source can't take its disk back either: that is said; once the lock is off, recovery continues it."""
    pair, path = waiting_pair, image(tmp_path, form)
    await pair.start(LOADED, source_arguments=disk(path, form), destination_arguments=disk(path, form))
    with held(path):
        report, _ = await pair.migrate()
        assert (report.outcome, report.running_on) == (livemig.Outcome.UNKNOWN, livemig.RunningOn.NONE), report
        assert 'Failed to get "write" lock' in report.reason
        assert await pair.run_states() == {"source": "postmigrate", "destination": "gone"}
        (found,) = await livemig.recover(report.id)
        assert found.ending.running_on is livemig.RunningOn.NONE
        assert 'Failed to get "write" lock' in found.ending.reason
    (found,) = await livemig.recover(report.id)
    assert found.ending.running_on is livemig.RunningOn.SOURCE, found
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")
    pair.destination = await pair.waiting()
    report, _ = await pair.migrate()
    assert report.outcome is livemig.Outcome.COMPLETED, report.reason
    await pair.assert_runs_only("destination")
