"""No secret of a command line is shown; ids of secrets and switches are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemig.core.errors import CommandLineError, RefusedError
from livemig.qemu.command_line import Request, destination_line, redacted, redacted_text, secrets_in

WITH_SECRET = [
    ["-object", "secret,id=s0,data=geheim,format=raw"],
    ["-object", '{"qom-type":"secret","id":"s0","data":"geheim"}'],
    ["-spice", "port=5900,password=geheim"],
    ["-iscsi", "user=u,password=geheim"],
    ["-drive", "file=nbd://user:geheim@host/export"],
    ["-drive", "file=iscsi://user%geheim@host/iqn/0"],
    ["-drive", "file=rbd:pool/image:id=admin:key=geheim:mon_host=a"],
    ["-drive", 'file=json:{"driver":"https"\\,"url":"https://x"\\,"password":"geheim"}'],
    ["-blockdev", '{"driver":"https","url":"https://u:geheim@h/x","node-name":"n"}'],
    ["-blockdev", "driver=https,node-name=n,cookie=geheim"],
    ["-blockdev", '{"driver":"iscsi","password":"geheim"}'],
    ["-hda", "ssh://user:geheim@host/x"],
    ["-smbios", "type=11,value=io.systemd.credential:passwd=geheim"],
    ["-fw_cfg", "name=opt/io.systemd.credentials/x,string=geheim"],
    ["-append", "root=/dev/vda token=geheim quiet"],
    ["-frobnicate", "-object", "secret,id=s0,data=geheim"],
    ["-blockdev", '{"driver":"iscsi","password":"geheim"'],
]
WITHOUT_SECRET = [
    ["-vnc", ":1,password=on"],
    ["-vnc", ":1,password"],
    ["-drive", "file=/x,password-secret=sec0"],
    ["-blockdev", "driver=luks,key-secret=sec0,node-name=n"],
    ["-object", "secret,id=s0,file=/etc/secret"],
    ["-drive", "file=nbd://host:10809/x"],
    ["-fw_cfg", "name=opt/livemig,string=data"],
    ["-spice", "disable-ticketing=on,password-secret=s"],
]


@pytest.mark.parametrize("arguments", WITH_SECRET, ids=str)
def test_a_secret_is_not_shown(arguments):
    shown = redacted(["qemu", *arguments])
    assert "geheim" not in " ".join(shown)
    assert len(shown) == len(arguments) + 1


@pytest.mark.parametrize("arguments", WITHOUT_SECRET, ids=str)
def test_what_is_no_secret_is_shown(arguments):
    assert redacted(["qemu", *arguments]) == ["qemu", *arguments]


def test_a_secret_is_taken_out_of_what_qemu_writes():
    secrets = secrets_in(["qemu", "-object", "secret,id=x,data=a,,b"])
    assert secrets == ("a,b",)
    assert redacted_text("-object secret,id=x,data=a,,b: no; a,b", secrets).count("<redacted>") == 2


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5))
def test_redaction_never_fails(arguments):
    assert len(redacted(["qemu", *arguments])) == len(arguments) + 1


def test_no_secret_is_in_an_error():
    request = Request(qmp_path="/run/b.qmp", folder="/run/b.qmp.livemig")
    with pytest.raises(CommandLineError) as unreadable:
        destination_line(["-blockdev", '{"driver":"iscsi","password":"geheim"'], request)
    with pytest.raises(RefusedError) as refused:
        destination_line(["-drive", "file=nbd://u:geheim@h/x,snapshot=on"], request)
    extra = Request(qmp_path="/b", folder="/f", extra=("-blockdev", '{"driver":"iscsi","password":"geheim"'))
    with pytest.raises(CommandLineError) as given_extra:
        destination_line([], extra)
    assert "geheim" not in str(given_extra.value)
    assert "geheim" not in str(unreadable.value) + unreadable.value.argument + str(refused.value)


def test_a_config_file_with_a_secret_is_refused():
    files = {"a.cfg": '[object "s"]\n qom-type = "secret"\n data = "geheim"\n'}
    request = Request(qmp_path="/run/b.qmp", folder="/run/b.qmp.livemig", config_files=files)
    with pytest.raises(RefusedError, match=r"a\.cfg") as refused:
        destination_line(["-readconfig", "a.cfg"], request)
    assert "geheim" not in str(refused.value)
