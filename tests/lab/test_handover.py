"""The network and the guest after a move, on a bridge that learns: announcement, probe, blackout, clock. Needs root."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

import pytest

import livemig
from livemig.core import event as events
from livemig.engine import finish, handover
from livemig.engine.channel import connect_to
from livemig.engine.guest_agent import set_guest_time
from livemig.hosts.local_host import LocalHost
from livemig.lab.linux.guest import LinuxSettings
from livemig.lab.linux.watching import Watching
from livemig.lab.two_hosts import TwoHosts
from livemig.lab.two_hosts.layout import GUEST_ADDRESS
from livemig.qemu.monitor import Monitor
from tests.lab.listening import Listening
from tests.lab.moving import Travels

pytestmark = pytest.mark.timeout(240)
MACS = {"52:54:00:6c:6d:01", "52:54:00:6c:6d:02"}
NEIGHBOUR_SETTLED_S = 9.0
"""Linux asks 5 s after the last use of a stale neighbour, three times, a second apart."""


def learned_port(table: str) -> str:
    """The port behind which the switch believes the guest's first card to be."""
    for entry in json.loads(table):
        if entry["mac"] == "52:54:00:6c:6d:01" and "self" not in entry.get("flags", []):
            return str(entry["ifname"])
    return "nowhere"


