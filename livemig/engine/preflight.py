"""Says before anything is touched why a migration can't be: one line for each reason, with the remedy.

`examine` asks both QEMUs and changes nothing; what the answers mean is decided by pure functions, here for the two
QEMUs' states and in `livemig.qemu.compare` for what they are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from livemig.core.finding import Finding, Severity, Topic, lines_of, ordered
from livemig.core.fixed_part import FixedPart
from livemig.core.plan import Plan
from livemig.core.status import MigrationStatus, RunState
from livemig.core.units import format_duration
from livemig.engine.images import on_one_kernel, same_images
from livemig.engine.launch_plan import supervisor_of
from livemig.engine.side import Facts, Side
from livemig.qemu.compare import NEEDED_CAPABILITIES, ImagePair, compare, image_pairs
from livemig.qemu.inventory import Inventory
from livemig.qemu.inventory_query import take_inventories

_SOURCE_STATES_REFUSED = {
    RunState.INMIGRATE: "waits for an incoming migration itself: give the QEMU whose guest runs as the source",
    RunState.POSTMIGRATE: "has handed its guest over already: if no other QEMU runs it, `cont` it first",
    RunState.FINISH_MIGRATE: "is in the switchover of another migration: wait for its end",
    RunState.SHUTDOWN: "has a guest that is shut down: there is nothing to move while it runs",
    RunState.SAVE_VM: "saves a snapshot: wait for its end",
    RunState.RESTORE_VM: "restores a snapshot: wait for its end",
    RunState.COLO: "runs under COLO: end that first",
}
_NOT_MIGRATING = frozenset(
    {MigrationStatus.NONE, MigrationStatus.COMPLETED, MigrationStatus.FAILED, MigrationStatus.CANCELLED}
)
SLEEP_KEPT_SINCE_MAJOR = 9
"""QEMU's commit b4e9ddccd1: nothing but the version number tells whether a QEMU has it."""
WAITING_REMEDY = "start it with `-S -incoming defer`"


class Preflight(msgspec.Struct, frozen=True, kw_only=True):
    """What speaks against a migration.

    Attributes:
        refusals: Why it can't be, one line each, with the remedy; empty when it can.
        warnings: What the user should know beforehand, though nothing forbids it.
        findings: What differs between the two QEMUs, in full; its lines are among the two above.
        source: What the source is made of, where it was asked.
    """

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    source: Inventory | None = None


async def examine(source: Side, destination: Side, plan: Plan, fixed: FixedPart) -> Preflight:
    """Looks at both sides; changes nothing.

    Raises:
        LivemigError: When a side does not answer as a QEMU does.
    """
    reasons = (*refusals(source.facts, destination.facts), *await _supervised(source, plan))
    warnings = cautions(plan, fixed, out_of_band=source.monitor.out_of_band)
    if reasons:
        return Preflight(refusals=reasons, warnings=warnings)  # what else differs between wrong QEMUs is noise
    inventories = await take_inventories(source.monitor, destination.monitor)
    found = compare(*inventories, needed_capabilities=NEEDED_CAPABILITIES | needed_capabilities(plan))
    images = await same_images(source, destination, tuple(image_pairs(*inventories)))
    findings = ordered(judge_images(found, images, between_hosts=not on_one_kernel(source, destination)))
    return Preflight(
        refusals=lines_of(findings, Severity.REFUSAL),
        warnings=(*warnings, *lines_of(findings, Severity.WARNING)),
        findings=findings,
        source=inventories[0],
    )


async def examine_source(source: Side, plan: Plan, fixed: FixedPart) -> Preflight:
    """Looks at the source alone, where no destination waits yet; changes nothing."""
    return Preflight(
        refusals=await source_reasons(source, plan),
        warnings=cautions(plan, fixed, out_of_band=source.monitor.out_of_band),
    )


async def source_reasons(source: Side, plan: Plan) -> tuple[str, ...]:
    """Returns why the guest can't leave its source, whatever waits for it; empty when it can."""
    return (*source_refusals(source.facts), *await _supervised(source, plan))


async def _supervised(source: Side, plan: Plan) -> tuple[str, ...]:
    """A source that is kept does not end, and nobody starts it again."""
    restarter = None if plan.keep_source else await supervisor_of(source)
    return () if restarter is None else (restarter,)


def needed_capabilities(plan: Plan) -> frozenset[str]:
    """Returns what both QEMUs have to know of `migrate-set-capabilities` for this plan in particular."""
    return frozenset({"pause-before-switchover"}) if plan.pause_before_switchover else frozenset()


def judge_images(
    findings: Iterable[Finding], images: Iterable[tuple[ImagePair, bool | None]], *, between_hosts: bool = False
) -> Iterator[Finding]:
    """Says of each disk whether both sides have one file for it, where that was seen, whatever they call it.

    A copy of an image is as stale as it is old: a guest that went on with it would lose what it wrote since, and read
    what it never wrote. Nothing is written to one that is read-only, so that the user is only told.

    Args:
        findings: What else was found; of disks by two names, it only says that.
        images: The disks, and whether each is one file; None where that can't be seen.
        between_hosts: Whether the sides run on two hosts: there a writable image has to be proven the same.
    """
    images = list(images)
    seen = {pair.subject: (pair, is_same) for pair, is_same in images if is_same is not None}
    for finding in findings:
        if finding.topic is not Topic.IMAGE or finding.subject not in seen:
            yield finding
    for pair, is_same in seen.values():
        if not is_same:
            yield _two_files(pair)
    if between_hosts:
        yield from (_unproven(pair) for pair, is_same in images if is_same is None and pair.writable)


