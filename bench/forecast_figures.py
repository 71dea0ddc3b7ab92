"""What ``python -m bench forecast`` makes of its runs: errors, coverage, and whether it was told who converges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, sqrt
from statistics import median

from bench.forecast_runs import Run
from bench.result import Conclusion, Figure, Total, present
from livemig.core.prediction import Forecast, Interval

Z_95 = 1.96
GOOD_DOWNTIME_S, GOOD_DOWNTIME_PERCENT = 0.005, 5.0
BAD_PERCENT = 25.0
"""So far off, or wrong about converging, a forecast counts as bad (Gudkov, qemu-devel, 2023)."""


def conclude(samples: list[Run]) -> Conclusion:
    """Sums the runs up; those whose guest missed its rate are counted and left out."""
    runs = [run for run in samples if not run.missed_rate]
    done = [run for run in runs if run.completed]
    figures = []
    for at in ("start", "round 1", "commit"):
        for name, label in (("total_s", "time"), ("downtime_s", "downtime"), ("sent_bytes", "bytes")):
            errors = [error for run in done if (error := _error_percent(run, at, name)) is not None]
            figures.append(Figure.of(f"{at.replace(' ', '_')}_{name}_error_percent", f"{label}, at {at}", errors))
    downtimes = [one for run in done if (one := _figure(run, "commit", "downtime_s")) is not None]
    misses_s = [abs(interval[1] - actual) for interval, actual in downtimes]
    figures.append(Figure.of("commit_downtime_error_s", "downtime, at commit, in time", misses_s))
    starts = [(run, found) for run in runs if (found := _at(run, "start")) is not None]
    wrong = [run for run, found in starts if (found.converges >= 0.5) != run.completed]
    far = [*_far(run for run, _ in starts)]
    brier = sum((found.converges - run.completed) ** 2 for run, found in starts) / max(len(starts), 1)
    return Conclusion(
        figures=present(*figures),
        totals=(
            Total("run_count", "runs", len(samples)),
            Total("missed_rate_count", "  whose guest missed its rate, left out", len(samples) - len(runs)),
            Total("near_critical_count", "  near-critical", sum(run.near_critical for run in runs)),
            Total("completed_count", "  that moved", len(done)),
            Total("wrong_count", "wrong about converging, before the start", len(wrong)),
        ),
        notes=(
            *_percentiles(done),
            _downtime_hits(done),
            _bad(starts),
            f"wrong about converging, all: {_wilson(len(wrong), len(starts))}",
            f"wrong about converging, near-critical apart: {_wilson(len([*_far(wrong)]), len(far))}",
            f"Brier score of converging, before the start: {brier:.4f}",
            *_coverages(done),
            *_by_kind(done),
            *_scatter(done),
            f"load as a move began: median {median(run.load for run in samples):.1f}, most {_most_load(samples):.1f}",
            f"kinds wrong: {', '.join(f'{run.kind} ({run.number})' for run in wrong) or 'none'}",
        ),
        samples=tuple(samples),
    )


def _most_load(samples: Sequence[Run]) -> float:
    return max(run.load for run in samples)


def _percentiles(done: Sequence[Run]) -> Iterable[str]:
    """The quartiles and the p90, of all and of those that are not near-critical."""
    for label, some in (("", done), (", near-critical apart", [*_far(done)])):
        for at in ("start", "round 1", "commit"):
            parts = []
            for name, what in (("total_s", "time"), ("sent_bytes", "bytes"), ("downtime_s", "downtime")):
                errors = sorted(error for run in some if (error := _error_percent(run, at, name)) is not None)
                if errors:
                    shown = " / ".join(f"{_percentile(errors, percent):.1f}" for percent in (25, 50, 75, 90))
                    parts.append(f"{what} {shown} %")
            yield f"quartiles and p90 of the error at {at}{label}: {'; '.join(parts) or 'none'}"


def _percentile(ordered: Sequence[float], percent: float) -> float:
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def _downtime_hits(done: Sequence[Run]) -> str:
    found = [one for run in done if (one := _figure(run, "commit", "downtime_s")) is not None]
    hits = sum(
        abs(interval[1] - actual) <= max(GOOD_DOWNTIME_S, GOOD_DOWNTIME_PERCENT / 100 * actual)
        for interval, actual in found
    )
    return f"downtime at the commit right within 5 ms or 5 %: {_wilson(hits, len(found))}"


def _bad(starts: Sequence[tuple[Run, Forecast]]) -> str:
    bad = 0
    for run, found in starts:
        error = _error_percent(run, "start", "total_s") if run.completed else None
        bad += (found.converges >= 0.5) != run.completed or (error is not None and error >= BAD_PERCENT)
    return f"bad before the start, 25 % off in time or wrong about converging: {_wilson(bad, len(starts))}"


def _by_kind(done: Sequence[Run]) -> Iterable[str]:
    for kind in dict.fromkeys(run.kind for run in done):
        some = [run for run in done if run.kind == kind]
        errors = [error for run in some if (error := _error_percent(run, "start", "total_s")) is not None]
        held = [one for run in some if (one := _figure(run, "start", "total_s")) is not None]
        inside = sum(interval[0] <= actual <= interval[2] for interval, actual in held)
        if errors:
            yield f"{kind}: {len(some)} moved, time at start {median(errors):.1f} % off, {inside} inside"


def _scatter(done: Sequence[Run]) -> Iterable[str]:
    """How far runs of one case are from their median: what no forecast can do better, not even one that knew that."""
    cases: dict[int, list[Run]] = {}
    for run in done:
        cases.setdefault(run.case_number, []).append(run)
    again = [runs for runs in cases.values() if len(runs) > 2]
    for label, some in (("", again), (", near-critical apart", [runs for runs in again if not runs[0].near_critical])):
        errors = []
        for runs in some:
            times_s = [run.total_s for run in runs if run.total_s]
            errors += [abs(time_s / median(times_s) - 1) * 100 for time_s in times_s]
        if errors:
            shown = " / ".join(f"{_percentile(sorted(errors), percent):.1f}" for percent in (25, 50, 75, 90))
            yield f"quartiles and p90 of how far {len(some)} cases are from their own median time{label}: {shown} %"


def _far(runs: Iterable[Run]) -> Iterable[Run]:
    return (run for run in runs if not run.near_critical)


def _at(run: Run, at: str) -> Forecast | None:
    return next((one for one in run.forecasts if one.at == at), None)


def _figure(run: Run, at: str, name: str) -> tuple[Interval, float] | None:
    found = _at(run, at)
    interval = None if found is None else getattr(found, name)
    actual = getattr(run, name)
    return None if interval is None or not actual else (interval, float(actual))


def _error_percent(run: Run, at: str, name: str) -> float | None:
    found = _figure(run, at, name)
    return None if found is None else abs(found[0][1] / found[1] - 1) * 100


def _coverages(done: Sequence[Run]) -> Iterable[str]:
    for at in ("start", "round 1", "commit"):
        parts = []
        for name, label in (("total_s", "time"), ("downtime_s", "downtime"), ("sent_bytes", "bytes")):
            found = [one for run in done if (one := _figure(run, at, name)) is not None]
            held = sum(interval[0] <= actual <= interval[2] for interval, actual in found)
            parts.append(f"{label} {_wilson(held, len(found))}")
        yield f"90 % intervals at {at} hold: {'; '.join(parts)}"


def _wilson(hits: int, count: int) -> str:
    """A share with its 95 % interval (Wilson, 1927)."""
    if not count:
        return "0 of 0"
    share, square = hits / count, Z_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = Z_95 * sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return f"{hits} of {count}, {share:.1%} ({max(middle - half, 0):.1%} to {min(middle + half, 1):.1%})"
