"""What a comparison says to add to a command line: in the order and the words that QEMU takes."""

from __future__ import annotations

from typing import Any

from livemig.qemu.compare import hotplug_arguments
from livemig.qemu.compare_arguments import device_arguments, drive_arguments, shown
from livemig.qemu.inventory import (
    BlockNode,
    Drive,
)
from tests.unit.inventories import BEHIND, BRIDGE, HPET, MEDIUM, NIC, PLAIN, cpu, replaced

HOTPLUGGED = replaced(
    PLAIN,
    devices=(
        replaced(BEHIND, hotplugged=True),
        replaced(NIC, hotplugged=True),
        replaced(BRIDGE, hotplugged=True),
        HPET,
    ),
    defaults={"virtio-net-pci": {"mac": "", "netdev": "", "host_mtu": "0", "mq": "true", "rombar": "-1"}},
    cpus=replaced(PLAIN.cpus, places=(cpu(0), cpu(1, hotplugged=True))),
    memory=replaced(PLAIN.memory, devices=(replaced(PLAIN.memory.devices[0], hotplugged=True),)),
)


def test_hotplug_arguments_come_in_an_order_that_qemu_takes() -> None:
    """Backends before devices, bridges before what is behind them; of the properties only what is no default."""
    assert hotplug_arguments(PLAIN) == ()
    assert hotplug_arguments(HOTPLUGGED) == (
        *("-object", "memory-backend-ram,id=md0,size=64M"),
        *("-device", "pc-dimm,id=dimm0,memdev=md0,slot=0,addr=0x100000000"),
        *("-device", "qemu64-x86_64-cpu,socket-id=0,core-id=1,thread-id=0"),
        *("-netdev", "tap,id=n0,ifname=tap0,script=no"),
        "-device",
        "virtio-net-pci,id=net0,bus=pci.0,addr=03.0,host_mtu=0,mac=52:54:00:00:00:01,mq=false,netdev=n0",
        *("-device", "pci-bridge,id=br0,bus=pci.0,addr=05.0"),
        *("-device", "virtio-rng-pci,id=rng0,bus=br0,addr=01.0"),
    )


def test_a_disk_is_written_with_the_nodes_it_stands_on() -> None:
    """Named nodes apart, QEMU's own inside, a backing file left to the image, commas doubled."""

    def node(name: str, driver: str, file: str = "/a,b", **more: Any) -> BlockNode:
        return BlockNode(name=name, driver=driver, file=file, **{"read_only": False, "direct": False, **more})

    nodes = {
        "top": node("top", "qcow2", children={"file": "below", "backing": "#block7"}),
        "below": node("below", "file", direct=True),
        "#block7": node("#block7", "qcow2"),
        "one": node("one", "raw", read_only=True, children={"file": "#block9"}),
        "#block9": node("#block9", "host_device", "/dev/sda", read_only=True),
        "far": node("far", "rbd"),
    }
    inventory = replaced(
        PLAIN,
        nodes=nodes,
        drives=(
            Drive(name="old", node="#block1", path="", removable=False, medium=replaced(MEDIUM, read_only=True)),
            Drive(name="empty", node="", path="", removable=True, medium=None),
        ),
    )

    assert drive_arguments("top", inventory) == [
        *("-blockdev", "driver=file,node-name=below,filename=/a,,b,cache.direct=on"),
        *("-blockdev", "driver=qcow2,node-name=top,file=below"),
    ]
    assert drive_arguments("one", inventory)[1] == (
        "driver=raw,node-name=one,read-only=on,file.driver=host_device,file.filename=/dev/sda,file.read-only=on"
    )
    assert drive_arguments("far", inventory)[1] == "driver=rbd,node-name=far,…"
    assert drive_arguments("old", inventory)[1] == "if=none,id=old,file=/images/guest.qcow2,format=qcow2,readonly=on"
    assert drive_arguments("empty", inventory)[1] == "if=none,id=empty"


def test_a_backend_that_can_not_be_read_back_is_left_to_the_user() -> None:
    """Better an ellipsis than a wrong argument."""
    port = replaced(NIC, properties={"chardev": "c0", "netdev": "gone", "name": "org.example.0"})

    arguments = device_arguments(port, PLAIN)
    assert arguments[:4] == ["-netdev", "…,id=gone", "-chardev", "…,id=c0"]


def test_arguments_are_shown_as_a_shell_takes_them() -> None:
    """Quoted where it would take them apart."""
    assert shown(["-device", "a,b=c d", "#x", "it's", ""]) == "-device 'a,b=c d' '#x' 'it'\\''s' ''"
