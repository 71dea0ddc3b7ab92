"""What a test launches is gone after it, also when the test run itself was killed; nobody else's is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.launch.leftovers import end_stale, own_folder, processes_in


def sleeping_in(folder: Path) -> subprocess.Popen[bytes]:
    """A process that names a folder in its command line, which it does a moment after it was begun."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", f"{folder}/a.qmp"])
    for _ in range(500):
        if str(folder) in Path(f"/proc/{process.pid}/cmdline").read_text():
            break
        time.sleep(0.01)
    return process


def test_what_runs_in_a_folder_ends_with_it() -> None:
    with own_folder() as folder, own_folder() as other:
        mine, others = sleeping_in(folder), sleeping_in(other)
        assert processes_in(folder) == [mine.pid]
        kept = folder
    assert mine.wait(5) == -9
    assert others.wait(5) == -9
    assert not kept.exists()


def test_what_a_killed_run_left_is_ended(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale = tmp_path / f"launch-{gone.pid}-12345-abc"
    stale.mkdir()
    with own_folder() as current:
        alive = tmp_path / current.name
        alive.mkdir()
        left, running = sleeping_in(stale), sleeping_in(alive)
        assert end_stale(tmp_path) == [stale]
        assert left.wait(5) == -9
        assert running.poll() is None
        running.kill()
        running.wait()
    assert not stale.exists()
    assert alive.exists()
    assert processes_in(Path(f"/tmp/launch-{os.getpid()}-none")) == []
