"""One simulated guest moved by every rule, and by a clairvoyant who may try as often as he likes. Runs in any process.

All rules meet the same guest on the same link, ask for the same limit and deadline, and differ in the rule alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import msgspec

from bench.informed import FUTURES, Follows, Way, best_way
from bench.population import Case, draw
from livemig.core.inputs import Prepared
from livemig.core.observation import Observation
from livemig.core.outcome import Outcome
from livemig.core.plan import DOWNTIME_LIMIT_LEAST_S, Plan, Prefer
from livemig.core.policy import Policy
from livemig.core.rule import Rule, Wanted
from livemig.simulation.rivals import RIVALS, rival
from livemig.simulation.setting import Branch
from livemig.simulation.simulate import simulate

PATIENCES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""How much longer livemig waits than the downtime at stake: between them lies what it does in a rival's time."""
OURS = ("livemig time", "livemig downtime")
CLAIRVOYANT = "clairvoyant"
CLAIRVOYANT_LIMITS, CLAIRVOYANT_RATIO, CLAIRVOYANT_FAILURES = 14, 0.72, 2
"""He tries fixed limits from the user's down, each this share of the one before, until so many in a row fail."""
INFORMED = "informed"
NEAR_RATIO = 1.3
"""Where livemig has more than so many times the clairvoyant's downtime, or misses, it is asked what could be known."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a guest's migration ended under one rule.

    Attributes:
        completed: Whether the guest moved.
        total_s: From ``migrate`` to its end.
        beyond_s: That less the first full copy; None where it was never made.
        downtime_s: How long it stood still; None when it did not move.
        sent_bytes: What went over the wire.
        kept: Whether it moved within its owner's limit and deadline.
    """

    completed: bool
    total_s: float
    beyond_s: float | None
    downtime_s: float | None
    sent_bytes: int
    kept: bool


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """One guest, by all rules.

    Attributes:
        kind: Its class.
        seed: What it was drawn with.
        memory_bytes: Its memory.
        limit_s: Its owner's limit.
        deadline_s: Its owner's deadline.
        ended: How it ended, by rule; the clairvoyant's only where anything kept limit and deadline, the informed's only
            where it was asked for.
        held: How ``livemig downtime`` ends with so much patience, by `PATIENCES`.
    """

    kind: str
    seed: int
    memory_bytes: int
    limit_s: float
    deadline_s: float
    ended: dict[str, Ended]
    held: tuple[Ended, ...] = ()


class _Fixed:
    """A rule that never changes its limit."""

    def __init__(self, limit_s: float) -> None:
        self._wanted = Wanted(downtime_limit_s=limit_s)

    def begin(self, plan: Plan, seen: Prepared) -> Wanted:
        del plan, seen
        return self._wanted

    def observe(self, observation: Observation) -> Wanted:
        del observation
        return self._wanted

    def passed(self, time_s: float) -> Wanted:
        del time_s
        return self._wanted

    def tuned(self, plan: Plan, time_s: float) -> Wanted:
        del plan, time_s
        return self._wanted


