"""Compares the vCPUs: how many, in what topology, of which model with which features. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from livemig.core.finding import Finding, Severity, Topic
from livemig.qemu.compare_arguments import shown, vcpu_argument
from livemig.qemu.inventory import Cpus, Inventory

_refusal = partial(Finding, severity=Severity.REFUSAL, topic=Topic.CPU)
_warning = partial(Finding, severity=Severity.WARNING, topic=Topic.CPU)

_DERIVED_FEATURES = {"CPUID[0x1].EDX": 1 << 28, "CPUID[0x80000001].ECX": 1 << 1}
"""HTT and CMP_LEGACY follow from the topology; before 9.0 they are not among the words, though the guest sees them."""
_TSC_TOLERANCE = 250e-6
"""KVM's own: below it, it does not scale."""


def compare_cpus(source: Inventory, destination: Inventory) -> Iterator[Finding]:
    """Topology, the vCPUs that are there, NUMA nodes, model and features."""
    here, there = source.cpus, destination.cpus
    topology = _topology_difference(here, there)
    if topology is not None:
        yield topology
    else:
        yield from _compare_presence(here, there)
        yield from _compare_nodes(here, there)
    if source.accelerator == destination.accelerator:
        yield from _compare_model(source, destination)
        yield from _compare_tsc(here, there)


def _topology_difference(here: Cpus, there: Cpus) -> Finding | None:
    names = [name for name in here.topology if name in there.topology and name != "cpus"]
    differing = [name for name in names if here.topology[name] != there.topology[name]]
    places_differ = [cpu.place for cpu in here.places] != [cpu.place for cpu in there.places]
    if not differing and not places_differ:
        return None
    mine, other = (_describe(cpus, differing) for cpus in (here, there))
    return _refusal(
        subject="vCPU topology",
        source=mine,
        destination=other,
        sentence=f"the vCPU topology is {mine} at the source, {other} at the destination",
        remedy=f"start the destination with `-smp {_smp_option(here)}`",
    )


def _describe(cpus: Cpus, differing: list[str]) -> str:
    """By what differs; by the places themselves where they alone do."""
    present = sum(cpu.present for cpu in cpus.places)
    if not differing:
        return f"{present} of {len(cpus.places)} vCPUs at {'; '.join(cpu.place for cpu in cpus.places) or 'no place'}"
    names = sorted(differing, key=lambda name: (name != "maxcpus", name))
    return ", ".join(f"{name} {cpus.topology[name]}" for name in names) + f" ({present} present)"


def _smp_option(cpus: Cpus) -> str:
    topology = cpus.topology or {"cpus": sum(cpu.present for cpu in cpus.places), "maxcpus": len(cpus.places)}
    always = ("cpus", "maxcpus", "sockets", "cores", "threads")
    return ",".join(
        f"{name}={topology[name]}" for name in _ordered(topology, always) if name in always or topology[name] > 1
    )


def _ordered(topology: dict[str, int], first: tuple[str, ...]) -> list[str]:
    return [name for name in first if name in topology] + sorted(name for name in topology if name not in first)


def _compare_presence(here: Cpus, there: Cpus) -> Iterator[Finding]:
    for mine, other in zip(here.places, there.places, strict=True):
        subject = f"vCPU at {mine.place}"
        if mine.present and not other.present:
            arguments = ("-device", vcpu_argument(mine))
            yield _refusal(
                subject=subject,
                source="present",
                destination="",
                sentence=f"{subject} is missing at the destination",
                remedy=f"start the destination with `{shown(arguments)}`",
                arguments=arguments,
            )
        elif other.present and not mine.present:
            yield _refusal(
                subject=subject,
                source="",
                destination="present",
                sentence=f"{subject} is at the destination only, where the guest would not know of it",
                remedy=f"start the destination with `-smp {_smp_option(here)}`, without it",
            )


