"""A small-step model of two QEMUs, the link between them, and an engine that follows the outcome table.

Faithful to how QEMU 7.2 to 11.1 behave with return-path, and a destination started with ``-S``: see the project's
notes on QEMU. Every interleaving is explored: QEMU moves by itself between any two readings and between a reading
and the step that rests on it; faults strike anywhere, within a budget. The engine's own knowledge is modelled too,
and what of it a controller's death takes away.

The truth is kept beside what the engine knows, and `Broken` is raised where the truth is violated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from livemig.core.evidence import Continuation, Evidence, Side, SourceEnd, View, learn, view
from livemig.core.outcome import Outcome, RunningOn, Step, Verdict, intend, judge
from livemig.core.readings import Absence, Reading
from livemig.core.status import MigrationStatus, RunState
from tests.unit.two_qemus_world import Broken, Steps, World, gave_up, runs_at_destination, runs_at_source

Judge = Callable[[View, Steps], Verdict]


Change = tuple[str, World]


@dataclass
class Model:
    """The two QEMUs with one table.

    Attributes:
        judge: The table.
        live: Whether the guest lived before.
        powers_off: Whether the guest may shut itself down.
        torn: Whether QEMU may move between the two answers that make a reading.
        state_first: Whether the engine asks for the run state before the status, which it must not.
        losses: Whether to hold the table to losing no guest: with one fault it can, with two at once it can't.
    """

    judge: Judge = judge
    live: bool = True
    powers_off: bool = True
    losses: bool = True
    torn: bool = True
    state_first: bool = False
    _verdicts: dict[tuple[Reading, Reading, Evidence, Steps], Verdict] = field(default_factory=dict)

    def start(self, faults: int) -> World:
        """A migration in pre-copy, the intent to continue the destination journalled, everything in contact."""
        state = RunState.RUNNING if self.live else RunState.PAUSED
        return World(source_runs=self.live, faults_left=faults, evidence=Evidence(state_before=state))

    # What QEMU and the guest do by themselves.

    def moves(self, now: World) -> Iterator[Change]:
        """Each thing that QEMU or the guest may do next, unasked."""
        if now.source == "up":
            yield from self._source_moves(now)
        if now.destination == "up":
            yield from self._destination_moves(now)

    def _source_moves(self, now: World) -> Iterator[Change]:
        status = now.source_status
        peer_up = now.destination == "up" and now.destination_status is not MigrationStatus.FAILED
        if status is MigrationStatus.ACTIVE and now.link == "ok" and peer_up:
            yield "source stops", now._replace(source_status=MigrationStatus.DEVICE, source_runs=False)
        if status is MigrationStatus.DEVICE and now.link == "ok" and now.destination == "up":
            if now.destination_status is MigrationStatus.ACTIVE and not now.all_sent:
                yield "source sends the rest", now._replace(all_sent=True)
            if now.destination_status is MigrationStatus.COMPLETED:
                yield "source completes", now._replace(source_status=MigrationStatus.COMPLETED)
        under_way = status in (MigrationStatus.ACTIVE, MigrationStatus.DEVICE)
        notices = now.link == "cut" or (now.link == "ok" and not peer_up and now.destination != "host dead")
        if under_way and notices:
            yield "source fails", now._replace(source_status=MigrationStatus.FAILED, link="cut")
        if status is MigrationStatus.CANCELLING:
            link = "black" if now.link == "black" else "cut"
            yield "source is cancelled", now._replace(source_status=MigrationStatus.CANCELLED, link=link)
        undone = status in (MigrationStatus.FAILED, MigrationStatus.CANCELLED)
        if self.live and undone and not now.source_runs and not now.source_sticks and not now.source_ran_on:
            yield "source resumes", runs_at_source(now)
        if self.powers_off and now.source_runs:
            yield "guest shuts down at source", now._replace(source="dead", source_runs=False, guest_off=True)

    def _destination_moves(self, now: World) -> Iterator[Change]:
        if now.destination_status is MigrationStatus.ACTIVE:
            if now.all_sent:
                yield "destination completes", now._replace(destination_status=MigrationStatus.COMPLETED)
            if now.link == "cut" or (now.source == "dead" and now.link == "ok"):
                yield "destination fails", now._replace(destination_status=MigrationStatus.FAILED)
        if self.powers_off and now.destination_runs:
            yield (
                "guest shuts down at destination",
                now._replace(destination="dead", destination_runs=False, guest_off=True),
            )

    # What goes wrong.

    def faults(self, now: World) -> Iterator[Change]:
        """Each fault that may strike now, within the budget; and contact coming back, which is free."""
        if not now.source_contact and now.source != "host dead":
            yield "source is back", now._replace(source_contact=True)
        if not now.destination_contact and now.destination != "host dead":
            yield "destination is back", now._replace(destination_contact=True)
        if now.faults_left == 0:
            return
        now = now._replace(faults_left=now.faults_left - 1)
        yield from self._faults_of_sides(now)
        if now.link == "ok":
            yield "link is cut", now._replace(link="cut")
            yield "link goes black", now._replace(link="black")
        if now.at not in ("watch", "settled"):
            yield "engine dies", self.reenter(now)
        if now.at == "watch":
            yield "engine dies before the intent", self.reenter(now._replace(intent_journalled=False))
            yield "engine dies", self.reenter(now)

    def _faults_of_sides(self, now: World) -> Iterator[Change]:
        if now.source == "up":
            down = now._replace(source_runs=False)
            yield "source dies", down._replace(source="dead")
            yield "source's host dies", down._replace(source="host dead", source_contact=False, follows_source=False)
            if not now.source_sticks:
                yield "source will stick", now._replace(source_sticks=True)
            if now.source_contact:
                yield "source is lost", now._replace(source_contact=False, follows_source=False, blind=True)
        if now.destination == "up":
            lost = now._replace(destination_contact=False, follows_destination=False, only_cont=False, blind=True)
            yield "destination dies", now._replace(destination="dead", destination_runs=False)
            yield "destination's host dies", lost._replace(destination="host dead", destination_runs=False)
            if now.destination_contact:
                yield "destination is lost", lost
            if now.destination_status is MigrationStatus.ACTIVE:
                yield "destination can't load", now._replace(destination_status=MigrationStatus.FAILED)
            if not now.destination_refuses and not now.destination_runs:
                yield "destination will refuse", now._replace(destination_refuses=True)

    def reenter(self, now: World, fence: Side | None = None) -> World:
        """Another process takes over, with what the journal kept."""
        continuation = Continuation.INTENDED if now.intent_journalled else Continuation.NOT_SENT
        evidence = Evidence(
            state_before=now.evidence.state_before,
            continuation=continuation,
            source_end=SourceEnd.COMPLETED if now.completion_journalled else SourceEnd.UNKNOWN,
            destination_condemned=now.evidence.destination_condemned,
            fence_confirmed=fence,
        )
        return now._replace(
            at="read source",
            half_read=None,
            evidence=evidence,
            spent=frozenset(),
            last_source=None,
            last_destination=None,
            follows_source=False,
            follows_destination=False,
            only_cont=False,
            blind=True,
            verdict=None,
        )

    # What the engine does.

    def engine(self, now: World) -> Iterator[Change]:
        """What the engine may do next: read one side, then the other, then one step."""
        match now.at:
            case "watch":
                yield "engine begins to settle", now._replace(at="read source")
            case "read source" | "read destination":
                yield now.at, self._read(now)
            case "act":
                yield from self._act(now)
            case _:
                yield from self._person(now)

    def _read(self, now: World) -> World:
        """Asks for the status, then for the run state; QEMU may move between the two."""
        at_source = now.at == "read source"
        reading = self.source_reading(now) if at_source else self.destination_reading(now)
        if self.torn and not isinstance(reading.state, Absence):
            if now.half_read is None:
                return now._replace(half_read=reading.state if self.state_first else reading.migration)
            if isinstance(now.half_read, RunState):
                reading = Reading(now.half_read, reading.migration)
            else:
                reading = Reading(reading.state, now.half_read)
        now = now._replace(half_read=None)
        return self._read_source(now, reading) if at_source else self._read_destination(now, reading)

    def _read_source(self, now: World, reading: Reading) -> World:
        end, shut_down = now.evidence.source_end, now.evidence.guest_shut_down
        if now.follows_source and now.source == "dead":
            end = self._source_end_by_events(now)
            shut_down = shut_down or (now.guest_off and not now.destination_ran)
        evidence = now.evidence
        if (end, shut_down) != (evidence.source_end, evidence.guest_shut_down):
            evidence = replace(evidence, source_end=end, guest_shut_down=shut_down)
        changed = reading != now.last_source
        return now._replace(
            at="read destination",
            last_source=reading,
            evidence=evidence,
            spent=frozenset() if changed else now.spent,
            follows_source=now.follows_source or now.source_contact,
        )

    @staticmethod
    def _source_end_by_events(now: World) -> SourceEnd:
        undone = now.source_status in (MigrationStatus.FAILED, MigrationStatus.CANCELLED)
        if undone or now.source_ran_on or now.evidence.source_end is SourceEnd.WENT_ON:
            return SourceEnd.WENT_ON
        completed = now.source_status is MigrationStatus.COMPLETED
        return SourceEnd.COMPLETED if completed else SourceEnd.ENDED_QUIETLY

    def _read_destination(self, now: World, reading: Reading) -> World:
        evidence = now.evidence
        if now.follows_destination and now.destination == "dead":
            if now.destination_ran:
                evidence = replace(evidence, continuation=Continuation.RAN)
            elif now.only_cont:
                evidence = replace(evidence, continuation=Continuation.DISPROVED)
            if now.guest_off and now.destination_ran:
                evidence = replace(evidence, guest_shut_down=True)
        assert now.last_source is not None
        evidence = learn(evidence, now.last_source, reading)
        changed = reading != now.last_destination
        return now._replace(
            at="act",
            last_destination=reading,
            evidence=evidence,
            spent=frozenset() if changed else now.spent,
            follows_destination=now.follows_destination or now.destination_contact,
        )

    def source_reading(self, now: World) -> Reading:
        """What the source says."""
        if now.source == "dead":
            return Reading(Absence.GONE)
        hangs = now.link == "black" and now.source_status is MigrationStatus.DEVICE
        if not now.source_contact or hangs:
            return Reading(Absence.UNREACHABLE)
        if now.source_runs:
            return Reading(RunState.RUNNING, now.source_status)
        if now.source_status is MigrationStatus.COMPLETED:
            return Reading(RunState.POSTMIGRATE, now.source_status)
        own = not self.live and now.source_status is not MigrationStatus.DEVICE
        return Reading(RunState.PAUSED if own else RunState.FINISH_MIGRATE, now.source_status)

    @staticmethod
    def destination_reading(now: World) -> Reading:
        """What the destination says."""
        if now.destination == "dead":
            return Reading(Absence.GONE)
        if not now.destination_contact:
            return Reading(Absence.UNREACHABLE)
        if now.destination_runs:
            return Reading(RunState.RUNNING, now.destination_status)
        complete = now.destination_status is MigrationStatus.COMPLETED
        return Reading(RunState.PAUSED if complete else RunState.INMIGRATE, now.destination_status)

    def verdict(self, now: World) -> Verdict:
        """What the table says to the engine."""
        assert now.last_source is not None
        assert now.last_destination is not None
        key = (now.last_source, now.last_destination, now.evidence, now.spent)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = self.judge(view(*key[:3]), now.spent)
        return verdict

    def _act(self, now: World) -> Iterator[Change]:
        verdict = self.verdict(now)
        if verdict.settled:
            yield "settle", self._settled(now, verdict)
            return
        step = verdict.step
        again = now._replace(at="read source", spent=now.spent | {step})
        if step is Step.KEEP_OBSERVING:
            yield "observe", again._replace(spent=now.spent)
            yield "observe to the bound", again
            return
        if step is Step.CONDEMN_DESTINATION:
            yield step, again._replace(evidence=intend(now.evidence, step))
        else:
            again = again._replace(
                evidence=intend(now.evidence, step),
                intent_journalled=now.intent_journalled or step is Step.CONTINUE_DESTINATION,
                completion_journalled=now.completion_journalled or step is Step.RETIRE_SOURCE,
            )
            yield from self._perform(again, step, now)
        if now.faults_left:
            yield f"{step} is lost", again._replace(faults_left=now.faults_left - 1, blind=True)

    def _perform(self, now: World, step: Step, before: World) -> Iterator[Change]:
        match step:
            case Step.CANCEL | Step.YANK_SOURCE | Step.CONTINUE_SOURCE | Step.RETIRE_SOURCE:
                yield step, self._at_source(now, step)
            case Step.YANK_DESTINATION:
                loading = now.destination_status is MigrationStatus.ACTIVE
                reached = now.destination == "up" and now.destination_contact and loading
                yield step, now._replace(link="cut") if reached else now
            case Step.END_DESTINATION:
                if now.destination == "up":
                    yield step, self._end_destination(now)
                if not now.destination_contact:
                    yield f"{step} in vain", now
                elif now.destination != "up":
                    yield step, now
            case Step.CONTINUE_DESTINATION:
                yield step, self._continue_destination(now, before)
            case _:
                raise AssertionError(step)

    def _at_source(self, now: World, step: Step) -> World:
        status = now.source_status
        hangs = now.link == "black" and status is MigrationStatus.DEVICE
        if now.source != "up" or not now.source_contact:
            return now
        under_way = status in (MigrationStatus.ACTIVE, MigrationStatus.DEVICE)
        match step:
            case Step.CANCEL if under_way and not hangs:
                return now._replace(source_status=MigrationStatus.CANCELLING)
            case Step.YANK_SOURCE if under_way or status is MigrationStatus.CANCELLING:
                return now._replace(link="cut")
            case Step.RETIRE_SOURCE if not hangs:
                self._check_loss(now, ended=Side.SOURCE)
                return now._replace(source="dead", source_runs=False)
            case Step.CONTINUE_SOURCE if not (hangs or under_way or now.source_runs):
                if not self.live:
                    raise Broken("a guest that was paused was continued at the source")
                refused = now.source_sticks and now.destination == "up"
                return now if refused else runs_at_source(now)
        return now

    def _end_destination(self, now: World) -> World:
        self._check_loss(now, ended=Side.DESTINATION)
        return now._replace(destination="dead", destination_runs=False)

    def _continue_destination(self, now: World, before: World) -> World:
        first = before.evidence.continuation in (Continuation.NOT_SENT, Continuation.DISPROVED)
        own = first and now.follows_destination
        complete = now.destination_status is MigrationStatus.COMPLETED
        if now.destination != "up" or not now.destination_contact or not complete or now.destination_runs:
            return now._replace(only_cont=own)
        if not self.live:
            raise Broken("a guest that was paused was continued at the destination")
        if now.destination_refuses:
            known = Continuation.DISPROVED if first else now.evidence.continuation
            return now._replace(evidence=replace(now.evidence, continuation=known), only_cont=own)
        return runs_at_destination(now._replace(only_cont=own))

    def _person(self, now: World) -> Iterator[Change]:
        """After the table asked a person: contact comes back, or the dead host is vouched for, and recovery runs."""
        if now.verdict is None or now.verdict.step is not Step.ASK_A_PERSON or now.returned:
            return
        again = now._replace(returned=True)
        if now.source_contact and now.destination_contact:
            yield "recover", self.reenter(again)
        # A person sees to it that the source did not run on by itself, but knows nothing of livemig's own `cont`.
        continued = now.source_status is MigrationStatus.COMPLETED
        if now.source == "host dead" and (not now.source_ran_on or continued):
            yield "the source is vouched dead, and not to have run on", self.reenter(again, Side.SOURCE)
        if now.destination == "host dead":
            yield "the destination is vouched dead", self.reenter(again, Side.DESTINATION)

    # What must hold.

    def _check_loss(self, now: World, *, ended: Side) -> None:
        """Raises when the only QEMU that holds the guest's newest state is ended."""
        if now.guest_off or not self.losses:
            return
        at_source = now.source == "up" and not now.destination_ran
        complete = now.destination_status is MigrationStatus.COMPLETED
        at_destination = now.destination == "up" and complete and not now.source_ran_on
        at_destination = at_destination and not gave_up(now) and not now.destination_refuses
        if ended is Side.DESTINATION and at_destination and not at_source:
            raise Broken("the destination was ended, and nobody else had the guest")
        # A guest that never ran is in both until the source ends: the reading before is the hand-over.
        if ended is Side.SOURCE and at_source and not at_destination and self.live:
            raise Broken("the source was retired, and nobody else had the guest")

    def _settled(self, now: World, verdict: Verdict) -> World:
        self._check_claim(now, verdict)
        if verdict.step is Step.ASK_A_PERSON:
            self._check_question(now, verdict)
        return now._replace(at="settled", verdict=verdict)

    def _check_claim(self, now: World, verdict: Verdict) -> None:
        match verdict.outcome:
            case Outcome.COMPLETED:
                good = now.destination_ran or (not self.live and now.destination_status is MigrationStatus.COMPLETED)
                good = good and not now.source_runs
            case Outcome.FAILED | Outcome.CANCELLED:
                stays = now.source_runs or not self.live or now.source != "up"
                good = stays and not now.destination_runs
            case Outcome.GUEST_SHUT_DOWN:
                good = now.guest_off
            case _:
                good = True
        if verdict.running_on is RunningOn.NONE and self._reads_so_still(now):
            good = good and not (now.source_runs or now.destination_runs)
        if not good:
            raise Broken(f"{verdict.rule}: claims {verdict.outcome} on {verdict.running_on}")

    def _reads_so_still(self, now: World) -> bool:
        return now.last_source == self.source_reading(now) and now.last_destination == self.destination_reading(now)

    def _check_question(self, now: World, verdict: Verdict) -> None:
        """Raises when a person is asked although everything is known and the guest is there.

        A QEMU that could still move and did not within all bounds hangs: that is for a person. So is what
        changes after the last reading: recovery finds it.
        """
        if not self._reads_so_still(now):
            return
        if now.evidence.guest_shut_down:
            raise Broken(f"{verdict.rule}: the guest's own end is taken for a failure")
        if any("guest shuts down" not in label for label, _ in self.moves(now)):
            return
        complete = now.destination_status is MigrationStatus.COMPLETED
        at_source = now.source == "up" and not now.destination_ran
        at_destination = now.destination == "up" and complete and not now.source_ran_on
        hidden = not (now.source_contact and now.destination_contact)
        obstinate = now.source_sticks or now.destination_refuses
        at_destination = at_destination and not gave_up(now)
        if (at_source or at_destination) and not (hidden or obstinate or now.blind):
            raise Broken(f"{verdict.rule}: asks a person although everything is known")


def replace(evidence: Evidence, **changes: object) -> Evidence:
    """The evidence with something changed."""
    return Evidence(**({name: getattr(evidence, name) for name in evidence.__struct_fields__} | changes))
