"""What is asked wrongly is refused in one clear line, before anything is touched; and help teaches. No QEMU needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from tests.cli.command_line import finish, livemig, read_until, start
from tests.qmp.fake_qemu import FakeQemu

BOTH = ("--src-qmp", "/tmp/no-such-source", "--dst-qmp", "/tmp/no-such-destination")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("run", "--frobnicate"), ["--frobnicate"]),
        (("run",), ["--src-qmp"]),
        (("run", "--src-qmp", "a"), ["--dst-qmp"]),
        (("run", *BOTH, "--downtime-limit", "300"), ["--downtime-limit", "'300'", "no unit", "300ms"]),
        (("run", *BOTH, "--downtime-limit", "3 parsec"), ["--downtime-limit", "'parsec'", "ms"]),
        (("run", *BOTH, "--downtime-limit", "300MiB"), ["--downtime-limit", "'MiB'", "no unit of a time"]),
        (("run", *BOTH, "--downtime-limit", "soon"), ["--downtime-limit", "'soon'", "300ms"]),
        (("run", *BOTH, "--downtime-limit=-3ms"), ["--downtime-limit", "'-3ms'"]),
        (("run", *BOTH, "--downtime-limit", "0ms"), ["downtime limit", "out of range", "1.0 ms"]),
        (("run", *BOTH, "--downtime-limit", "1h"), ["downtime limit", "out of range", "2000 s"]),
        (("run", *BOTH, "--bandwidth", "100"), ["--bandwidth", "no unit", "100MiB/s"]),
        (("run", *BOTH, "--bandwidth", "100MiB"), ["--bandwidth", "'MiB'", "MiB/s"]),
        (("run", *BOTH, "--bandwidth", "0MiB/s"), ["bandwidth", "too low", "1MB/s"]),
        (("run", *BOTH, "--deadline", "0s"), ["deadline of 0", "makes no sense"]),
        (("run", *BOTH, "--probation", "2h"), ["probation", "out of range"]),
        (("run", *BOTH, "--at-deadline", "pause"), ["at-deadline pause", "needs a deadline", "--deadline 5min"]),
        (("run", *BOTH, "--patience", "10"), ["--patience needs --prefer downtime"]),
        (("run", *BOTH, "--prefer", "downtime", "--patience", "0"), ["--patience", "0<x"]),
        (("run", *BOTH, "--at-deadline", "explode"), ["--at-deadline", "'cancel'", "'pause'"]),
        (("run", *BOTH, "--trace", "/"), ["--trace", "is a directory"]),
        (("fly",), ["fly"]),
        (("replay",), ["TRACE"]),
        (("demo", "--memory", "1MiB"), ["--memory 1.0 MiB", "16.0 MiB to 3.0 GiB"]),
        (("demo", "--memory", "4TiB"), ["--memory 4.0 TiB", "3.0 GiB"]),
        (("demo", "--memory", "32MiB"), ["--working-set 64.0 MiB", "--memory 32.0 MiB", "to 30 MiB"]),
        (("demo", "--working-set", "0B"), ["--working-set 0 B", "4.0 KiB"]),
        (("demo", "--dirty-rate", "1000TiB/s"), ["--dirty-rate", "256.0 GiB/s"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_usage_error_is_one_line_and_a_closing_object(arguments, names) -> None:
    """It names the option and what would do, exits with 2, and with --json the last object says so too."""
    ran = await livemig(*arguments, "--json")

    for name in names:
        assert name in ran.complaint
    if arguments != ("fly",):
        assert "--help" in ran.complaint
    assert ran.code == 2
    assert (ran.ended["outcome"], ran.ended["running_on"], ran.ended["id"]) == ("refused", "source", "")
    assert ran.ended["reason"] in ran.complaint
    assert len(ran.objects) == 1


async def test_without_json_stdout_stays_empty() -> None:
    """What is wrong stands on stderr alone."""
    ran = await livemig("run", *BOTH, "--downtime-limit", "300")
    assert (ran.code, ran.stdout) == (2, "")
    assert "--downtime-limit" in ran.complaint


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("{folder}/nothing", ["{folder}/nothing", "no such socket", "-qmp"]),
        ("unix:{folder}/nothing", ["{folder}/nothing", "no such socket"]),
        ("{folder}/file/below", ["no QMP socket"]),
        ("tcp:127.0.0.1:{free_port}", ["tcp:127.0.0.1:{free_port}"]),
        ("tcp:127.0.0.1", ["lacks a host or a port", "tcp:HOST:PORT"]),
        ("tcp:127.0.0.1:http", ["no number as its port"]),
        ("tcp:127.0.0.1:99999", ["1 to 65535"]),
        ("http://host/path", ["unknown form (http://)", "ssh://[USER@]HOST"]),
        ("ssh://host", ["names no socket", "an absolute path"]),
        ("ssh://host/../a.qmp", ["is absolute"]),
        ("ssh://-oProxyCommand=x/a.qmp", ["no proper host"]),
        ("", ["names no socket"]),
        ("unix:/run/a.qmp,server=on,wait=off", ["options of QEMU's -qmp", "'/run/a.qmp'"]),
        ("/" + "x" * 200, ["bytes long"]),
    ],
)
async def test_wrong_address_is_refused(tmp_path: Path, address: str, names: list[str]) -> None:
    """Either side's: one line with the option, the address and the remedy; one id in the first and last object."""
    (tmp_path / "file").write_text("no socket")
    facts = {"folder": str(tmp_path), "free_port": str(free_port())}
    async with FakeQemu(tmp_path / "qmp") as fake:
        sides = [("--src-qmp", "--dst-qmp"), ("--dst-qmp", "--src-qmp")]
        # Where nobody listens a destination is launched; and a refused port is tried for seconds.
        for side, other in sides[: 1 if "nothing" in address or "free_port" in address else 2]:
            ran = await livemig("run", "--json", side, address.format(**facts), other, fake.path)
            assert ran.code == 2
            for name in (side, *names):
                assert name.format(**facts) in ran.complaint
            assert ran.ended["outcome"] == "refused"
            assert "" != ran.ended["id"] == ran.objects[0]["id"]
        assert not [command for command, _ in fake.commands if not command.startswith("query-")]


