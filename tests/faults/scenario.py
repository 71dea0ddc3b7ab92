"""What goes wrong in a trial, and when: drawn from a seed, so that a trial can be had again by its number."""

from __future__ import annotations

import random
from dataclasses import dataclass

POINTS = (
    "source >object-add",
    "source =object-add",
    "destination >object-add",
    "source >migrate-set-capabilities",
    "destination >migrate-set-capabilities",
    "source >migrate-set-parameters",
    "destination >migrate-incoming",
    "destination =migrate-incoming",
    "destination >stop",
    "source >migrate",
    "source =migrate",
    "source <MIGRATION:setup",
    "source <MIGRATION:active",
    "destination <MIGRATION:active",
    "source <MIGRATION_PASS",
    "source >query-migrate",
    "source <STOP",
    "source <MIGRATION:device",
    "destination <MIGRATION:completed",
    "source <MIGRATION:completed",
    "destination >cont",
    "destination =cont",
    "destination <RESUME",
    "destination >announce-self",
    "source >quit",
    "source =quit",
    "destination >object-del",
)
"""Moments of a run: a command before QEMU gets it (>), its answer (=) or an event (<) before livemig gets it."""

FAULTS = {
    "kill engine": 4,
    "kill parent": 2,
    "kill both": 4,
    "kill source": 2,
    "kill destination": 2,
    "stop source": 1,
    "stop destination": 1,
    "stop engine": 1,
    "cut link": 2,
    "hole link": 1,
    "cut qmp of source": 2,
    "cut qmp of destination": 2,
    "hole qmp of source": 1,
    "hole qmp of destination": 1,
    "delay qmp of source": 1,
    "delay qmp of destination": 1,
    "error from source": 2,
    "error from destination": 2,
    "lose event of source": 2,
    "lose event of destination": 2,
    "double event of source": 1,
    "double event of destination": 1,
    "clock of source jumps": 1,
    "clock of destination jumps": 1,
    "power off": 1,
    "reset": 1,
    "disk full": 2,
    "second livemig": 2,
    "cancel": 2,
    "stranger at destination": 1,
    "stranger at source": 1,
}
"""Each with its weight."""
LATER_FAULTS = {
    "stranger with its pid at destination": 2,
    "stranger with its pid at source": 2,
}
"""What is drawn from `LATER_FROM_SEED` on: a seed below it stays the trial that it was."""
LATER_FROM_SEED = 100_000
FOR_LAUNCHED = ("kill engine", "kill parent", "kill both", "kill source", "stop source", "second livemig", "cancel")
"""What can be done where livemig launches the destination, whose monitor no relay is in front of."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: What, of `FAULTS`.
        point: At which moment, of `POINTS`, or a time after the start such as ``0.25 s``.
        after_s: How long after that.
        duration_s: How long it lasts, where it ends by itself.
        number: A number for what needs one.
    """

    kind: str
    point: str
    after_s: float
    duration_s: float
    number: float

    def __str__(self) -> str:
        late = f" + {self.after_s * 1e3:.0f} ms" if self.after_s else ""
        return f"{self.kind} at {self.point}{late}"


@dataclass(frozen=True)
class Scenario:
    """A trial.

    Attributes:
        seed: What it was drawn from.
        faults: What goes wrong: one thing, or two.
        launching: Whether livemig launches the destination.
        bandwidth: The cap, or None.
        early_recovery: Whether `recover` is tried before what went wrong is mended.
    """

    seed: int
    faults: tuple[Fault, ...]
    launching: bool
    bandwidth: str | None
    early_recovery: bool

    def __str__(self) -> str:
        return f"{' and '.join(map(str, self.faults))}{' (launched)' if self.launching else ''}"


def draw(seed: int) -> Scenario:
    """Draws a trial."""
    chance = random.Random(seed)
    launching = chance.random() < 0.12
    every = FAULTS | LATER_FAULTS if seed >= LATER_FROM_SEED else FAULTS
    kinds = {kind: weight for kind, weight in every.items() if not launching or kind in FOR_LAUNCHED}
    points = [point for point in POINTS if not launching or point.startswith("source")]
    faults = []
    for _ in range(chance.choice((1, 1, 2))):
        kind = chance.choices(list(kinds), list(kinds.values()))[0]
        point = chance.choice(points) if chance.random() < 0.85 else f"{chance.uniform(0.1, 1.5):.3f} s"
        duration_s = chance.choice((1.0, 2.0, 3.0)) if chance.random() < 0.95 else chance.uniform(5, 30)
        after_s = chance.choice((0.0, 0.0, chance.uniform(0, 0.02), chance.uniform(0, 0.3)))
        faults.append(Fault(kind, point, round(after_s, 4), round(duration_s, 2), chance.random()))
    return Scenario(
        seed=seed,
        faults=tuple(faults),
        launching=launching,
        bandwidth=chance.choice((None, "40MiB/s")),
        early_recovery=chance.random() < 0.3,
    )
