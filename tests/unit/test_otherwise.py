"""What another rule would have done on a trace, and how the command line says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from livemig.cli.commands import cli
from livemig.core.errors import PlanError, TraceError
from livemig.core.plan import Plan, Prefer
from livemig.core.policy import Policy
from livemig.core.trace import TRACE_VERSION, InputRecord, TraceHeader, TraceRecord, encode_record
from livemig.simulation.link import LinkSetting
from livemig.simulation.otherwise import POLICIES, otherwise
from livemig.simulation.rivals import rival
from livemig.simulation.setting import Setting
from livemig.simulation.simulate import simulate
from livemig.simulation.workloads import SimulatedGuest, Stage, Writes

MIB = 2**20
GUEST = SimulatedGuest(
    memory_bytes=256 * MIB,
    content_bytes=200 * MIB,
    page_bytes=65536,
    stages=(Stage(writes=(Writes(size_bytes=48 * MIB, rate_bytes_s=60e6),)),),
)
SETTING = Setting(guest=GUEST, link=LinkSetting(rate_bytes_s=100e6))
PLAN = Plan(downtime_limit_s=0.3, deadline_s=10, prefer=Prefer.DOWNTIME)


def records() -> tuple[TraceRecord, ...]:
    """A migration that held out for less downtime, so that others would have fired before."""
    return simulate(SETTING, PLAN, seed=1, keep_trace=True).records


def test_another_rule_fires_when_it_would_have():
    """Not before its limit is met, and about when it does in a simulation of its own."""
    found = otherwise(records(), "qemu")
    truth = simulate(SETTING, PLAN, Policy(PLAN, rival("qemu")), seed=1)
    assert found.fires_s is not None
    assert found.recorded_s is not None
    assert found.fires_s < found.recorded_s
    assert found.left_bytes is not None
    assert found.left_bytes <= 0.3 * 101e6
    assert found.fires_s == pytest.approx(truth.total_s, abs=0.6)


def test_of_several_attempts_the_last_one_counts():
    """An attempt that never connected says nothing of a rule; its inputs are counted."""
    once = records()
    begun = next(record for record in once if isinstance(record, InputRecord))
    twice = [once[0], begun, begun, *once[1:]]
    found, alone = otherwise(twice, "qemu"), otherwise(once, "qemu")
    assert found.fires_s == alone.fires_s
    assert found.input_count == alone.input_count + 2
    assert [decision for _, decision in found.decisions] == [decision for _, decision in alone.decisions]


def test_the_rule_that_was_recorded_decides_as_recorded():
    """And fires no sooner than it did."""
    found = otherwise(records(), "downtime")
    assert found.recorded_s is not None
    assert found.fires_s is None or found.fires_s == pytest.approx(found.recorded_s, abs=0.05)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_takes_a_trace(name):
    """Its decisions are told; none acts after it has fired."""
    found = otherwise(records(), name)
    assert found.policy == name
    assert found.decisions


def test_bad_input_is_an_error_of_ours():
    """A name that is none, a trace without inputs."""
    with pytest.raises(PlanError, match="there is no policy nosuch"):
        otherwise(records(), "nosuch")
    header = TraceHeader(
        version=TRACE_VERSION, livemig_version="1", id="a", started_at="2026-01-01T00:00:00+00:00", plan=PLAN
    )
    with pytest.raises(TraceError, match="holds no input"):
        otherwise([header], "qemu")


def test_the_command_line_says_it(tmp_path: Path):
    """In words, and as JSON."""
    trace = tmp_path / "run.trace"
    trace.write_bytes(b"".join(map(encode_record, records())))
    said = CliRunner().invoke(cli, ["replay", str(trace), "--policy", "qemu"], standalone_mode=False)
    assert said.return_value == 0
    assert "qemu would have switched over at" in said.output.splitlines()[-1]
    said = CliRunner().invoke(cli, ["replay", str(trace), "--policy", "nova", "--json"], standalone_mode=False)
    ended = json.loads(said.output.splitlines()[-1])
    assert ended["event"] == "ended"
    assert ended["policy"] == "nova"
    assert ended["recorded_s"] > 0


@pytest.mark.parametrize(
    ("damage", "policy", "message"),
    [
        (lambda text: text, "prxmox", "there is no policy 'prxmox'; did you mean 'proxmox'?"),
        (lambda text: text, "xyz", "there is no policy 'xyz'; known are time, downtime, qemu"),
        (lambda text: text[: len(text) // 2], "qemu", "the trace is cut short in line"),
        (lambda text: text.replace(b'"version":2', b'"version":9', 1), "qemu", "the trace is of version 9"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path: Path, damage, policy, message):
    """With exit code 2."""
    trace = tmp_path / "run.trace"
    trace.write_bytes(damage(b"".join(map(encode_record, records()))))
    said = CliRunner().invoke(cli, ["replay", str(trace), "--policy", policy])
    assert said.exit_code == 2
    assert message in " ".join(said.output.split())
