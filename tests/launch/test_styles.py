"""Destinations launched from sources whose command lines are written in many ways."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from livemig.core.errors import RefusedError
from livemig.engine.launch import Launched
from livemig.engine.side import Side
from livemig.qemu.monitor import Monitor
from tests.launch.bench import Bench, assert_waits, need_root

pytestmark = pytest.mark.qemu

BARE = ("-nodefaults", "-no-user-config", "-display", "none", "-S", "-m", "64M")
DISK = "{folder}/a.img"

STYLES: dict[str, tuple[str, ...]] = {
    "bare": BARE,
    "defaults": ("-display", "none", "-S"),
    "nographic": ("-nographic", "-S", "-M", "q35"),
    "double dashes": ("--nodefaults", "--display", "none", "--machine", "q35,usb=off", "-S"),
    "JSON devices": (
        *BARE,
        "-device",
        '{"driver":"virtio-rng-pci","id":"rng0","addr":"0x5"}',
        "-object",
        '{"qom-type":"iothread","id":"io0"}',
        "-blockdev",
        '{"driver":"raw","node-name":"d0","file":{"driver":"file","filename":"{folder}/a.img"}}',
        "-device",
        '{"driver":"virtio-blk-pci","drive":"d0","id":"disk0"}',
    ),
    "two disks": (
        *BARE,
        "-drive",
        f"file={DISK},if=virtio,format=raw",
        "-blockdev",
        "driver=file,node-name=f1,filename={folder}/b,,b.img",
        "-device",
        "virtio-blk-pci,drive=f1",
    ),
    "nodes upon nodes": (
        *BARE,
        "-blockdev",
        f"driver=file,node-name=f1,filename={DISK}",
        "-blockdev",
        "driver=raw,node-name=r1,file=f1",
        "-blockdev",
        '{"driver":"raw","node-name":"r2","file":"r1","read-only":true}',
        "-drive",
        'file=json:{"driver":"raw",,"file":{"driver":"file",,"filename":"{folder}/b,,b.img"}},if=none,id=d3',
        *("-device", "virtio-blk-pci,drive=d3", "-device", "virtio-blk-pci,drive=r1,share-rw=on"),
        *("-device", "virtio-blk-pci,drive=r2,share-rw=on"),
    ),
    "overrides": (
        *BARE,
        *("-drive", "if=none,id=d0,format=raw", "-set", f"drive.d0.file={DISK}", "-device", "virtio-blk-pci,drive=d0"),
        *("-device", "e1000,id=n0", "-set", "device.n0.mac=52:54:00:00:00:07", "-global", "isa-debugcon.iobase=0x402"),
    ),
    "relative image": (*BARE, "-hda", "a.img"),
    "image without option": (*BARE, "a.img"),
    "several monitors": (
        *BARE,
        "-qmp",
        "unix:{own}/a.qmp,server,nowait",
        "-monitor",
        "unix:{own}/a.hmp,server=on,wait=off",
        "-chardev",
        "socket,id=m1,path={own}/a2.qmp,server=on,wait=off",
        "-mon",
        "chardev=m1,mode=control,pretty=on",
        "-serial",
        "file:{own}/serial.log",
    ),
    "memory backend": (*BARE, "-object", "memory-backend-ram,id=m0,size=64M", "-machine", "pc,memory-backend=m0"),
    "NUMA": (
        *BARE[:-2],
        *("-m", "128M", "-smp", "2,maxcpus=4"),
        *("-object", "memory-backend-ram,id=m0,size=64M", "-object", "memory-backend-memfd,id=m1,size=64M"),
        *("-numa", "node,memdev=m0,cpus=0-1", "-numa", "node,memdev=m1,cpus=2-3"),
    ),
    "-cpu max": (*BARE, "-cpu", "max", "-accel", "tcg,thread=multi"),
    "fw_cfg and smbios": (
        *BARE,
        "-fw_cfg",
        "name=opt/x,string=a,,b",
        "-smbios",
        "type=1,serial=x",
        "-uuid",
        "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    ),
    "user network": (*BARE, "-netdev", "user,id=n0,hostfwd=tcp:127.0.0.1:0-:22", "-device", "e1000,netdev=n0"),
    "daemonized": (*BARE, "-daemonize", "-pidfile", "{own}/a.pid", "-D", "{own}/a.log", "-drive", f"file={DISK}"),
    "VNC": (*BARE[:2], "-S", "-vnc", "127.0.0.1:77", "-device", "VGA"),
    "gdb": (*BARE, "-gdb", "tcp:127.0.0.1:17234"),
    "secret": (*BARE, "-object", "secret,id=s0,data=geheim"),
    "readconfig": (*BARE[:-2], "-readconfig", "{folder}/a.cfg"),
    "run-with user": (*BARE, "-run-with", "user=nobody"),
}
CONFIG = """\
[machine]
  type = "q35"
