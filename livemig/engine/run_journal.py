"""The journal of one run while it is driven: what is intended is on the disk before it is done, off the event loop.

A journal that can't be written any more before the commit costs the migration; after it, it costs the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from livemig.core.errors import JournalError
from livemig.core.evidence import Continuation, Evidence, SourceEnd
from livemig.engine.journal import Journal
from livemig.engine.run_files import RunFiles
from livemig.engine.run_record import Ending, RunRecord, Stage

WRITE_BOUND_S = 10.0
"""How long a disk may take: one that hangs is as good as full."""

_Result = TypeVar("_Result")


class RunJournal:
    """Writes down one run, step by step.

    Attributes:
        record: What stands in the journal.
        failure: Why it can't be written any more, or None.
        cost_s: The time that was waited for it so far.
    """

    def __init__(self) -> None:
        """Opens nothing yet."""
        self.record: RunRecord | None = None
        self.failure: str | None = None
        self.cost_s = 0.0
        self._journal: Journal | None = None
        self._files: RunFiles | None = None
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="livemig journal")

    async def open(self) -> None:
        """Opens the journal to write.

        Raises:
            JournalError: When there can be none. Nothing was touched.
        """
        self._journal = await self._in_thread(Journal.open_to_write)

    async def take_over(self, files: RunFiles, record: RunRecord) -> None:
        """Goes on with a run that another process began.

        Raises:
            JournalError: When the journal can't be written.
        """
        await self.open()
        self._files, self.record = files, record

    async def begin(self, record: RunRecord) -> None:
        """Takes the run and writes its first record.

        Raises:
            JournalError: When it can't be written. Nothing was touched.
            ControlError: When another process drives a run of that id.
        """
        if self._journal is None:
            await self.open()
        if self._files is None:  # a second attempt of one run holds them still
            self._files = await self._in_thread(lambda: RunFiles.hold(record.id, reserve=True))
        await self._write(record)

    async def change(self, **changes: Any) -> None:
        """Writes down changes of the record; returns once they are on the disk. Nothing when nothing changes.

        Raises:
            JournalError: When they can't be written; then they are not in `record` either.
        """
        async with self._turn:
            assert self.record is not None  # noqa: S101  # `begin` or `take_over` came before
            changed = msgspec.structs.replace(self.record, **changes)
            if changed != self.record:
                await self._write(changed)

    async def keep(self, evidence: Evidence, *, committing: bool = False) -> bool:
        """Writes down what of the evidence has to outlive this process; returns whether it is on the disk.

        Args:
            evidence: What is known, and intended.
            committing: Whether the source is to be retired next.
        """
        assert self.record is not None  # noqa: S101
        stage = self.record.stage
        if evidence.continuation is not Continuation.NOT_SENT and stage is Stage.BEGUN:
            stage = Stage.INTENDED
        if committing and evidence.source_end is SourceEnd.COMPLETED:
            stage = Stage.COMMITTED
        try:
            await self.change(
                stage=stage,
                state_before=evidence.state_before,
                destination_condemned=evidence.destination_condemned,
                cancel_requested=evidence.cancel_requested or self.record.cancel_requested,
            )
        except JournalError:
            return False
        return True

    async def end(self, ending: Ending) -> None:
        """Writes down how it ended. Raises nothing; see `failure`."""
        with contextlib.suppress(JournalError):
            await self.change(ending=ending)

    async def close(self) -> None:
        """Closes the journal and lets go of the run. Raises nothing. Can be repeated."""
        journal, self._journal = self._journal, None
        if journal is not None:
            with contextlib.suppress(JournalError):
                await self._in_thread(journal.close)
        if self._files is not None:
            self._files.close()
            self._files = None
        self._thread.shutdown(wait=False)

    async def _write(self, record: RunRecord) -> None:
        journal, files = self._journal, self._files
        assert journal is not None  # noqa: S101

        def write() -> None:
            try:
                journal.keep(record)
            except JournalError:
                if files is None or not files.free_space():
                    raise
                journal.keep(record)

        try:
            await self._in_thread(write)
        except JournalError as error:
            self.failure = self.failure or str(error)
            raise
        self.record = record

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        began_s = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(WRITE_BOUND_S):
                return await asyncio.shield(loop.run_in_executor(self._thread, work))
        except TimeoutError as error:
            raise JournalError(f"the journal's disk does not answer within {WRITE_BOUND_S:g} s", path="") from error
        finally:
            self.cost_s += time.monotonic() - began_s
