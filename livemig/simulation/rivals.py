"""The rules by which other systems let QEMU switch over, each as its source has it, behind livemig's own seam.

They decide on the same observations, in simulation, on traces and on real QEMU. Where a system polls, its rule looks at
the observation that comes next after its period. Everything but the rule is livemig's: its watchdog, its cancel, and
the deadline, which none of them knows. Post-copy, throttling and compression are left out: the rule is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from livemig.core.errors import PlanError
from livemig.core.inputs import Prepared
from livemig.core.observation import Observation
from livemig.core.plan import DOWNTIME_LIMIT_MOST_S, Plan
from livemig.core.rule import Rule, Wanted

GIB = 2**30


class Rival:
    """A rule with a downtime limit that changes by its own looks, and perhaps an end of its own."""

    FIRST_S = 0.3
    PERIOD_S = 0.0

    def __init__(self) -> None:
        self.limit_s = self.FIRST_S
        self.ended = ""
        self.memory_bytes = 0
        self._look_s = 0.0

    def begin(self, plan: Plan, seen: Prepared) -> Wanted:
        """Sets the first limit; what the user asks is not asked for."""
        del plan
        self.memory_bytes = seen.memory_bytes
        return self._wanted()

    def observe(self, observation: Observation) -> Wanted:
        """Looks, when it is time to."""
        if observation.time_s >= self._look_s:
            self._look_s = observation.time_s + self.PERIOD_S
            self.look(observation)
        return self._wanted()

    def passed(self, time_s: float) -> Wanted:
        """Waits for the next observation."""
        del time_s
        return self._wanted()

    def tuned(self, plan: Plan, time_s: float) -> Wanted:
        """Goes on as before."""
        del plan, time_s
        return self._wanted()

    def look(self, observation: Observation) -> None:
        """Changes the limit, or ends it."""

    def _wanted(self) -> Wanted:
        return Wanted(
            downtime_limit_s=self.limit_s, reason=f"downtime-limit {self.limit_s * 1000:.0f} ms", hopeless=self.ended
        )


class Qemu(Rival):
    """QEMU by itself: ``downtime-limit`` is 300 ms and stays so (migration/options.c)."""


class Libvirt(Rival):
    """libvirt: no rule of its own, QEMU's 300 ms. Its ``pause-before-switchover`` is the plan's to set."""


class Nova(Rival):
    """OpenStack Nova: 500 ms in 10 steps, one each 75 s per GiB, of 2 GiB at least; 800 s per GiB, then abort.

    ``downtime_steps`` and ``should_abort`` of nova/virt/libvirt/migration.py, defaults of nova/conf/libvirt.py.
    """

    MOST_S, STEPS, DELAY_GIB_S, TIMEOUT_GIB_S = 0.5, 10, 75.0, 800.0
    FIRST_S = MOST_S / STEPS
    PERIOD_S = 0.5

    def look(self, observation: Observation) -> None:
        """Takes the step that time has come to."""
        size_gib = max(2.0, self.memory_bytes / GIB)
        step = min(self.STEPS, int(observation.time_s / (self.DELAY_GIB_S * size_gib)))
        self.limit_s = self.FIRST_S + step * (self.MOST_S - self.FIRST_S) / self.STEPS
        if observation.time_s > self.TIMEOUT_GIB_S * size_gib:
            self.ended = "Nova's completion timeout"


class Ovirt(Rival):
    """oVirt: a schedule of limits by RAM iterations, looked at each 10 s, one step at a look, then abort.

    ``MonitorThread`` and ``_next_action`` of vdsm's lib/vdsm/virt/migration.py; the schedules are the engine's
    migration policies (packaging/dbscripts/upgrade).
    """

    PERIOD_S = 10.0
    SCHEDULE: tuple[tuple[int, float], ...] = ()
    """After how many iterations which limit, in seconds; 0 is the abort."""

    def __init__(self) -> None:
        super().__init__()
        self._left = list(self.SCHEDULE)
        self._first_count: int | None = None
        self._last_count = 0

    def look(self, observation: Observation) -> None:
        """Takes the next step when an iteration has gone by that is beyond its count."""
        count = observation.dirty_sync_count or 0
        if self._first_count is None:
            self._first_count = self._last_count = count
        if count <= self._last_count or not self._left:
            return
        self._last_count = count
        after, limit_s = self._left[0]
        if after < count - self._first_count:
            self._left.pop(0)
            self.limit_s, self.ended = limit_s or self.limit_s, "" if limit_s else "oVirt's schedule ends: abort"


class OvirtMinimal(Ovirt):
    """oVirt's policy "Minimal downtime"."""

    FIRST_S = 0.1
    SCHEDULE = ((1, 0.15), (2, 0.2), (3, 0.3), (4, 0.4), (6, 0.5), (7, 0.0))


class OvirtSuspend(Ovirt):
    """oVirt's policy "Suspend workload if needed"."""

    FIRST_S = 0.1
    SCHEDULE = ((1, 0.15), (2, 0.2), (3, 0.3), (4, 0.4), (6, 0.5), (7, 5.0), (8, 0.0))


class OvirtLarge(Ovirt):
    """oVirt's policy "Very large VMs"."""

    FIRST_S = 0.3
    SCHEDULE = ((1, 0.4), (2, 0.5), (3, 0.7), (4, 1.0), (6, 1.5), (7, 5.0), (8, 0.0))


