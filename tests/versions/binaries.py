"""The QEMU versions that `scripts/fetch-qemu` keeps apart, as `scripts/test --versions` hands them on."""

from __future__ import annotations

import os

import msgspec

VARIABLE = "LIVEMIG_QEMU_VERSIONS"
"""A line ``VERSION PATH`` for each. Without it the tests of this folder that start QEMUs are not collected."""


class Version(msgspec.Struct, frozen=True):
    """A QEMU version.

    Attributes:
        name: Its first two numbers, such as ``10.0``.
        binary: The path of its wrapper.
    """

    name: str
    binary: str

    def __str__(self) -> str:
        return self.name

    @property
    def age(self) -> tuple[int, ...]:
        """Sorts versions, the oldest first."""
        return tuple(int(part) for part in self.name.split("."))


def parse(text: str) -> tuple[Version, ...]:
    """Reads what `scripts/fetch-qemu` prints; the oldest comes first."""
    versions = [Version(*line.split(" ", 1)) for line in text.splitlines() if line]
    return tuple(sorted(versions, key=lambda version: version.age))


VERSIONS = parse(os.environ.get(VARIABLE, ""))
EVERY_ACCELERATOR = ("tcg", "kvm")
EVERY_PAIR = [(source, destination) for source in VERSIONS for destination in VERSIONS]
EVERY_CASE = [
    (source, destination, accelerator) for source, destination in EVERY_PAIR for accelerator in EVERY_ACCELERATOR
]


def loses_writes(version: Version, accelerator: str) -> bool:
    """Whether this QEMU, as the source, is known to lose writes of a guest while it moves: 7.2 under TCG."""
    return version.age < (8, 0) and accelerator == "tcg"


def keeps_sleep(version: Version) -> bool:
    """Whether a sleeping guest survives this QEMU as source and as destination: since 9.0."""
    return version.age >= (9, 0)
