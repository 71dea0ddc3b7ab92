"""Why a guest can't be moved is said before anything is touched: every reason at once, each with its remedy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from livemig.core.finding import Finding, Severity, Topic
from livemig.core.fixed_part import FixedPart
from livemig.core.observation import Observation, SocketAddress
from livemig.core.plan import Plan
from livemig.core.status import MigrationStatus, RunState
from livemig.engine.preflight import WAITING_REMEDY, cautions, judge_images, needed_capabilities, refusals
from livemig.engine.side import Facts
from livemig.qemu.compare import NEEDED_CAPABILITIES, ImagePair


def observation(status: str = "none", **more: Any) -> Observation:
    """A `query-migrate` reply."""
    return Observation(time_s=0.0, status=MigrationStatus(status), status_text=status, **more)


SOURCE = Facts(
    vcpu_count=1,
    version="10.0.2",
    guest_name="guest",
    run_state=RunState.RUNNING,
    observation=observation(),
    memory_bytes=2**28,
    thread_ids=(100, 101),
)
DESTINATION = msgspec.structs.replace(SOURCE, run_state=RunState.INMIGRATE, thread_ids=(200, 201))


def source(run_state: str = "running", status: str = "none", **more: Any) -> Facts:
    """A source in this state."""
    return msgspec.structs.replace(SOURCE, run_state=RunState(run_state), observation=observation(status, **more))


def destination(run_state: str = "inmigrate", status: str = "none", **more: Any) -> Facts:
    """A destination in this state."""
    return msgspec.structs.replace(DESTINATION, run_state=RunState(run_state), observation=observation(status, **more))


MOVABLE = ["running", "paused", "suspended", "prelaunch", "io-error", "watchdog", "guest-panicked"]


@pytest.mark.parametrize("run_state", MOVABLE)
def test_a_guest_in_any_of_these_states_can_be_moved(run_state):
    """Running, or standing still by its own or its owner's doing: it arrives so."""
    assert refusals(source(run_state), destination()) == ()


@pytest.mark.parametrize("status", ["none", "completed", "failed", "cancelled"])
def test_a_source_may_have_tried_before(status):
    """An earlier migration that ended is no obstacle."""
    assert refusals(source(status=status), destination()) == ()


@pytest.mark.parametrize(
    ("run_state", "words"),
    [
        (
            "inmigrate",
            "the source waits for an incoming migration itself: give the QEMU whose guest runs as the source",
        ),
        ("postmigrate", "the source has handed its guest over already: if no other QEMU runs it, `cont` it first"),
        ("finish-migrate", "the source is in the switchover of another migration: wait for its end"),
        ("shutdown", "the source has a guest that is shut down: there is nothing to move while it runs"),
        ("save-vm", "the source saves a snapshot: wait for its end"),
        ("restore-vm", "the source restores a snapshot: wait for its end"),
        ("colo", "the source runs under COLO: end that first"),
    ],
)
def test_a_source_in_any_of_these_states_is_refused(run_state, words):
    """Each in one line that says what to do."""
    assert refusals(source(run_state), destination()) == (words,)


@pytest.mark.parametrize(
    "status", [status for status in MigrationStatus if status not in ("none", "completed", "failed", "cancelled")]
)
def test_a_source_that_migrates_already_is_refused(status):
    """Two migrations of one guest can't be; a status that livemig does not know counts as one under way."""
    (reason,) = refusals(source(status=status), destination())
    assert reason == (
        f"the source already migrates (QEMU says {status}): wait for its end, or cancel it with `migrate_cancel`"
    )


def test_every_blocker_that_qemu_names_is_passed_on():
    """In QEMU's words, one line each."""
    reasons = refusals(source(blocked_reasons=("device a", "device b")), destination())
    assert reasons == (
        "QEMU refuses to migrate the source: device a",
        "QEMU refuses to migrate the source: device b",
    )


@pytest.mark.parametrize("run_state", [state for state in RunState if state is not RunState.INMIGRATE])
def test_a_destination_that_does_not_wait_is_refused(run_state):
    """Least of all one that runs a guest: it would be lost."""
    (reason,) = refusals(source(), destination(run_state))
    assert reason == f"the destination is {run_state}, not waiting for a migration: {WAITING_REMEDY}"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_destination_whose_last_migration_failed_is_refused(status):
    """What it holds is half a guest; a QEMU takes in only once."""
    (reason,) = refusals(source(), destination(status=status))
    assert reason == f"the destination's last incoming migration {status}: end that QEMU and {WAITING_REMEDY}"


