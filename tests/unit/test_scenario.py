"""Scenario files for ``livemig simulate``: what they can say, and what bad ones are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from livemig.cli.scenario import read_scenario
from livemig.cli.simulate import Asked, run_simulation
from livemig.core.errors import PlanError
from livemig.core.plan import Plan
from livemig.simulation.link import Outage
from livemig.simulation.workloads import Pattern

SCENARIO = """
qemu = "11.1"

[guest]
memory = "256MiB"
content = "192MiB"
page = "64KiB"

[[guest.stages]]
burst-period = "2s"
burst-duty-percent = 40

[[guest.stages.writes]]
size = "32MiB"
rate = "100MiB/s"

[[guest.stages]]
start = "8s"

[[guest.stages.writes]]
pattern = "zipf"
size = "64MiB"
rate = "60MiB/s"
skew-ratio = 1.1

[link]
rate = "1Gbit/s"
noise-ratio = 0.05

[[link.outages]]
start = "1s"
duration = "500ms"
left-percent = 20
"""


def test_it_says_more_than_options_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Stages, bursts, outages, a version; and it is simulated."""
    path = tmp_path / "busy.toml"
    path.write_text(SCENARIO)
    setting = read_scenario(path)
    assert setting.qemu == "11.1"
    assert setting.guest.memory_bytes == 256 * 2**20
    first, second = setting.guest.stages
    assert first.burst_period_s == 2.0
    assert second.start_s == 8.0
    assert second.writes[0].pattern is Pattern.ZIPF
    assert second.writes[0].rate_bytes_s == 60 * 2**20
    assert setting.link.rate_bytes_s == 125e6
    assert setting.link.outages == (Outage(start_s=1.0, duration_s=0.5, left_percent=20),)
    asked = Asked(scenario=path)
    assert run_simulation(plan=Plan(), asked=asked, seed=1, count=1, trace_path=None, as_json=False) == 0
    assert f"a guest of 256.0 MiB, as {path} says\nQEMU 11.1, kvm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate = ", "rat = ", "unknown key 'guest.stages.writes.rat'; did you mean 'rate'"),
        ("[link]", "[lnk]", "unknown key 'lnk'; did you mean 'link'"),
        ("qemu = ", "zzz = ", "unknown key 'zzz'; known are bound, costs, guest, link, qemu"),
        ('"zipf"', '"zpf"', "guest.stages.writes.pattern = 'zpf' is none of sweep, random, zipf"),
        ('"8s"', "8", 'guest.stages.start = 8 has no unit: write it in quotes, like "2s"'),
        ('"8s"', '"8"', "guest.stages.start: "),
        ("ratio = 1.1", 'ratio = "much"', "guest.stages.writes.skew-ratio = 'much' should be a number"),
        ('"11.1"', "11.1", "qemu = 11.1 should be text in quotes"),
        ('"11.1"', '"6.2"', "there is no simulation of QEMU 6.2"),
        ('memory = "256MiB"', "", "'guest.memory' is missing"),
        ("[[guest.stages]]\nstart", "[guest.other]\nstart", "unknown key 'guest.other'"),
        ("[[link.outages]]", "[link.outages]", "link.outages is a list of tables: write [[link.outages]]"),
        ("[guest]", "[guest", "is no TOML"),
    ],
)
def test_a_bad_one_is_told_in_one_line(tmp_path: Path, old: str, new: str, message: str):
    """Which key, and the nearest there is."""
    path = tmp_path / "bad.toml"
    path.write_text(SCENARIO.replace(old, new, 1))
    with pytest.raises(PlanError) as caught:
        read_scenario(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_is_not_there(tmp_path: Path):
    """The file's name and why."""
    with pytest.raises(PlanError, match="can't be read: No such file"):
        read_scenario(tmp_path / "none.toml")
