"""Sources with names that hold any byte, and folders that went away, moved through the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from livemig.core.event import DestinationLaunched
from livemig.core.trace import EventRecord, decode_trace
from tests.cli.command_line import Ran, livemig
from tests.launch.bench import Bench

pytestmark = pytest.mark.qemu

BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "64M")
NAME = os.fsdecode(b"a,b 'c' \"d\" $e\n\xff=f.img")


async def move(bench: Bench, name: str, *options: str) -> Ran:
    """Moves the machine to a place of that name."""
    addresses = ("--src-qmp", str(bench.folder / "a.qmp"), "--dst-qmp", str(bench.folder / name))
    return await livemig("run", *addresses, "--json", "--probation", "0s", *options)


async def test_a_name_may_hold_any_byte(bench: Bench) -> None:
    """It is taken over as it is, and written out where it is shown."""
    image, trace = bench.folder / NAME, bench.folder / "trace"
    image.write_bytes(bytes(2**20))
    drive = f"file={str(image).replace(',', ',,')},format=raw,if=virtio"
    source = await bench.source(*BARE, "-drive", drive, "-name", "guest=a,,b 'c'\n")
    await source.close()
    ran = await move(bench, "b=c, 'd'.qmp", "--trace", str(trace))
    assert (ran.code, ran.ended["outcome"]) == (0, "completed"), ran
    with trace.open("rb") as lines:
        launched = [each.event for each in decode_trace(lines) if isinstance(each, EventRecord)]
    (command,) = [each.command for each in launched if isinstance(each, DestinationLaunched)]
    assert "\\udcff=f.img" in command


async def test_a_deleted_working_folder_is_none(bench: Bench) -> None:
    """Nothing can be meant from it any more: what has a full path is there as before, what has not is named."""
    folder, image = bench.folder / "gone", bench.folder / "a.img"
    folder.mkdir()
    image.write_bytes(bytes(2**20))
    source = await bench.source(*BARE, "-drive", "file={folder}/a.img,format=raw,if=virtio", cwd=folder)
    folder.rmdir()
    await source.close()
    ran = await move(bench, "b.qmp")
    assert (ran.code, ran.ended["outcome"]) == (0, "completed"), ran


async def test_a_relative_image_of_a_deleted_working_folder_is_named(bench: Bench, folder: Path) -> None:
    gone = folder / "gone"
    gone.mkdir()
    (gone / "a.img").write_bytes(bytes(2**20))
    source = await bench.source(*BARE, "-drive", "file=a.img,format=raw,if=virtio", cwd=gone)
    (gone / "a.img").unlink()
    gone.rmdir()
    await source.close()
    ran = await move(bench, "b.qmp")
    assert ran.code == 2
    assert "a.img is not there: give its place with --map" in ran.complaint
    assert not (folder / "b.qmp").exists()
