"""The rules of the outcome table, in order, as data: the first that applies decides.

`livemig.core.outcome` asks them; `docs/outcomes.md` is drawn from them.
"""

from __future__ import annotations

from livemig.core.evidence import Fact
from livemig.core.readings import DestinationState as D
from livemig.core.readings import SourceState as S
from livemig.core.verdict import Outcome, Rule, RunningOn, Step

__all__ = ["CHAPTERS", "RULES"]

_COMPLETED = (Outcome.COMPLETED, RunningOn.DESTINATION)
_CANCELLED = (Outcome.CANCELLED, RunningOn.SOURCE)
_FAILED = (Outcome.FAILED, RunningOn.SOURCE)
_SHUT_DOWN = (Outcome.GUEST_SHUT_DOWN, RunningOn.NONE)
_UNKNOWN = (Outcome.UNKNOWN, RunningOn.UNKNOWN)
_NONE_RUNS = (Outcome.UNKNOWN, RunningOn.NONE)

_LIVES = frozenset({S.RUNS, S.REVIVED})
_ABSENT = frozenset({S.GONE, S.UNREACHABLE})
_STOPPED = frozenset({S.COMPLETED, S.UNDONE})
_IN_PLAY = frozenset({S.MOVING, S.SWITCHING, S.ENDING})
_KEEPS = _LIVES | _STOPPED | {S.STANDS}
_COMPLETE = frozenset({D.READY, D.HALTED})
_INCOMPLETE = frozenset({D.LISTENING, D.LOADING, D.FAILED})