async def switch_table(lab: TwoHosts) -> str:
    """The switch's forwarding table."""
    process = await asyncio.create_subprocess_exec(
        *("bridge", "-json", "-n", lab.layout.namespace("switch"), "fdb", "show", "br", "data"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode()


def moment_of(travels: Travels, kind: type[events.Event]) -> float:
    """When an event of the last move happened, monotonic: events count from `migrate`."""
    ended = travels.events[-1]
    (event,) = (event for event in travels.events if isinstance(event, kind))
    return travels.moved[-1][1] - (ended.time_s - event.time_s)


async def test_every_card_is_announced_after_resume_and_only_then(two_hosts: TwoHosts) -> None:
    """Two cards; the switch learns at once; QEMU's own announcement is off before, and its setting back afterwards."""
    async with Travels(two_hosts, LinuxSettings(nic_count=2)) as travels, Listening(two_hosts) as listening:
        report = await travels.move()
        assert report.outcome == "completed", report.reason
        stopped_s = moment_of(travels, events.SourceStopped)
        await listening.wait_for("b-data", 2 * handover.ANNOUNCEMENT["rounds"])
        assert set(listening.at("b-data")) == MACS
        assert listening.at("b-data", to_s=stopped_s - 0.5) == []
        assert learned_port(await switch_table(two_hosts)) == "b-data"
        async with await Monitor.connect(str(travels.guest.qmp_path_outside)) as monitor:
            assert (await monitor.execute("query-migrate-parameters"))["announce-rounds"] == 5


async def test_source_is_announced_when_the_guest_goes_on_there(two_hosts: TwoHosts) -> None:
    """It stood still for the switchover, in which the destination dies: nothing comes from there."""
    async with Travels(two_hosts) as travels, Listening(two_hosts) as listening:
        waiting = await travels.waiting()

        def kill_destination(event: events.Event) -> None:
            if isinstance(event, events.SourceStopped):
                os.kill(waiting.pid, signal.SIGKILL)

        plan = livemig.Plan(downtime_limit_s=2.0)  # so that much is left to send while it stands still
        report = await travels.move(plan=plan, waiting=waiting, on_event=kill_destination)
        assert (report.outcome, report.running_on) == ("failed", "source"), report.reason
        await listening.wait_for("a-data", handover.ANNOUNCEMENT["rounds"])
        assert listening.at("b-data") == []


async def test_without_announcement_the_guest_is_dark(two_hosts: TwoHosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the switch sends to the old host until the guest is announced by hand."""

    async def silent(_side: Any) -> None:
        return

    monkeypatch.setattr(finish, "announce", silent)
    async with Travels(two_hosts) as travels:
        async with Watching(two_hosts.client, udp=1) as before:
            await asyncio.sleep(0.5)
            assert (await before.end())["udp1"].received > 0
        # Whatever the guest says by itself tells the switch where it is: an answer to what is on its way as it moves,
        # and ARP, with which it makes sure of the client some seconds after it last answered.
        mac = min(MACS)
        await two_hosts.client.run(*f"ip neigh replace {GUEST_ADDRESS} lladdr {mac} dev data nud permanent".split())
        await asyncio.sleep(NEIGHBOUR_SETTLED_S)
        report = await travels.move()
        assert report.outcome == "completed", report.reason
        async with Watching(two_hosts.client, udp=1) as watching:
            await asyncio.sleep(1)
            assert learned_port(await switch_table(two_hosts)) == "a-data"
            async with await Monitor.connect(str(travels.guest.qmp_path_outside)) as monitor:
                await monitor.execute("announce-self", handover.ANNOUNCEMENT)
            await watching.wait_heard(0.0, 20)
            assert learned_port(await switch_table(two_hosts)) == "b-data"
            assert max(one.duration_s for one in watching.silences) > 0.9


async def livemig_in(argv: list[str]) -> tuple[int, dict[str, Any], str]:
    """Runs livemig somewhere in the lab; returns its exit code, its closing object, and its stderr."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe)
    output, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode is not None
    return process.returncode, json.loads(output.splitlines()[-1]), errors.decode()


def run_argv(travels: Travels, destination: str, *options: str) -> list[str]:
    """`livemig run` for the lab's two QEMUs, by the paths that every process of this machine sees."""
    source = str(travels.guest.qmp_path_outside)
    argv = [sys.executable, "-m", "livemig", "run", "--src-qmp", source, "--dst-qmp", destination]
    return [*argv, "--downtime-limit", "500ms", "--probation", "300ms", "--json", *options]


@pytest.mark.parametrize("probe", ["tcp:198.19.0.10:7007", "ping:198.19.0.10"])
async def test_probe_shows_the_blackout(two_hosts: TwoHosts, probe: str) -> None:
    """From the client, where the controller may well be: not less than the guest stood still."""
    assert GUEST_ADDRESS in probe
    async with Travels(two_hosts) as travels:
        waiting = await travels.waiting()
        command = two_hosts.client.argv(*run_argv(travels, str(waiting.qmp_path_outside), "--probe", probe))
        code, ended, errors = await livemig_in(command)
        assert (code, ended["outcome"], ended["warnings"]) == (0, "completed", []), (ended, errors)
        assert ended["downtime_s"] - 0.03 < ended["blackout_s"] < 30


async def test_guest_that_does_not_answer_after_the_move_is_said_so(two_hosts: TwoHosts) -> None:
    """Host B is off the data network: the move completes, the source is kept, paused, for a person to decide."""
    async with Travels(two_hosts) as travels:
        waiting = await travels.waiting()
        await two_hosts.cut(two_hosts.b, "data")
        probe = ("--probe", f"ping:{GUEST_ADDRESS}")
        command = two_hosts.client.argv(*run_argv(travels, str(waiting.qmp_path_outside), *probe))
        code, ended, errors = await livemig_in(command)
        assert (code, ended["outcome"], ended["running_on"]) == (0, "completed", "destination"), errors
        assert any("does not answer at ping:198.19.0.10 since it was moved" in text for text in ended["warnings"])
        assert ended["blackout_s"] > handover.ANSWER_BOUND_S
        async with await Monitor.connect(str(travels.guest.qmp_path_outside)) as monitor:
            assert await monitor.query_status() == "postmigrate"


async def test_probe_that_never_answered_is_refused(two_hosts: TwoHosts) -> None:
    """A mistyped address is told before anything is touched."""
    async with Travels(two_hosts) as travels:
        waiting = await travels.waiting()
        command = run_argv(travels, str(waiting.qmp_path_outside), "--probe", "tcp:198.19.0.10:1")
        code, ended, _ = await livemig_in(two_hosts.client.argv(*command))
        assert (code, ended["outcome"], ended["running_on"]) == (2, "refused", "source")
        assert "nobody answers at --probe tcp:198.19.0.10:1 before the move" in ended["reason"]
        assert (await travels.move(waiting=waiting)).outcome == "completed"


async def test_guest_time_is_set_by_its_agent(two_hosts: TwoHosts) -> None:
    """A real qemu-ga, a guest whose clock is years off, and a controller on host B, where the agent's socket is."""
    async with Travels(two_hosts, LinuxSettings(agent=True)) as travels:
        agent = str(two_hosts.a.private_folder_outside / "linux.qga")
        await set_agent_time(agent, 1_000_000_000)
        assert await agent_time(agent) < 1_000_001_000
        waiting = await travels.waiting()
        command = two_hosts.b.argv(*run_argv(travels, str(waiting.qmp_path_outside), "--set-guest-time"))
        code, ended, errors = await livemig_in(command)
        assert (code, ended["outcome"]) == (0, "completed"), (ended, errors)
        assert ended["warnings"] == []
        agent = str(two_hosts.b.private_folder_outside / "linux.qga")
        assert abs(await agent_time(agent) - time.time()) < 60


async def test_guest_without_an_agent_keeps_its_clock(two_hosts: TwoHosts) -> None:
    """It is said, and nothing else happens: a wrong clock is no reason to keep two QEMUs."""
    async with Travels(two_hosts) as travels:
        plan = livemig.Plan(downtime_limit_s=0.5, probation_s=0.1, set_guest_time=True)
        report = await travels.move(plan=plan)
        assert (report.outcome, report.source_kept) == ("completed", False)
        assert "no agent's port" in report.warnings[0]


async def agent_request(path: str, command: str, **arguments: int) -> Any:
    """Asks the guest's agent, by hand."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    reply = json.loads((await asyncio.wait_for(reader.readline(), 20)).lstrip(b"\xff"))
    writer.close()
    return reply


async def agent_time(path: str) -> float:
    """The guest's clock, in seconds."""
    return float((await agent_request(path, "guest-get-time"))["return"]) / 1e9


async def set_agent_time(path: str, time_s: int) -> None:
    """Sets the guest's clock; the reply may name a hardware clock that could not be set."""
    await set_guest_time(lambda: connect_to(LocalHost(), path))  # the way livemig does it works before, too
    await agent_request(path, "guest-set-time", time=time_s * 10**9)
