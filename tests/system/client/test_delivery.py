import asyncio
import gc
import logging
import weakref

import anyio
import pytest

from reactor.client.delivery import Callbacks, EventFeed, Events
from reactor.protocol.events import JoinEvent, RoomEvent, SyncEvent
from reactor.protocol.messages import Member
from tests.support.waiting import PATIENCE


def numbered(number: int, kind: str = "join") -> RoomEvent:
    if kind == "sync":
        return SyncEvent(kind="sync", room_id="r", count=number)
    return JoinEvent(kind="join", room_id="r", count=number, member=Member("ann", "Ann", 1, 1))


class Source:
    """A room whose count is the number of the last event."""

    def __init__(self, limit: int) -> None:
        self.count = 0
        self.feed = EventFeed(lambda: numbered(self.count, "sync"), limit)

    def happen(self, times: int = 1) -> None:
        for _ in range(times):
            self.count += 1
            self.feed.put(numbered(self.count))


async def taken(reader: Events, many: int) -> list[tuple[str, int]]:
    with anyio.fail_after(PATIENCE):
        return [(event.kind, event.count) for event in [await anext(reader) for _ in range(many)]]


async def test_an_iterator_begins_with_a_sync_and_then_yields_each_event():
    source = Source(10)
    source.happen(3)
    reader = source.feed.iterator()
    assert await taken(reader, 1) == [("sync", 3)]
    source.happen(2)
    assert await taken(reader, 2) == [("join", 4), ("join", 5)]


async def test_events_before_the_first_read_are_part_of_the_first_sync():
    source = Source(10)
    reader = source.feed.iterator()
    source.happen(3)
    assert await taken(reader, 1) == [("sync", 3)]
    source.happen()
    assert await taken(reader, 1) == [("join", 4)]


async def test_every_iterator_gets_all_events_and_a_waiting_one_is_woken():
    source = Source(10)
    readers = [source.feed.iterator() for _ in range(3)]
    for reader in readers:
        await taken(reader, 1)
    waiting = [asyncio.ensure_future(taken(reader, 2)) for reader in readers]
    await asyncio.sleep(0)
    source.happen(2)
    assert [await one for one in waiting] == [[("join", 1), ("join", 2)]] * 3


async def test_a_slow_iterator_gets_a_sync_instead_of_an_unbounded_queue():
    source = Source(5)
    slow, quick = source.feed.iterator(), source.feed.iterator()
    await taken(slow, 1)
    await taken(quick, 1)
    for number in range(1, 1001):
        source.happen()
        assert await taken(quick, 1) == [("join", number)]
        assert len(slow._queue) <= 5
    assert await taken(slow, 1) == [("sync", 1000)]
    source.happen()
    assert await taken(slow, 1) == [("join", 1001)]


async def test_the_iteration_ends_after_the_queued_events():
    source = Source(10)
    reader = source.feed.iterator()
    await taken(reader, 1)
    source.happen(2)
    source.feed.end()
    with anyio.fail_after(PATIENCE):
        assert [event.count async for event in reader] == [1, 2]
        assert [event async for event in source.feed.iterator()] == []


async def test_the_end_wakes_a_waiting_iterator():
    source = Source(10)
    reader = source.feed.iterator()
    await taken(reader, 1)
    rest = asyncio.ensure_future(anext(reader, None))
    await asyncio.sleep(0)
    source.feed.end()
    with anyio.fail_after(PATIENCE):
        assert await rest is None


async def test_an_iterator_without_references_is_forgotten():
    source = Source(10)
    gone = weakref.ref(source.feed.iterator())
    gc.collect()
    assert gone() is None
    source.happen()


def test_callbacks_are_called_until_they_are_removed():
    callbacks = Callbacks("join")
    heard: list[int] = []
    one, two = callbacks.add("join", heard.append), callbacks.add("join", heard.append)
    callbacks.call("join", 1)
    one()
    one()
    callbacks.call("join", 2)
    two()
    callbacks.call("join", 3)
    assert heard == [1, 1, 2]


def test_a_callback_that_removes_itself_does_not_affect_others():
    callbacks = Callbacks("join")
    heard: list[int] = []

    def once(news: int) -> None:
        heard.append(news)
        remove()

    remove = callbacks.add("join", once)
    callbacks.add("join", heard.append)
    callbacks.call("join", 1)
    callbacks.call("join", 2)
    assert heard == [1, 1, 2]


def test_a_callback_that_another_one_removes_is_not_called_any_more():
    callbacks = Callbacks("join")
    heard: list[str] = []

    def first(_news: int) -> None:
        heard.append("first")
        remove()
        callbacks.add("join", lambda _: heard.append("added"))

    callbacks.add("join", first)
    remove = callbacks.add("join", lambda _: heard.append("removed"))
    callbacks.add("join", lambda _: heard.append("last"))
    callbacks.call("join", 1)
    assert heard == ["first", "last"]


async def test_a_callback_that_reads_the_result_of_something_cancelled_stops_nothing(caplog):
    callbacks = Callbacks("join")
    heard: list[int] = []
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    callbacks.add("join", lambda _: cancelled.result())
    callbacks.add("join", heard.append)
    callbacks.call("join", 1)
    assert heard == [1]
    assert "CancelledError" in caplog.text


def test_a_failing_callback_is_logged_and_the_others_are_called(caplog):
    callbacks = Callbacks("join")
    heard: list[int] = []
    callbacks.add("join", lambda _: 1 / 0)
    callbacks.add("join", heard.append)
    with caplog.at_level(logging.ERROR, "reactor.client.delivery"):
        callbacks.call("join", 1)
    assert heard == [1]
    assert "ZeroDivisionError" in caplog.text


def test_an_unknown_kind_and_a_coroutine_function_are_refused():
    async def later(_news: object) -> None: ...

    callbacks = Callbacks("join", "leave")
    with pytest.raises(ValueError, match="use one of join, leave"):
        callbacks.add("enter", print)
    with pytest.raises(TypeError, match="plain function"):
        callbacks.add("join", later)
