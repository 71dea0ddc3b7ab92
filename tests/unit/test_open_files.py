"""Whether two processes mean one file: by what they have open, not by what they call it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from livemig.hosts import open_files
from livemig.hosts.open_files import image_keys

Opened = Callable[..., int]


def is_same_file(pid: int, path: str, other_pid: int, other_path: str) -> bool | None:
    """What the engine asks, of two processes of this machine."""
    mine, other = image_keys(pid, [path]), image_keys(other_pid, [other_path])
    return open_files.is_same_file(mine[path], other[other_path])


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Starts processes that have a file open, in a folder of their own."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(path: Path | str, folder: Path) -> int:
        program = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-I", "-S", "-c", program, str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder)
        assert process.stdout is not None
        process.stdout.readline()
        processes.append(process)
        return process.pid

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders, each with a file of the same name."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "disk").write_text(name)
    return tmp_path / "one", tmp_path / "two"


def test_links_lead_to_one_file(opened: Opened, folders: tuple[Path, Path]) -> None:
    one, two = folders
    (two / "soft").symlink_to(one / "disk")
    (two / "hard").hardlink_to(one / "disk")
    first = opened("disk", one)
    for name in ("soft", "hard"):
        second = opened(name, two)
        assert is_same_file(first, "disk", second, name) is True
        assert is_same_file(first, str(one / "disk"), second, str(two / name)) is True


def test_one_name_in_two_folders_is_two_files(opened: Opened, folders: tuple[Path, Path]) -> None:
    one, two = folders
    assert is_same_file(opened("disk", one), "disk", opened("disk", two), "disk") is False
    assert is_same_file(opened("disk", one), "disk", opened("disk", one), "disk") is True


def test_what_a_process_has_open_counts_not_what_took_its_name(opened: Opened, folders: tuple[Path, Path]) -> None:
    """A file that was replaced while it was open: its name leads to another now."""
    one, two = folders
    first = opened(one / "disk", one)
    (one / "disk").rename(one / "old")
    (one / "disk").write_text("another")
    second = opened(one / "disk", two)
    assert is_same_file(first, str(one / "disk"), second, str(one / "disk")) is False
    assert is_same_file(first, str(one / "disk"), second, str(one / "old")) is True


def test_what_can_not_be_seen_is_unknown(
    opened: Opened, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = folders
    first, second = opened("disk", one), opened("disk", two)
    for name in ("", "nowhere", "nbd://host/x", "json:{}", "a\0b"):
        assert is_same_file(first, "disk", second, name) is None
    assert is_same_file(first, "disk", 2**30, "disk") is None
    monkeypatch.setattr(open_files, "_keys_held", lambda _: None)
    assert is_same_file(first, "nowhere", second, "disk") is None
    assert is_same_file(first, "disk", second, str(one / "disk")) is True
    assert is_same_file(first, "disk", second, "disk") is False