class Proxmox(Rival):
    """Proxmox VE: 100 ms, doubled after each six looks at which more was left than at the look before, or nothing.

    It looks each second, and each 0.1 s once less is left than a second sends; up to 2000 s. ``phase2`` of
    PVE/QemuMigrate.pm.
    """

    FIRST_S = 0.1
    PERIOD_S = 1.0
    LOOKS = 5

    def __init__(self) -> None:
        super().__init__()
        self._rises = 0
        self._last_bytes: int | None = None

    def look(self, observation: Observation) -> None:
        """Counts what may be the teeth of a saw."""
        remaining_bytes = observation.remaining_bytes or 0
        if (self._last_bytes is not None and remaining_bytes > self._last_bytes) or not remaining_bytes:
            self._rises += 1
        self._last_bytes = remaining_bytes
        if remaining_bytes < (observation.throughput_bytes_s or 0.0):
            self._look_s = observation.time_s + 0.1
        if self._rises > self.LOOKS:
            self._rises = 0
            self.limit_s = min(2 * self.limit_s, DOWNTIME_LIMIT_MOST_S)


class KubevirtTimeout(Rival):
    """KubeVirt's default: QEMU's limit, and 150 s a GiB until it aborts (``live-migration-source.go``)."""

    PERIOD_S = 0.4
    TIMEOUT_GIB_S = 150.0

    def look(self, observation: Observation) -> None:
        """Looks at the clock."""
        if observation.time_s > self.TIMEOUT_GIB_S * max(1.0, self.memory_bytes / GIB):
            self.ended = "KubeVirt's completion timeout"


class KubevirtRamp(KubevirtTimeout):
    """KubeVirt's downtime tuning (VEP 291): from 150 ms to 900 ms in 7 steps, from iteration 3 on, 10 s apart."""

    FIRST_S, MOST_S, STEPS, AFTER_COUNT, COOLDOWN_S = 0.15, 0.9, 7, 3, 10.0

    def __init__(self) -> None:
        super().__init__()
        self._stepped_s = 0.0
        self._first_count: int | None = None

    def look(self, observation: Observation) -> None:
        """Takes a step."""
        super().look(observation)
        count = observation.dirty_sync_count or 0
        if self._first_count is None:
            self._first_count = count
        due = observation.time_s - self._stepped_s >= self.COOLDOWN_S
        if count - self._first_count >= self.AFTER_COUNT and due and self.limit_s < self.MOST_S:
            self._stepped_s = observation.time_s
            self.limit_s = min(self.MOST_S, self.limit_s + (self.MOST_S - self.FIRST_S) / self.STEPS)


class KubevirtStall(Rival):
    """KubeVirt's stall detector (VEP 248), which looks where iterations end.

    Stalled when what is left is no less than 96 % of the least of iterations over 40 s ago. Then it waits for a local
    minimum (within 4 % of the best, relaxed after 40 s halved each time) and lets QEMU go at 900 ms if that is what it
    would take, give or take half; else it aborts. The bandwidth is smoothed with 0.4.
    """

    MOST_S, WINDOW_S, MARGIN, SMOOTHING, HOPELESS_RATIO, PATIENCE_RATIO = 0.9, 40.0, 0.04, 0.4, 1.5, 0.5

    def __init__(self) -> None:
        super().__init__()
        self._bytes_s = 0.0
        self._count = 0
        self._seen: list[tuple[float, int]] = []
        self._stalled_s: float | None = None
        self._target_bytes = 0.0
        self._patience_s = self.WINDOW_S

    def look(self, observation: Observation) -> None:
        """Smooths the bandwidth, and looks at the iteration that ended, if one did."""
        bytes_s = observation.throughput_bytes_s or self._bytes_s
        self._bytes_s += self.SMOOTHING * (bytes_s - self._bytes_s) if self._bytes_s else bytes_s
        count = observation.dirty_sync_count or 0
        if count > self._count:
            self._count = count
            self._iteration(observation.time_s, observation.remaining_bytes or 0)

    def _iteration(self, time_s: float, left_bytes: int) -> None:
        old = [left for seen_s, left in self._seen if seen_s < time_s - self.WINDOW_S]
        self._seen.append((time_s, left_bytes))
        if self._stalled_s is None:
            if not old or left_bytes < (1 - self.MARGIN) * min(old):
                return
            self._stalled_s, self._target_bytes = time_s, float(min(left for _, left in self._seen))
        if time_s - self._stalled_s > self._patience_s:
            self._stalled_s, self._patience_s = time_s, self._patience_s * self.PATIENCE_RATIO
            higher = sorted(left for _, left in self._seen if left > self._target_bytes * (1 + self.MARGIN))
            self._target_bytes = float(higher[0]) if higher else self._target_bytes
        if left_bytes > self._target_bytes * (1 + self.MARGIN) or not self._bytes_s:
            return
        if left_bytes / self._bytes_s <= self.MOST_S * self.HOPELESS_RATIO:
            self.limit_s = self.MOST_S
        else:
            self.ended = "KubeVirt's stall detector: hopeless"


RIVALS: Mapping[str, Callable[[], Rule]] = MappingProxyType(
    {
        "qemu": Qemu,
        "libvirt": Libvirt,
        "nova": Nova,
        "ovirt-minimal": OvirtMinimal,
        "ovirt-suspend": OvirtSuspend,
        "ovirt-large": OvirtLarge,
        "proxmox": Proxmox,
        "kubevirt-timeout": KubevirtTimeout,
        "kubevirt-ramp": KubevirtRamp,
        "kubevirt-stall": KubevirtStall,
    }
)
"""By the name that ``livemig replay --policy`` and ``python -m bench policies`` take."""


def rival(name: str) -> Rule:
    """Returns a new rule by its name.

    Raises:
        PlanError: When there is none of that name.
    """
    made = RIVALS.get(name)
    if made is None:
        raise PlanError(f"there is no policy {name}: known are {', '.join(RIVALS)}")
    return made()
