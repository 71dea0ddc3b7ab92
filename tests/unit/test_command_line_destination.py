# ruff: noqa: E501 - a command line stands in one line, beside what becomes of it
"""From a source's command line to its destination's: what is taken over, moved, mapped, set, refused."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.core.errors import CommandLineError, PlanError, RefusedError
from livemig.qemu.command_line import (
    PathMap,
    Request,
    Setting,
    destination_line,
    given_line,
    launch_folder,
    parse_maps,
)

FOLDER = "/run/b.qmp.livemig"
WAITING = [
    "-chardev", "socket,id=livemig-qmp,path=/run/b.qmp,server=on,wait=off", "-mon", "chardev=livemig-qmp,mode=control",
    "-chardev", f"socket,id=livemig-spare,path={FOLDER}/spare.qmp,server=on,wait=off",
    "-mon", "chardev=livemig-spare,mode=control", "-S", "-incoming", "defer",
]  # fmt: skip


def request(**changes: Any) -> Request:
    maps = parse_maps(changes.pop("maps", ()))
    settings = tuple(Setting.parse(text) for text in changes.pop("sets", ()))
    return Request(**{"qmp_path": "/run/b.qmp", "folder": FOLDER, "maps": maps, "settings": settings, **changes})


def derived(line: str, **changes: Any) -> str:
    """The destination's command line up to livemig's own monitors."""
    arguments = list(destination_line(shlex.split(line), request(**changes)).arguments)
    assert arguments[-len(WAITING) :] == WAITING
    return shlex.join(arguments[: -len(WAITING)])


def reasons(line: str, **changes: Any) -> str:
    with pytest.raises(RefusedError) as raised:
        destination_line(shlex.split(line), request(**changes))
    return str(raised.value)


STYLES = [
    # taken over as they are
    ("-m 1G -smp 2,maxcpus=4 -cpu host -accel kvm", "-m 1G -smp 2,maxcpus=4 -cpu host -accel kvm"),
    ("-numa node,memdev=m0 -object memory-backend-ram,id=m0,size=1G", None),
    ("-object memory-backend-memfd,id=m0,size=1G,share=on -machine pc,memory-backend=m0", None),
    ("-append 'root=/dev/vda console=ttyS0' -uuid 1b4e28ba-2fa1-11d2-883f-0016d3cca427", None),
    ("-netdev user,id=n0 -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01", None),
    ("-drive file=nbd://host:10809/x,if=virtio -drive if=none,id=cd,media=cdrom", None),
    ("-blockdev driver=file,node-name=f0,filename=/img/a -blockdev driver=raw,node-name=r0,file=f0", None),
    ("-sandbox on,spawn=deny -overcommit mem-lock=on -rtc base=utc -boot order=c,menu=on -only-migratable", None),
    ("-netdev tap,id=t0,script=/etc/up,downscript=no -netdev bridge,id=b0,br=br0", None),
    ("-chardev socket,id=c0,path=/run/console,reconnect-ms=5 -serial chardev:c0", None),
    ("-serial pty -serial none -parallel null -display none -vga none -nodefaults -snapshot=off", "unreadable"),
    ("-mem-path /dev/shm/x -m 1G -L /usr/share/qemu -bios bios.bin", None),
    ("-s", None),
    ("-vnc :3,password=on", None),
    # for the start alone
    ("-S -m 1G -incoming tcp:0:4444 -daemonize -loadvm snap --S", "-m 1G"),
    ("-runas nobody -m 1G -run-with user=nobody,async-teardown=on", "-m 1G -run-with async-teardown=on"),
    # sockets, files and ports of one process
    ("-qmp unix:/run/a.qmp,server=on,wait=off", f"-qmp unix:{FOLDER}/qmp-0.sock,server=on,wait=off"),
    ("-qmp-pretty unix:/run/a,server", f"-qmp-pretty unix:{FOLDER}/qmp-pretty-0.sock,server,wait=off"),
    ("-monitor unix:/run/h.sock,server,nowait", f"-monitor unix:{FOLDER}/monitor-0.sock,server,wait=off"),
    ("-qmp tcp:127.0.0.1:4444,server=on", "-qmp tcp:127.0.0.1:4446,server=on,wait=off"),
    ("-serial telnet::4444,server,nowait", "-serial telnet::4446,server,wait=off"),
    ("-serial tcp:console:4444", "-serial tcp:console:4444"),
    ("-serial udp:log:9@:4444", "-serial udp:log:9@:4446"),
    ("-serial mon:stdio -monitor stdio", "-serial mon:null -monitor null"),
    (
        "-serial file:/log/a -serial file:/log/b",
        f"-serial file:{FOLDER}/serial-0.log -serial file:{FOLDER}/serial-1.log",
    ),
    ("-chardev stdio,id=c0,signal=off,mux=on", "-chardev null,id=c0,mux=on"),
    (
        "-chardev socket,id=c,,0,path=/run/c,server=on,logfile=/log/c",
        f"-chardev socket,id=c,,0,path={FOLDER}/c_0.sock,server=on,logfile={FOLDER}/c_0.log,wait=off",
    ),
    (
        "-chardev socket,id=c0,fd=35,server=on,wait=off",
        f"-chardev socket,id=c0,server=on,wait=off,path={FOLDER}/c0.sock",
    ),
    ("-chardev file,id=c0,path=/log/c0", f"-chardev file,id=c0,path={FOLDER}/c0.out"),
    ("-chardev socket,id=c0,host=0,port=4445,server=on", "-chardev socket,id=c0,host=0,port=4446,server=on,wait=off"),
    ("-pidfile /run/a.pid -D /log/q", f"-pidfile {FOLDER}/qemu.pid -D {FOLDER}/qemu.log"),
    ("-vnc 127.0.0.1:1,websocket=4444", "-vnc 127.0.0.1:2,websocket=4446"),
    ("-vnc unix:/run/v.sock -display vnc=:1", f"-vnc unix:{FOLDER}/vnc.sock -display vnc=:2"),
    ("-spice port=5901,tls-port=4444,disable-ticketing=on", "-spice port=5902,tls-port=4446,disable-ticketing=on"),
    ("-spice unix=on,addr=/run/spice", f"-spice unix=on,addr={FOLDER}/spice.sock"),
    ("-gdb tcp::4444 -gdb none", "-gdb tcp::4446 -gdb none"),
    (
        "-netdev user,id=n0,hostfwd=tcp::4444-:22,hostfwd=tcp:127.0.0.1:4445-:80",
        "-netdev user,id=n0,hostfwd=tcp::4446-:22,hostfwd=tcp:127.0.0.1:4447-:80",
    ),
    (
        """-netdev '{"type":"user","id":"n0","hostfwd":[{"str":"tcp::4444-:22"}]}'""",
        """-netdev '{"type":"user","id":"n0","hostfwd":[{"str":"tcp::4446-:22"}]}'""",
    ),
    ("-nic user,hostfwd=::4444-:22", "-nic user,hostfwd=::4446-:22"),
    ("-netdev socket,id=n0,listen=:4444", "-netdev socket,id=n0,listen=:4446"),
    (
        "-netdev stream,id=n0,server=on,addr.type=unix,addr.path=/run/n0",
        f"-netdev stream,id=n0,server=on,addr.type=unix,addr.path={FOLDER}/n0.sock",
    ),
    ("-audiodev wav,id=a0,path=/log/a.wav", f"-audiodev wav,id=a0,path={FOLDER}/a0.wav"),
    ("-trace enable=migration_state,file=/log/t", f"-trace enable=migration_state,file={FOLDER}/qemu.trace"),
    ("-display curses", "-display none"),
    ("--pidfile /run/a.pid", f"--pidfile {FOLDER}/qemu.pid"),
    # livemig's own monitors are not piled up
    (shlex.join(WAITING), ""),
]


@pytest.mark.parametrize(("source", "destination"), STYLES)
def test_styles(source, destination):
    if destination == "unreadable":
        with pytest.raises(CommandLineError):
            derived(source)
        return
    busy = frozenset({4444, 4445, 5901})
    assert derived(source, busy_ports=busy) == (source if destination is None else destination)


def test_the_machine_type_is_made_concrete():
    machine = "pc-i440fx-10.0"
    assert derived("-machine pc,accel=kvm", machine_type=machine) == f"-machine {machine},accel=kvm"
    assert derived("-M type=q35 -m 1G", machine_type=machine) == f"-M type={machine} -m 1G"
    assert derived("-m 1G -machine accel=tcg", machine_type=machine).startswith(f"-machine type={machine} -m 1G")
    files = {"a.cfg": '[machine]\n type = "pc"\n'}
    assert derived("-readconfig a.cfg", machine_type=machine, config_files=files) == f"-machine type={machine}"


def test_a_config_file_stands_in_the_line_and_is_changed_like_it():
    text = (
        '[drive "d0"]\n file = "/img/a,b"\n if = "none"\n[chardev "c"]\n backend = "stdio"\n[device]\n driver = "x"\n'
    )
    found = derived("-m 1G -readconfig a.cfg -smp 2", config_files={"a.cfg": text}, maps=["/img=/new"])
    assert found == "-m 1G -drive id=d0,file=/new/a,,b,if=none -chardev id=c,backend=null -device driver=x -smp 2"
    with pytest.raises(CommandLineError, match=r"a\.cfg"):
        derived("-readconfig a.cfg")


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("-drive file=/img/a.qcow2", "-drive file=/new/a.qcow2"),
        ("-drive file=/img/a,,b.qcow2", "-drive file=/new/a,,b.qcow2"),
        ("-drive file=/imgs/a.qcow2", "-drive file=/imgs/a.qcow2"),
        ("-drive file=/img/deep/x", "-drive file=/deeper/x"),
        ("-drive file=/img/../img/x", "-drive file=/new/x"),
        ("-drive file=rel/x", "-drive file=/new/rel/x"),
        ("-drive file=file:/img/x", "-drive file=file:/new/x"),
        ("-drive file=nbd:unix:/img/s:exportname=e", "-drive file=nbd:unix:/new/s:exportname=e"),
        ("-drive 'file=nbd+unix:///e?socket=/img/s'", "-drive 'file=nbd+unix:///e?socket=/new/s'"),
        ("-drive file=https://img/x", "-drive file=https://img/x"),
        ("-drive file.driver=file,file.filename=/img/x", "-drive file.driver=file,file.filename=/new/x"),
        (
            """-drive 'file=json:{"driver":"file",,"filename":"/img/x"}'""",
            """-drive 'file=json:{"driver":"file",,"filename":"/new/x"}'""",
        ),
        (
            """-blockdev '{"driver":"qcow2","file":{"driver":"file","filename":"/img/x"},"backing":null}'""",
            """-blockdev '{"driver":"qcow2","file":{"driver":"file","filename":"/new/x"},"backing":null}'""",
        ),
        ("-hda /img/x -cdrom /img/y /img/z", "-hda /new/x -cdrom /new/y /new/z"),
        ("-kernel /img/k -initrd /img/i -bios /img/b -dtb /img/d", "-kernel /new/k -initrd /new/i -bios /new/b -dtb /new/d"),
        ("-append root=/img/x -name /img/x", "-append root=/img/x -name /new/x"),
        ("-object memory-backend-file,id=m,mem-path=/img/m,share=on", "-object memory-backend-file,id=m,mem-path=/new/m,share=on"),
        ("-fw_cfg name=opt/x,file=/img/x -fw_cfg name=opt/y,string=/img/y", "-fw_cfg name=opt/x,file=/new/x -fw_cfg name=opt/y,string=/img/y"),
        ("-smbios file=/img/s -acpitable file=/img/a", "-smbios file=/new/s -acpitable file=/new/a"),
        ("-device virtio-blk-pci,serial=/img/x,romfile=/img/r", "-device virtio-blk-pci,serial=/img/x,romfile=/new/r"),
        ("-qmp unix:/img/a.qmp,server=on,wait=off", "-qmp unix:/new/a.qmp,server=on,wait=off"),
        ("-pidfile /img/p -serial file:/img/log", "-pidfile /new/p -serial file:/new/log"),
        ("-fsdev local,id=f,path=/img/share,security_model=none", "-fsdev local,id=f,path=/new/share,security_model=none"),
        ("-netdev bridge,id=b0,br=br0 -netdev tap,id=t,ifname=tap0", "-netdev bridge,id=b0,br=br1 -netdev tap,id=t,ifname=tap1"),
        ("-object secret,id=s,file=/img/secret", "-object secret,id=s,file=/new/secret"),
    ],
)  # fmt: skip
def test_maps(source, destination):
    maps = ["/img=/new", "/img/deep=/deeper", "/work=/new", "br0=br1", "tap0=tap1"]
    assert derived(source, maps=maps, cwd="/work") == destination


@given(st.sampled_from(["/a", "/a/b", "/ab", "/a/bc", "/a/b/c", "/"]), st.sampled_from(["x", "b/x", "b", "bc/y"]))
def test_the_longest_map_wins_at_component_boundaries(prefix, rest):
    path = f"{prefix.rstrip('/')}/{rest}"
    maps = parse_maps(["/a=/A", "/a/b=/B", "/a/b/c=/C"])
    found = next((new for each in maps if (new := each.applied_to(path)) is not None), path)
    parts = path.split("/")
    expected = "/C" if parts[:4] == ["", "a", "b", "c"] else "/B" if parts[:3] == ["", "a", "b"] else "/A"
    if parts[1] != "a":
        assert found == path
    else:
        assert found.split("/")[1] == expected[1:]


@pytest.mark.parametrize("text", ["", "=", "/a", "/a=", "=/b", "/a=b"])
def test_a_map_that_makes_no_sense_is_named(text):
    with pytest.raises(PlanError, match=r"--map"):
        PathMap.parse(text)


def test_maps_that_contradict_are_refused():
    with pytest.raises(PlanError, match="both"):
        parse_maps(["/a=/x", "/a/=/y"])


@pytest.mark.parametrize(
    ("line", "maps"),
    [
        ("-drive file=/img/a -drive file=/img/b", ["/img/a=/new/x", "/img/b=/new/x"]),
        ("-drive file=/img/a -drive file=/new/a", ["/img=/new"]),
        ("-hda /img/a -serial file:/img/log", ["/img/a=/new/x", "/img/log=/new/x"]),
    ],
)
def test_two_things_in_one_file_are_refused(line, maps):
    with pytest.raises(PlanError, match="--map of its own"):
        derived(line, maps=maps)


def test_one_file_used_twice_stays_so():
    assert derived("-hda /img/a -hdb /img/a", maps=["/img=/new"]) == "-hda /new/a -hdb /new/a"


def test_sockets_that_collide_are_refused():
    assert "two sockets" in reasons("-qmp unix:/x,server=on,wait=off", maps=["/x=/run/b.qmp"])
    long = f"/{'x' * 120}"
    assert "too long" in reasons("-qmp unix:/x,server=on,wait=off", maps=[f"/x={long}"])


def test_a_map_that_matches_nothing_is_said():
    line = destination_line(["-hda", "/img/a"], request(maps=["/image=/new"]))
    assert "/image" in line.warnings[0]


@pytest.mark.parametrize(
    ("source", "setting", "destination"),
    [
        ("-device virtio-net-pci,id=net0", "net0.host_mtu=1400", "-device virtio-net-pci,id=net0,host_mtu=1400"),
        ("-device virtio-net-pci,id=net.0,mtu=1", "net.0.mtu=2", "-device virtio-net-pci,id=net.0,mtu=2"),
        ("""-device '{"driver":"x","id":"n","a":1}'""", "n.a=2", """-device '{"driver":"x","id":"n","a":2}'"""),
        ("-drive file=/a,id=d", "d.file=/b,c", "-drive file=/b,,c,id=d"),
        ("-blockdev driver=file,node-name=f,filename=/a", "f.filename=/b", "-blockdev driver=file,node-name=f,filename=/b"),
        ("-M pc,accel=kvm", "machine.accel=tcg", "-M pc,accel=tcg"),
        ("-netdev tap,id=t,ifname=tap0", "t.ifname=tap9", "-netdev tap,id=t,ifname=tap9"),
        ("-netdev tap,id=t,fd=9,vhostfd=10", "t.ifname=tap9", "-netdev tap,id=t,ifname=tap9"),
        ("-chardev file,id=c,path=/a", "c.path=/b", "-chardev file,id=c,path=/b"),
        ("-object memory-backend-file,id=m,mem-path=/a,share=on", "m.mem-path=/b", "-object memory-backend-file,id=m,mem-path=/b,share=on"),
        ("-device vhost-vsock-pci,id=v,guest-cid=3", "v.guest-cid=4", "-device vhost-vsock-pci,id=v,guest-cid=4"),
    ],
)  # fmt: skip
def test_settings(source, setting, destination):
    assert derived(source, sets=[setting]) == destination


@pytest.mark.parametrize("text", ["", "x", "net0=1", ".a=1", "net0.=1", "net0.a", "net 0.a=1"])
def test_a_setting_that_makes_no_sense_is_named(text):
    with pytest.raises(PlanError, match=r"--dst-set"):
        Setting.parse(text)


def test_a_setting_for_an_unknown_id_suggests_the_nearest():
    with pytest.raises(PlanError, match="net0"):
        derived("-device e1000,id=net0", sets=["nte0.mac=x"])


@pytest.mark.parametrize("text", ["n.a.5.b=1", "n.driver.x=1", "n.a.x=1"])
def test_a_setting_without_a_place_is_refused(text):
    with pytest.raises(PlanError, match="no place"):
        derived("""-device '{"driver":"x","id":"n","a":["b"]}'""", sets=[text])


REFUSED = [
    ("-add-fd fd=3,set=1", "-add-fd"),
    ("-drive file=/dev/fdset/1", "--dst-command"),
    ("-serial /dev/fdset/1", "--dst-command"),
    ("-chardev socket,id=c0,fd=3", "c0"),
    ("-netdev socket,id=n0,fd=3", "fd=3"),
    ("-netdev stream,id=n0,addr.type=fd,addr.str=3", "descriptor"),
    ("-object iommufd,id=i0,fd=3", "fd=3"),
    ("-netdev tap,id=t0,fd=3", "no tap"),
    ("-netdev tap,id=t0,ifname=tap0", "--map tap0=NEW"),
    ("-chroot /jail", "--dst-command"),
    ("-run-with chroot=/jail", "--dst-command"),
    ("-preconfig", "--dst-command"),
    ("-snapshot", "temporary"),
    ("-drive file=/a,snapshot=on", "temporary"),
    ("-chardev socket,id=v0,path=/run/v -netdev vhost-user,id=n,chardev=v0", "--map /run/v=NEW"),
    ("-chardev socket,id=v0,path=/run/v -device vhost-user-fs-pci,chardev=v0,tag=x", "vhost-user-fs-pci"),
    ("-chardev socket,id=t0,path=/run/t -tpmdev emulator,id=tpm,chardev=t0", "swtpm"),
    ("-object memory-backend-file,id=m0,mem-path=/dev/shm/m,size=1G,share=on", "--map /dev/shm/m=NEW"),
    ("""-object '{"qom-type":"memory-backend-file","id":"m0","mem-path":"/m","share":true}'""", "overwritten"),
    ("-device vhost-vsock-pci,id=v0,guest-cid=3", "v0.guest-cid"),
    ("-device vfio-pci,host=01:00.0,id=g0", "g0.host"),
    ("-device ivshmem-doorbell,chardev=c", "ivshmem"),
    ("-netdev vhost-vdpa,id=n0,vhostdev=/dev/vhost-vdpa-0", "--map"),
    ("-serial pipe:/run/p", "--map /run/p=NEW"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED)
def test_refusals_name_the_thing_and_the_remedy(line, words):
    assert words in reasons(line)


def test_all_refusals_come_together():
    found = reasons("-add-fd fd=3,set=1 -chroot /x -snapshot")
    assert all(word in found for word in ("-add-fd", "-chroot", "-snapshot"))


@pytest.mark.parametrize(
    ("source", "changes"),
    [
        ("-object memory-backend-file,id=m,mem-path=/m,share=on", {"same_host": False}),
        ("-object memory-backend-file,id=m,mem-path=/m,share=off", {}),
        ("-object memory-backend-file,id=m,mem-path=/m,share=on,readonly=on", {}),
        (
            "-object memory-backend-file,id=m,mem-path=/dev/hugepages,share=on",
            {"folders": frozenset({"/dev/hugepages"})},
        ),
        ("-netdev tap,id=t,ifname=tap0", {"same_host": False}),
        ("-qmp unix:/run/a.qmp,server=on,wait=off -pidfile /run/p", {"same_host": False}),
        ("-device vfio-pci,host=01:00.0", {"same_host": False}),
        ("-runas nobody", {"keep_user": True}),
    ],
)
def test_what_is_harmless_is_taken_over(source, changes):
    assert derived(source, **changes) == source


def test_a_backend_with_a_mapped_socket_is_taken_over():
    line = "-chardev socket,id=v0,path=/run/v -netdev vhost-user,id=n,chardev=v0"
    assert derived(line, maps=["/run/v=/run/w"]) == line.replace("/run/v", "/run/w")


def test_taps_by_descriptor_are_opened_by_name():
    names = {10: "tap0", 11: "tap0"}
    assert derived("-netdev tap,id=t,fds=10:11,vhost=on,vhostfds=3:4", tap_names=names, maps=["tap0=tap1"]) == (
        "-netdev tap,id=t,vhost=on,ifname=tap1,script=no,downscript=no,queues=2"
    )
    found = derived("""-netdev '{"type":"tap","fd":"10","id":"t"}'""", tap_names=names, same_host=False)
    assert found == """-netdev '{"type":"tap","id":"t","ifname":"tap0","script":"no","downscript":"no"}'"""


def test_on_another_host_the_monitor_at_the_asked_path_is_replaced():
    assert derived("-qmp unix:/run/b.qmp,server=on,wait=off -m 1G", same_host=False) == "-m 1G"


def test_further_arguments_come_last_and_are_checked():
    line = destination_line(["-m", "1G"], request(extra=("-device", "virtio-rng-pci")))
    assert line.arguments[-2:] == ("-device", "virtio-rng-pci")
    for extra in (("-S",), ("-incoming", "tcp:0:1"), ("-daemonize",)):
        with pytest.raises(PlanError, match="--dst-args"):
            destination_line([], request(extra=extra))
    with pytest.raises(CommandLineError, match="--dst-args"):
        destination_line([], request(extra=("-nonsense",)))
    with pytest.raises(RefusedError, match="5905 is taken"):
        destination_line([], request(extra=("-vnc", ":5"), busy_ports=frozenset({5905})))


def test_sockets_of_what_the_user_gives_are_looked_at():
    """QEMU would take a socket from whoever listens there, the source's own monitor among them."""
    extra = ("-qmp", "unix:/run/c.qmp,server=on", "-chardev", "socket,id=x,path=/run/x,server=on", "-serial", "unix:/y")
    line = destination_line([], request(extra=extra))
    assert line.arguments[-len(extra) :] == extra
    assert line.sockets[-2:] == ("/run/c.qmp", "/run/x")
    for path in ("/run/b.qmp", f"{FOLDER}/spare.qmp", "/run/x"):
        with pytest.raises(RefusedError, match=f"{path}: another socket is made there"):
            destination_line([], request(extra=(*extra, "-serial", f"unix:{path},server=on")))
    given = given_line(shlex.split("-qmp unix:/run/b.qmp,server=on -serial unix:/s,server=on"), request())
    assert list(given.arguments) == ["-serial", "unix:/s,server=on", *WAITING]
    assert given.sockets[-1] == "/s"


