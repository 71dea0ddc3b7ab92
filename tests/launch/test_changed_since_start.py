"""Destinations of sources that are not any more what their command line says: plugged, unplugged, given an identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from livemig.core.errors import RefusedError
from livemig.core.finding import Severity
from livemig.core.fixed_part import fixed_part
from livemig.core.plan import Plan
from livemig.engine.preflight import Preflight, examine
from livemig.engine.side import Side
from tests.launch.bench import Bench, assert_waits

pytestmark = pytest.mark.qemu

PORTS = ("-device", "pcie-root-port,id=port0,chassis=1", "-device", "pcie-root-port,id=port1,chassis=2")
MACHINE = ("-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "64M", "-M", "q35", *PORTS)

FIXED = fixed_part(Plan())


async def execute(side: Side, command: str, **arguments: Any) -> None:
    """Asks a QEMU for something, arguments written as Python writes them."""
    await side.monitor.execute(command, {name.replace("_", "-"): value for name, value in arguments.items()})


async def compared(bench: Bench, source: Side, qmp: str) -> Preflight:
    """What the comparison with a launched destination finds."""
    destination = await bench.connect(qmp, "destination")
    try:
        return await examine(source, destination, Plan(keep_source=True), FIXED)
    finally:
        await bench.close_monitors(qmp)


async def refusals(bench: Bench, source: Side, qmp: str) -> tuple[str, ...]:
    """What the comparison with a launched destination refuses."""
    return (await compared(bench, source, qmp)).refusals


@pytest.fixture
def image(bench: Bench) -> Path:
    """An empty disk of 8 MiB."""
    path = bench.folder / "plugged.img"
    path.write_bytes(b"")
    with path.open("r+b") as file:
        file.truncate(8 * 2**20)
    return path


async def test_what_was_plugged_in_is_launched_too(bench: Bench, image: Path) -> None:
    """A card and a disk of the running guest are at the destination, at the same places."""
    source = await bench.source(*MACHINE)
    await execute(source, "netdev_add", type="user", id="n9")
    await execute(source, "device_add", driver="virtio-net-pci", netdev="n9", id="net9", bus="port0")
    await execute(source, "blockdev-add", driver="file", node_name="file9", filename=str(image))
    await execute(source, "device_add", driver="virtio-blk-pci", drive="file9", id="vd9", bus="port1")
    launched = await bench.launch(source)
    await assert_waits(launched)
    assert any("id=net9" in change and "plugged in" in change for change in launched.plan.changes)
    assert await refusals(bench, source, "b.qmp") == ()


async def test_a_back_end_of_the_command_line_is_not_said_twice(bench: Bench) -> None:
    """Only the device was plugged in: its netdev stands in the line already."""
    source = await bench.source(*MACHINE, "-netdev", "user,id=n1")
    await execute(source, "device_add", driver="virtio-net-pci", netdev="n1", id="net1", bus="port0")
    launched = await bench.launch(source)
    await assert_waits(launched)
    assert sum("id=n1" in argument for argument in launched.plan.program.argv) == 1
    assert await refusals(bench, source, "b.qmp") == ()


async def test_what_was_plugged_in_moves_on_and_on(bench: Bench) -> None:
    """A launched destination has it in its line: its own destination gets it once."""
    source = await bench.source(*MACHINE)
    await execute(source, "device_add", driver="virtio-rng-pci", id="rng9", bus="port0")
    first = await bench.launch(source)
    assert await source.end()  # as it would have after the move: the next one may be launched at its place
    second = await bench.launch(await bench.connect("b.qmp"), "c.qmp")
    assert sum("id=rng9" in argument for argument in first.plan.program.argv) == 1
    assert sum("id=rng9" in argument for argument in second.plan.program.argv) == 1


async def test_what_can_not_be_read_back_is_refused_by_name(bench: Bench) -> None:
    """A character device does not tell how it was made."""
    source = await bench.source(*MACHINE, "-device", "virtio-serial-pci,id=vs0")
    await source.monitor.execute("chardev-add", {"id": "c9", "backend": {"type": "null", "data": {}}})
    await execute(source, "device_add", driver="virtserialport", chardev="c9", id="vp9", bus="vs0.0", name="org.x")
    with pytest.raises(RefusedError, match=r"id=c9.*plugged in.*--dst-command"):
        await bench.plan(source)


async def test_what_was_unplugged_is_left_out(bench: Bench) -> None:
    """A device without a guest's driver goes at once where the bus allows it: one of USB."""
    source = await bench.source(*MACHINE, "-device", "qemu-xhci,id=xhci", "-device", "usb-tablet,id=tablet,bus=xhci.0")
    await execute(source, "device_del", id="tablet")
    launched = await bench.launch(source)
    await assert_waits(launched)
    assert not any("usb-tablet" in argument for argument in launched.plan.program.argv)
    assert any("unplugged" in change for change in launched.plan.changes)
    assert await refusals(bench, source, "b.qmp") == ()


@pytest.mark.parametrize("device", ["vmgenid,guid=auto", '{"driver":"vmgenid","guid":"auto"}'])
async def test_an_automatic_generation_id_stays_the_guest_s(bench: Bench, device: str) -> None:
    """`auto` would be another one at the destination: the guest would think that it was restored from a snapshot."""
    source = await bench.source(*MACHINE, "-device", device)
    own = (await source.monitor.execute("query-vm-generation-id"))["guid"]
    await bench.launch(source)
    destination = await bench.connect("b.qmp")
    assert (await destination.monitor.execute("query-vm-generation-id"))["guid"] == own