async def test_what_is_no_qmp_monitor_is_said(tmp_path: Path) -> None:
    """A human monitor, a web server, a socket that closes, one that says nothing: each has its own line."""
    greetings = {
        b"QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ": "human monitor",
        b"HTTP/1.1 400 Bad Request\r\n\r\n": "does not speak QMP",
        None: "closed before QEMU's greeting",
        b"": "another client holds this monitor",
    }
    for greeting, words in greetings.items():
        async with listener(tmp_path / "odd", greeting=greeting) as path, FakeQemu(tmp_path / "waits", incoming=True):
            ran = await livemig("run", "--src-qmp", str(path), "--dst-qmp", str(tmp_path / "waits"))
        assert ran.code == 2
        assert words in ran.complaint
        assert str(path) in ran.complaint


async def test_socket_without_permission_is_refused(tmp_path: Path) -> None:
    """Another user's socket: the line says whom to run livemig as."""
    if os.geteuid() != 0:
        pytest.fail("needs root, to become another user")
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    with tempfile.TemporaryDirectory() as state:
        Path(state).chmod(0o777)
        async with listener(folder / "qmp", greeting=GREETING) as path:
            ran = await livemig(
                *("run", "--src-qmp", str(path), "--dst-qmp", str(tmp_path / "nothing")),
                prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"),
                env={**os.environ, "XDG_STATE_HOME": state},
            )
    assert ran.code == 2, ran.stderr
    assert "permission denied" in ran.complaint
    assert str(path) in ran.complaint
    assert "root" in ran.complaint


async def test_interrupt_while_it_connects(tmp_path: Path) -> None:
    """Ctrl-C before anything was found out: cancelled, nothing touched."""
    async with listener(tmp_path / "mute", greeting=b"") as path:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = await start("run", "--json", "--src-qmp", str(path), "--dst-qmp", "tcp:127.0.0.1:1")
            first = await read_until(process, "started")
            process.send_signal(number)
            ran = await finish(process)
            assert ran.code == 130
            assert (ran.ended["outcome"], ran.ended["running_on"]) == ("cancelled", "source")
            assert first[0]["id"] == ran.ended["id"]
            assert number.name in ran.complaint
            assert "nothing was touched" in ran.complaint


@pytest.mark.parametrize("verb", [(), ("run",), ("demo",), ("replay",)], ids=lambda verb: " ".join(verb) or "livemig")
async def test_help_teaches(verb: tuple[str, ...]) -> None:
    """Every verb's help has examples; those that take quantities have units and exit codes, under headings."""
    for option in ("--help", "-h"):
        ran = await livemig(*verb, option)
        assert (ran.code, ran.stderr) == (0, "")
    assert "Examples:" in ran.stdout
    assert "livemig demo" in ran.stdout or "livemig run" in ran.stdout
    assert max(len(line) for line in ran.stdout.splitlines()) <= 100
    if verb in (("run",), ("demo",)):
        for words in ("Units", "Gbit/s", "Limits:", "Output:", "[default: 300ms]", "Exit codes", "never raises it"):
            assert words in ran.stdout
    if verb == ("run",):
        for code in (0, 1, 2, 3, 130, 4, 5):
            assert f"\n    {code} " in ran.stdout
        assert "-S -incoming defer" in ran.stdout