def test_a_given_command_waits_too():
    line = given_line(["-m", "1G", "-daemonize", "-incoming", "tcp:0:1", "-hda", "/x"], request())
    assert list(line.arguments) == ["-m", "1G", "-hda", "/x", *WAITING]
    with pytest.raises(RefusedError, match="4444"):
        given_line(["-qmp", "tcp::4444,server=on,wait=off"], request(busy_ports=frozenset({4444})))


def test_what_must_be_there_and_what_must_not():
    line = destination_line(
        shlex.split("-hda a.img -drive file=nbd://h/x -kernel /k -bios b.bin -serial unix:/s,server=on"),
        request(cwd="/w"),
    )
    assert line.inputs == ("/w/a.img", "/k")
    assert line.sockets == ("/run/b.qmp", f"{FOLDER}/spare.qmp", f"{FOLDER}/serial-0.sock")


def test_moving_on_changes_only_the_folder():
    arguments = list(destination_line(["-M", "pc", "-qmp", "unix:/a,server=on,wait=off"], request()).arguments)
    assert launch_folder(arguments) == FOLDER
    other = Request(qmp_path="/run/c.qmp", folder="/run/c.qmp.livemig")
    found = destination_line(arguments, other).arguments
    assert [each.replace("/run/c.qmp", "/run/b.qmp") for each in found] == arguments
    assert launch_folder(["-m", "1G"]) is None
