"""The user's own command at the switchover: it is told the facts, waited for, bounded, and never loses the guest."""

from __future__ import annotations

import asyncio
import os
import shlex
import stat
import time
from pathlib import Path

import msgspec
import pytest

import livemig
from livemig.core import event as events
from livemig.core.plan import SwitchoverMoment
from livemig.engine import hook
from tests.cli.command_line import livemig as run_livemig
from tests.cli.command_line import run_arguments
from tests.engine.pair import IDLE, QUICK, Pair

pytestmark = pytest.mark.qemu
NIC = ("-netdev", "user,id=net0", "-device", "virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:12:34:56,romfile=")


@pytest.fixture
def pair(waiting_pair: Pair) -> Pair:
    """How the destination came to be does not matter here."""
    return waiting_pair


def script(folder: Path, text: str) -> str:
    """An executable shell script."""
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def plan(command: str, moment: SwitchoverMoment, **options: float) -> livemig.Plan:
    """A plan with a hook."""
    return msgspec.structs.replace(QUICK, on_switchover=(command,), switchover_moment=moment, **options)


async def test_hook_is_told_the_facts_after_resume(pair: Pair, tmp_path: Path) -> None:
    """On the command line, with JSON: nothing of what it prints gets into ours."""
    await pair.start(IDLE, source_arguments=NIC, destination_arguments=NIC)
    command = script(tmp_path, f"env | grep ^LIVEMIG_RUN | sort >{tmp_path}/seen; echo garbage")

    ran = await run_livemig(*run_arguments(pair, "--on-switchover", shlex.quote(command), "--json"))

    assert ran.code == 0, ran.stderr
    assert "garbage" not in ran.stdout
    told = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert told == {
        "LIVEMIG_RUN_ID": ran.ended["id"],
        "LIVEMIG_RUN_WHEN": "resumed",
        "LIVEMIG_RUN_GUEST": "qemu1",
        "LIVEMIG_RUN_SOURCE": pair.source_address,
        "LIVEMIG_RUN_DESTINATION": pair.destination_address,
        "LIVEMIG_RUN_MACS": "52:54:00:12:34:56",
    }
    assert ran.ended["warnings"] == []


async def test_guest_waits_for_a_hook_while_it_stands_still(pair: Pair, tmp_path: Path) -> None:
    """It has ended before the guest runs at the destination."""
    await pair.start(IDLE)
    command = script(tmp_path, f"sleep 0.2; date +%s.%N >{tmp_path}/ended")

    report, seen = await pair.migrate(plan(command, SwitchoverMoment.STOPPED, downtime_limit_s=5.0))

    assert (report.outcome, report.warnings) == (livemig.Outcome.COMPLETED, ())
    assert report.downtime is not None
    assert report.downtime.total_s > 0.2
    assert (tmp_path / "ended").exists()
    assert any(isinstance(event, events.DestinationRunning) for event in seen)


async def test_guest_is_not_kept_waiting_beyond_the_limit(pair: Pair, tmp_path: Path, monkeypatch) -> None:
    """A hook that hangs: the guest runs on at the limit, the hook is ended with all it started, the source is kept."""
    monkeypatch.setattr(hook, "HOOK_BOUND_S", 1.5)
    await pair.start(IDLE)
    command = script(tmp_path, f"sleep 61 & echo $! >{tmp_path}/child; wait")

    report, _ = await pair.migrate(plan(command, SwitchoverMoment.STOPPED, downtime_limit_s=0.3))

    assert (report.outcome, report.source_kept) == (livemig.Outcome.COMPLETED, True)
    assert report.downtime is not None
    assert report.downtime.total_s < 1.4  # far from the hook's own bound
    assert any("had not ended at the limit of 300 ms" in warning for warning in report.warnings)
    assert any("did not end within" in warning for warning in report.warnings)
    await pair.assert_runs_only("destination")
    child = int((tmp_path / "child").read_text())
    async with asyncio.timeout(10):
        while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("moment", list(SwitchoverMoment))
async def test_hook_that_fails_is_reported_and_the_source_kept(pair: Pair, tmp_path: Path, moment) -> None:
    """With its own last words; the guest runs at the destination."""
    await pair.start(IDLE)
    command = script(tmp_path, "echo first; echo no route to the switch >&2; exit 7")

    report, seen = await pair.migrate(plan(command, moment))

    assert (report.outcome, report.source_kept) == (livemig.Outcome.COMPLETED, True)
    (warning,) = report.warnings
    assert "ended with exit code 7: no route to the switch" in warning
    assert [event.kept for event in seen if isinstance(event, events.SourceRetired)] == [True]
    await pair.assert_runs_only("destination")


async def test_hook_that_vanished_is_reported(pair: Pair, tmp_path: Path) -> None:
    """It was there when it was checked, and is not when it is needed."""
    await pair.start(IDLE)
    command = script(tmp_path, "exit 0")
    Path(command).unlink()

    report, _ = await pair.migrate(plan(command, SwitchoverMoment.RESUMED))

    assert report.outcome == livemig.Outcome.COMPLETED
    assert "can't be started: No such file" in report.warnings[0]


async def test_hook_is_told_that_the_guest_stayed(pair: Pair, tmp_path: Path) -> None:
    """What it did while the guest stood still it can undo when the guest goes on at the source after all."""
    await pair.start(IDLE)
    command = script(tmp_path, f"echo $LIVEMIG_RUN_WHEN >>{tmp_path}/told")
    asked = msgspec.structs.replace(plan(command, SwitchoverMoment.STOPPED), pause_before_switchover=True)

    def cancel(migration: livemig.Migration, event: events.Event) -> None:
        if isinstance(event, events.SourceStopped):
            migration.cancel("changed my mind")

    report, _ = await pair.migrate(asked, on_event=cancel)

    if report.outcome == livemig.Outcome.CANCELLED:
        await pair.assert_runs_only("source")
        assert (tmp_path / "told").read_text() == "stopped\nstayed\n"
    else:  # the word to go on was quicker than the cancel
        assert (tmp_path / "told").read_text() == "stopped\n"


@pytest.mark.parametrize(
    ("option", "names"),
    [
        (("--on-switchover", "/nonexistent/hook --now"), ["/nonexistent/hook", "no program"]),
        (("--on-switchover", "'unbalanced"), ["can't be read", "quotation"]),
        (("--on-switchover", " "), ["is empty"]),
        (("--on-switchover-at", "stopped"), ["needs a command"]),
        (("--probe", "http://x"), ["tcp:HOST:PORT"]),
        (("--probe", "tcp:x:99999"), ["99999", "65535"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_what_can_not_be_asked_is_refused(option: tuple[str, ...], names: list[str]) -> None:
    """One line, before anything is looked at."""
    ran = await run_livemig("run", "--src-qmp", "/nonexistent/a", "--dst-qmp", "/nonexistent/b", *option)
    assert ran.code == 2
    for text in names:
        assert text in ran.complaint


async def test_hook_with_much_to_say_is_no_danger(tmp_path: Path) -> None:
    """More than a pipe holds is read; the environment is the caller's own and the facts."""
    command = script(tmp_path, 'head -c 1000000 /dev/zero | tr "\\0" x; test "$FACT" = 5 -a -n "$PATH"')
    began_s = time.monotonic()
    assert await hook.run_hook((command,), {"FACT": "5"}) is None
    assert time.monotonic() - began_s < hook.HOOK_BOUND_S
    assert "FACT" not in os.environ
