"""What is simulated: a guest, a link, a QEMU, and what its steps take. Data only."""

from __future__ import annotations

import msgspec

from livemig.core.errors import PlanError
from livemig.simulation.link import LinkSetting
from livemig.simulation.versions import rules_of
from livemig.simulation.workloads import SimulatedGuest


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long the steps of both QEMUs and livemig take that no bandwidth shortens, in seconds.

    Measured on QEMU 10.0.2 with the built-in guest under TCG on one host, ``python -m bench switchover``. A guest with
    more devices takes longer: the fixed part of its downtime is ``device_s``.

    Attributes:
        connect_s: From ``migrate`` to QEMU's migration thread.
        setup_s: From there to its first iteration.
        sync_s: A sync of the bitmap, besides what follows.
        sync_gib_s: The same, for each GiB of memory.
        wake_s: How late the thread wakes, on average.
        stop_s: From the decision to STOP.
        device_s: From STOP to the source's ``completed``, besides sending pages: the last sync, device state on both
            sides. The median.
        device_spread_ratio: The standard deviation of its logarithm.
        resume_s: From both sides' ``completed`` to RESUME: livemig's reaction and ``cont``. The median.
        reply_s: From a command to its answer.
        event_s: From an event to its arrival at livemig.
        device_bytes: What device state takes on the wire.
    """

    connect_s: float = 0.0018
    setup_s: float = 0.0006
    sync_s: float = 0.0002
    sync_gib_s: float = 0.0002
    wake_s: float = 0.0001
    stop_s: float = 0.0005
    device_s: float = 0.0015
    device_spread_ratio: float = 0.3
    resume_s: float = 0.0006
    reply_s: float = 0.0008
    event_s: float = 0.0003
    device_bytes: int = 4111

    def __post_init__(self) -> None:
        if min(msgspec.structs.astuple(self)) < 0:
            raise PlanError("no step takes less than no time")


class Setting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One migration to simulate, all but what the user asks.

    Attributes:
        guest: The guest.
        link: The link and the hosts.
        qemu: The version of both QEMUs: ``7.2``, ``10.0`` or ``11.1``.
        costs: What their steps take.
        bound_s: A migration that is still under way then is cancelled: it never ends by itself.

    Raises:
        PlanError: When a value makes no sense.
    """

    guest: SimulatedGuest
    link: LinkSetting = LinkSetting()
    qemu: str = "10.0"
    costs: Costs = Costs()
    bound_s: float = 600.0

    def __post_init__(self) -> None:
        rules_of(self.qemu)
        if not 0 < self.bound_s < float("inf"):
            raise PlanError("bound_s is more than 0, and finite")


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """Another future: up to a moment all is as it is with the seed, from then on guest and link are drawn anew.

    Attributes:
        time_s: The moment, in seconds since ``migrate``.
        seed: Of what comes then.
    """

    time_s: float
    seed: int
