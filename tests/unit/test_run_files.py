"""Who drives a run: one process at a time, as long as it lives, and nobody after that."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from livemig.core.errors import ControlError, JournalError
from livemig.engine.run_files import BEGINNING_S, RunFiles, is_driven, is_id, remove_dead, runs_folder

HOLD = """
from livemig.engine.run_files import RunFiles
files = RunFiles.hold("a1", reserve=True)
print("held", flush=True)
input()
"""


def test_held_by_one(own_state: Path) -> None:
    """The second one is refused; once let go, nothing is left."""
    files = RunFiles.hold("a1", reserve=True)
    assert is_driven("a1")
    assert (runs_folder() / "a1.lock").stat().st_blocks > 0
    with pytest.raises(ControlError, match="a1"):
        RunFiles.hold("a1", reserve=False)
    files.close()
    files.close()
    assert not is_driven("a1")
    assert list(runs_folder().iterdir()) == []
    assert runs_folder().stat().st_mode & 0o777 == 0o700


def test_killed(own_state: Path) -> None:
    """A process that is killed drives nothing any more, whatever files it leaves."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    assert is_driven("a1")
    process.kill()
    process.communicate()
    assert not is_driven("a1")
    files = RunFiles.hold("a1", reserve=False)
    assert is_driven("a1")
    files.close()


def test_files_of_runs_that_are_over_go(own_state: Path) -> None:
    """Not those of a run that is driven, that was cut off, or that begins just now."""
    driven = RunFiles.hold("a1", reserve=False)
    for name, age_s in (("a2", 0), ("a3", 0), ("a4", 0), ("a5", 2 * BEGINNING_S)):
        path = runs_folder() / f"{name}.lock"
        path.touch()
        (runs_folder() / f"{name}.sock").touch()
        os.utime(path, (time.time() - age_s,) * 2)

    remove_dead({"a1": True, "a2": True, "a3": False}.get)

    assert sorted(path.stem for path in runs_folder().glob("*.lock")) == ["a1", "a3", "a4"]
    assert sorted(path.stem for path in runs_folder().glob("*.sock")) == ["a3", "a4"]
    driven.close()


def test_without_room_nothing_is_left(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock that was made is gone again, and so is the descriptor."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(JournalError, match="No space left on device"):
        RunFiles.hold("a1", reserve=True)
    assert list(runs_folder().iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_space_is_given_back(own_state: Path) -> None:
    """Once."""
    files = RunFiles.hold("a1", reserve=True)
    assert files.free_space()
    assert not files.free_space()
    files.close()


def test_nowhere_to_make_them(own_state: Path) -> None:
    """One line with the remedy."""
    runs_folder().parent.mkdir(parents=True)
    runs_folder().write_text("")
    with pytest.raises(JournalError, match="XDG_STATE_HOME"):
        RunFiles.hold("a1", reserve=True)


@pytest.mark.parametrize(
    ("text", "good"), [("88652e38", True), ("", False), ("../x", False), ("a/b", False), ("-a", False)]
)
def test_ids(text: str, good: bool) -> None:
    """An id names a file, so it can't be anything."""
    assert is_id(text) is good
