"""Events reach whoever listens, in order; a slow listener loses progress, never the engine's time."""

from __future__ import annotations

import asyncio

import pytest

from livemig.core.event import Event, Progressed, SourceStopped, Warned
from livemig.core.phases import Phase
from livemig.engine.event_stream import EVENTS_KEPT_COUNT, EventStream


def progressed(time_s: float) -> Progressed:
    """Progress, told by its time."""
    return Progressed(
        time_s=time_s,
        phase=Phase.PRECOPY,
        progress=0.5,
        round_number=1,
        remaining_bytes=0,
        sent_bytes=0,
        throughput_bytes_s=None,
        newly_dirtied_bytes_s=None,
        expected_downtime_s=None,
        downtime_limit_s=0.3,
    )


def warned(number: int) -> Warned:
    """An event that is never coalesced."""
    return Warned(time_s=float(number), text=str(number))


async def read_all(stream: EventStream) -> list[Event]:
    """Reads to the end."""
    return [event async for event in stream]


async def test_events_come_in_order_and_end_with_the_close():
    """What was put before the close is still read after it, also twice closed."""
    stream = EventStream()
    told: list[Event] = [warned(1), SourceStopped(time_s=2.0), warned(3)]
    for event in told:
        stream.put(event)
    stream.close()
    stream.close()
    assert await read_all(stream) == told
    assert await read_all(stream) == []


async def test_unread_progress_is_replaced_by_newer():
    """Only the latest of a run of progress is kept; other events in between keep their place."""
    stream = EventStream()
    for event in (progressed(1), progressed(2), warned(3), progressed(4), progressed(5), warned(6), progressed(7)):
        stream.put(event)
    stream.close()
    assert await read_all(stream) == [progressed(2), warned(3), progressed(5), warned(6), progressed(7)]


async def test_a_quick_reader_sees_each_progress():
    """Coalescing takes place only in what was not read."""
    stream = EventStream()
    reader = stream.__aiter__()
    for time_s in (1, 2, 3):
        stream.put(progressed(time_s))
        assert await anext(reader) == progressed(time_s)


async def test_a_waiting_reader_is_woken():
    """By each event, and by the end."""
    stream = EventStream()
    reader = stream.__aiter__()
    for number in (1, 2):
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        assert not waiting.done()
        stream.put(warned(number))
        assert await asyncio.wait_for(waiting, 1) == warned(number)
    ending = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    stream.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(ending, 1)


async def test_a_reader_that_never_reads_costs_no_time_and_bounded_memory():
    """A hundred thousand events go in without one await; the newest are kept, and the loss is said once."""
    stream = EventStream()
    count = 10 * EVENTS_KEPT_COUNT
    for number in range(count):
        stream.put(warned(number))
    stream.put(SourceStopped(time_s=0.0))
    stream.close()
    read = await read_all(stream)
    assert len(read) == EVENTS_KEPT_COUNT
    assert read[-1] == SourceStopped(time_s=0.0)
    assert read[-2] == warned(count - 1)


async def test_the_loss_is_said_once():
    """As soon as the first event is dropped, and not again."""
    stream = EventStream()
    for number in range(EVENTS_KEPT_COUNT + 500):
        stream.put(warned(number))
    stream.close()
    said = [event for event in await read_all(stream) if isinstance(event, Warned) and "too slow" in event.text]
    assert said == [Warned(time_s=float(EVENTS_KEPT_COUNT), text="the reader of events is too slow: some were dropped")]


async def test_a_reader_that_stops_early_leaves_the_rest():
    """Breaking off and reading again goes on where it was."""
    stream = EventStream()
    for number in range(3):
        stream.put(warned(number))
    async for event in stream:
        assert event == warned(0)
        break
    stream.close()
    assert await read_all(stream) == [warned(1), warned(2)]