async def test_without_a_verb_the_help_is_shown() -> None:
    """On stderr, since nothing was asked that could be done; not squeezed into a line."""
    ran = await livemig()
    assert (ran.code, ran.stdout) == (2, "")
    assert "Examples:" in ran.stderr
    assert len(ran.stderr.splitlines()) > 10


async def test_version_and_closed_streams() -> None:
    """`--version` says it, also when every stream is closed."""
    ran = await livemig("--version")
    assert ran.code == 0
    assert ran.stdout.startswith("livemig, version ")
    ran = await livemig(
        "run", *BOTH, prefix=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"), stdout=asyncio.subprocess.DEVNULL
    )
    assert ran.code == 2


async def test_help_with_a_full_disk_or_no_reader_does_not_crash() -> None:
    """Text that can't be written is no reason for a traceback."""
    with Path("/dev/full").open("wb") as full:
        ran = await livemig("--help", stdout=full)
    assert "Traceback" not in ran.stderr
    ran = await livemig("--help", prefix=("sh", "-c", '"$@" | true', "sh"))
    assert "Traceback" not in ran.stderr


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


GREETING = b'{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}\n'


@contextlib.asynccontextmanager
async def listener(path: Path, *, greeting: bytes | None):
    """A socket that says this to whoever connects, and nothing more; None closes at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if greeting is not None:
            writer.write(greeting)
            with contextlib.suppress(ConnectionError):
                while await reader.read(4096):
                    pass
        writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield path


async def test_a_working_folder_that_is_gone_asks_for_an_absolute_path(tmp_path: Path) -> None:
    """Only relative addresses need one; no traceback."""
    gone = tmp_path / "gone"
    shell = (
        "sh",
        "-c",
        'mkdir "$1" && cd "$1" && rmdir "$1" && shift && PYTHONPATH=$0 exec "$@"',
        str(Path.cwd()),
        str(gone),
    )
    ran = await livemig("run", "--src-qmp", "a.qmp", "--dst-qmp", "/nowhere/b.qmp", prefix=shell)
    assert ran.code == 2, ran.stderr
    assert "--src-qmp a.qmp: the folder that livemig was started in is gone" in ran.complaint
    ran = await livemig("run", "--src-qmp", "/nowhere/a.qmp", "--dst-qmp", "/nowhere/b.qmp", prefix=shell)
    assert "no such socket" in ran.complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("status",), "can't be read: File name too long"),
        (("recover",), "can't be read: File name too long"),
        (("run", *BOTH), "no journal can be kept"),
    ],
    ids=["status", "recover", "run"],
)
async def test_a_state_folder_that_can_not_be_looked_into_is_named(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    """It is not taken for a stdout that can't be written, nor for one without runs."""
    ran = await livemig(*arguments, env={**os.environ, "XDG_STATE_HOME": f"{tmp_path}/{'x' * 300}"})
    assert ran.code == 2, ran.stderr
    assert words in ran.complaint
    assert "XDG_STATE_HOME" in ran.complaint


async def test_a_trace_whose_name_is_no_name_is_refused(tmp_path: Path) -> None:
    """Too long for this file system, for one."""
    ran = await livemig("run", *BOTH, "--trace", f"{tmp_path}/{'x' * 300}")
    assert ran.code == 2, ran.stderr
    assert "can't be written: File name too long; name another file" in ran.complaint


async def test_interrupts_in_a_row_are_one_line(tmp_path: Path) -> None:
    """Whoever presses Ctrl-C without pause gets the same line, object and code as for one; and no traceback."""
    connected = asyncio.Event()

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()  # to its end
        writer.close()

    server = await asyncio.start_unix_server(stay_silent, tmp_path / "silent")
    try:
        process = await start("plan", "--json", "--src-qmp", str(tmp_path / "silent"), start_new_session=True)
        await connected.wait()
        while process.returncode is None:
            process.send_signal(signal.SIGINT)
            await asyncio.sleep(0.003)
        ran = await finish(process)
    finally:
        server.close()
        await server.wait_closed()
    assert ran.code == 130, ran
    assert ran.stderr.split("\n", 1)[1] == "livemig: interrupted before anything began\n"  # after ^C on the terminal
    assert (len(ran.objects), ran.ended["outcome"]) == (1, "cancelled")