def _unproven(pair: ImagePair) -> Finding:
    return Finding(
        severity=Severity.REFUSAL,
        topic=Topic.IMAGE,
        subject=pair.subject,
        source=pair.source,
        destination=pair.destination,
        sentence=f"{pair.title} is {pair.source}, and nothing proves that the destination's host has that very image",
        remedy="put it on storage that both hosts share, in a folder that you may write to there, or on a block device "
        "that has an identity of its own",
    )


def _two_files(pair: ImagePair) -> Finding:
    names = f"{pair.source} at the source, {pair.destination} at the destination"
    if pair.source == pair.destination:
        names = f"{pair.source} on both sides"
    return Finding(
        severity=Severity.REFUSAL if pair.writable else Severity.WARNING,
        topic=Topic.IMAGE,
        subject=pair.subject,
        source=pair.source,
        destination=pair.destination,
        sentence=f"{pair.title} is {names}, and these are two files",
        remedy="give the destination the very image that the guest writes to (where livemig launches it, by --map or "
        "--dst-set): a copy of it is stale"
        if pair.writable
        else "see that they hold the same: QEMU does not",
    )


def refusals(source: Facts, destination: Facts) -> tuple[str, ...]:
    """Returns why the guest can't be moved; empty when it can."""
    if _are_one(source, destination):
        return ("both addresses lead to the same QEMU: give the monitor of the waiting QEMU as --dst-qmp",)
    return (*source_refusals(source), *_destination_refusals(destination), *_sleeper_refusals(source, destination))


def _are_one(source: Facts, destination: Facts) -> bool:
    """Whether one QEMU answered twice. Two hosts, or two containers, may well give their threads the same numbers."""
    return bool(set(source.thread_ids) & set(destination.thread_ids)) and source.run_state is destination.run_state


def source_refusals(source: Facts) -> list[str]:
    """Returns why the guest can't leave, whatever waits for it; empty when it can."""
    reasons = []
    if source.run_state in _SOURCE_STATES_REFUSED:
        reasons.append(f"the source {_SOURCE_STATES_REFUSED[source.run_state]}")
    if source.observation.status not in _NOT_MIGRATING:
        reasons.append(
            f"the source already migrates (QEMU says {source.observation.status_text}): wait for its end, "
            "or cancel it with `migrate_cancel`"
        )
    reasons += [f"QEMU refuses to migrate the source: {reason}" for reason in source.observation.blocked_reasons]
    return reasons


def _destination_refusals(destination: Facts) -> list[str]:
    if destination.run_state is not RunState.INMIGRATE:
        return [f"the destination is {destination.run_state}, not waiting for a migration: {WAITING_REMEDY}"]
    observation = destination.observation
    if observation.status in (MigrationStatus.FAILED, MigrationStatus.CANCELLED):
        return [f"the destination's last incoming migration {observation.status}: end that QEMU and {WAITING_REMEDY}"]
    if observation.status is not MigrationStatus.NONE or observation.socket_addresses:
        return [f"the destination listens already (-incoming URI), where anybody may connect: {WAITING_REMEDY}"]
    return []


def _sleeper_refusals(source: Facts, destination: Facts) -> list[str]:
    """A sleeping guest is lost by QEMUs before 9.0. Measured on 7.2, as the source it was dead in 7 of 14 moves."""
    reasons = []
    if source.run_state is RunState.SUSPENDED and not keeps_sleep(source):
        reasons.append(
            f"the guest sleeps, and the source is QEMU {source.version}, which wakes it in the middle of handing it "
            "over, so that it may arrive dead: wake it first (`system_wakeup`)"
        )
    if source.run_state is RunState.SUSPENDED and not keeps_sleep(destination):
        reasons.append(
            f"the guest sleeps, and the destination is QEMU {destination.version}, where it would stand still once it "
            "is woken: wake it first (`system_wakeup`)"
        )
    return reasons


def keeps_sleep(facts: Facts) -> bool:
    """Whether this QEMU hands a sleeping guest over as one that sleeps: since 9.0."""
    return int(facts.version.partition(".")[0]) >= SLEEP_KEPT_SINCE_MAJOR


def cautions(plan: Plan, fixed: FixedPart, *, out_of_band: bool) -> tuple[str, ...]:
    """Returns what the user should know beforehand, though nothing forbids the migration."""
    found = []
    if not out_of_band:
        found.append(
            "the source's monitor offers no out-of-band commands: on a link that dies in the switchover the guest "
            "could stand still until the link is back"
        )
    if plan.downtime_limit_s <= fixed.value_s:
        found.append(
            f"the downtime limit of {format_duration(plan.downtime_limit_s)} is within the fixed part of every "
            f"switchover ({fixed}): it will probably be exceeded"
        )
    return tuple(found)