_AT_DESTINATION = (
    Rule(
        name="condemned-beside-source",
        source=_LIVES,
        destination=frozenset({D.RUNS}),
        needs=frozenset({Fact.CONDEMNED}),
        steps=(Step.END_DESTINATION,),
        says="the guest was given back to the source: somebody continued the destination, which must not run",
    ),
    Rule(
        name="runs-at-destination",
        source=frozenset({S.COMPLETED}),
        destination=frozenset({D.RUNS}),
        needs=frozenset({Fact.HANDED_OVER}),
        steps=(Step.RETIRE_SOURCE, Step.DONE),
        says="the guest runs at the destination",
        end=_COMPLETED,
    ),
    Rule(
        name="runs-at-destination-alone",
        source=frozenset({S.GONE}),
        destination=frozenset({D.RUNS}),
        needs=frozenset({Fact.HANDED_OVER}),
        steps=(Step.DONE,),
        says="the guest runs at the destination",
        end=_COMPLETED,
    ),
    Rule(
        name="runs-at-destination-source-away",
        source=frozenset({S.UNREACHABLE}),
        destination=frozenset({D.RUNS}),
        needs=frozenset({Fact.HANDED_OVER}),
        steps=(Step.DONE,),
        says="the guest runs at the destination; the source had completed and is out of reach: end it when it answers",
        end=_COMPLETED,
    ),
    Rule(
        name="was-seen-at-destination",
        source=_ABSENT | {S.COMPLETED},
        destination=frozenset({D.UNREACHABLE}),
        needs=frozenset({Fact.HANDED_OVER, Fact.RAN}),
        lacks=frozenset({Fact.GUEST_ENDED}),
        steps=(Step.KEEP_OBSERVING, Step.DONE),
        says="the guest was seen running at the destination, which is out of reach since; the source is kept",
        end=_COMPLETED,
    ),
    Rule(
        name="two-may-run",
        source=_LIVES | {S.MOVING, S.UNREACHABLE, S.UNCLEAR},
        destination=frozenset({D.RUNS}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the guest runs at the destination and may run at the source too: stop one of them by hand, now",
        end=_UNKNOWN,
    ),
    Rule(
        name="runs-unaccounted",
        destination=frozenset({D.RUNS}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the guest runs at the destination though the source never handed it over: look at both",
        end=(Outcome.UNKNOWN, RunningOn.DESTINATION),
    ),
)

_POSTCOPY = (
    Rule(
        name="post-copy",
        source=frozenset({S.POSTCOPY}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="in post-copy the guest is on both sides: never cancel, join them again",
        end=_UNKNOWN,
    ),
    Rule(
        name="post-copy-at-destination",
        destination=frozenset({D.POSTCOPY}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="in post-copy the guest is on both sides: never cancel, join them again",
        end=_UNKNOWN,
    ),
)

_UNDER_WAY = (
    Rule(
        name="moving-to-something-unclear",
        source=frozenset({S.MOVING}),
        destination=frozenset({D.UNCLEAR}),
        lacks=frozenset({Fact.RAN}),
        steps=(Step.KEEP_OBSERVING,),
        says="the destination is in a state that livemig does not understand",
    ),
    Rule(
        name="moving",
        source=frozenset({S.MOVING}),
        lacks=frozenset({Fact.RAN, Fact.POSTCOPY}),
        steps=(Step.CANCEL, Step.YANK_SOURCE),
        says="nothing was handed over yet: cancel, so that the guest stays at the source",
    ),
    Rule(
        name="switching",
        source=frozenset({S.SWITCHING}),
        lacks=frozenset({Fact.MAY_HAVE_RUN, Fact.POSTCOPY}),
        steps=(Step.KEEP_OBSERVING, Step.CANCEL, Step.YANK_SOURCE),
        says="the guest stands still while the rest goes over: let it finish, else take it back",
    ),
    Rule(
        name="ending",
        source=frozenset({S.ENDING}),
        lacks=frozenset({Fact.MAY_HAVE_RUN, Fact.POSTCOPY}),
        steps=(Step.KEEP_OBSERVING, Step.YANK_SOURCE),
        says="the source is taking the guest back",
    ),
    Rule(
        name="hangs",
        source=_IN_PLAY,
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the source's migration neither goes on nor ends",
        end=_UNKNOWN,
    ),
)

_NOT_RUNNING = frozenset(S) - _LIVES - {S.UNCLEAR}
_GUEST_ENDED = (
    Rule(
        name="leftover-of-ended-guest",
        source=_NOT_RUNNING,
        destination=_COMPLETE | _INCOMPLETE | {D.UNREACHABLE},
        needs=frozenset({Fact.GUEST_ENDED}),
        lacks=frozenset({Fact.MAY_HAVE_RUN}),
        steps=(Step.END_DESTINATION,),
        says="the guest shut itself down while it moved: what the destination received is of no use",
    ),
    Rule(
        name="ended-at-destination",
        source=frozenset({S.COMPLETED}),
        destination=frozenset({D.GONE, D.UNREACHABLE, D.OFF}),
        needs=frozenset({Fact.GUEST_ENDED, Fact.MAY_HAVE_RUN}),
        steps=(Step.RETIRE_SOURCE,),
        says="the guest ran at the destination and shut itself down there",
    ),
    Rule(
        name="guest-ended",
        source=_NOT_RUNNING,
        destination=frozenset(D) - {D.UNCLEAR},
        needs=frozenset({Fact.GUEST_ENDED}),
        steps=(Step.DONE,),
        says="the guest shut itself down while it moved",
        end=_SHUT_DOWN,
    ),
)

_UNCLEAR = (
    Rule(
        name="source-unclear",
        source=frozenset({S.UNCLEAR}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the source is in a state that livemig does not understand",
        end=_UNKNOWN,
    ),
    Rule(
        name="destination-unclear",
        destination=frozenset({D.UNCLEAR}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the destination is in a state that livemig does not understand",
        end=_UNKNOWN,
    ),
    Rule(
        name="destination-empty-again",
        destination=_INCOMPLETE,
        needs=frozenset({Fact.RAN}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the guest ran at the destination, and what answers there now waits for one: another QEMU",
        end=_UNKNOWN,
    ),
)

_FORWARD = (
    Rule(
        name="arrived-not-live",
        source=frozenset({S.COMPLETED}),
        destination=_COMPLETE,
        needs=frozenset({Fact.HANDED_OVER}),
        lacks=frozenset({Fact.LIVE_BEFORE}),
        steps=(Step.RETIRE_SOURCE, Step.DONE),
        says="the guest did not run before and arrived so",
        end=_COMPLETED,
    ),
    Rule(
        name="arrived-not-live-alone",
        source=_ABSENT,
        destination=_COMPLETE,
        needs=frozenset({Fact.HANDED_OVER}),
        lacks=frozenset({Fact.LIVE_BEFORE}),
        steps=(Step.DONE,),
        says="the guest did not run before and arrived so",
        end=_COMPLETED,
    ),
    Rule(
        name="halted-at-destination",
        source=_ABSENT | {S.COMPLETED},
        destination=frozenset({D.HALTED}),
        needs=frozenset({Fact.HANDED_OVER}),
        steps=(Step.DONE,),
        says="the guest arrived and was halted by an error or a panic of its own; the source is kept",
        end=_COMPLETED,
    ),
    Rule(
        name="stopped-at-destination",
        source=_ABSENT | {S.COMPLETED},
        destination=frozenset({D.READY}),
        needs=frozenset({Fact.HANDED_OVER, Fact.RAN}),
        steps=(Step.DONE,),
        says="the guest ran at the destination and somebody stopped it there since; the source is kept",
        end=_COMPLETED,
    ),
    Rule(
        name="handed-over",
        source=frozenset({S.COMPLETED}),
        destination=frozenset({D.READY}),
        needs=frozenset({Fact.HANDED_OVER}),
        lacks=frozenset({Fact.REFUSED}),
        steps=(Step.CONTINUE_DESTINATION, Step.ASK_A_PERSON),
        says="the source handed everything over and the destination holds it: continue it there",
        end=_NONE_RUNS,
        says_at_end="the destination holds the whole guest, stopped, and does not run it; the source holds it too",
    ),
    Rule(
        name="handed-over-alone",
        source=_ABSENT,
        destination=frozenset({D.READY}),
        needs=frozenset({Fact.HANDED_OVER}),
        steps=(Step.CONTINUE_DESTINATION, Step.ASK_A_PERSON),
        says="only the destination still holds the guest, complete and not older than its disks: continue it",
        end=_NONE_RUNS,
        says_at_end="only the destination still holds the guest, stopped, and does not run it",
    ),
)

_MAY_HAVE_RUN = (
    Rule(
        name="source-silent",
        source=frozenset({S.UNREACHABLE}),
        needs=frozenset({Fact.UNDECIDED}),
        steps=(Step.KEEP_OBSERVING, Step.YANK_SOURCE),
        says="the source is silent: cut the migration's connection, in case it hangs in the switchover",
    ),
    Rule(
        name="may-have-run-source-away",
        source=frozenset({S.UNREACHABLE}),
        needs=frozenset({Fact.MAY_HAVE_RUN}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the source is out of reach, and the guest may have run at the destination",
        end=_UNKNOWN,
    ),
    Rule(
        name="may-run-at-destination",
        destination=frozenset({D.UNREACHABLE}),
        needs=frozenset({Fact.MAY_HAVE_RUN}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the destination was told to continue the guest and is out of reach: it may run there",
        end=_UNKNOWN,
    ),
    Rule(
        name="ran-and-ended",
        source=_KEEPS - _LIVES,
        destination=frozenset({D.GONE}),
        needs=frozenset({Fact.RAN}),
        steps=(Step.ASK_A_PERSON,),
        says="the guest ran at the destination, whose QEMU has ended: the disks are newer than the source's"
        " memory; start it afresh from its disks",
        end=_NONE_RUNS,
    ),
    Rule(
        name="may-have-run-and-ended",
        source=_KEEPS - _LIVES,
        destination=frozenset({D.GONE}),
        needs=frozenset({Fact.MAY_HAVE_RUN}),
        steps=(Step.ASK_A_PERSON,),
        says="the destination was told to continue the guest and has ended: the disks may be newer than the"
        " source's memory; if you know that it did not run there, continue the source by hand",
        end=_NONE_RUNS,
    ),
    Rule(
        name="both-may-have-run",
        source=_KEEPS,
        needs=frozenset({Fact.MAY_HAVE_RUN}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the guest may have run on both sides: look which one is newer and end the other by hand",
        end=_UNKNOWN,
    ),
)

_SOURCE_ABSENT = (
    Rule(
        name="stale-copy",
        source=_ABSENT,
        destination=_COMPLETE | {D.UNREACHABLE},
        needs=frozenset({Fact.WENT_ON}),
        lacks=frozenset({Fact.CONDEMNED, Fact.MAY_HAVE_RUN}),
        steps=(Step.CONDEMN_DESTINATION,),
        says="the source ran on since: the destination's copy is older than the disks and must never run",
    ),
    Rule(
        name="cut-off-copy",
        source=_ABSENT,
        destination=frozenset({D.LOADING}),
        steps=(Step.KEEP_OBSERVING, Step.YANK_DESTINATION, Step.ASK_A_PERSON),
        says="no sign of the source: cut the connection; then the destination is either complete or failed",
        end=_UNKNOWN,
        says_at_end="no sign of the source, and the destination neither completes nor fails",
    ),
    Rule(
        name="failed-copy",
        source=_ABSENT,
        destination=frozenset({D.FAILED}),
        steps=(Step.END_DESTINATION,),
        says="the destination did not receive the whole guest and never will",
    ),
    Rule(
        name="empty-copy",
        source=_ABSENT,
        destination=frozenset({D.LISTENING}),
        steps=(Step.KEEP_OBSERVING, Step.END_DESTINATION),
        says="the destination received nothing, and the source gives no sign",
    ),
    Rule(
        name="source-away-copy-complete",
        source=frozenset({S.UNREACHABLE}),
        destination=_COMPLETE,
        lacks=frozenset({Fact.WENT_ON, Fact.CONDEMNED}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the destination holds the whole guest, stopped; the source is out of reach and may run on:"
        " reach it, or say that it is dead and did not run on",
        end=_UNKNOWN,
    ),
    Rule(
        name="source-away",
        source=frozenset({S.UNREACHABLE}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the guest is at the source, which is out of reach: it runs there, or recovery will continue it",
        end=_UNKNOWN,
    ),
    Rule(
        name="copy-away",
        destination=frozenset({D.UNREACHABLE}),
        source=frozenset({S.GONE}),
        steps=(Step.KEEP_OBSERVING, Step.ASK_A_PERSON),
        says="the source's QEMU has ended and the destination is out of reach: it may hold the guest",
        end=_UNKNOWN,
    ),
    Rule(
        name="copy-complete",
        source=frozenset({S.GONE}),
        destination=_COMPLETE,
        lacks=frozenset({Fact.WENT_ON, Fact.CONDEMNED}),
        steps=(Step.ASK_A_PERSON,),
        says="the destination holds the whole guest, stopped; the source's QEMU has ended, and nobody saw"
        " whether it ran on before: if it did not, say so",
        end=_NONE_RUNS,
    ),
    Rule(
        name="copy-stale",
        source=frozenset({S.GONE}),
        destination=_COMPLETE,
        steps=(Step.ASK_A_PERSON,),
        says="the source ran on and its QEMU has ended; the destination's copy may be older than the disks:"
        " start the guest afresh from its disks",
        end=_NONE_RUNS,
    ),
    Rule(
        name="lost",
        source=frozenset({S.GONE}),
        steps=(Step.ASK_A_PERSON,),
        says="the QEMU that had the guest has ended, nothing else holds it: start it afresh from its disks",
        end=_NONE_RUNS,
    ),
)

_BACK = (
    Rule(
        name="still-loading",
        source=frozenset({S.COMPLETED}),
        destination=frozenset({D.LOADING}),
        lacks=frozenset({Fact.CONDEMNED}),
        steps=(Step.KEEP_OBSERVING, Step.YANK_DESTINATION),
        says="the source completed and the destination has yet to say so",
    ),
    Rule(
        name="destination-away",
        source=frozenset({S.COMPLETED}),
        destination=frozenset({D.UNREACHABLE, D.LISTENING}),
        lacks=frozenset({Fact.CONDEMNED}),
        steps=(Step.KEEP_OBSERVING,),
        says="the source completed and the destination does not say that it holds the guest",
    ),
    Rule(
        name="condemn",
        source=_KEEPS,
        destination=_COMPLETE | {D.UNREACHABLE},
        lacks=frozenset({Fact.CONDEMNED}),
        steps=(Step.CONDEMN_DESTINATION,),
        says="the guest stays at the source and did not run at the destination, which must never run it now",
    ),
    Rule(
        name="condemn-incomplete",
        source=_STOPPED,
        destination=_INCOMPLETE,
        lacks=frozenset({Fact.CONDEMNED}),
        steps=(Step.CONDEMN_DESTINATION,),
        says="the guest stays at the source and did not run at the destination, which must never run it now",
    ),
    Rule(
        name="end-destination",
        source=_KEEPS,
        destination=_COMPLETE | _INCOMPLETE | {D.UNREACHABLE},
        steps=(Step.END_DESTINATION,),
        says="the guest stays at the source: end the destination, which did not run",
    ),
    Rule(
        name="take-back",
        source=_STOPPED,
        destination=frozenset({D.GONE}),
        needs=frozenset({Fact.LIVE_BEFORE}),
        steps=(Step.CONTINUE_SOURCE, Step.ASK_A_PERSON),
        says="the destination has ended and did not run: continue the guest at the source",
        end=_NONE_RUNS,
        says_at_end="the source holds the guest, stopped, and does not run it; the destination has ended",
    ),
    Rule(
        name="take-back-from-condemned",
        source=_STOPPED,
        needs=frozenset({Fact.LIVE_BEFORE, Fact.CONDEMNED}),
        steps=(Step.CONTINUE_SOURCE, Step.ASK_A_PERSON),
        says="the destination is condemned and did not run: continue the guest at the source",
        end=_NONE_RUNS,
        says_at_end="the source holds the guest, stopped, and does not run it",
    ),
    Rule(
        name="cannot-take-back",
        source=_STOPPED,
        needs=frozenset({Fact.LIVE_BEFORE}),
        steps=(Step.ASK_A_PERSON,),
        says="the guest stands still at the source; the destination can be neither ended nor condemned",
        end=_NONE_RUNS,
    ),
    Rule(
        name="stays-cancelled",
        source=_KEEPS,
        needs=frozenset({Fact.CANCEL_REQUESTED}),
        steps=(Step.DONE,),
        says="cancelled: the guest is at the source, in the state it was in",
        end=_CANCELLED,
    ),
    Rule(
        name="stays",
        source=_KEEPS,
        steps=(Step.DONE,),
        says="failed: the guest is at the source, in the state it was in",
        end=_FAILED,
    ),
)

CHAPTERS: tuple[tuple[str, tuple[Rule, ...]], ...] = (
    ("The guest runs at the destination", _AT_DESTINATION),
    ("Post-copy", _POSTCOPY),
    ("The source's migration is under way", _UNDER_WAY),
    ("The guest ended itself", _GUEST_ENDED),
    ("Something is not understood", _UNCLEAR),
    ("Forward: the source handed the guest over", _FORWARD),
    ("The guest may have run at the destination", _MAY_HAVE_RUN),
    ("The source is gone or out of reach", _SOURCE_ABSENT),
    ("Back: the guest stays at the source", _BACK),
)
"""The rules in order, by what they are about."""

RULES: tuple[Rule, ...] = tuple(rule for _, rules in CHAPTERS for rule in rules)
