"""Visits every world of the two QEMUs, and checks that each way ends.

``python -m tests.unit.exploration 2`` does so with two faults.
"""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass

from tests.unit.two_qemus import Model
from tests.unit.two_qemus_world import Broken, World


@dataclass
class Explored:
    """What came of looking everywhere.

    Attributes:
        state_count: Worlds reached.
        longest: Most engine steps from any world to the end, once faults have stopped.
        ends: The verdicts that were settled, by rule.
    """

    state_count: int
    longest: int
    ends: frozenset[str]


def explore(model: Model, *, faults: int = 1, begin: World | None = None, most: int = 5_000_000) -> Explored:
    """Goes everywhere, and checks that each way ends.

    Args:
        model: The two QEMUs and the table.
        faults: How many faults may strike.
        begin: Where to begin; in pre-copy unless told otherwise.
        most: A bound on the worlds visited.

    Raises:
        Broken: With the way that led there.
    """
    start = model.start(faults) if begin is None else begin._replace(faults_left=faults)
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    calm: dict[World, list[World]] = {}
    queue = deque([start])
    while queue:
        now = queue.popleft()
        followers: list[World] = []
        try:
            for strikes, changes in ((False, model.engine), (False, model.moves), (True, model.faults)):
                for label, after in changes(now):
                    if not strikes and label != "observe":
                        followers.append(after)
                    if after not in came_from:
                        came_from[after] = (now, label)
                        queue.append(after)
        except Broken as broken:
            raise Broken(f"{broken}\n{_way(came_from, now)}") from None
        calm[now] = followers
        if len(came_from) > most:
            raise AssertionError(f"more than {most} worlds")
    ends = frozenset(now.verdict.rule for now in came_from if now.verdict is not None)
    return Explored(state_count=len(came_from), longest=_longest(calm), ends=ends)


def _way(came_from: dict[World, tuple[World, str] | None], now: World) -> str:
    labels: list[str] = []
    step = came_from[now]
    while step is not None:
        now, label = step
        labels.append(label)
        step = came_from[now]
    return " > ".join(reversed(labels))


def _longest(calm: dict[World, list[World]]) -> int:
    """The longest way without faults.

    Raises:
        Broken: When one goes round and never ends, or ends unsettled.
    """
    lengths: dict[World, int] = {}
    entered: set[World] = set()
    for root in calm:
        stack = [root]
        while stack:
            now = stack[-1]
            if now in lengths:
                stack.pop()
                continue
            if now not in entered:
                entered.add(now)
                if not calm[now] and now.at != "settled":
                    raise Broken(f"stands still at {now}")
                for after in calm[now]:
                    if after not in lengths:
                        if after in entered:
                            raise Broken(f"goes round for ever at {after}")
                        stack.append(after)
                continue
            lengths[now] = 1 + max((lengths[after] for after in calm[now]), default=0)
            stack.pop()
    return max(lengths.values())


def main() -> None:
    """Explores with as many faults as asked for; with two, losing a guest is not held against the table."""
    fault_count = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    for live in (True, False):
        explored = explore(Model(live=live, losses=fault_count < 2), faults=fault_count)
        guest = "running" if live else "paused"
        print(f"{guest} guest: {explored.state_count} worlds, at most {explored.longest} steps to the end")


if __name__ == "__main__":
    main()
