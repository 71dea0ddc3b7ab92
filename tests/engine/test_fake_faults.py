"""The engine against two fake QEMUs and every fault they have: it ends, never with two runners, and says what is so."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import pytest

import livemig
from livemig.core.errors import ConnectError, LivemigError, RefusedError
from livemig.core.event import Event, Progressed, RoundCompleted, Settling
from livemig.engine import settle, watch
from livemig.engine import side as run_side
from livemig.engine.watch import Watch
from livemig.qemu.event_stream import EventStream
from livemig.qemu.monitor import Monitor
from tests.engine.fake_pair import PLAN, FakePair, compare_nothing, fake_pair, shorten_bounds
from tests.qmp.fake_migration import FakeGuest
from tests.qmp.fake_qemu import Faults

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.*laddr=/tmp/lm-:ResourceWarning")
"""The fakes' own ends, of which asyncio loses one when a server closes in the moment that it accepts."""

AT_ONCE = 24
"""Runs at the same time: they wait far more than they work."""
SIDES = ["source", "destination"]
Change = Callable[[FakePair], None]


@pytest.fixture(autouse=True)
async def nothing_lost(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Bounds are short; no task may die unseen, none may be left behind."""
    shorten_bounds(monkeypatch)
    compare_nothing(monkeypatch)
    before = asyncio.all_tasks()
    yield
    gc.collect()
    await asyncio.sleep(0.01)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    left = {task for task in asyncio.all_tasks() - before if "livemig" in repr(task) and "tests" not in repr(task)}
    assert left == set()


async def each(
    cases: dict[str, Change], *, guest: Callable[[], FakeGuest] = FakeGuest, **options: Any
) -> dict[str, Any]:
    """Runs every case on a pair of its own, checks each, and returns how each ended; failures name their case."""
    turn = asyncio.Semaphore(AT_ONCE)
    ends: dict[str, Any] = {}

    async def run(name: str, change: Change) -> None:
        async with turn, fake_pair(guest=guest()) as pair:
            change(pair)
            try:
                ends[name] = end = await pair.migrate(**options)
                pair.check(end)
            except BaseException as error:
                error.add_note(f"in the case: {name}")
                raise

    async with asyncio.TaskGroup() as group:
        for name, change in cases.items():
            group.create_task(run(name, change))
    return ends


def on_both(pair: FakePair, change: Callable[[Faults], None]) -> None:
    """Changes the faults of both fakes."""
    for fake in (pair.source, pair.destination):
        change(fake.faults)


def outcomes(ends: dict[str, Any]) -> set[str]:
    """What came of them, refusals included."""
    return {"refused" if isinstance(end, LivemigError) else str(end.outcome) for end in ends.values()}


async def test_without_faults() -> None:
    """The ground that all other cases stand on: the guest arrives, and the source has gone."""
    async with fake_pair() as pair:
        end = await pair.migrate()
        pair.check(end)
        assert isinstance(end, livemig.Report)
        assert (end.outcome, end.warnings) == (livemig.Outcome.COMPLETED, ())
        assert (pair.source.state, pair.destination.state) == ("gone", "running")
        assert any(isinstance(event, Progressed) for event in pair.seen)


@pytest.mark.parametrize("cancel_at", [None, "Progressed"])
@pytest.mark.parametrize("side", SIDES)
async def test_one_dies_at_any_command(side: str, cancel_at: str | None) -> None:
    """SIGKILL of either side at its n-th command, for every n of a whole run; also while a cancel is under way."""

    def dies_at(number: int) -> Change:
        def change(pair: FakePair) -> None:
            getattr(pair, side).die_at = number

        return change

    ends = await each({f"{side} dies at {number}": dies_at(number) for number in range(1, 41)}, cancel_at=cancel_at)
    wanted = {"source": {"refused", "unknown"}, "destination": {"refused", "cancelled"}}
    assert outcomes(ends) >= (wanted[side] if cancel_at else {"refused", "unknown", "completed"})


@pytest.mark.parametrize("last", ["migrate-set-parameters", "object-del"])
async def test_source_dies_when_all_is_given_back(last: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process outlives its sockets a little: the report must not say that the guest runs in it, nor what is left.

    The first ``migrate-set-parameters`` of all is before ``migrate``; the one that puts back comes after the verdict.
    """
    monkeypatch.setattr(settle, "OBSERVE_BOUND_S", 10.0)
    monkeypatch.setattr(run_side, "DYING_BOUND_S", 10.0)
    async with fake_pair() as pair:

        def dies_from_now_on(event: Event) -> None:
            if isinstance(event, Settling) or last == "object-del":
                pair.source.die_at_name = last

        pair.source.lingers_s = 0.3
        end = await pair.migrate(cancel_at="Progressed", on_event=dies_from_now_on)
        pair.check(end)
        assert isinstance(end, livemig.Report)
        assert pair.source.state == "gone"
        assert (end.outcome, end.running_on) == (livemig.Outcome.UNKNOWN, livemig.RunningOn.NONE)
        assert end.warnings == ()


@pytest.mark.parametrize("guest_did_it", [True, False])
async def test_last_words_are_heard_before_it_is_judged(guest_did_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source's process is seen gone while its SHUTDOWN is still to be read: that tells what became of the guest."""
    pump = Watch._pump
    monkeypatch.setattr(watch, "LAST_WORDS_BOUND_S", 10.0)

    async def pump_late(self: Watch, side: Any, stream: Any) -> None:
        if side == "source":
            stream = LateStream(stream)
        await pump(self, side, stream)

    monkeypatch.setattr(Watch, "_pump", pump_late)
    async with fake_pair(guest=FakeGuest(link_bytes_s=50e6)) as pair:

        def shut_down(event: Event) -> None:
            if isinstance(event, Progressed) and pair.source.state == "running":
                pair.source.emit("SHUTDOWN", {"guest": guest_did_it, "reason": "guest-shutdown"})
                pair.source.run_state = "shutdown"
                pair.source.spawn(pair.source.die())

        end = await pair.migrate(on_event=shut_down)
        assert isinstance(end, livemig.Report)
        expected = livemig.Outcome.GUEST_SHUT_DOWN if guest_did_it else livemig.Outcome.UNKNOWN
        assert (end.outcome, end.running_on) == (expected, livemig.RunningOn.NONE), end.reason


class LateStream:
    """Events that come a moment after all else is known."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.__exit__(None, None, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for event in self._stream:
            if event.name == "SHUTDOWN":
                await asyncio.sleep(0.3)
            yield event


@pytest.mark.parametrize("side", SIDES)
async def test_connection_ends_at_any_command(side: str) -> None:
    """The monitor's connection is closed at the n-th command of every connection, while QEMU lives on."""

    def closes(number: int) -> Change:
        return lambda pair: setattr(getattr(pair, side).faults, "close_after", number)

    ends = await each({f"{side} closes after {number}": closes(number) for number in range(36)})
    assert "refused" in outcomes(ends)


@pytest.mark.parametrize("side", SIDES)
async def test_no_reply_from_any_command_on(side: str) -> None:
    """The main loop hangs at the n-th command and for ever; out-of-band commands still work."""

    def hangs(number: int) -> Change:
        return lambda pair: setattr(getattr(pair, side).faults, "silent_after", number)

    ends = await each({f"{side} hangs after {number}": hangs(number) for number in range(0, 36, 3)})
    assert "refused" in outcomes(ends)


@pytest.mark.parametrize("side", SIDES)
async def test_garbage_before_any_answer(side: str) -> None:
    """What is no QMP comes in the middle of a run."""

    def garbles(number: int, garbage: bytes) -> Change:
        return lambda pair: getattr(pair, side).faults.bytes_after.update({number: garbage})

    kinds = [b"\xff\x00\xfe garbage\r\n", b'{"return": \r\n', b'{"event": 5}\r\n', b"[1, 2]\r\n", b"{}\r\n"]
    ends = await each(
        {f"{kinds[n % 5]!r} before {n} of {side}": garbles(n, kinds[n % 5]) for n in range(1, 36)},
    )
    assert "refused" in outcomes(ends)


COMMANDS = {
    "source": [
        *("query-version", "query-name", "query-memory-size-summary", "query-cpus-fast", "query-status"),
        *("query-migrate", "query-migrate-capabilities", "query-migrate-parameters", "query-qmp-schema"),
        *("migrate-set-capabilities", "migrate-set-parameters", "migrate", "migrate_cancel", "announce-self"),
        *("quit", "cont", "yank", "stop"),
    ],
    "destination": [
        *("query-version", "query-name", "query-memory-size-summary", "query-cpus-fast", "query-status"),
        *("query-migrate", "query-migrate-capabilities", "query-migrate-parameters", "query-qmp-schema"),
        *("migrate-set-capabilities", "migrate-set-parameters", "migrate-incoming", "stop", "cont", "announce-self"),
        *("quit", "yank"),
    ],
}


@pytest.mark.parametrize("cancel_at", [None, "Progressed"])
@pytest.mark.parametrize("side", SIDES)
async def test_any_command_is_refused(side: str, cancel_at: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU answers one of the commands with an error, always; also while a cancel is under way."""
    # All is answered, however busy the machine.
    defaults = Monitor.execute.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout_s", 5.0)

    def refuses(command: str, error_class: str) -> Change:
        return lambda pair: getattr(pair, side).faults.errors.update({command: (error_class, "not today")})

    ends = await each(
        {
            f"{side} refuses {command} by {error_class}": refuses(command, error_class)
            for command in COMMANDS[side]
            for error_class in ("GenericError", "CommandNotFound")
        },
        cancel_at=cancel_at,
    )
    if side == "destination" and cancel_at is None:
        end = ends["destination refuses cont by GenericError"]
        assert isinstance(end, livemig.Report)
        assert (end.outcome, end.running_on) == (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE)
        assert "QEMU refused cont: not today" in end.reason
    for command in ("migrate-set-capabilities", "migrate-set-parameters"):
        end = ends[f"{side} refuses {command} by GenericError"]
        assert isinstance(end, RefusedError)
        assert "not today" in str(end)


@pytest.mark.parametrize("side", SIDES)
async def test_any_command_is_never_answered(side: str) -> None:
    """One command hangs for ever, and with it, as in QEMU, all that come after it on that monitor."""

    def swallows(command: str) -> Change:
        return lambda pair: getattr(pair, side).faults.silent_commands.add(command)

    await each({f"{side} never answers {command}": swallows(command) for command in COMMANDS[side]})


@pytest.mark.parametrize("side", SIDES)
async def test_any_reply_makes_no_sense(side: str) -> None:
    """A value of another type where an object, a list or a known word belongs."""

    def replies(command: str, value: Any) -> Change:
        return lambda pair: getattr(pair, side).faults.replies.update({command: value})

    values: tuple[Any, ...] = (None, 7, "word", [], {}, [{}], {"status": 5}, {"qemu": 1})
    await each(
        {
            f"{side} answers {value!r} to {command}": replies(command, value)
            for command in COMMANDS[side]
            if command.startswith("query-")
            for value in values
        }
    )


async def test_lost_events() -> None:
    """Not one event comes: polling alone finds the end."""
    async with fake_pair() as pair:
        pair.source.lost_events = pair.destination.lost_events = {"MIGRATION", "MIGRATION_PASS", "STOP", "RESUME"}
        end = await pair.migrate()
        pair.check(end)
        assert isinstance(end, livemig.Report)
        assert end.running_on is not livemig.RunningOn.UNKNOWN


@pytest.mark.parametrize("lost", ["MIGRATION", "MIGRATION_PASS", "STOP", "RESUME", "SHUTDOWN"])
async def test_lost_event_of_one_kind(lost: str) -> None:
    """One kind of event never comes, from either side: the guest still arrives."""
    async with fake_pair() as pair:
        pair.source.lost_events = pair.destination.lost_events = {lost}
        end = await pair.migrate()
        pair.check(end)
        assert isinstance(end, livemig.Report)
        assert end.outcome is livemig.Outcome.COMPLETED, end.reason


async def test_events_and_replies_twice_and_late() -> None:
    """Everything comes twice, or late, so that what is newer overtakes it: the guest arrives all the same."""
    events = ["MIGRATION", "MIGRATION_PASS", "STOP", "RESUME"]

    def twice(pair: FakePair) -> None:
        for fake in (pair.source, pair.destination):
            fake.faults.duplicate_events = set(events)
            fake.faults.duplicate_replies = True

    def late(name: str, delay_s: float) -> Change:
        return lambda pair: on_both(pair, lambda faults: faults.event_delay_s.update({name: delay_s}))

    def slow(command: str, delay_s: float) -> Change:
        return lambda pair: on_both(pair, lambda faults: faults.reply_delay_s.update({command: delay_s}))

    cases: dict[str, Change] = {"twice": twice}
    cases |= {f"{name} {delay_s} s late": late(name, delay_s) for name in events for delay_s in (0.01, 0.1)}
    cases |= {
        f"{command} answered after {delay_s} s": slow(command, delay_s)
        for command in sorted({*COMMANDS["source"], *COMMANDS["destination"]})
        for delay_s in (0.02, 0.15)
    }
    ends = await each(cases)
    # A status that comes after a reply which knew more does not come from a real QEMU: there only `check` is asked.
    wanted = {name: end for name, end in ends.items() if not name.startswith("MIGRATION ")}
    assert {name: end for name, end in wanted.items() if outcomes({name: end}) != {"completed"}} == {}


async def test_words_that_nobody_knows() -> None:
    """A newer QEMU's migration status or run state: it is observed, and nothing destructive is done for it."""
    async with fake_pair(guest=FakeGuest(status_word="entangled")) as pair:
        end = await pair.migrate()
        pair.check(end)
        assert isinstance(end, livemig.Report)
        assert end.outcome is not livemig.Outcome.UNKNOWN, end.reason
    for side in SIDES:
        async with fake_pair() as pair:
            getattr(pair, side).faults.replies["query-status"] = {"status": "dreaming", "running": False}
            end = await pair.migrate()
            pair.check(end)
            if side == "source" and isinstance(end, livemig.Report) and end.outcome is not livemig.Outcome.COMPLETED:
                assert pair.source.state != "gone"


async def test_status_turns_into_a_word_that_nobody_knows() -> None:
    """In the middle of the copy: observed until a known one comes again."""
    async with fake_pair() as pair:

        async def speak() -> None:
            await asyncio.sleep(0.1)
            pair.source.migration.guest.status_word = "entangled"
            await asyncio.sleep(0.2)
            pair.source.migration.guest.status_word = None

        pair.source.spawn(speak())
        pair.source.migration.guest.link_bytes_s = 100e6
        end = await pair.migrate()
        pair.check(end)
        assert isinstance(end, livemig.Report)
        assert end.outcome is livemig.Outcome.COMPLETED, end.reason


@pytest.mark.parametrize(
    "guest",
    [FakeGuest(black_hole=True), FakeGuest(black_hole_at_stop=True), FakeGuest(reject=True)],
    ids=["black hole", "black hole at stop", "rejected"],
)
async def test_link_or_destination_fails(guest: FakeGuest) -> None:
    """A silent link before and after STOP, and a destination that refuses the device state: the guest stays."""
    async with fake_pair(guest=guest) as pair:
        end = await pair.migrate(livemig.Plan(probation_s=0.02, downtime_limit_s=0.1))
        pair.check(end)
        assert isinstance(end, livemig.Report)
        assert (end.outcome, end.running_on) == (livemig.Outcome.FAILED, livemig.RunningOn.SOURCE), end.reason
        assert pair.destination.state == "gone"


async def test_source_stops_reading() -> None:
    """As a stopped process: what the source's guest does is not known, so nothing runs at the destination."""
    async with fake_pair(guest=FakeGuest(link_bytes_s=50e6)) as pair:

        async def freeze() -> None:
            await asyncio.sleep(0.3)
            pair.source.faults.stop_reading = True

        pair.source.spawn(freeze())
        end = await pair.migrate()
        pair.source.faults.stop_reading = False
        pair.check(end)
        assert pair.destination.state != "running" or pair.source.state != "running"


@pytest.mark.parametrize("side", SIDES)
async def test_busy_monitor(side: str) -> None:
    """Another client holds the socket: refused, named, nothing touched; both go on as they were."""
    async with fake_pair() as pair:
        fake = getattr(pair, side)
        async with await Monitor.connect(fake.path):
            end = await pair.migrate(PLAN)
        assert isinstance(end, ConnectError)
        assert fake.path in str(end)
        assert "another client" in str(end)
        assert (pair.source.state, pair.destination.state) == ("running", "inmigrate")
        assert not [name for name, _ in (*pair.source.commands, *pair.destination.commands) if name[:5] != "query"]


async def test_without_out_of_band_commands() -> None:
    """A monitor that offers none: warned of, and the guest arrives."""
    async with fake_pair(source=Faults(out_of_band=False), destination=Faults(out_of_band=False)) as pair:
        end = await pair.migrate()
        pair.check(end)
        assert isinstance(end, livemig.Report)
        assert end.outcome is livemig.Outcome.COMPLETED
        assert any("out-of-band" in text for text in end.warnings)


async def test_cancel_at_any_event() -> None:
    """From the first event to the last: cancelled with the guest at the source, or completed, never in between."""
    found = set()
    for name in ("Prepared", "Progressed", "RoundCompleted", "Decided", "SourceStopped", "DestinationRunning"):
        async with fake_pair(guest=FakeGuest(link_bytes_s=200e6)) as pair:
            end = await pair.migrate(cancel_at=name)
            pair.check(end)
            assert isinstance(end, livemig.Report)
            found.add(str(end.outcome))
            assert any(isinstance(event, RoundCompleted | Progressed) for event in pair.seen) or name in (
                "Prepared",
                "Decided",
            )
    assert found == {"cancelled", "completed"}