class _Watching:
    """Writes down what a rule was told and wanted, so that another can be asked whether it would differ."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.prepared: Prepared | None = None
        self.told: list[tuple[Observation | float, Wanted]] = []
        self.first: Wanted | None = None

    def begin(self, plan: Plan, seen: Prepared) -> Wanted:
        self.prepared, self.first = seen, self._rule.begin(plan, seen)
        return self.first

    def observe(self, observation: Observation) -> Wanted:
        wanted = self._rule.observe(observation)
        self.told.append((observation, wanted))
        return wanted

    def passed(self, time_s: float) -> Wanted:
        wanted = self._rule.passed(time_s)
        self.told.append((time_s, wanted))
        return wanted

    def tuned(self, plan: Plan, time_s: float) -> Wanted:
        return self._rule.tuned(plan, time_s)

    def same(self, other: Rule, plan: Plan) -> bool:
        """Whether another rule would have wanted the same all along: then it meets the very same migration."""
        if self.prepared is None or _threshold(other.begin(plan, self.prepared)) != _threshold(self.first):
            return False
        for told, wanted in self.told:
            also = other.passed(told) if isinstance(told, float) else other.observe(told)
            if _threshold(also) != _threshold(wanted):
                return False
        return True


def contest(kind: str, seed: int, *, informed: bool = False) -> Contest:
    """Moves one guest by every rule; where livemig was far from the clairvoyant also by the informed, if asked."""
    case = draw(kind, seed)
    ended: dict[str, Ended] = {}
    for name in OURS:
        ended[name] = moved(case, msgspec.structs.replace(case.plan, prefer=Prefer(name.partition(" ")[2])))
    held = _held(case)
    ended |= _rivals(case)
    tried = [one for one in (*ended.values(), *_clairvoyant(case)) if one.kept]
    if tried:
        ended[CLAIRVOYANT] = min(tried, key=lambda one: (one.downtime_s or 0.0, one.total_s))
    found = Contest(
        kind=kind,
        seed=seed,
        memory_bytes=case.setting.guest.memory_bytes,
        limit_s=case.plan.downtime_limit_s,
        deadline_s=case.plan.deadline_s or 0.0,
        ended=ended,
        held=held,
    )
    if informed and wants_informed(found):
        ended[INFORMED] = _informed(case, ended[OURS[1]])
    return found


def wants_informed(found: Contest) -> bool:
    """Whether livemig was far from the clairvoyant or missed, and it is not known yet what could be known before."""
    ours, best = found.ended[OURS[1]], found.ended.get(CLAIRVOYANT)
    if best is None or INFORMED in found.ended:
        return False
    return not ours.kept or (ours.downtime_s or 0.0) > NEAR_RATIO * (best.downtime_s or 0.0)


def _informed(case: Case, ours: Ended) -> Ended:
    """What a rule makes of it that knows all but what comes after the first copy."""
    copied_s = ours.total_s - (ours.beyond_s or 0.0)

    def play(way: Way, future: int) -> float:
        branch = Branch(time_s=copied_s, seed=future)
        one = moved(case, case.plan, Follows(way), branch=branch)
        return one.downtime_s if one.kept and one.downtime_s is not None else inf

    return moved(case, case.plan, Follows(best_way(case.plan, play, range(FUTURES), NEAR_RATIO)))


def _held(case: Case) -> tuple[Ended, ...]:
    """What ``prefer downtime`` makes of more and more patience."""
    plan = msgspec.structs.replace(case.plan, prefer=Prefer.DOWNTIME)
    return tuple(moved(case, msgspec.structs.replace(plan, patience_ratio=ratio)) for ratio in PATIENCES)


def moved(case: Case, plan: Plan, rule: Rule | None = None, branch: Branch | None = None) -> Ended:
    """Moves a guest by one rule, livemig's own or another; limit and deadline are judged by the plan."""
    run = simulate(case.setting, plan, Policy(plan, rule), seed=case.seed, branch=branch)
    in_time = plan.deadline_s is None or run.total_s <= plan.deadline_s
    completed = run.outcome is Outcome.COMPLETED
    within = run.downtime_s is not None and run.downtime_s <= plan.downtime_limit_s
    return Ended(
        completed=completed,
        total_s=run.total_s,
        beyond_s=None if run.first_copy_s is None else run.total_s - run.first_copy_s,
        downtime_s=run.downtime_s,
        sent_bytes=run.sent_bytes,
        kept=completed and in_time and within,
    )


def _rivals(case: Case) -> dict[str, Ended]:
    """All rivals; one that would have done as another did is not simulated again."""
    ended: dict[str, Ended] = {}
    watched: list[tuple[_Watching, bool, Ended]] = []
    for name in RIVALS:
        pauses = name == "libvirt"
        plan = msgspec.structs.replace(case.plan, pause_before_switchover=pauses)
        same = next((one for seen, paused, one in watched if paused == pauses and seen.same(rival(name), plan)), None)
        if same is None:
            watching = _Watching(rival(name))
            same = moved(case, plan, watching)
            watched.append((watching, pauses, same))
        ended[name] = same
    return ended


def _clairvoyant(case: Case) -> Iterator[Ended]:
    """What fixed limits bring, seen from the end."""
    limit_s, failures = case.plan.downtime_limit_s, 0
    for _ in range(CLAIRVOYANT_LIMITS):
        if limit_s < DOWNTIME_LIMIT_LEAST_S or failures >= CLAIRVOYANT_FAILURES:
            return
        one = moved(case, case.plan, _Fixed(limit_s))
        failures = 0 if one.kept else failures + 1
        limit_s *= CLAIRVOYANT_RATIO
        yield one


def _threshold(wanted: Wanted | None) -> tuple[float, float | None, bool] | None:
    return None if wanted is None else (wanted.downtime_limit_s, wanted.switchover_bytes_s, bool(wanted.hopeless))
