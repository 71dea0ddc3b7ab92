"""What migrations taught is kept, bounded, and never worth a failed run."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from livemig.core.past import PastMigration
from livemig.engine.history import FILE_BYTES_MOST, RECORDS_MOST, History, guest_key, hosts_key, state_folder


def record(guest: str = "guest", hosts: str = "here to there", number: int = 0) -> PastMigration:
    """A migration that sent so many bytes."""
    return PastMigration(
        guest=guest,
        hosts=hosts,
        ended_at="2026-01-01T00:00:00+00:00",
        completed=True,
        memory_bytes=1,
        bandwidth_bytes_s=None,
        downtime_limit_s=0.3,
        sent_bytes=number,
    )


def test_own_first_then_the_way_newest_first(tmp_path):
    """Others on other ways are nobody's business."""
    history = History(tmp_path)
    for number, (guest, hosts) in enumerate([("a", "x"), ("b", "x"), ("c", "y"), ("a", "y"), ("b", "x")]):
        assert history.append(record(guest, hosts, number)) == ()
    found, notes = history.matching("a", "x")
    assert notes == ()
    assert [one.sent_bytes for one in found] == [3, 0, 4, 1]


def test_nothing_is_known_at_first(tmp_path):
    """And asking makes no file."""
    assert History(tmp_path / "new").matching("a", "x") == ((), ())
    assert list(tmp_path.iterdir()) == []


def test_it_is_bounded(tmp_path):
    """The oldest go."""
    history = History(tmp_path)
    for number in range(RECORDS_MOST + 5):
        history.append(record(number=number))
    found, _ = history.matching("guest", "")
    assert found[0].sent_bytes == RECORDS_MOST + 4
    lines = (tmp_path / "history.jsonl").read_bytes().splitlines()
    assert len(lines) == RECORDS_MOST + 1


@pytest.mark.parametrize(
    "content", [b"\x00\xff\n", b"{}\n", b'{"livemig_history":99}\n{}\n', b'{"livemig_history":1}\nnot json\n']
)
def test_what_can_not_be_read_is_said_and_begun_anew(tmp_path, content):
    """Damaged, or of another version: a note, and the next record is kept."""
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    history = History(tmp_path)
    found, notes = history.matching("guest", "")
    assert found == ()
    assert len(notes) == 1
    history.append(record(number=7))
    found, notes = history.matching("guest", "")
    assert [one.sent_bytes for one in found] == [7]
    assert notes == ()


def test_one_that_is_far_too_large_is_set_aside(tmp_path):
    """No livemig wrote that: it is not read whole, and the next record begins a new one."""
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"livemig_history":1}\n' + b" " * (2 * FILE_BYTES_MOST))
    history = History(tmp_path)
    found, (note,) = history.matching("guest", "")
    assert found == ()
    assert "too large" in note
    assert history.append(record(number=7)) == (note,)
    assert [one.sent_bytes for one in history.matching("guest", "")[0]] == [7]
    assert (tmp_path / "history.jsonl.bad").stat().st_size > 2 * FILE_BYTES_MOST


def test_one_that_can_not_be_read_or_written_is_a_note(tmp_path):
    """Such as a folder in its place: a note each, and nothing is raised."""
    (tmp_path / "history.jsonl").mkdir()
    history = History(tmp_path)
    found, (note,) = history.matching("guest", "")
    assert found == ()
    assert "can't be read" in note
    (note,) = history.append(record())
    assert "could not be kept" in note


def test_a_folder_that_can_not_be_made_is_a_note(tmp_path):
    """The run goes on."""
    (tmp_path / "file").write_text("")
    (note,) = History(tmp_path / "file" / "below").append(record())
    assert "could not be kept" in note or "can't" in note


def _append(folder: Path, first: int) -> None:
    for number in range(first, first + 20):
        History(folder).append(record(number=number))


def test_two_at_once_lose_nothing(tmp_path):
    """Each record of each process is there."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_append, args=(tmp_path, first)) for first in (0, 100)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = (tmp_path / "history.jsonl").read_bytes().splitlines()
    assert len(lines) == 41


def test_names(monkeypatch, tmp_path):
    """A guest is known by its UUID, or by what it is; the state folder is where XDG says."""
    assert guest_key("1234", "vm", 1) == "1234"
    assert guest_key("00000000-0000-0000-0000-000000000000", "vm", 1) == guest_key("", "vm", 1)
    assert hosts_key("a", "1", "b", "2") != hosts_key("b", "2", "a", "1")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "livemig"
