"""The journal: what is written is there for the next process; what is wrong with it is said before anything else."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

import livemig
from livemig.core.errors import JournalError
from livemig.core.evidence import Continuation, Evidence, Side, SourceEnd
from livemig.core.outcome import Outcome, RunningOn
from livemig.core.status import RunState
from livemig.engine import journal as journal_module
from livemig.engine.identity import own_identity
from livemig.engine.journal import ENDED_KEPT, Journal, file_system_kind
from livemig.engine.run_journal import RunJournal
from livemig.engine.run_record import Ending, RunRecord, SideRecord, Stage


def a_record(run_id: str = "0badcafe", **changes: object) -> RunRecord:
    """A run that has begun."""
    record = RunRecord(
        id=run_id,
        livemig_version="1",
        started_at="2026-01-01T00:00:00",
        plan=livemig.Plan(downtime_limit_s=0.1),
        engine=own_identity(),
        source=SideRecord(address="/a.qmp", parameters={"tls-creds": "", "max-bandwidth": 1}),
        destination=SideRecord(address="/b.qmp"),
    )
    return msgspec.structs.replace(record, **changes)


def an_ending(outcome: Outcome = Outcome.COMPLETED) -> Ending:
    return Ending(
        ended_at="2026-01-01", outcome=outcome, running_on=RunningOn.DESTINATION, guest_state="running", reason="so"
    )


def test_what_was_written_is_there_for_another_process(tmp_path: Path) -> None:
    """Everything, by a reader that opens the file while it is still open to be written."""
    first = Journal.open_to_write(tmp_path)
    record = a_record(stage=Stage.INTENDED, state_before=RunState.PAUSED, destination_condemned=True)
    first.keep(a_record())
    first.keep(record)
    second = Journal.open_to_read(tmp_path)
    assert second is not None
    assert second.record(record.id) == record
    assert second.record("nobody") is None
    assert second.records() == [record]
    assert (tmp_path / "journal.sqlite").stat().st_mode & 0o777 == 0o600
    first.close()
    second.close()


def test_nothing_to_read_makes_nothing(tmp_path: Path) -> None:
    """Looking for runs leaves no file behind."""
    assert Journal.open_to_read(tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_old_runs_are_forgotten_and_unsettled_ones_never(tmp_path: Path) -> None:
    """The file stays small; what may need a person stays."""
    journal = Journal.open_to_write(tmp_path)
    journal.keep(a_record("unsettled", started_at="2000"))
    journal.keep(a_record("unknown", started_at="2001", ending=an_ending(Outcome.UNKNOWN)))
    rows = [(f"r{n:04}", f"2020-{n:04}", 1, b"{}") for n in range(ENDED_KEPT + 7)]
    journal._connection.executemany("INSERT INTO run VALUES (?, ?, ?, ?)", rows)
    journal.close()
    again = Journal.open_to_write(tmp_path)
    ids = [row[0] for row in again._connection.execute("SELECT id FROM run ORDER BY started_at")]
    again.close()
    assert ids[:3] == ["unsettled", "unknown", "r0007"]
    assert len(ids) == ENDED_KEPT + 2


def test_unsettled_runs_alone(tmp_path: Path) -> None:
    """A run that ended in an unknown way is still one to be recovered."""
    journal = Journal.open_to_write(tmp_path)
    journal.keep(a_record("a", started_at="1"))
    journal.keep(a_record("b", started_at="2", ending=an_ending()))
    journal.keep(a_record("c", started_at="3", ending=an_ending(Outcome.UNKNOWN)))
    assert [record.id for record in journal.records(unsettled=True)] == ["a", "c"]
    journal.close()


def refusal(folder: Path) -> str:
    """What is said of a journal that can't be used."""
    with pytest.raises(JournalError) as caught:
        Journal.open_to_write(folder)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be one" * 99, b"SQLite format 3\0" + b"x" * 4000]
)
def test_damaged(tmp_path: Path, content: bytes) -> None:
    """Refused with the file's name and what to do; the file is left as it is."""
    (tmp_path / "journal.sqlite").write_bytes(content)
    (tmp_path / "journal.sqlite").chmod(0o600)
    assert "is damaged" in refusal(tmp_path)
    assert (tmp_path / "journal.sqlite").read_bytes() == content


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    """A page of rubbish within a real journal is found when it is opened."""
    journal = Journal.open_to_write(tmp_path)
    for number in range(40):
        journal.keep(a_record(f"r{number}", started_at=str(number)))
    journal.close()
    path = tmp_path / "journal.sqlite"
    content = bytearray(path.read_bytes())
    content[8192 : 8192 + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    assert "is damaged" in refusal(tmp_path)


def test_record_that_makes_no_sense(tmp_path: Path) -> None:
    """A row that is no record is damage, too."""
    journal = Journal.open_to_write(tmp_path)
    journal._connection.execute("INSERT INTO run VALUES ('x', '1', 0, '{\"id\": 5}')")
    with pytest.raises(JournalError, match="is damaged"):
        journal.record("x")
    journal.close()


def test_newer(tmp_path: Path) -> None:
    """A newer livemig's journal is not touched."""
    Journal.open_to_write(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "newer livemig" in refusal(tmp_path)


def test_may_not_be_written(tmp_path: Path) -> None:
    """A folder that is a file, a disk that is read-only."""
    (tmp_path / "file").write_text("")
    assert "XDG_STATE_HOME" in refusal(tmp_path / "file")
    journal = Journal.open_to_write(tmp_path)
    journal._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(JournalError, match="may not be written"):
        journal.keep(a_record())
    journal.close()


@pytest.mark.parametrize("name", ["", "journal.sqlite"])
def test_others_may_write_it(tmp_path: Path, name: str) -> None:
    """What others may change proves nothing."""
    Journal.open_to_write(tmp_path).close()
    (tmp_path / name).chmod(0o777)
    assert "chmod go-w" in refusal(tmp_path)


def test_on_a_disk_that_machines_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS and its like: synced is not synced there, and a process of another host can't be looked at."""
    assert file_system_kind(Path("/proc")) == "proc"
    monkeypatch.setattr(journal_module, "file_system_kind", lambda _folder: "nfs4")
    assert "nfs4" in refusal(tmp_path)


def test_full(tmp_path: Path) -> None:
    """The reason is named; nothing of the record is there afterwards."""
    journal = Journal.open_to_write(tmp_path)
    journal.keep(a_record())
    journal._connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(JournalError, match="the disk is full"):
        journal.keep(a_record("large", livemig_version="x" * 100_000))
    assert [record.id for record in journal.records()] == ["0badcafe"]
    journal.close()


async def test_full_while_a_run_is_written_down(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The space that was reserved is given to the journal, once; after that it says that it failed."""
    journal = RunJournal()
    await journal.begin(a_record())
    real = Journal.keep
    failures: list[int] = []

    def keep(self: Journal, record: RunRecord) -> None:
        if len(failures) in (0, 2, 3):
            failures.append(1)
            raise JournalError("full", path="")
        failures.append(0)
        real(self, record)

    monkeypatch.setattr(Journal, "keep", keep)
    lock = own_state / "livemig" / "runs" / "0badcafe.lock"
    assert lock.stat().st_size > 100_000
    await journal.change(stage=Stage.INTENDED)
    assert lock.stat().st_size == 0
    assert journal.failure is None
    assert not await journal.keep(Evidence(destination_condemned=True))
    assert journal.failure == "full"
    assert journal.record is not None
    assert not journal.record.destination_condemned
    await journal.close()
    assert not lock.exists()


@pytest.mark.parametrize(
    ("stage", "continuation", "source_end"),
    [
        (Stage.BEGUN, Continuation.NOT_SENT, SourceEnd.UNKNOWN),
        (Stage.INTENDED, Continuation.INTENDED, SourceEnd.UNKNOWN),
        (Stage.COMMITTED, Continuation.INTENDED, SourceEnd.COMPLETED),
    ],
)
def test_evidence(stage: Stage, continuation: Continuation, source_end: SourceEnd) -> None:
    """What the table is told by the journal, as the model of two QEMUs has it."""
    evidence = a_record(stage=stage, cancel_requested=True).evidence(Side.SOURCE)
    assert (evidence.continuation, evidence.source_end) == (continuation, source_end)
    assert evidence.fence_confirmed is Side.SOURCE
    assert evidence.cancel_requested


async def test_evidence_is_kept_and_never_lowered(own_state: Path) -> None:
    """A process that knows that it sent no `cont` does not take back what the journal says may have been."""
    journal = RunJournal()
    await journal.begin(a_record(stage=Stage.INTENDED))
    evidence = a_record().evidence()
    assert await journal.keep(evidence)
    assert journal.record is not None
    assert journal.record.stage == "intended"
    completed = msgspec.structs.replace(evidence, source_end=SourceEnd.COMPLETED)
    assert await journal.keep(completed)
    assert journal.record.stage == "intended"
    assert await journal.keep(completed, committing=True)
    assert journal.record.stage == "committed"
    await journal.close()
