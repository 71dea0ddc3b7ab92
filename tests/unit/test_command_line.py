"""Reading a QEMU's command line: options, properties, config files. What is read is rendered as it was."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.core.errors import CommandLineError
from livemig.qemu.command_line.config_file import options_of
from livemig.qemu.command_line.options import WITH_VALUE, WITHOUT_VALUE, parse, render
from livemig.qemu.command_line.properties import IMPLIED_KEYS, KeyValues, parse_properties

STYLES = {
    "plain": "-m 1G -smp 2 -cpu host -enable-kvm -nographic disk.img",
    "double dashes": "--machine q35 --daemonize --pidfile /run/vm.pid --no-reboot",
    "commas": "-drive file=/img/a,,b.raw,if=virtio,format=raw -name guest=a,,b",
    "JSON": shlex.join(["-device", '{"driver": "virtio-rng-pci", "id": "rng0"}', "-object", '{"qom-type":"iothread"}']),
    "NUMA": "-m 2G,slots=2,maxmem=4G -numa node,memdev=m0,cpus=0-1 -numa dist,src=0,dst=1,val=20",
    "monitors": "-qmp unix:/a,server=on,wait=off -monitor stdio -mon chardev=c0,mode=control -serial mon:stdio",
    "empty value": "-append '' -name x",
    "7.2": "-no-hpet -no-acpi -chroot /x -runas nobody -async-teardown -singlestep",
}

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
options = st.one_of(
    st.sampled_from(sorted(WITHOUT_VALUE)).map(lambda name: [f"-{name}"]),
    st.tuples(st.sampled_from(sorted(WITH_VALUE)), words).map(lambda pair: [f"--{pair[0]}", pair[1]]),
    st.tuples(st.sampled_from(sorted(WITH_VALUE)), words).map(lambda pair: [f"-{pair[0]}", pair[1]]),
    words.filter(lambda text: not text.startswith("-")).map(lambda text: [text]),
)


@pytest.mark.parametrize("style", STYLES)
def test_a_command_line_is_rendered_as_it_was(style):
    argv = shlex.split(STYLES[style])
    assert render(parse(argv)) == argv


@given(st.lists(options, max_size=8).map(lambda found: [argument for option in found for argument in option]))
def test_any_command_line_is_rendered_as_it_was(argv):
    assert render(parse(argv)) == argv


@given(words, st.sampled_from(["", "type", "path"]))
def test_any_key_values_are_rendered_as_they_were(text, implied):
    assert str(KeyValues(text, implied)) == text


@given(st.text("a=,o1.", max_size=14), st.sampled_from(["", "type"]))
def test_commas_and_equals_are_rendered_as_they_were(text, implied):
    assert str(KeyValues(text, implied)) == text


@given(words.filter(bool), words)
def test_a_value_that_was_set_is_read_back(old, new):
    values = KeyValues("id=x,server")
    values.set("path", old)
    values.set("path", new)
    assert KeyValues(str(values)).get("path") == new
    assert KeyValues(str(values)).get("id") == "x"


def test_an_implied_key_is_said_where_the_value_holds_an_equals_sign():
    """QEMU would read `/a` as the key."""
    values = KeyValues("/x,server=on", "path")
    values.set("path", "/a=b")
    assert str(values) == "path=/a=b,server=on"
    assert KeyValues(str(values), "path").get("path") == "/a=b"


json_values = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2)
)


@given(st.dictionaries(words.filter(bool), json_values, max_size=4))
def test_any_json_is_rendered_as_it_was(tree):
    text = json.dumps(tree, indent=1)
    properties = parse_properties(text)
    properties.rewrite(lambda _, value: value)
    assert str(properties) == text


@pytest.mark.parametrize(
    ("argv", "argument"),
    [(["-m", "1G", "-frobnicate", "x"], "-frobnicate"), (["-m"], "-m"), (["-S", "---x"], "---x"), (["-"], "-")],
)
def test_what_cannot_be_read_is_named(argv, argument):
    with pytest.raises(CommandLineError) as raised:
        parse(argv)
    assert raised.value.argument == argument
    assert argument in str(raised.value)


def test_broken_json_is_named():
    with pytest.raises(CommandLineError, match="driver"):
        parse_properties('{"driver": "virtio', "driver")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("pc,accel=kvm", "type", "pc"),
        ("type=q35", "type", "q35"),
        ("socket,id=a,path=/x,,y", "path", "/x,y"),
        ("socket,server,nowait", "server", "on"),
        ("socket,server,nowait", "wait", "off"),
        ("a=1,a=2", "a", "2"),
        ("a=b=c", "a", "b=c"),
        ("a=1,", "a", "1"),
        ("a=1", "b", None),
    ],
)
def test_key_values_are_read_as_by_qemu(text, key, value):
    assert KeyValues(text, "type").get(key) == value


def test_json_properties_keep_the_kind_of_their_values():
    properties = parse_properties('{"driver":"x","on":true,"n":5,"a":{"b":["c"]}}')
    assert (properties.get("on"), properties.get("n"), properties.get("a.b.0")) == ("on", "5", "c")
    for key, value in (("on", "off"), ("n", "6"), ("a.b.0", "7"), ("new", "8"), ("switch", "on"), ("a.text", "z")):
        properties.set(key, value)
    assert json.loads(str(properties)) == {
        "driver": "x", "on": False, "n": 6, "a": {"b": ["7"], "text": "z"}, "new": 8, "switch": True
    }  # fmt: skip
    properties.remove("a")
    assert "a" not in json.loads(str(properties))


def test_a_config_file_becomes_options_in_its_order():
    text = (
        '# QEMU config file\n\n[machine]\n  type = "q35"\n  accel = "tcg"\n'
        '[device "rng0"]\n  driver = "virtio-rng,x"\n[memory]\n  size = "1G"\n'
    )
    assert render(options_of(text, "f.cfg")) == [
        "-machine", "type=q35,accel=tcg", "-device", "id=rng0,driver=virtio-rng,,x", "-m", "size=1G"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ['[unknown]\n a = "b"\n', 'a = "b"\n', "[machine]\nnonsense\n"])
def test_a_config_file_that_cannot_be_read_is_named(text):
    with pytest.raises(CommandLineError, match=r"f\.cfg"):
        options_of(text, "f.cfg")


def test_each_option_with_properties_is_one_with_a_value():
    assert set(IMPLIED_KEYS) <= WITH_VALUE
    assert not WITH_VALUE & WITHOUT_VALUE
