"""Brings a migration to its end by the outcome table: read both sides, ask the table, do its one step, read again.

Every end goes through here, the good one too: there the table's only steps left are to watch the destination and to
retire the source. What to do is decided in `livemig.core.outcome` alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec

from livemig.core.errors import CommandError, LivemigError
from livemig.core.evidence import Continuation, Evidence, learn
from livemig.core.outcome import Outcome, Situation, Step, Verdict, intend, settle
from livemig.core.readings import Absence, Reading
from livemig.core.status import MigrationStatus
from livemig.engine.finish import Continued, continue_destination
from livemig.engine.side import Side
from livemig.engine.watch import Watch

READ_BOUND_S = 1.0
RECONNECT_BOUND_S = 10.0
"""To log in at a host again."""
READ_AGAIN_S = 0.05
OBSERVE_BOUND_S = 5.0
"""How long nothing may change before observing is taken as spent."""
RETURN_BOUND_S = 60.0
"""The same while a host is out of reach over SSH."""
EFFECT_BOUND_S = 2.0
"""How long a step may take to show in what the sides say: a cancel and a yank are obeyed later than answered."""
STEP_BOUND_S = 5.0
STEPS_MOST = 2000

_SHOWS_AT_ONCE = frozenset({Step.CONDEMN_DESTINATION, Step.END_DESTINATION, Step.RETIRE_SOURCE})
"""Steps that are over when they return."""


class Settlement:
    """Brings both sides to a settled verdict.

    Attributes:
        evidence: What is known beyond the readings; grows.
        readings: What both sides said last.
        error_texts: QEMU's own words for what failed, as far as it had any.
        continued: What came of the last ``cont`` at the destination, or None.
        refusals: What QEMU refused to do for the end, in its own words; the last step of them all may have succeeded.
    """

    def __init__(
        self,
        source: Side,
        destination: Side,
        watch: Watch,
        evidence: Evidence,
        *,
        migrating: bool,
        tell_step: Callable[[Verdict], None],
        keep: Callable[[Evidence, Step], Awaitable[bool]],
        retire: Callable[[], Awaitable[None]],
    ) -> None:
        """Takes the two sides.

        Args:
            source: The source.
            destination: The destination.
            watch: The events of both.
            evidence: What is known so far.
            migrating: Whether the source took ``migrate``; if not, its status is of something that was before.
            tell_step: Told each step before it is taken.
            keep: Writes down what must be known before a step; says whether that is on the disk.
            retire: Watches the destination, then quits the source or keeps it.
        """
        self.evidence = evidence
        self.readings: tuple[Reading, Reading] | None = None
        self.error_texts: list[str] = []
        self.continued: Continued | None = None
        self.refusals: list[str] = []
        self._source, self._destination, self._watch = source, destination, watch
        self._migrating = migrating
        self._retired = False
        self._tell_step, self._keep, self._retire = tell_step, keep, retire
        self._spent: frozenset[Step] = frozenset()
        self._changed_s = time.monotonic()

    async def run(self) -> Verdict:
        """Returns the settled verdict. Raises nothing of QEMU's: what can't be read or done is part of the verdict."""
        for _ in range(STEPS_MOST):
            readings = await self.read()
            verdict = settle(
                Situation(source=readings[0], destination=readings[1], evidence=self.evidence, spent=self._spent)
            )
            if verdict.settled and self._source_may_return(verdict):
                await self._watch.wait_until(lambda: False, READ_AGAIN_S)
                continue
            if verdict.settled:
                return verdict
            if verdict.step is Step.KEEP_OBSERVING:
                await self._watch.wait_until(lambda: False, READ_AGAIN_S)
                if time.monotonic() - self._changed_s > self._observe_bound_s():
                    self._spent |= {verdict.step}
                continue
            self._tell_step(verdict)
            intended = intend(self.evidence, verdict.step)
            if not await self._keep(intended, verdict.step):
                self._spent |= {verdict.step}
                continue
            self.evidence = intended
            await self._perform(verdict.step)
            if verdict.step in _SHOWS_AT_ONCE or not await self._shows_effect():
                self._spent |= {verdict.step}
        raise AssertionError("the outcome table does not settle")

    def _observe_bound_s(self) -> float:
        """A host that is out of reach may come back: what its QEMU did meanwhile is worth waiting for."""
        away = Reading(Absence.UNREACHABLE)
        sides = zip((self._source, self._destination), self.readings or (), strict=False)
        remote = any(reading == away and not side.host.is_local for side, reading in sides)
        return RETURN_BOUND_S if remote else OBSERVE_BOUND_S

    def _source_may_return(self, verdict: Verdict) -> bool:
        """Whether the guest runs at the destination, and the host of a source yet to be retired may soon be back."""
        if verdict.outcome is not Outcome.COMPLETED or self._retired or self._source.host.is_local:
            return False
        away = self.readings is not None and self.readings[0] == Reading(Absence.UNREACHABLE)
        return away and time.monotonic() - self._changed_s < RETURN_BOUND_S

    async def _shows_effect(self) -> bool:
        """Reads again until something changes; returns whether it did within the bound."""
        changed_s = self._changed_s
        end_s = time.monotonic() + EFFECT_BOUND_S
        while time.monotonic() < end_s:
            await self.read()
            if self._changed_s != changed_s:
                return True
            await self._watch.wait_until(lambda: False, READ_AGAIN_S)
        return False

    async def read(self) -> tuple[Reading, Reading]:
        """Reads both sides and adds what that proves; a change makes every step worth doing again."""
        source, destination = await asyncio.gather(self._read_side(self._source), self._read_side(self._destination))
        if source.migration is not None and not self._migrating:
            source = Reading(source.state, MigrationStatus.NONE)
        for side, reading in ((self._source, source), (self._destination, destination)):
            if reading.state is Absence.GONE:
                await self._watch.take_last_words(side.name)
        self._watch.take_all()
        found = (source, destination)
        if found != self.readings:
            self.readings, self._spent, self._changed_s = found, frozenset(), time.monotonic()
        if self._watch.guest_ended_itself:
            self.evidence = msgspec.structs.replace(self.evidence, guest_shut_down=True)
        self.evidence = learn(self.evidence, *found)
        return found

    async def _read_side(self, side: Side) -> Reading:
        """Asks for the status first: the other way round a switchover in between would read as one that failed."""
        if await side.is_gone():
            return Reading(Absence.GONE)
        try:
            if side.monitor.closed:
                await side.reconnect(READ_BOUND_S if side.host.is_local else RECONNECT_BOUND_S)
                self._watch.follow(side)
            observation = await side.monitor.query_migrate(timeout_s=READ_BOUND_S)
            state = await side.monitor.query_status(timeout_s=READ_BOUND_S)
        except LivemigError:
            return Reading(Absence.GONE if await side.is_gone() else Absence.UNREACHABLE)
        if observation.error_text and observation.error_text not in self.error_texts:
            self.error_texts.append(observation.error_text)
        return Reading(state, observation.status)

    async def _perform(self, step: Step) -> None:
        try:
            match step:
                case Step.CANCEL:
                    await self._source.monitor.execute("migrate_cancel", timeout_s=STEP_BOUND_S)
                case Step.YANK_SOURCE:
                    await yank(self._source)
                case Step.YANK_DESTINATION:
                    await yank(self._destination)
                case Step.END_DESTINATION:
                    await self._destination.end()
                case Step.CONTINUE_SOURCE:
                    await self._source.monitor.execute("cont", timeout_s=STEP_BOUND_S)
                case Step.CONTINUE_DESTINATION:
                    self.note_continued(await continue_destination(self._destination, self._watch))
                case Step.RETIRE_SOURCE:
                    self._retired = True
                    await self._retire()
                case _:
                    pass  # `intend` has condemned the destination; the rest are ends
        except CommandError as error:
            if str(error) not in self.refusals:
                self.refusals.append(str(error))
        except LivemigError:
            pass  # what it did is read

    def note_continued(self, continued: Continued) -> None:
        """Adds to the evidence what came of ``cont`` at the destination.

        A refusal disproves only the first ``cont``: of an earlier one without an answer the fate stays unknown.
        """
        first = self.continued is None
        self.continued = continued
        if continued.refused and continued.refusal not in self.refusals:
            self.refusals.append(continued.refusal)
        if continued.runs:
            continuation = Continuation.RAN
        elif continued.refused and first:
            continuation = Continuation.DISPROVED
        else:
            continuation = Continuation.INTENDED
        self.evidence = msgspec.structs.replace(self.evidence, continuation=continuation)


async def yank(side: Side) -> None:
    """Cuts the migration's connection out of band.

    Raises:
        LivemigError: When QEMU refused, or did not answer.
    """
    instances = {"instances": [{"type": "migration"}]}
    await side.monitor.execute_out_of_band("yank", instances, timeout_s=STEP_BOUND_S)
