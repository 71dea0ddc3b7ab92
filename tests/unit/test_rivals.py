"""The rules of others: each takes the steps that its source has, at the times that it has them."""

from __future__ import annotations

from typing import Any

import pytest

from livemig.core.errors import PlanError
from livemig.core.inputs import Prepared
from livemig.core.observation import Observation
from livemig.core.plan import Plan
from livemig.core.rule import Rule
from livemig.core.status import MigrationStatus
from livemig.simulation.rivals import RIVALS, rival

GIB = 2**30
MIB = 2**20


def begun(name: str, memory_bytes: int = 4 * GIB) -> tuple[Rule, float]:
    """A rule that was told of its guest, and its first limit."""
    rule = rival(name)
    return rule, rule.begin(Plan(), Prepared(time_s=0.0, memory_bytes=memory_bytes)).downtime_limit_s


def seen(time_s: float, **counters: Any) -> Observation:
    """What QEMU says."""
    given = {"remaining_bytes": 500 * MIB, "throughput_bytes_s": 100.0 * MIB, "dirty_sync_count": 1, **counters}
    return Observation(time_s=time_s, status=MigrationStatus.ACTIVE, **given)


@pytest.mark.parametrize("name", ["qemu", "libvirt", "kubevirt-timeout", "kubevirt-stall"])
def test_those_of_a_fixed_limit(name):
    """300 ms, round after round."""
    rule, first_s = begun(name)
    assert first_s == 0.3
    assert {rule.observe(seen(float(n), dirty_sync_count=n)).downtime_limit_s for n in range(30)} == {0.3}


def test_nova_takes_a_step_each_75_s_a_gib():
    """50 ms to 500 ms in ten steps; abort after 800 s a GiB."""
    rule, first_s = begun("nova")
    assert first_s == pytest.approx(0.05)
    assert rule.observe(seen(299.0)).downtime_limit_s == pytest.approx(0.05)
    assert rule.observe(seen(300.0)).downtime_limit_s == pytest.approx(0.095)
    assert rule.observe(seen(3000.0)).downtime_limit_s == pytest.approx(0.5)
    assert not rule.observe(seen(3199.0)).hopeless
    assert rule.observe(seen(3201.0)).hopeless


def test_nova_counts_two_gib_at_least():
    """A small guest waits 150 s for its first step."""
    rule, _ = begun("nova", 256 * MIB)
    assert rule.observe(seen(149.0)).downtime_limit_s == pytest.approx(0.05)
    assert rule.observe(seen(150.0)).downtime_limit_s == pytest.approx(0.095)


@pytest.mark.parametrize(
    ("name", "limits_s", "ends"),
    [
        ("ovirt-minimal", [0.1, 0.15, 0.2, 0.3, 0.4, 0.4, 0.5], True),
        ("ovirt-suspend", [0.1, 0.15, 0.2, 0.3, 0.4, 0.4, 0.5, 5.0], True),
        ("ovirt-large", [0.3, 0.4, 0.5, 0.7, 1.0, 1.0, 1.5, 5.0], True),
    ],
)
def test_ovirt_takes_a_step_at_a_look_that_finds_a_new_iteration(name, limits_s, ends):
    """Each 10 s, one step, as soon as the iterations are beyond its count."""
    rule, first_s = begun(name)
    assert first_s == limits_s[0]
    found = [rule.observe(seen(0.0, dirty_sync_count=2)).downtime_limit_s]
    assert rule.observe(seen(9.0, dirty_sync_count=5)).downtime_limit_s == limits_s[0]
    for look in range(1, 12):
        wanted = rule.observe(seen(10.0 * look, dirty_sync_count=3 + look))
        found.append(wanted.downtime_limit_s)
    assert list(dict.fromkeys(found)) == list(dict.fromkeys(limits_s))
    assert bool(wanted.hopeless) is ends


def test_proxmox_doubles_after_six_rises():
    """What counts is more left than at the look before, or nothing left; falls do not take it back."""
    rule, first_s = begun("proxmox")
    assert first_s == 0.1
    time_s, limits_s = 0.0, []
    for _ in range(12):
        for left in (300, 400):
            time_s += 1.1
            limits_s.append(rule.observe(seen(time_s, remaining_bytes=left * MIB)).downtime_limit_s)
    assert limits_s[10] == 0.1
    assert limits_s[11] == 0.2
    assert limits_s[-1] == 0.4


def test_kubevirt_ramps_from_the_third_iteration_on_each_10_s():
    """150 ms to 900 ms in seven steps."""
    rule, first_s = begun("kubevirt-ramp")
    assert first_s == pytest.approx(0.15)
    assert rule.observe(seen(30.0, dirty_sync_count=1)).downtime_limit_s == pytest.approx(0.15)
    assert rule.observe(seen(31.0, dirty_sync_count=3)).downtime_limit_s == pytest.approx(0.15)
    step_s = 0.75 / 7
    assert rule.observe(seen(32.0, dirty_sync_count=4)).downtime_limit_s == pytest.approx(0.15 + step_s)
    assert rule.observe(seen(41.0, dirty_sync_count=9)).downtime_limit_s == pytest.approx(0.15 + step_s)
    assert rule.observe(seen(42.5, dirty_sync_count=10)).downtime_limit_s == pytest.approx(0.15 + 2 * step_s)
    assert rule.observe(seen(601.0)).hopeless


def test_kubevirts_stall_detector_waits_for_a_minimum_then_lets_go_or_gives_up():
    """Nothing got better in 40 s: at the next iteration as good as the best, up to 900 ms, or an early abort."""
    for left_mib, hopeless in ((80, False), (400, True)):
        rule, _ = begun("kubevirt-stall")
        for n in range(9):
            wanted = rule.observe(seen(5.0 * n, dirty_sync_count=n + 1, remaining_bytes=left_mib * MIB))
            assert wanted.downtime_limit_s == 0.3
        wanted = rule.observe(seen(46.0, dirty_sync_count=20, remaining_bytes=left_mib * MIB))
        assert bool(wanted.hopeless) is hopeless
        assert wanted.downtime_limit_s == (0.3 if hopeless else 0.9)


def test_a_name_that_is_none_is_told_the_names():
    """In one line."""
    with pytest.raises(PlanError, match="there is no policy nosuch: known are qemu"):
        rival("nosuch")
    assert set(RIVALS) >= {"qemu", "proxmox", "nova"}