[memory]
  size = "64M"
[drive "d0"]
  file = "{folder}/a.img"
  format = "raw"
  if = "none"
[device "disk0"]
  driver = "virtio-blk-pci"
  drive = "d0"
[chardev "serial0"]
  backend = "socket"
  path = "{own}/serial"
  server = "on"
  wait = "off"
[device]
  driver = "isa-serial"
  chardev = "serial0"
"""


@pytest.mark.parametrize("style", STYLES)
async def test_a_destination_is_launched_from(style: str, bench: Bench) -> None:
    for name in ("a.img", "b,b.img"):
        (bench.folder / name).write_bytes(bytes(2**20))
    config = CONFIG.replace("{folder}", str(bench.folder)).replace("{own}", str(bench.own_folder))
    (bench.folder / "a.cfg").write_text(config)
    if style == "run-with user":
        need_root()
        bench.open_to_all()
    source = await bench.source(*STYLES[style])
    launched = await bench.launch(source)
    await assert_waits(launched)
    assert "geheim" not in launched.plan.command
    assert "-daemonize" not in launched.plan.command
    await assert_same_machine(source, launched)


async def assert_same_machine(source: Side, launched: Launched) -> None:
    """Both say the same of what they are made of."""
    async with await Monitor.connect(str(launched.plan.qmp_path)) as monitor:
        for name in ("query-machines", "query-pci", "query-memdev", "query-cpus-fast"):
            assert await _answer(source.monitor, name) == await _answer(monitor, name), name


async def _answer(monitor: Monitor, command: str) -> list[dict[str, Any]]:
    answer = await monitor.execute(command)
    return [{key: value for key, value in each.items() if key != "thread-id"} for each in answer]


@pytest.mark.kvm
async def test_a_destination_is_launched_from_one_with_the_hosts_cpu(bench: Bench) -> None:
    source = await bench.source(*BARE, "-accel", "kvm", "-cpu", "host,arch-capabilities=off")
    await assert_waits(await bench.launch(source))


async def test_the_machine_type_is_concrete(bench: Bench) -> None:
    source = await bench.source(*BARE, "-machine", "pc")
    plan = await bench.plan(source)
    assert "-machine pc-i440fx-" in plan.command


async def test_a_monitor_whose_socket_was_passed_is_seen_through(bench: Bench) -> None:
    """As libvirt and systemd do it: the socket's maker is not QEMU, and the process is found all the same."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(bench.folder / "a.qmp"))
        listener.listen()
        monitor = ("-chardev", f"socket,id=m0,fd={listener.fileno()},server=on,wait=off", "-mon", "m0,mode=control")
        source = await bench.source(*BARE, *monitor, "-name", "a.qmp", pass_fds=(listener.fileno(),))
    assert source.process is not None
    assert source.process.pid != os.getpid()
    launched = await bench.launch(source)
    await assert_waits(launched)
    assert "fd=" not in launched.plan.command
    assert f"{launched.plan.folder}/m0.sock" in launched.plan.command


async def test_a_tap_by_name_needs_another(bench: Bench) -> None:
    need_root()
    with _taps("lmtap0", "lmtap1"):
        tap = ("-netdev", "tap,id=t0,ifname=lmtap0,script=no,downscript=no", "-device", "e1000,netdev=t0")
        source = await bench.source(*BARE, *tap)
        with pytest.raises(RefusedError, match="--map lmtap0=NEW"):
            await bench.plan(source)
        await assert_waits(await bench.launch(source, maps=["lmtap0=lmtap1"]))
        await bench.close()


async def test_a_tap_by_descriptor_is_opened_by_name(bench: Bench) -> None:
    need_root()
    with _taps("lmtap2", "lmtap3"):
        descriptor = os.open("/dev/net/tun", os.O_RDWR)
        try:
            fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH22x", b"lmtap2", 0x1002))
            tap = ("-netdev", f"tap,id=t0,fd={descriptor}", "-device", "e1000,netdev=t0")
            source = await bench.source(*BARE, *tap, pass_fds=(descriptor,))
        finally:
            os.close(descriptor)
        launched = await bench.launch(source, maps=["lmtap2=lmtap3"])
        assert "ifname=lmtap3" in launched.plan.command
        await assert_waits(launched)
        await bench.close()


@contextmanager
def _taps(*names: str) -> Iterator[None]:
    try:
        for name in names:
            subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"], check=True)
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "tuntap", "del", "dev", name, "mode", "tap"], check=False)
