"""``python -m bench policies``: livemig's rule beside those of others, on the same simulated guests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import partial
from math import inf
from pathlib import Path
from statistics import median

import click
import msgspec
import numpy as np

from bench.against import Against, geometric_mean, mean
from bench.contest import CLAIRVOYANT, INFORMED, NEAR_RATIO, OURS, Contest, Ended, contest, wants_informed
from bench.options import shared_options
from bench.population import CLASSES, DEVELOPMENT_SEEDS
from bench.progress import Progress
from bench.result import Conclusion, Figure, Target, Total, present
from bench.runner import CouldNotMeasure, run_benchmark
from livemig.core.switchover import FIXED_DOWNTIME_PRIOR_S
from livemig.simulation.rivals import RIVALS

REGRET_MEDIAN_LIMIT, REGRET_P95_LIMIT = 1.05, 1.3
VIOLATIONS_LIMIT_PERCENT = 0.5
WILSON_DEVIATIONS = 1.96
GIVEN_UP_S = 0.5
"""What ended so long before its deadline was given up, and did not run out of time."""

NOTES = (
    "all are given the same guest, link, limit and deadline; the rivals' rules know neither of the last two",
    "the rivals' timers are for large guests: with these, copied in 1 to 4 s, some never come to their next step",
    "feasible is what any rule or any fixed limit, tried in hindsight, moved within limit and deadline",
    "clairvoyant: the least downtime within limit and deadline that any rule here or any of 14 fixed limits brought",
    "beyond: time beyond the first full copy",
    "downtimes differ a hundredfold by guest: a geometric mean counts ratios, an arithmetic one mostly the widest",
)


@click.command(short_help="The rules of livemig and of others, side by side.")
@click.option(
    "--count", type=click.IntRange(min=1), default=60, show_default=True, help="How many guests of each of 9 classes."
)
@click.option("--development", is_flag=True, help="Guests that rules may be tuned on, not those held out.")
@click.option(
    "--keep",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add each guest's results to FILE, and do not simulate again what stands there.",
)
@click.option(
    "--informed",
    is_flag=True,
    help="Ask also what a rule could reach that knows all but what comes, where livemig is far from the clairvoyant.",
)
@click.option(
    "--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="How many simulate at once."
)
@shared_options
def policies(
    *,
    count: int,
    development: bool,
    keep: Path | None,
    informed: bool,
    processes: int,
    qemu: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Move simulated guests by livemig's rule, by ten of others, and by a clairvoyant.

    To reach: downtime at most 1.05 times the clairvoyant's at the median and 1.3 times at the 95th percentile; at most
    0.5 % of the feasible moved outside of their limit or deadline; no rival better in both time and downtime on any
    class; against the best rival 30 % less time at equal downtime, and 30 % less downtime at equal time.
    """
    first = DEVELOPMENT_SEEDS.start if development else 0
    run_benchmark(
        "policies",
        {"count": count, "class_count": len(CLASSES), "seeds_from_count": first},
        measure=partial(_measure, range(first, first + count), keep, processes, informed=informed),
        conclude=_conclude,
        qemu=qemu,
        as_json=as_json,
        output=output,
    )


async def _measure(seeds: range, keep: Path | None, processes: int, samples: list[Contest], *, informed: bool) -> None:
    """Simulates all guests, some at a time."""
    kept = {at: one for at, one in _read(keep).items() if not (informed and wants_informed(one))}
    wanted = [(kind, seed) for seed in seeds for kind in CLASSES]
    samples += [kept[one] for one in wanted if one in kept]
    missing = [one for one in wanted if one not in kept]
    with Progress("guests", len(wanted)) as progress, ProcessPoolExecutor(processes) as pool:
        progress.count = len(samples)
        under_way = [pool.submit(contest, *one, informed=informed) for one in missing]
        await asyncio.to_thread(_gather, under_way, keep, samples, progress)


def _gather(
    under_way: Sequence[Future[Contest]], keep: Path | None, samples: list[Contest], progress: Progress
) -> None:
    for done in as_completed(under_way):
        sample = done.result()
        samples.append(sample)
        if keep is not None:
            with keep.open("ab") as file:
                file.write(msgspec.json.encode(sample) + b"\n")
        progress.step()


