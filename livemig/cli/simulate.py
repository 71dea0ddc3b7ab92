"""``livemig simulate``: what a migration would do, simulated page by page. Touches no QEMU."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

import click
import msgspec

from livemig.cli.scenario import read_scenario
from livemig.core.errors import PlanError
from livemig.core.outcome import Outcome
from livemig.core.plan import Plan
from livemig.core.trace import encode_record
from livemig.core.units import format_duration, format_rate, format_size
from livemig.simulation.link import LinkSetting
from livemig.simulation.setting import Costs, Setting
from livemig.simulation.simulate import SimulatedRun, simulate
from livemig.simulation.workloads import PAGE_BYTES, Accelerator, Pattern, SimulatedGuest, Stage, Writes

PATTERNS = ("sweep", "random", "hot", "zipf", "grow", "idle")
"""What ``--pattern`` takes."""
PIECES_MOST = 2**20
"""A guest of more pages than this is simulated in larger pieces: 4 GiB at most page by page."""
COLD_SHARE = 0.1
"""Of ``hot``: the share of its writes that go anywhere in the memory with content."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say of the guest, the link and the QEMUs.

    Attributes:
        pattern: Which of `PATTERNS`.
        memory_bytes: The guest's memory.
        content_bytes: That part of it that is more than zeros; None is three quarters.
        working_set_bytes: The memory that is written to; of ``hot`` and ``grow`` see `guest_of`. None is an eighth.
        dirty_rate_bytes_s: Page writes times 4096, by second.
        burst_period_s: From one burst's begin to the next; 0 is no bursts.
        burst_duty_percent: The burst's share of it.
        variation_percent: How much the rate wavers.
        link_bytes_s: What the link carries.
        link_noise_percent: How much that wavers.
        latency_s: One way.
        fixed_downtime_s: What a switchover takes besides sending pages; None is what a small guest's does.
        accelerator: ``kvm`` or ``tcg``.
        qemu: The version.
        scenario: A file that says all of that instead, or None.
    """

    pattern: str = "random"
    memory_bytes: int = 2**30
    content_bytes: int | None = None
    working_set_bytes: int | None = None
    dirty_rate_bytes_s: float = 100 * 2**20
    burst_period_s: float = 0.0
    burst_duty_percent: float = 50.0
    variation_percent: float = 0.0
    link_bytes_s: float = 1.25e9
    link_noise_percent: float = 0.0
    latency_s: float = 0.0001
    fixed_downtime_s: float | None = None
    accelerator: str = "kvm"
    qemu: str = "10.0"
    scenario: Path | None = None


def run_simulation(*, plan: Plan, asked: Asked, seed: int, count: int, trace_path: Path | None, as_json: bool) -> int:
    """Simulates a migration, with one seed after the other, and prints what comes of it; returns the exit code.

    Raises:
        click.UsageError: When the options make no sense together, or the trace can't be written.
    """
    context = click.get_current_context(silent=True)
    if trace_path is not None and count > 1:
        raise click.UsageError("a trace is of one migration: leave out --count, or --trace", ctx=context)
    try:
        setting = _setting(asked)
    except PlanError as error:
        raise click.UsageError(str(error), ctx=context) from error
    runs = []
    for number in range(seed, seed + count):
        run = simulate(setting, plan, seed=number, keep_trace=trace_path is not None)
        runs.append(run)
        if as_json:
            sys.stdout.write(_line(number, run))
    if trace_path is not None:
        _write_trace(trace_path, runs[0], context)
    sys.stdout.write(_ended_line(runs, seed) if as_json else _text(asked, setting, plan, runs, seed))
    return 0


def asked_of(
    *,
    pattern: str,
    memory: float,
    content: float | None,
    working_set: float | None,
    dirty_rate: float,
    burst_period: float,
    burst_duty: float,
    variation: float,
    link: float,
    link_noise: float,
    latency: float,
    fixed_downtime: float | None,
    accelerator: str,
    qemu: str,
    scenario: Path | None = None,
) -> Asked:
    """Takes the options by their names on the command line."""
    return Asked(
        pattern=pattern,
        memory_bytes=int(memory),
        content_bytes=None if content is None else int(content),
        working_set_bytes=None if working_set is None else int(working_set),
        dirty_rate_bytes_s=dirty_rate,
        burst_period_s=burst_period,
        burst_duty_percent=burst_duty,
        variation_percent=variation,
        link_bytes_s=link,
        link_noise_percent=link_noise,
        latency_s=latency,
        fixed_downtime_s=fixed_downtime,
        accelerator=accelerator,
        qemu=qemu,
        scenario=scenario,
    )


def guest_of(asked: Asked) -> SimulatedGuest:
    """Returns the guest that the options describe.

    ``hot`` sends nine writes of ten to the working set and the others anywhere in the content; ``grow`` begins with the
    working set and grows into the content, at the dirty rate's tenth.

    Raises:
        PlanError: When the options make no sense together.
    """
    memory_bytes = asked.memory_bytes
    page_bytes = PAGE_BYTES
    while memory_bytes // page_bytes > PIECES_MOST:
        page_bytes *= 2
    memory_bytes = _whole(memory_bytes, page_bytes)
    content_bytes = memory_bytes * 3 // 4 if asked.content_bytes is None else asked.content_bytes
    working_set_bytes = memory_bytes // 8 if asked.working_set_bytes is None else asked.working_set_bytes
    content_bytes = _whole(max(content_bytes, working_set_bytes), page_bytes)
    if content_bytes > memory_bytes:
        raise PlanError(f"a guest of {format_size(memory_bytes)} can't hold {format_size(content_bytes)} of content")
    stage = Stage(
        writes=_writes(asked, content_bytes, _whole(working_set_bytes, page_bytes)),
        burst_period_s=asked.burst_period_s,
        burst_duty_percent=asked.burst_duty_percent,
    )
    return SimulatedGuest(
        memory_bytes=memory_bytes,
        content_bytes=content_bytes,
        stages=(stage,),
        accelerator=Accelerator(asked.accelerator),
        page_bytes=page_bytes,
        variation_ratio=asked.variation_percent / 100,
    )


def _writes(asked: Asked, content_bytes: int, working_set_bytes: int) -> tuple[Writes, ...]:
    rate_bytes_s = asked.dirty_rate_bytes_s
    match asked.pattern:
        case "idle":
            return ()
        case "hot":
            return (
                Writes(size_bytes=working_set_bytes, rate_bytes_s=rate_bytes_s * (1 - COLD_SHARE)),
                Writes(size_bytes=content_bytes, rate_bytes_s=rate_bytes_s * COLD_SHARE),
            )
        case "grow":
            growing = Writes(
                size_bytes=working_set_bytes,
                rate_bytes_s=rate_bytes_s,
                growth_bytes_s=rate_bytes_s / 10,
                growth_most_bytes=content_bytes,
            )
            return (growing,)
        case pattern:
            return (Writes(pattern=Pattern(pattern), size_bytes=working_set_bytes, rate_bytes_s=rate_bytes_s),)


def _whole(size_bytes: int, page_bytes: int) -> int:
    return -(-int(size_bytes) // page_bytes) * page_bytes


def _setting(asked: Asked) -> Setting:
    if asked.scenario is not None:
        return read_scenario(asked.scenario)
    link = LinkSetting(
        rate_bytes_s=asked.link_bytes_s, noise_ratio=asked.link_noise_percent / 100, latency_s=asked.latency_s
    )
    costs = Costs()
    if asked.fixed_downtime_s is not None:
        costs = msgspec.structs.replace(costs, device_s=max(0.0, asked.fixed_downtime_s - costs.resume_s))
    return Setting(guest=guest_of(asked), link=link, qemu=asked.qemu, costs=costs)


def _write_trace(path: Path, run: SimulatedRun, context: click.Context | None) -> None:
    try:
        path.write_bytes(b"".join(map(encode_record, run.records)))
    except OSError as error:
        raise click.UsageError(
            f"the trace {path} can't be written: {error.strerror}; name another file", ctx=context
        ) from error


def _line(seed: int, run: SimulatedRun) -> str:
    fields = {name: getattr(run, name) for name in run.__struct_fields__ if name not in ("records", "rounds")}
    return f"{msgspec.json.encode({'event': 'simulated', 'seed': seed, **fields}).decode()}\n"


def _ended_line(runs: Sequence[SimulatedRun], seed: int) -> str:
    fields = {
        "event": "ended",
        "seed": seed,
        "count": len(runs),
        "completed_count": sum(run.outcome is Outcome.COMPLETED for run in runs),
        "median_total_s": _median(run.total_s for run in runs),
        "median_downtime_s": _median(run.downtime_s for run in runs),
        "median_sent_bytes": _median(run.sent_bytes for run in runs),
    }
    return f"{msgspec.json.encode(fields).decode()}\n"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _text(asked: Asked, setting: Setting, plan: Plan, runs: Sequence[SimulatedRun], seed: int) -> str:
    cap = "no cap" if plan.bandwidth_bytes_s is None else f"at most {format_rate(plan.bandwidth_bytes_s)}"
    limit, link = format_duration(plan.downtime_limit_s), format_rate(setting.link.rate_bytes_s)
    counts = [f"{sum(run.outcome is outcome for run in runs)} {outcome}" for outcome in Outcome]
    ends = ", ".join(text for text in counts if not text.startswith("0 "))
    lines = [
        f"simulated: {_guest_words(asked, setting)}",
        f"QEMU {setting.qemu}, {setting.guest.accelerator}, link {link}, {cap}, limit {limit}",
        f"{len(runs)} of seeds {seed} to {seed + len(runs) - 1}: {ends}" if len(runs) > 1 else f"seed {seed}: {ends}",
    ]
    if len(runs) == 1:
        lines.append(f"because: {runs[0].reason}")
    duration: Callable[[float], str] = format_duration
    lines += [
        _row("total time", (run.total_s for run in runs), duration),
        _row("first copy", (run.first_copy_s for run in runs), duration),
        _row("downtime", (run.downtime_s for run in runs), duration),
        _row("sent", (float(run.sent_bytes) for run in runs), format_size),
        _row("rounds", (float(run.round_count) for run in runs), lambda count: f"{count:g}"),
    ]
    return "\n".join(lines) + "\n"


def _guest_words(asked: Asked, setting: Setting) -> str:
    guest = f"a guest of {format_size(setting.guest.memory_bytes)}"
    if asked.scenario is not None:
        return f"{guest}, as {asked.scenario} says"
    if asked.pattern == "idle":
        return f"{guest}, idle"
    working_set_bytes = asked.memory_bytes // 8 if asked.working_set_bytes is None else asked.working_set_bytes
    words = f"{guest} writes to {format_size(working_set_bytes)} at {format_rate(asked.dirty_rate_bytes_s)}"
    words += f" ({asked.pattern})"
    if asked.burst_period_s:
        words += f", {asked.burst_duty_percent:g} % of each {format_duration(asked.burst_period_s)}"
    return words


def _row(label: str, values: Iterable[float | None], words: Callable[[float], str]) -> str:
    known = sorted(value for value in values if value is not None)
    if not known:
        return f"  {label:<12} none"
    middle = words(median(known))
    if len(known) == 1 or known[0] == known[-1]:
        return f"  {label:<12} {middle}"
    return f"  {label:<12} {middle:<12} {words(known[0])} to {words(known[-1])}"
