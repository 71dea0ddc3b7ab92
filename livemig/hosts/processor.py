"""What a host's processor can do, as its kernel tells in /proc/cpuinfo. Pure."""

from __future__ import annotations

import msgspec

CPUINFO = "/proc/cpuinfo"
PROVIDED_BY_KVM = frozenset(
    {"arat", "arch_capabilities", "hypervisor", "tsc_adjust", "tsc_deadline_timer", "umip", "virt_ssbd", "x2apic"}
)
"""What KVM shows to a guest whether the processor has it or not."""


class Processor(msgspec.Struct, frozen=True, kw_only=True):
    """A host's processor.

    Attributes:
        name: Its model's name; empty where none is told.
        flags: What it can do, in the kernel's words.
    """

    name: str
    flags: frozenset[str]

    def flags_beyond(self, other: Processor) -> frozenset[str]:
        """What this one can do for a guest, and the other can't."""
        return self.flags - other.flags - PROVIDED_BY_KVM


def processor_in(text: str) -> Processor | None:
    """Returns the first processor; None where the kernel tells no flags."""
    first = text.partition("\n\n")[0]
    found = {}
    for line in first.splitlines():
        name, _, value = line.partition(":")
        found[name.strip()] = value.strip()
    flags = found.get("flags") or found.get("Features")  # x86, ARM
    if not flags:
        return None
    return Processor(name=found.get("model name", ""), flags=frozenset(flags.split()))