def _read(keep: Path | None) -> dict[tuple[str, int], Contest]:
    if keep is None or not keep.exists():
        return {}
    try:
        with keep.open("rb") as file:
            found = [msgspec.json.decode(line, type=Contest) for line in file]
    except (OSError, msgspec.DecodeError) as error:
        raise CouldNotMeasure(f"{keep} can't be read on: {error}; name another file") from error
    return {(one.kind, one.seed): one for one in found}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One rule on some guests.

    Attributes:
        rule: Its name.
        feasible_count: Guests that could be moved as their owners ask.
        kept_count: Those that it moved so.
        regrets: The downtime over the clairvoyant's, of each of those.
        beyond_s: The time beyond the first copy of each that it moved at all, of the feasible.
        downtimes_s: Their downtime.
        sent_ratio: Bytes sent over the memory, of all guests.
    """

    rule: str
    feasible_count: int
    kept_count: int
    regrets: tuple[float, ...]
    beyond_s: tuple[float, ...]
    downtimes_s: tuple[float, ...]
    sent_ratio: float

    @property
    def line(self) -> str:
        """The row in words."""
        low, high = wilson(self.kept_count, self.feasible_count)
        regret = "-"
        if self.regrets:
            regret = f"{median(self.regrets):.2f} (p95 {float(np.quantile(self.regrets, 0.95)):.2f})"
        return (
            f"{self.rule:17} kept {self.kept_count:3}/{self.feasible_count:3} = {share(self):5.1f} % "
            f"({low * 100:.1f} to {high * 100:.1f})  downtime {middle(self.downtimes_s) * 1000:6.1f} ms, mean "
            f"{mean(self.downtimes_s) * 1000:6.1f}  regret {regret:16} beyond {middle(self.beyond_s):5.2f} s, mean "
            f"{mean(self.beyond_s):5.2f}  sent {self.sent_ratio:.2f}"
        )


def row(rule: str, samples: Sequence[Contest]) -> Row:
    """How one rule did."""
    feasible = [one for one in samples if CLAIRVOYANT in one.ended]
    pairs = [(one.ended[rule], one.ended[CLAIRVOYANT]) for one in feasible]
    moved = [ended for ended, _ in pairs if ended.completed and ended.downtime_s is not None]
    sent = [one.ended[rule].sent_bytes / one.memory_bytes for one in samples if rule in one.ended]
    return Row(
        rule=rule,
        feasible_count=len(pairs),
        kept_count=sum(ended.kept for ended, _ in pairs),
        regrets=tuple((ended.downtime_s or 0) / (best.downtime_s or 1) for ended, best in pairs if ended.kept),
        beyond_s=tuple(ended.beyond_s or 0.0 for ended in moved),
        downtimes_s=tuple(ended.downtime_s or 0.0 for ended in moved),
        sent_ratio=mean(sent),
    )


def share(one: Row) -> float:
    """What of the feasible it moved as asked, in percent."""
    return 100 * one.kept_count / max(one.feasible_count, 1)


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not total:
        return 0.0, 1.0
    z, portion = WILSON_DEVIATIONS, count / total
    centre = (portion + z * z / (2 * total)) / (1 + z * z / total)
    half = z * ((portion * (1 - portion) + z * z / (4 * total)) / total) ** 0.5 / (1 + z * z / total)
    return max(0.0, centre - half), min(1.0, centre + half)


def middle(values: Sequence[float]) -> float:
    """The median, or 0."""
    return float(median(values)) if values else 0.0


def better_in_both(samples: Sequence[Contest]) -> list[str]:
    """Where a rival is better than both of livemig's preferences at once, in mean time and mean downtime of a class.

    Over the guests that both moved; a rule that moves only the easy ones is no better.
    """
    found = []
    for kind in CLASSES:
        of_kind = [one for one in samples if one.kind == kind and CLAIRVOYANT in one.ended]
        for name in RIVALS:
            beaten = 0
            for ours in OURS:
                both = [one.ended for one in of_kind if one.ended[name].completed and one.ended[ours].completed]
                if not both:
                    continue
                theirs = [(ended[name].total_s, ended[name].downtime_s or 0.0) for ended in both]
                own = [(ended[ours].total_s, ended[ours].downtime_s or 0.0) for ended in both]
                beaten += all(
                    mean(column) < mean(other) for column, other in zip(_columns(theirs), _columns(own), strict=True)
                )
            if beaten == len(OURS):
                found.append(f"{name} on {kind}")
    return found


def _columns(pairs: Iterable[tuple[float, float]]) -> list[tuple[float, ...]]:
    return list(zip(*pairs, strict=True))


def best_rival(samples: Sequence[Contest]) -> str:
    """The rival that moves most of the feasible as asked; of equals, the one with the least mean downtime."""
    return max(RIVALS, key=lambda name: (row(name, samples).kept_count, -mean(row(name, samples).downtimes_s)))


def _conclude(samples: list[Contest]) -> Conclusion:
    rows = {name: row(name, samples) for name in (*OURS, *RIVALS, CLAIRVOYANT)}
    regret = Figure.of("regret_ratio", "livemig downtime over the clairvoyant's", rows["livemig downtime"].regrets)
    violations = [100.0 - share(rows[name]) for name in OURS]
    lost = Figure.of("violations_percent", "feasible guests that livemig did not move as asked", [max(violations)])
    best = best_rival(samples)
    beside, widest = (Against.of(samples, best, average) for average in (geometric_mean, mean))
    winners = better_in_both(samples)
    notes = list(NOTES)
    notes += [rows[name].line for name in rows]
    for kind in CLASSES:
        of_kind = [one for one in samples if one.kind == kind]
        notes += [f"{kind}: {row(name, of_kind).line}" for name in (*OURS, best, "qemu", "kubevirt-ramp")]
    notes.append(f"better than livemig in both time and downtime: {', '.join(winners) or 'none, on no class'}")
    for name in RIVALS:
        for label, average in (("geometric", geometric_mean), ("arithmetic", mean)):
            notes.append(f"livemig against {name}, {label} means: {Against.of(samples, name, average).words}")
    notes += [edge_words(name, samples) for name in OURS]
    notes.append(_hopeless_words(samples))
    if any(INFORMED in one.ended for one in samples):
        notes.append(informed_words(samples))
    return Conclusion(
        figures=present(regret, lost),
        totals=(
            Total("guest_count", "guests", len(samples)),
            Total("feasible_count", "of them feasible", rows["livemig downtime"].feasible_count),
            Total("winners_count", "rivals better in both on a class", len(winners)),
            Total(
                "time_saved_percent",
                f"less time beyond than {best} at equal geometric mean downtime",
                beside.time_saved_percent,
            ),
            Total(
                "downtime_saved_percent",
                f"less geometric mean downtime than {best} in equal time",
                beside.downtime_saved_percent,
            ),
            Total(
                "time_saved_arithmetic_percent", "the same at equal arithmetic mean downtime", widest.time_saved_percent
            ),
            Total(
                "downtime_saved_arithmetic_percent", "the same of the arithmetic mean", widest.downtime_saved_percent
            ),
        ),
        targets=(
            *Target.of(regret, "median", REGRET_MEDIAN_LIMIT),
            *Target.of(regret, "p95", REGRET_P95_LIMIT),
            *Target.of(lost, "maximum", VIOLATIONS_LIMIT_PERCENT),
        ),
        notes=tuple(notes),
        samples=tuple(samples),
    )


def edge_words(name: str, samples: Sequence[Contest]) -> str:
    """How many of the missed had no downtime in reach but in the fixed part that is kept free of the limit."""
    missed = [one for one in samples if CLAIRVOYANT in one.ended and not one.ended[name].kept]
    edge_count = sum(
        (one.ended[CLAIRVOYANT].downtime_s or 0.0) > one.limit_s - FIXED_DOWNTIME_PRIOR_S for one in missed
    )
    over_count = sum(one.ended[name].completed and (one.ended[name].downtime_s or 0.0) > one.limit_s for one in missed)
    return (
        f"{name}: {len(missed)} feasible guests not moved as asked, {over_count} of them beyond the limit; with "
        f"{edge_count} nothing came below the limit less the {FIXED_DOWNTIME_PRIOR_S * 1000:.0f} ms of the fixed part"
    )


def informed_words(samples: Sequence[Contest]) -> str:
    """How near a rule comes that knows all but what comes, standing in for livemig's wherever that is the better."""
    feasible = [one.ended for one in samples if CLAIRVOYANT in one.ended]
    missed = [ended for ended in feasible if not ended[OURS[1]].kept]
    moved_count = sum(INFORMED in ended and ended[INFORMED].kept for ended in missed)
    pairs = [
        (_regret(ended, OURS[1]), _regret(ended, INFORMED) if INFORMED in ended else None)
        for ended in feasible
        if ended[OURS[1]].kept
    ]
    asked = [regret for _, regret in pairs if regret is not None]
    near_count = sum(regret <= NEAR_RATIO for regret in asked)
    regrets = np.array([ours if other is None else min(ours, other) for ours, other in pairs])
    return (
        f"a rule that knows guest and link, but not what comes after the first copy: of {len(asked)} guests with a "
        f"regret above {NEAR_RATIO:.1f} it brings {near_count} below; with it wherever it is the better, regret p95 "
        f"{float(np.quantile(regrets, 0.95)):.2f}, and {100 * float(np.mean(regrets <= NEAR_RATIO)):.1f} % within "
        f"{NEAR_RATIO:.1f}; of {len(missed)} that {OURS[1]} missed it moves {moved_count} as asked"
    )


def _regret(ended: Mapping[str, Ended], name: str) -> float:
    """The downtime over the clairvoyant's; infinite where the guest was not moved as asked."""
    one, best = ended[name], ended[CLAIRVOYANT]
    return (one.downtime_s or 0.0) / (best.downtime_s or 1.0) if one.kept else inf


def _hopeless_words(samples: Sequence[Contest]) -> str:
    """How many of those that nobody could move were told so early, and how many of those that somebody could."""
    told = [one for one in samples if _given_up(one)]
    feasible_count = sum(CLAIRVOYANT in one.ended for one in samples)
    wrong_count = sum(CLAIRVOYANT in one.ended for one in told)
    return (
        f"told that there is no hope, well before the deadline: {len(told) - wrong_count} of "
        f"{len(samples) - feasible_count} that nothing could move, and wrongly {wrong_count} of {feasible_count} others"
    )


def _given_up(sample: Contest) -> bool:
    ended = sample.ended[OURS[0]]
    return not ended.completed and ended.total_s < sample.deadline_s - GIVEN_UP_S