@pytest.mark.parametrize(
    "listening",
    [
        destination(status="setup"),
        destination(status="active"),
        destination(status="what-comes-next"),
        destination(socket_addresses=(SocketAddress(kind="inet", host="::", port=4444),)),
    ],
    ids=["setup", "active", "unknown", "7.2, which says no status"],
)
def test_a_destination_that_listens_already_is_refused(listening):
    """Anybody may connect to it, and nobody knows who has."""
    (reason,) = refusals(source(), listening)
    assert reason == (f"the destination listens already (-incoming URI), where anybody may connect: {WAITING_REMEDY}")


def test_all_reasons_are_said_at_once():
    """So that the user mends them in one go."""
    reasons = refusals(source("save-vm", "active", blocked_reasons=("a", "b")), destination("running"))
    assert len(reasons) == 5
    assert [reason.split()[1] for reason in reasons] == ["source", "source", "refuses", "refuses", "destination"]


def test_one_qemu_given_twice_is_refused_for_that_alone():
    """Whatever else is wrong with it follows from that."""
    (reason,) = refusals(source("save-vm"), source("save-vm"))
    assert reason == "both addresses lead to the same QEMU: give the monitor of the waiting QEMU as --dst-qmp"


def test_equal_thread_ids_alone_make_no_two_qemus_one():
    """Each in its container, both have 7 for their vCPU; one QEMU would not run and wait at once."""
    assert refusals(SOURCE, msgspec.structs.replace(DESTINATION, thread_ids=SOURCE.thread_ids)) == ()


def test_without_thread_ids_nothing_is_the_same():
    """A QEMU that names no threads is not thereby the same as another."""
    nameless = msgspec.structs.replace(SOURCE, thread_ids=())
    assert refusals(nameless, msgspec.structs.replace(DESTINATION, thread_ids=())) == ()


def test_what_forbids_nothing_is_a_caution():
    """No out-of-band commands, or a limit that is spent before anything is sent."""
    plan = Plan(downtime_limit_s=0.3)
    small, large = FixedPart(0.012, "prior", measured=False), FixedPart(0.3, "as given", measured=True)
    assert cautions(plan, small, out_of_band=True) == ()
    (monitor,) = cautions(plan, small, out_of_band=False)
    assert "no out-of-band commands" in monitor
    (limit,) = cautions(plan, large, out_of_band=True)
    assert limit == (
        "the downtime limit of 300 ms is within the fixed part of every switchover (300 ms, as given): "
        "it will probably be exceeded"
    )
    assert len(cautions(plan, large, out_of_band=False)) == 2


def pair(source: str, destination: str, *, writable: bool = True) -> ImagePair:
    """A drive's image as both sides name it."""
    return ImagePair(
        title="disk d0", subject=source + destination, source=source, destination=destination, writable=writable
    )


def by_two_names(images: ImagePair) -> Finding:
    """What the comparison of names alone makes of it."""
    return Finding(
        severity=Severity.WARNING,
        topic=Topic.IMAGE,
        subject=images.subject,
        source=images.source,
        destination=images.destination,
        sentence="two names",
        remedy="look",
    )


def test_one_file_by_two_names_is_no_finding():
    """The very image, by a link."""
    images = pair("/a", "/link")
    assert list(judge_images([by_two_names(images)], [(images, True)])) == []


def test_two_files_are_refused_when_the_guest_writes_to_it():
    """By two names or by one: that name was meant from another folder, or the file was replaced."""
    for images in (pair("/a", "/copy"), pair("a", "a")):
        findings = [by_two_names(images)] if images.source != images.destination else []
        (finding,) = judge_images(findings, [(images, False)])
        assert (finding.severity, finding.topic) == (Severity.REFUSAL, Topic.IMAGE)
        assert "two files" in finding.line
        assert "stale" in finding.line


def test_of_two_files_that_are_only_read_the_user_is_told():
    """Nothing that is written to can be stale."""
    images = pair("/a.iso", "/b.iso", writable=False)
    (finding,) = judge_images([by_two_names(images)], [(images, False)])
    assert finding.severity is Severity.WARNING


def test_what_can_not_be_seen_stays_as_it_was_found():
    """And what is about no image is never touched."""
    images = pair("/a", "nbd://host/a")
    other = msgspec.structs.replace(by_two_names(images), topic=Topic.DISK)
    found = [by_two_names(images), other]
    assert list(judge_images(found, [(images, None)])) == found
    assert list(judge_images(found, [(images, True)])) == [other]
    assert list(judge_images([], [(pair("nbd://x", "nbd://x"), None)])) == []


def test_a_plan_s_capabilities_are_asked_for_beforehand():
    """What the engine cannot do without, and what this plan needs besides."""
    assert {"events", "return-path"} <= NEEDED_CAPABILITIES
    assert needed_capabilities(Plan()) == frozenset()
    assert needed_capabilities(Plan(pause_before_switchover=True)) == {"pause-before-switchover"}
