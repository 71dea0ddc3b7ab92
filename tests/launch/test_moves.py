"""Guests that move into destinations launched from them, of sources that are not any more what their line says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import livemig
from livemig.core.event import DestinationLaunched
from livemig.engine.launch_plan import LaunchOptions
from livemig.qemu.monitor import Monitor
from tests.engine.fixtures import started
from tests.engine.pair import QUICK, Pair

pytestmark = pytest.mark.qemu

MiB = 2**20
USB = ("-device", "qemu-xhci,id=xhci")


@pytest.fixture
async def moving(request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    """A source with a guest, and a place for its destination."""
    if request.config.getoption("two_hosts"):
        async for found in started(request, monkeypatch, launching=True):
            yield found
        return
    pair = Pair(folder, launching=True)
    try:
        yield pair
    finally:
        await pair.stop()


async def told(pair: Pair, side: str, *commands: tuple[str, dict[str, Any]]) -> list[Any]:
    """Asks a side for something at its second monitor."""
    path = getattr(pair, side).spare_qmp_path
    async with await Monitor.connect(str(path), name=side) as monitor:
        return [await monitor.execute(command, arguments) for command, arguments in commands]


async def tree(pair: Pair, side: str) -> str:
    """Every device on every bus, less what the guest and the host alone make of it."""
    (text,) = await told(pair, side, ("human-monitor-command", {"command-line": "info qtree"}))
    kept = [line for line in text.splitlines() if line.lstrip().startswith(("dev: ", "addr = ", "mac = ", "serial = "))]
    return "\n".join(kept)


async def moved(pair: Pair, *, launch: LaunchOptions | None = None) -> livemig.Report:
    """Moves the guest, and sees that it is well."""
    source, destination = pair.source_address, pair.destination_address
    async with livemig.migrate(QUICK, source=source, destination=destination, launch=launch) as migration:
        async for event in migration:
            if isinstance(event, DestinationLaunched):
                await pair.attach()
    assert migration.report.outcome == "completed", migration.report.reason
    await pair.assert_runs_only("destination")
    return migration.report


async def test_a_plugged_card_and_disk_move_along_and_on(moving: Pair) -> None:
    """Into a launched destination, and from there into the next, whose line says it already."""
    image = moving.shared_folder / "plugged.img"
    image.write_bytes(bytes(8 * MiB))
    await moving.start()
    await told(
        moving,
        "source",
        ("netdev_add", {"type": "user", "id": "n9"}),
        ("device_add", {"driver": "virtio-net-pci", "netdev": "n9", "id": "net9", "host_mtu": 1400}),
        ("blockdev-add", {"driver": "file", "node-name": "file9", "filename": str(image)}),
        ("blockdev-add", {"driver": "raw", "node-name": "disk9", "file": "file9"}),
        ("device_add", {"driver": "virtio-blk-pci", "drive": "disk9", "id": "vd9", "serial": "S9"}),
        ("device_add", {"driver": "virtio-rng-pci"}),  # without an id
    )
    before = await tree(moving, "source")
    for name in ("virtio-net-pci", "virtio-blk-pci", "virtio-rng-pci"):
        assert name in before
    for _ in range(2):
        report = await moved(moving)
        assert report.warnings == ()
        assert await tree(moving, "destination") == before
        await moving.swap()


async def test_what_was_plugged_behind_a_device_given_as_json_moves_along(moving: Pair) -> None:
    """QEMU makes devices given as JSON after all others, and the port has to be there first."""
    port = '{"driver":"pcie-root-port","id":"port0","bus":"pcie.0","addr":"0x5","chassis":1,"hotplug":true}'
    await moving.start(source_arguments=("-machine", "q35", "-device", port))
    await told(moving, "source", ("device_add", {"driver": "virtio-rng-pci", "id": "rng9", "bus": "port0"}))
    before = await tree(moving, "source")
    await moved(moving)
    assert await tree(moving, "destination") == before


async def test_what_was_unplugged_leaves_its_gap(moving: Pair) -> None:
    """What came after it in the command line stays where it is."""
    devices = ("-device", "usb-tablet,id=tablet", "-device", "usb-mouse,id=mouse", "-device", "usb-kbd,id=kbd")
    await moving.start(source_arguments=(*USB, *devices))
    ports = (await told(moving, "source", ("human-monitor-command", {"command-line": "info usb"})))[0]
    await told(moving, "source", ("device_del", {"id": "tablet"}))
    before = await tree(moving, "source")
    await moved(moving)
    assert await tree(moving, "destination") == before
    after = (await told(moving, "destination", ("human-monitor-command", {"command-line": "info usb"})))[0]
    assert len(ports.splitlines()) == 3
    assert [line.split(",")[1] for line in after.splitlines()] == [
        line.split(",")[1] for line in ports.splitlines()[1:]
    ]


async def test_what_came_back_by_the_same_id_is_what_it_is_now(moving: Pair) -> None:
    """A tablet was taken out, and a keyboard plugged in by its name."""
    await moving.start(source_arguments=(*USB, "-device", "usb-tablet,id=pointer"))
    await told(
        moving,
        "source",
        ("device_del", {"id": "pointer"}),
        ("device_add", {"driver": "usb-kbd", "id": "pointer", "bus": "xhci.0"}),
    )
    before = await tree(moving, "source")
    assert "usb-kbd" in before
    assert "usb-tablet" not in before
    await moved(moving)
    assert await tree(moving, "destination") == before


async def test_a_guest_with_shared_memory_in_a_file_moves_into_a_fresh_one(moving: Pair, folder: Path) -> None:
    """Into the same one it would be refused: the destination would write to the running guest's memory."""
    memory = folder / "memory"
    backend = f"memory-backend-file,id=m0,size=128M,share=on,mem-path={memory}"
    await moving.start(source_arguments=("-object", backend, "-machine", "memory-backend=m0"))
    with pytest.raises(livemig.RefusedError, match="overwritten"):
        await moved(moving)
    await moving.assert_runs_only("source")
    await moved(moving, launch=LaunchOptions.parse(maps=[f"{memory}={memory}.new"]))


async def test_a_generation_id_moves_along(moving: Pair) -> None:
    """`auto` stays what the source drew."""
    await moving.start(source_arguments=("-device", "vmgenid,guid=auto"))
    before = await told(moving, "source", ("query-vm-generation-id", {}))
    await moved(moving)
    assert await told(moving, "destination", ("query-vm-generation-id", {})) == before
