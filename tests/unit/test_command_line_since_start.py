# ruff: noqa: E501 - a command line stands in one line, beside what becomes of it
"""A command line brought up to what its QEMU is by now: plugged in and out, set, given an identity."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.core.errors import PlanError
from livemig.qemu.command_line import Image, destination_line
from tests.unit.test_command_line_destination import derived, reasons, request

PLUGGED = ("-netdev", "user,id=n9", "-device", "virtio-net-pci,id=net9,bus=port0,addr=00.0,netdev=n9")
IDS = st.text("abcxyz019_", min_size=1, max_size=6)


def test_what_was_plugged_in_comes_last() -> None:
    """After all that the line has: its bus is there by then."""
    assert derived("-device pcie-root-port,id=port0 -m 1G", plugged=PLUGGED) == shlex.join(
        ["-device", "pcie-root-port,id=port0", "-m", "1G", *PLUGGED]
    )


def test_a_back_end_that_the_line_has_is_not_said_twice() -> None:
    """Only the device was plugged in."""
    line = derived("-netdev user,id=n9", plugged=PLUGGED)
    assert line == shlex.join(["-netdev", "user,id=n9", *PLUGGED[2:]])


def test_devices_as_json_are_written_the_other_way_when_one_was_plugged_in() -> None:
    """QEMU makes them after all others: the bus of what was plugged in would not be there yet."""
    bus = '{"driver":"pcie-root-port","id":"port0","addr":"0x3","chassis":1,"hotplug":true,"x":"a,b"}'
    line = derived(shlex.join(["-device", bus, "-device", "virtio-rng-pci"]), plugged=PLUGGED)
    written = "pcie-root-port,id=port0,addr=0x3,chassis=1,hotplug=on,x=a,,b"
    assert line == shlex.join(["-device", "virtio-rng-pci", "-device", written, *PLUGGED])
    assert "{" in derived(shlex.join(["-device", bus]))


def test_a_number_as_json_address_is_slot_and_function() -> None:
    """As text it would be the slot alone."""
    line = derived(shlex.join(["-device", '{"driver":"e1000","addr":26}']), plugged=PLUGGED)
    assert "e1000,addr=3.2" in line


def test_a_list_keeps_a_device_and_those_after_it_as_json() -> None:
    """It has no other form, and what comes after it may stand on it."""
    first, listed, last = '{"driver":"a"}', '{"driver":"b","l":[1]}', '{"driver":"c"}'
    line = derived(shlex.join(["-device", first, "-device", listed, "-device", last]), plugged=("-device", "d"))
    assert line == shlex.join(["-device", listed, "-device", last, "-device", "a", "-device", "d"])


def test_what_was_unplugged_is_dropped_and_the_others_stay_in_place() -> None:
    """QEMU would give its slot to the next one."""
    line = derived(
        "-device e1000,id=a -device e1000,id=b -device e1000,id=c,addr=9 -device e1000",
        unplugged=frozenset({"a"}),
        addresses={"b": {"bus": "pci.0", "addr": "04.0"}, "c": {"bus": "pci.0", "addr": "09.0"}},
    )
    assert line == "-device e1000,id=b,bus=pci.0,addr=04.0 -device e1000,id=c,addr=9,bus=pci.0 -device e1000"


def test_one_that_came_back_is_what_it_is_now() -> None:
    """Unplugged and plugged in by the same id."""
    line = derived("-device e1000,id=net9", plugged=PLUGGED, unplugged=frozenset({"net9"}))
    assert line == shlex.join(PLUGGED)


def test_what_can_not_be_read_is_refused_unless_it_is_given() -> None:
    """QEMU does not tell how a character device was made."""
    plugged = ("-chardev", "…,id=c9", "-device", "virtserialport,chardev=c9")
    refused = reasons("-m 1G", plugged=plugged)
    assert "-chardev …,id=c9" in refused
    assert "--dst-args" in refused
    line = derived_with_extra("-m 1G", plugged, ("-chardev", "null,id=c9"))
    assert line.endswith("-chardev null,id=c9")
    assert line.startswith("-m 1G -device virtserialport,chardev=c9 ")


def derived_with_extra(line: str, plugged: tuple[str, ...], extra: tuple[str, ...]) -> str:
    return shlex.join(destination_line(shlex.split(line), request(plugged=plugged, extra=extra)).arguments)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-device vmgenid,guid=auto", "-device vmgenid,guid=G"),
        ("-device vmgenid", "-device vmgenid,guid=G"),
        ("-global vmgenid.guid=auto -device vmgenid", "-global vmgenid.guid=auto -device vmgenid,guid=G"),
        ("""-device '{"driver":"vmgenid","guid":"auto"}'""", """-device '{"driver":"vmgenid","guid":"G"}'"""),
    ],
)
def test_the_generation_id_is_the_guests(line: str, expected: str) -> None:
    """However it was given; `--dst-set` decides before."""
    assert derived(line, generation_id="G") == expected
    assert derived("-device vmgenid,id=v,guid=auto", generation_id="G", sets=["v.guid=X"]) == (
        "-device vmgenid,id=v,guid=X"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        # -set is in the option it speaks of, so that all that holds there holds for it
        ("-device e1000,id=n0 -set device.n0.mac=1", "-device e1000,id=n0,mac=1"),
        ("-device e1000,id=n0,mac=2 -set device.n0.mac=1", "-device e1000,id=n0,mac=1"),
        ("-drive id=d0,if=none -set drive.d0.file=/img/a", "-drive id=d0,if=none,file=/new/a"),
        ("-chardev file,id=c0,path=/x -set chardev.c0.path=/img/a,b", "-chardev file,id=c0,path=/new/a,,b"),
        # what it speaks of is not seen here
        ("-hda /img/a -set drive.ide0-hd0.file=/img/b", "-hda /new/a -set drive.ide0-hd0.file=/new/b"),
        ("-set device.n0.mac=1 -device e1000,id=n0", "-set device.n0.mac=1 -device e1000,id=n0"),
        ("-set nonsense", "-set nonsense"),
        # -global, in both forms
        ("-global e1000.romfile=/img/rom", "-global e1000.romfile=/new/rom"),
        ("-global driver=e1000,property=romfile,value=/img/rom", "-global driver=e1000,property=romfile,value=/new/rom"),
        ("-global e1000.romfile=rom -global x.y=/elsewhere/z", "-global e1000.romfile=rom -global x.y=/elsewhere/z"),
    ],
)  # fmt: skip
def test_overrides_are_mapped(line: str, expected: str) -> None:
    """`-set` and `-global` hold host paths as all others do."""
    assert derived(line, maps=["/img=/new"]) == expected


def test_two_disks_of_set_and_drive_are_not_made_one() -> None:
    """A collision is seen there, too."""
    with pytest.raises(PlanError, match="both be /new/a"):
        derived("-drive file=/img/a -global x.y=/other/a", maps=["/img=/new", "/other=/new"])


@given(st.lists(IDS, unique=True, min_size=1, max_size=6), st.data())
def test_each_device_is_there_once_or_was_unplugged(names: list[str], data: st.DataObject) -> None:
    """Whatever is unplugged, in either form, the rest stays, in the order in which QEMU makes it."""
    gone = frozenset(data.draw(st.lists(st.sampled_from(names))))
    as_json = {name: data.draw(st.booleans()) for name in names}
    arguments = []
    for name in names:
        arguments += ["-device", f'{{"driver":"e","id":"{name}"}}' if as_json[name] else f"e,id={name}"]
    found = shlex.split(derived(shlex.join(arguments), unplugged=gone))[1::2]
    in_order = sorted(names, key=lambda name: as_json[name])
    if gone:
        assert found == [f"e,id={name}" for name in in_order if name not in gone]
    else:
        assert found == arguments[1::2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-drive id=d0,file=/img/a,format=raw", "-drive id=d0,file=/new/s,format=qcow2"),
        ("-drive id=d0,file=/img/a", "-drive id=d0,file=/new/s"),
        (
            "-drive id=d0,file=s,format=raw",
            "-drive id=d0,file=/new/s,format=raw",
        ),  # that is it, from the working folder
        ("-drive id=d0,file=nbd://h/x", "-drive id=d0,file=nbd://h/x"),
        ("-drive file=/img/a", "-drive file=/new/a"),
        ("-drive id=cd,if=none,file=/img/a,format=raw,media=cdrom", "-drive id=cd,if=none,media=cdrom"),
        ("-drive id=job,file=/img/a", "-drive id=job,file=/new/a"),
        ("-drive id=net,file=/img/a", "-drive id=net,file=/new/a"),
        ("-hda /img/a", "-hda /new/s"),
        ("-cdrom /img/a", "-drive index=2,media=cdrom"),
        ("-drive id=d0,if=none -set drive.d0.file=/img/a", "-drive id=d0,if=none,file=/new/s"),
    ],
)
def test_a_drive_has_the_image_that_is_in_it_now(line: str, expected: str) -> None:
    """What is above the image, or is no file, is left to the comparison."""
    images = {
        "d0": Image("/img/s", "qcow2"),
        "ide0-hd0": Image("/img/s", "qcow2"),
        "ide2-cd0": Image("", ""),
        "cd": Image("", ""),
        "job": Image("/img/s", "mirror_top"),
        "net": Image("nbd://h/s", "raw"),
    }
    assert derived(line, maps=["/img=/new"], images=images, cwd="/img") == expected


def test_a_changed_image_is_told() -> None:
    line = destination_line(["-cdrom", "/a"], request(images={"ide1-cd0": Image("/b", "raw")}))
    assert line.changes == ("disk image: /a -> /b, since it was changed",)
    assert line.inputs == ("/b",)
