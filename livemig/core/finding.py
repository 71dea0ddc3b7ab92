"""A difference between the source's and the destination's QEMU, or what else speaks against a migration. Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Severity(StrEnum):
    """What a finding means for the migration."""

    REFUSAL = "refusal"
    """QEMU would fail late, or accept it and harm the guest."""
    WARNING = "warning"
    """The user should know; the migration can be."""


class Topic(StrEnum):
    """What a finding is about; findings are sorted in this order."""

    MACHINE = "machine"
    MEMORY = "memory"
    CPU = "cpu"
    IDENTITY = "identity"
    DEVICE = "device"
    DISK = "disk"
    IMAGE = "image"
    """A disk by two names: QEMU can't tell whether that is one image; who sees both hosts may."""
    MIGRATION = "migration"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs, in one line, with what to do about it.

    Attributes:
        severity: Whether it forbids the migration.
        topic: What it is about.
        subject: The thing, such as ``RAM block pc.ram``.
        source: How it is at the source; empty when the source has no such thing.
        destination: How it is at the destination; empty when it has no such thing.
        sentence: What differs, naming the thing, without a full stop.
        remedy: What to do, without a full stop.
        arguments: What to add to the destination's command line, where that alone mends it: hot-plugged devices.
    """

    severity: Severity
    topic: Topic
    subject: str
    source: str
    destination: str
    sentence: str
    remedy: str
    arguments: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The sentence and the remedy in one line."""
        return f"{self.sentence}: {self.remedy}"


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Returns them as they are shown: refusals first, then by topic, then by what they are about."""
    severities, topics = list(Severity), list(Topic)
    return tuple(
        sorted(findings, key=lambda one: (severities.index(one.severity), topics.index(one.topic), one.subject))
    )


def lines_of(findings: Iterable[Finding], severity: Severity) -> tuple[str, ...]:
    """Returns the lines of the findings of one severity, in their order."""
    return tuple(finding.line for finding in findings if finding.severity is severity)