async def test_two_files_for_one_disk_are_refused(bench: Bench, image: Path) -> None:
    """A copy is stale; the same file by another name is the same disk."""
    copy, other_name = image.with_name("copy.img"), image.with_name("link.img")
    copy.write_bytes(image.read_bytes())
    other_name.hardlink_to(image)
    source = await bench.source(*MACHINE, "-drive", f"file={image},format=raw,if=none,id=d0,file.locking=off")
    await execute(source, "device_add", driver="virtio-blk-pci", drive="d0", id="vd0", bus="port0", share_rw=True)
    first = await bench.launch(source, "b.qmp", maps=(f"{image}={copy}",))
    (refused,) = await refusals(bench, source, "b.qmp")
    assert "two files" in refused
    assert "stale" in refused
    await bench.end(first)
    await bench.launch(source, "c.qmp", maps=(f"{image}={other_name}",))
    assert await refusals(bench, source, "c.qmp") == ()


async def test_an_image_that_was_replaced_is_refused(bench: Bench, image: Path) -> None:
    """The source still writes to the old file, which has no name any more; the destination would find the new one."""
    options = "format=raw,if=none,id=d0,file.locking=off"
    source = await bench.source(*MACHINE, "-drive", f"file={image},{options}", "-device", "virtio-blk-pci,drive=d0")
    first = await bench.launch(source, "b.qmp")
    assert await refusals(bench, source, "b.qmp") == ()
    await bench.end(first)
    copy = image.with_name("copy.img")
    copy.write_bytes(image.read_bytes())
    copy.rename(image)
    await bench.launch(source, "c.qmp")
    (refused,) = await refusals(bench, source, "c.qmp")
    assert f"{image} on both sides, and these are two files" in refused


async def test_one_name_in_two_folders_is_two_files(bench: Bench, image: Path) -> None:
    """Of a destination that somebody started elsewhere."""
    other = bench.folder / "other"
    other.mkdir()
    (other / image.name).write_bytes(image.read_bytes())
    disk = (
        "-drive",
        f"file={image.name},format=raw,if=none,id=d0,file.locking=off",
        "-device",
        "virtio-blk-pci,drive=d0",
    )
    source = await bench.source(*MACHINE, *disk)
    waiting = ("-incoming", "defer")
    await bench.source(*MACHINE, *disk, *waiting, qmp="b.qmp", cwd=other)
    await bench.close_monitors("b.qmp")
    (refused,) = await refusals(bench, source, "b.qmp")
    assert f"{image.name} on both sides, and these are two files" in refused


async def test_a_read_only_disk_may_be_a_copy(bench: Bench, image: Path) -> None:
    """Nothing is written to it, so it can't be stale: the user is told."""
    copy = image.with_name("copy.img")
    copy.write_bytes(image.read_bytes())
    source = await bench.source(
        *MACHINE, "-drive", f"file={image},format=raw,if=none,id=d0,readonly=on", "-device", "virtio-blk-pci,drive=d0"
    )
    await bench.launch(source, "b.qmp", maps=(f"{image}={copy}",))
    found = await compared(bench, source, "b.qmp")
    assert found.refusals == ()
    assert [one.severity for one in found.findings] == [Severity.WARNING]


DISK = ("-drive", "file={folder}/plugged.img,format=raw,if=none,id=d0,file.locking=off")


async def test_a_snapshot_that_was_taken_is_the_disk(bench: Bench, image: Path) -> None:
    """The guest writes to the snapshot's file; the one in the command line is behind it, and stale."""
    source = await bench.source(*MACHINE, *DISK, "-device", "virtio-blk-pci,drive=d0,id=disk0")
    snapshot = str(bench.folder / "snapshot.qcow2")
    await execute(source, "blockdev-snapshot-sync", device="d0", snapshot_file=snapshot, format="qcow2")
    launched = await bench.launch(source)
    await assert_waits(launched)
    (drive,) = [each for each in launched.plan.program.argv if "id=d0" in each]
    assert f"file={snapshot}" in drive
    assert "format=qcow2" in drive
    assert any(str(image) in change and snapshot in change for change in launched.plan.changes)
    assert await refusals(bench, source, "b.qmp") == ()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("-drive", "file={folder}/plugged.img,if=none,id=d0,media=cdrom", "-device", "ide-cd,drive=d0,id=cd0"), "cd0"),
        (("-cdrom", "{folder}/plugged.img"), "/machine/unattached/device"),
    ],
    ids=["drive", "short"],
)
async def test_a_medium_that_was_changed_is_the_new_one(
    bench: Bench, image: Path, arguments: tuple[str, ...], name: str
) -> None:
    """And one that was taken out is not put back."""
    other = image.with_name("other.iso")
    other.write_bytes(bytes(2**20))
    source = await bench.source(*MACHINE, *arguments)
    if name.startswith("/"):
        blocks = await source.monitor.execute("query-block")
        (name,) = [block["qdev"] for block in blocks if block.get("inserted")]
    await execute(source, "blockdev-change-medium", id=name, filename=str(other), force=True)
    first = await bench.launch(source, "b.qmp")
    assert str(other) in first.plan.command
    assert str(image) not in first.plan.command
    found = await compared(bench, source, "b.qmp")
    assert (found.refusals, found.findings) == ((), ())
    await bench.end(first)
    await execute(source, "eject", id=name, force=True)
    second = await bench.launch(source, "c.qmp")
    assert str(other) not in second.plan.command
    assert await refusals(bench, source, "c.qmp") == ()
