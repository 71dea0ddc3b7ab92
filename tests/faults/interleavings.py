"""``python -m tests.faults.interleavings N``: N random ways through the model of two QEMUs, up to four faults each.

`tests.unit.exploration` goes everywhere with one fault, and with two; here more strike, engines die again and again,
and a person has recovery run twice. What must never be raises `Broken`, with the seed of the way.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import time
from collections import Counter

from tests.unit.two_qemus import Change, Model
from tests.unit.two_qemus_world import Broken, World

FAULTS_MOST = 4
WILD_STEPS_MOST = 400
CALM_STEPS_MOST = 600
BATCH = 2000
KEPT_MOST = 150_000

Changes = tuple[list[Change], list[Change], list[Change]]
_MODELS: dict[tuple[bool, bool, bool, bool], Model] = {}
_KEPT: dict[int, dict[World, Changes]] = {}


def walk(seed: int) -> str:
    """Goes one way to its end; returns the rule that settled it.

    Raises:
        Broken: When something happened that must never, or it does not end.
    """
    chance = random.Random(seed)
    faults = chance.randint(0, FAULTS_MOST)
    kind = (chance.random() < 0.85, chance.random() < 0.5, chance.random() < 0.5, faults < 2)
    if kind not in _MODELS:
        live, powers_off, torn, losses = kind
        _MODELS[kind] = Model(live=live, powers_off=powers_off, torn=torn, losses=losses)
    model = _MODELS[kind]
    now, labels = model.start(faults), list[str]()
    try:
        for step in range(WILD_STEPS_MOST + CALM_STEPS_MOST):
            label, after = _next(model, now, chance, calm=step >= WILD_STEPS_MOST)
            if after is None:
                break
            now = after
            labels.append(label)
        else:
            raise Broken("it does not end")
        if now.verdict is None:
            raise Broken("it stands still unsettled")
    except Broken as broken:
        raise Broken(f"seed {seed}: {broken}\n{' > '.join(labels)}") from None
    return now.verdict.rule


def _next(model: Model, now: World, chance: random.Random, *, calm: bool) -> tuple[str, World | None]:
    """Draws what happens next; nothing once all is settled."""
    engine, moves, faults = _changes(model, now)
    if calm:  # what changes nothing is left out: observing ends some day
        engine, faults = [change for change in engine if change[0] != "observe"], []
    if now.at == "settled" and (not engine or chance.random() < 0.3):
        return "", None
    weights = (4.0 * bool(engine), 2.0 * bool(moves), 0.5 * bool(faults))
    drawn = chance.random() * sum(weights)
    changes = engine if drawn < weights[0] else moves if drawn < weights[0] + weights[1] else faults
    return changes[int(chance.random() * len(changes))] if changes else ("", None)


def _changes(model: Model, now: World) -> Changes:
    """All that may happen next, kept: most ways begin alike."""
    kept = _KEPT.setdefault(id(model), {})
    found = kept.get(now)
    if found is None:
        found = (list(model.engine(now)), list(model.moves(now)), list(model.faults(now)))
        if len(kept) < KEPT_MOST:
            kept[now] = found
    return found


def play(first: int) -> Counter[str]:
    """Goes a batch of ways; returns how often each rule settled one."""
    return Counter(walk(seed) for seed in range(first, first + BATCH))


def main() -> None:
    """Goes N ways on all processors."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.interleavings", description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--from-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    began_s = time.monotonic()
    ends: Counter[str] = Counter()
    firsts = range(asked.from_seed, asked.from_seed + asked.count, BATCH)
    with multiprocessing.Pool(asked.processes) as pool:
        for found in pool.imap_unordered(play, firsts):
            ends += found
    for rule, count in ends.most_common():
        print(f"{count:9}  {rule}")
    print(f"{ends.total()} ways in {time.monotonic() - began_s:.0f} s, nothing broken")


if __name__ == "__main__":
    main()
