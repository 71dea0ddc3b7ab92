"""QEMU's texts for people, as 7.2, 10.0 and 11.1 write them, become data."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from livemig.qemu.inventory import Network, RamBlock
from livemig.qemu.inventory_text import read_networks, read_ram_blocks
from livemig.qemu.inventory_tree import plain, read_tree

RAM_7_2 = """\
              Block Name    PSize              Offset               Used              Total
                  pc.ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000
    /rom@etc/acpi/tables    4 KiB  0x0000000008080000 0x0000000000020000 0x0000000000200000
                            2 MiB  0x0000000009080000 0x0000000000200000 0x0000000000200000
0000:00:01.0:00.0/virtio-net-pci.rom    4 KiB  0x0000000008040000 0x0000000000040000 0x0000000000040000
"""
RAM_10_0 = """\
              Block Name    PSize              Offset               Used              Total                HVA  RO
                  pc.ram    2 MiB  0x0000000000000000 0x0000000008000000 0x0000000008000000 0x00007f12ebe00000  rw
                 pc.bios    4 KiB  0x0000000008000000 0x0000000000040000 0x0000000000040000 0x00007f12f3e00000  ro
"""
NETWORKS = (
    "net0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01\r\n"
    " \\ n0: index=0,type=tap,ifname=tap0,script=no,downscript=no\r\n"
    " \\ n0: index=1,type=tap,ifname=tap0,script=no,downscript=no\r\n"
    "e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\r\n"
    "hub 0\r\n"
    "idle: index=0,type=user,net=10.0.2.0,restrict=off\r\n"
)
TREE = """\
bus: main-system-bus
  type System
  dev: hpet, id ""
    gpio-out "" 1
    timers = 3 (0x3)
    mmio 00000000fed00000/0000000000000400
  dev: q35-pcihost, id ""
    below-4g-mem-size = 67108864 (64 MiB)
    bus: pcie.0
      type PCIE
      dev: pcie-root-port, id "port0"
        addr = 01.0
        class PCI bridge, addr 00:01.0, pci id 1b36:000c (sub 0000:0000)
        bus: port0
          type PCIE
          dev: virtio-net-pci, id "net0"
            vectors = 4 (0x4)
            addr = 00.0
            class Ethernet controller, addr 03:00.0, pci id 1af4:1041 (sub 1af4:1100)
            bar 1: mem at 0xfe800000 [0xfe800fff]
            bus: virtio-bus
              type virtio-pci-bus
              dev: virtio-net-device, id ""
                mac = "52:54:00:00:00:01"
                netdev = "n0"
                ebpf-rss-fds = <null>
      dev: qemu-xhci, id "xhci"
        addr = 02.0
        class USB controller, addr 00:02.0, pci id 1b36:000d (sub 1af4:1100)
        bus: xhci.0
          type usb-bus
          dev: usb-storage, id "stick"
            port = ""
            addr 0.2, port 1.3, speed 480, name QEMU USB MSD, attached
            bus: stick.0
              type SCSI
              dev: scsi-hd, id ""
                drive = "d0"
                channel = 0 (0x0)
                scsi-id = 0 (0x0)
                lun = 2 (0x2)
      dev: ich9-ahci, id ""
        addr = 1f.2
        class SATA controller, addr 00:1f.2, pci id 8086:2922 (sub 1af4:1100)
        bus: ide.1
          type IDE
          dev: ide-hd, id ""
            unit = 0 (0x0)
        bus: ide.0
          type IDE
          dev: ide-hd, id ""
            unit = 0 (0x0)
      dev: ICH9-LPC, id ""
        addr = 1f.0
        class ISA bridge, addr 00:1f.0, pci id 8086:2918 (sub 1af4:1100)
        bus: isa.0
          type ISA
          dev: isa-serial, id ""
            index = 0 (0x0)
            iobase = 1016 (0x3f8)
          dev: port92, id ""
  dev: pxb-host, id ""
    bus: pxb
      type pxb-pcie-bus
      dev: edu, id ""
        addr = 00.0
        class Class 00ff, addr 14:00.0, pci id 1234:11e8 (sub 1af4:1100)
  dev: hpet, id ""
    timers = 3 (0x3)
"""


def test_ram_blocks_of_both_formats() -> None:
    """Memory that nothing uses has no name, and is not in a stream."""
    assert read_ram_blocks(RAM_7_2) == (
        RamBlock(name="pc.ram", used_bytes=2**27, total_bytes=2**27, page_size="4 KiB"),
        RamBlock(name="/rom@etc/acpi/tables", used_bytes=2**17, total_bytes=2**21, page_size="4 KiB"),
        RamBlock(name="0000:00:01.0:00.0/virtio-net-pci.rom", used_bytes=2**18, total_bytes=2**18, page_size="4 KiB"),
    )
    assert [(one.name, one.used_bytes, one.page_size) for one in read_ram_blocks(RAM_10_0)] == [
        ("pc.ram", 2**27, "2 MiB"),
        ("pc.bios", 2**18, "4 KiB"),
    ]


def test_networks_are_backends_once_each() -> None:
    """Neither the cards nor a second queue."""
    assert read_networks(NETWORKS) == {
        "n0": Network(id="n0", type="tap", options={"ifname": "tap0", "script": "no", "downscript": "no"}),
        "idle": Network(id="idle", type="user", options={"net": "10.0.2.0", "restrict": "off"}),
    }


def test_places_are_those_of_the_stream_and_never_what_the_guest_numbered() -> None:
    """Bus 03 behind the root port is the guest's doing; the extra root bus 14 is the command line's."""
    assert [device.place for device in read_tree(TREE)] == [
        "hpet",
        "q35-pcihost",
        "0000:00:01.0",
        "0000:00:01.0:00.0",
        "0000:00:02.0",
        "0000:00:02.0/usb 1.3",
        "0000:00:02.0/usb 1.3/scsi 0:0:2",
        "0000:00:1f.2",
        "0000:00:1f.2/ide 1:0",
        "0000:00:1f.2/ide 0:0",
        "0000:00:1f.0",
        "0000:00:1f.0/isa-serial@0x3f8",
        "0000:00:1f.0/port92",
        "pxb-host",
        "0000:14:00.0",
        "hpet #2",
    ]


def test_a_virtio_device_is_one_with_its_transport() -> None:
    """As it is one -device."""
    (nic,) = [device for device in read_tree(TREE) if device.id == "net0"]

    assert nic.properties == {
        "vectors": "4",
        "addr": "00.0",
        "mac": "52:54:00:00:00:01",
        "netdev": "n0",
        "ebpf-rss-fds": "<null>",
    }
    assert (nic.bus, nic.address, nic.parent) == ("port0", {"addr": "00.0"}, "0000:00:01.0")
    assert nic.pci_id == "1af4:1041 (sub 1af4:1100)"


def test_values_are_as_a_command_line_takes_them() -> None:
    """Without what is for people alone."""
    texts = ['"a (b)"', "4 (0x4)", "-1 (0xffffffffffffffff)", "262144 (256 KiB)", "true", "02.0", '""', '"', "<null>"]

    assert [plain(text) for text in texts] == ["a (b)", "4", "-1", "262144", "true", "02.0", "", '"', "<null>"]


lines = st.sampled_from(TREE.splitlines()) | st.text(max_size=20)


@given(st.lists(lines, max_size=30).map("\n".join))
def test_whatever_qemu_writes_is_read_without_fail_and_places_are_unique(text: str) -> None:
    """A newer QEMU may write more than is known."""
    places = [device.place for device in read_tree(text)]

    assert len(places) == len(set(places))
    read_ram_blocks(text)
    read_networks(text)
