"""``python -m tests.faults``: trials by their seeds, one after the other, with a line for each.

``--seed N`` plays one again. With ``--record`` what came of each goes to the cumulative file of results.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.faults.oracle import Wrong, judge
from tests.faults.scenario import Scenario, draw
from tests.faults.trial import Trial

RESULTS = Path(__file__).with_name("results.tsv")
TRIAL_BOUND_S = 240.0


@dataclass(frozen=True)
class Result:
    """What came of a trial.

    Attributes:
        scenario: The trial.
        struck: What went wrong in truth.
        end: How it ended, in a word or some.
        wrong: What was not as it must be, or empty.
        gap_s: The longest silence of the guest.
        recovery_s: How long the longest `recover` took.
    """

    scenario: Scenario
    struck: tuple[str, ...]
    end: str
    wrong: str
    gap_s: float
    recovery_s: float

    @property
    def line(self) -> str:
        """One line of the file of results."""
        what = self.wrong.splitlines()[0][:200] if self.wrong else ""
        return "\t".join(
            (
                str(self.scenario.seed),
                "WRONG" if self.wrong else "good",
                self.end,
                str(self.scenario),
                f"{self.gap_s:.2f}",
                f"{self.recovery_s:.2f}",
                what,
            )
        )


def result_of(seed: int) -> Result:
    """Plays one trial in an event loop of its own."""
    if sys.version_info >= (3, 12):
        return asyncio.run(_play(seed))
    # Python 3.11 keeps its waiting threads by pid, and stumbles where a pid comes again at once, as it does here.
    before = asyncio.get_child_watcher()
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    try:
        return asyncio.run(_play(seed))
    finally:
        asyncio.set_child_watcher(before)


async def _play(seed: int) -> Result:
    """Plays it; raises nothing that is wrong with livemig, it is in the result."""
    with tempfile.TemporaryDirectory(prefix="lf-", ignore_cleanup_errors=True) as folder:
        trial = Trial(draw(seed), Path(folder))
        end, wrong = "", ""
        try:
            async with asyncio.timeout(TRIAL_BOUND_S):
                await trial.play()
                end = await judge(trial)
        except Wrong as error:
            wrong = str(error)
        except Exception:  # noqa: BLE001  # what breaks a trial is a result, too
            wrong = traceback.format_exc(limit=-3).strip().replace("\n", " | ")
        finally:
            await trial.close()
        gap = trial.pair.heartbeat.longest_gap
        return Result(
            scenario=trial.scenario,
            struck=tuple(trial.struck),
            end=end,
            wrong=wrong,
            gap_s=0.0 if gap is None else gap.duration_s,
            recovery_s=max((one.duration_s for one in trial.recoveries), default=0.0),
        )


def main() -> None:
    """Plays trials; exits with 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=20, help="how many, with seeds at random")
    parser.add_argument("--seed", type=int, action="append", help="play this one; can be repeated")
    parser.add_argument("--from-seed", type=int, help="play seeds from this one on")
    parser.add_argument("--record", action="store_true", help=f"add what came of them to {RESULTS.name}")
    asked = parser.parse_args()
    if asked.seed:
        seeds = asked.seed
    elif asked.from_seed is not None:
        seeds = range(asked.from_seed, asked.from_seed + asked.count)
    else:
        seeds = [random.SystemRandom().randrange(10**6, 10**9) for _ in range(asked.count)]
    wrong_count, began_s = 0, time.monotonic()
    for seed in seeds:
        result = result_of(seed)
        print(result.line, flush=True)
        if result.wrong:
            wrong_count += 1
            print(f"    struck: {'; '.join(result.struck)}\n    {result.wrong}", flush=True)
        if asked.record:
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(result.line + "\n")
    print(f"{len(seeds)} trials in {time.monotonic() - began_s:.0f} s, {wrong_count} wrong", flush=True)
    sys.exit(1 if wrong_count else 0)
