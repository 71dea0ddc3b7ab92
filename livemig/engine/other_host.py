"""What a launch on another host needs beyond one on the source's own: a way for memory, and a processor like its.

Looked at before anything is started; changes nothing.
"""

from __future__ import annotations

from typing import Any

import msgspec

from livemig.core.errors import CommandError, RefusedError
from livemig.core.plan import Plan, Security
from livemig.engine.reach import REMEDY, find_way, has_tls
from livemig.engine.side import Side
from livemig.hosts.host import Host
from livemig.hosts.processor import CPUINFO, Processor, processor_in
from livemig.qemu.address import Address

FLAGS_NAMED_MOST = 8


class Objections(msgspec.Struct, frozen=True, kw_only=True):
    """What speaks against a launch on another host.

    Attributes:
        reasons: Why it can't be, one line each.
        warnings: What will be otherwise than the user may think.
    """

    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


async def objections(plan: Plan, source: Side, destination: Address, host: Host) -> Objections:
    """Looks whether the destination's host can have the guest, and its memory.

    Raises:
        HostError: When a host does not answer.
        LivemigError: When the source does not.
    """
    if source.host.identity.is_same_host(host.identity):
        return Objections()
    way = await _way(plan, source, destination, host)
    return msgspec.structs.replace(way, reasons=(*way.reasons, *await _why_no_processor(source, host)))


async def _way(plan: Plan, source: Side, destination: Address, host: Host) -> Objections:
    wanted = plan.security
    if wanted is Security.SSH:
        return Objections()
    if wanted is not Security.NONE and not await has_tls(source):
        if wanted is Security.TLS:
            return Objections(reasons=("the source's QEMU has no TLS with a pre-shared key: give --security ssh",))
        return Objections()
    try:
        way = await find_way(plan, source.host, destination, host)
    except RefusedError as error:
        return Objections(reasons=error.reasons)
    if way.untested is not None:
        return Objections(warnings=(way.untested,))
    if way.trouble is None:
        return Objections()
    if wanted is Security.AUTO:
        return Objections(warnings=(f"{way.trouble}: memory goes through livemig's SSH, which is slower",))
    return Objections(reasons=(f"{way.trouble}: {REMEDY}",))


async def _why_no_processor(source: Side, host: Host) -> tuple[str, ...]:
    """Under KVM a guest sees the host's own processor, or a model that this one must be able to be."""
    if not (await source.monitor.execute("query-kvm"))["enabled"]:
        return ()
    here, there = await _processor(source.host), await _processor(host)
    if here is None or there is None:
        return ()
    lost = await _those_of_guest(source, here.flags_beyond(there))
    if not lost:
        return ()
    more = f" and {len(lost) - FLAGS_NAMED_MOST} more" if len(lost) > FLAGS_NAMED_MOST else ""
    name = f" ({there.name})" if there.name else ""
    fact = f"the processor of the destination's host{name} has no {', '.join(lost[:FLAGS_NAMED_MOST])}{more}"
    remedy = "choose another host, or at the guest's next start a -cpu that both hosts can be"
    return (f"{fact}, which the guest's has: {remedy}",)


async def _processor(host: Host) -> Processor | None:
    return processor_in((await host.texts_of([CPUINFO])).get(CPUINFO, ""))


async def _those_of_guest(source: Side, flags: frozenset[str]) -> list[str]:
    """Those flags that the guest's first vCPU has, by QEMU's own properties for them."""
    if not flags:
        return []
    try:
        cpus = await source.monitor.execute("query-cpus-fast")
        path = cpus[0]["qom-path"]
        listed = await source.monitor.execute("qom-list", {"path": path})
        known = {each["name"] for each in listed if each["type"] == "bool"}
        return [flag for flag in sorted(flags) if await _has(source, path, flag, known)]
    except (CommandError, LookupError):
        return []  # another architecture: the comparison after the launch tells


async def _has(source: Side, path: str, flag: str, known: set[Any]) -> bool:
    """The kernel says sse4_1 and avx512_vnni, QEMU sse4.1 and avx512vnni."""
    spellings = (flag, flag.replace("_", "-"), flag.replace("_", "."), flag.replace("_", ""))
    name = next((spelling for spelling in spellings if spelling in known), None)
    return name is not None and bool(await source.monitor.execute("qom-get", {"path": path, "property": name}))
