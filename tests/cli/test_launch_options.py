"""Options for a destination that livemig launches, each through the command line, on real QEMU."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from livemig.qemu.monitor import Monitor
from tests.cli.command_line import Ran, livemig
from tests.engine.fixtures import on_this_machine
from tests.engine.pair import IDLE, Pair

pytestmark = pytest.mark.qemu

IMAGE_BYTES = 8 * 2**20


@pytest.fixture
async def launching() -> AsyncIterator[Pair]:
    """A source, and a place where the destination is to be launched."""
    async for pair in on_this_machine(launching=True):
        yield pair


async def start(pair: Pair) -> Path:
    """Starts the source with a disk; returns the disk's image."""
    image = pair.folder / "disks" / "a.img"
    image.parent.mkdir()
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    drive = f"file={image},format=raw,if=none,id=d0,file.locking=off"
    device = "virtio-blk-pci,drive=d0,id=disk0,serial=ONE,share-rw=on"
    await pair.start(IDLE, memory_bytes=32 * 2**20, source_arguments=("-drive", drive, "-device", device))
    return image


def addresses(pair: Pair) -> tuple[str, ...]:
    """From the source to the place."""
    return ("--src-qmp", str(pair.source.qmp_path), "--dst-qmp", str(pair.destination.qmp_path))


async def run(pair: Pair, *options: str, **process_options: Any) -> Ran:
    """Migrates through the command line."""
    return await livemig("run", *addresses(pair), "--probation", "50ms", "--json", *options, **process_options)


async def assert_untouched(pair: Pair, ran: Ran, *names: str) -> None:
    """One line that names these, exit 2, the closing object, the guest at the source and nothing left of a launch."""
    assert ran.code == 2, ran
    for name in names:
        assert name in ran.complaint
    assert (ran.ended["outcome"], ran.ended["running_on"]) == ("refused", "source")
    assert not pair.destination.qmp_path.exists()
    await pair.assert_runs_only("source")
    await pair.assert_settings_restored("source")


async def arrived(pair: Pair, ran: Ran) -> list[str]:
    """Sees that the guest is there; returns the command line of its QEMU."""
    assert (ran.code, ran.ended["outcome"]) == (0, "completed"), ran
    await pair.attach()
    await pair.assert_runs_only("destination")
    return Path(f"/proc/{pair.destination.pid}/cmdline").read_text().split("\0")


async def test_map_gives_a_disk_another_path(launching: Pair) -> None:
    """The same image under another name: opened by that at the destination."""
    image = await start(launching)
    other = launching.folder / "mounted"
    other.symlink_to(image.parent)
    argv = await arrived(launching, await run(launching, "--map", f"{image.parent}={other}"))
    assert any(f"file={other}/a.img" in argument for argument in argv)


async def test_map_to_a_copy_is_refused(launching: Pair) -> None:
    """A copy of the disk would be booted stale: nothing is left of the launched QEMU."""
    image = await start(launching)
    copy = launching.folder / "copy.img"
    shutil.copy(image, copy)
    ran = await run(launching, "--map", f"{image}={copy}")
    await assert_untouched(launching, ran, "two files", str(copy))


async def test_map_of_two_disks_to_one_file_is_refused(launching: Pair) -> None:
    """Two disks in one file destroy each other."""
    one, two = (launching.folder / name for name in ("one.img", "two.img"))
    arguments: list[str] = []
    for number, path in enumerate((one, two)):
        path.write_bytes(bytes(IMAGE_BYTES))
        arguments += ["-drive", f"file={path},format=raw,if=none,id=d{number}"]
        arguments += ["-device", f"virtio-blk-pci,drive=d{number},id=disk{number}"]
    await launching.start(IDLE, memory_bytes=32 * 2**20, source_arguments=tuple(arguments))
    ran = await run(launching, "--map", f"{one}=/images/x.img", "--map", f"{two}=/images/x.img")
    await assert_untouched(launching, ran, "/images/x.img")


async def test_a_missing_image_is_refused(launching: Pair) -> None:
    """The destination's disk is not where the map says."""
    image = await start(launching)
    ran = await run(launching, "--map", f"{image}=/nowhere/a.img")
    await assert_untouched(launching, ran, "/nowhere/a.img", "--map")


async def test_dst_set_is_applied(launching: Pair) -> None:
    """A property that may differ: here one that only the host sees."""
    await start(launching)
    argv = await arrived(launching, await run(launching, "--dst-set", "disk0.queue-size=256"))
    assert any("queue-size=256" in argument for argument in argv)


async def test_dst_set_of_what_the_guest_sees_is_refused(launching: Pair) -> None:
    """Another serial number: the guest would find another disk."""
    await start(launching)
    await assert_untouched(launching, await run(launching, "--dst-set", "disk0.serial=TWO"), "serial", "TWO")


async def test_dst_args_are_added(launching: Pair) -> None:
    """At the end of the line; here a third monitor."""
    await start(launching)
    third = launching.folder / "third.qmp"
    await arrived(launching, await run(launching, "--dst-args", f"-qmp unix:{third},server=on,wait=off"))
    async with await Monitor.connect(str(third)) as monitor:
        assert str(await monitor.query_status()) == "running"


async def test_dst_command_replaces_the_line(launching: Pair) -> None:
    """The line that was printed, given back, does the same."""
    await start(launching)
    printed = await livemig("run", *addresses(launching), "--print-destination-command")
    assert printed.code == 0
    assert not launching.destination.qmp_path.exists()
    await launching.assert_runs_only("source")
    argv = await arrived(launching, await run(launching, "--dst-command", printed.stdout.strip()))
    assert sum("id=livemig-qmp" in argument for argument in argv) == 1


async def test_options_from_variables_and_a_file(launching: Pair, tmp_path: Path) -> None:
    """Each stands for its option: a map from the file, an argument from the environment."""
    image = await start(launching)
    other = launching.folder / "mounted"
    other.symlink_to(image.parent)
    config = tmp_path / "livemig.toml"
    config.write_text(f'map = ["{image.parent}={other}"]\n')
    environment = {**os.environ, "LIVEMIG_DST_ARGS": "-msg timestamp=on"}
    ran = await run(launching, "--config", str(config), env=environment)
    argv = await arrived(launching, ran)
    assert any(f"file={other}/a.img" in argument for argument in argv)
    assert "timestamp=on" in argv


async def test_a_command_line_that_can_not_be_read(launching: Pair) -> None:
    """The argument is shown, and the way out."""
    await start(launching)
    ran = await run(launching, "--dst-args", "-flux capacitor")
    await assert_untouched(launching, ran, "-flux", "--dst-command")


async def test_a_process_that_may_not_be_read(launching: Pair) -> None:
    """Another user may talk to the monitor, but not read the process: the remedy is named."""
    assert os.geteuid() == 0, "this test needs root"
    await start(launching)
    launching.folder.chmod(0o777)
    launching.source.qmp_path.chmod(0o777)
    somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    reads_files = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # livemig's own, wherever it is
    (state := launching.folder / "state").mkdir()
    state.chmod(0o777)
    environment = {**os.environ, "XDG_STATE_HOME": str(state)}
    ran = await run(launching, prefix=(*somebody, *reads_files), env=environment)
    await assert_untouched(launching, ran, "run livemig as that user or as root")


async def test_a_launch_that_dies_at_once_is_quoted(launching: Pair) -> None:
    """QEMU's own words, and nothing left."""
    await start(launching)
    ran = await run(launching, "--dst-args", "-device no-such-device")
    await assert_untouched(launching, ran, "no-such-device")