def _compare_nodes(here: Cpus, there: Cpus) -> Iterator[Finding]:
    pairs = [(one.place, one.node or 0, two.node or 0) for one, two in zip(here.places, there.places, strict=True)]
    differing = [(place, mine, other) for place, mine, other in pairs if mine != other]
    if differing:
        place, mine, other = differing[0]
        yield _refusal(
            subject="NUMA nodes of vCPUs",
            source="; ".join(f"{name}: {node}" for name, node, _ in differing),
            destination="; ".join(f"{name}: {node}" for name, _, node in differing),
            sentence=f"{len(differing)} vCPUs are on other NUMA nodes at the destination, first the one at {place}: "
            f"node {mine} at the source, {other} at the destination",
            remedy="start the destination with the source's -numa options",
        )


def _compare_model(source: Inventory, destination: Inventory) -> Iterator[Finding]:
    here, there = source.cpus, destination.cpus
    lost, gained = _features_beyond(here, there), _features_beyond(there, here)
    differing = sorted(
        name for name in here.properties | there.properties if here.properties.get(name) != there.properties.get(name)
    )
    mine, other = _model(here), _model(there)
    if not (lost or gained or differing or mine != other):
        return
    changes = [f"{name} lost" for name in lost] + [f"{name} gained" for name in gained]
    changes += [f"{name} {_property(here, name)} to {_property(there, name)}" for name in differing]
    newer_alone = mine == other and not lost and not differing and source.version[:2] != destination.version[:2]
    names = f"{mine} at the source, {other} at the destination" if mine != other else f"{mine or 'one'} on both"
    detail = f"; from source to destination: {_shortened(changes)}" if changes else ", with the same features"
    yield (_refusal if changes and not newer_alone else _warning)(
        subject="CPU model",
        source=", ".join([mine, *lost, *(f"{name} {_property(here, name)}" for name in differing)]),
        destination=", ".join([other, *gained, *(f"{name} {_property(there, name)}" for name in differing)]),
        sentence=f"the CPU model is {names}{detail}",
        remedy="start the destination with the source's -cpu; with `-cpu host` or `max` choose at the next start a "
        "model and features that both hosts have",
    )


def _property(cpus: Cpus, name: str) -> str:
    return cpus.properties.get(name, "none")


def _model(cpus: Cpus) -> str:
    kinds = [cpu.type for cpu in cpus.places if cpu.present]
    return kinds[0].removesuffix("-cpu").rpartition("-")[0] if kinds else ""


def _features_beyond(one: Cpus, other: Cpus) -> list[str]:
    """Names the bits that `one` has and `other` has not, by CPUID word."""
    found = []
    for name, bits in one.features.items():
        extra = bits & ~other.features.get(name, 0) & ~_DERIVED_FEATURES.get(name, 0)
        if extra:
            numbers = ",".join(str(bit) for bit in range(extra.bit_length()) if extra >> bit & 1)
            found.append(f"{name} bit {numbers}")
    return sorted(found)


def _shortened(changes: list[str], limit: int = 6) -> str:
    more = f" and {len(changes) - limit} more" if len(changes) > limit else ""
    return ", ".join(changes[:limit]) + more


def _compare_tsc(here: Cpus, there: Cpus) -> Iterator[Finding]:
    if here.tsc_hz and there.tsc_hz and abs(here.tsc_hz - there.tsc_hz) > here.tsc_hz * _TSC_TOLERANCE:
        yield _warning(
            subject="TSC frequency",
            source=f"{here.tsc_hz} Hz",
            destination=f"{there.tsc_hz} Hz",
            sentence=f"the time stamp counter runs at {here.tsc_hz} Hz at the source, {there.tsc_hz} Hz at the "
            "destination: a host without TSC scaling can't keep the guest's pace",
            remedy="see that the destination's processor scales the TSC (flag tsc_scaling on AMD, VMX tsc scaling on "
            "Intel)",
        )
