"""The detach queue: what it waits for, and what it asks of Redis."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from reactor.errors import Unavailable
from reactor.membership.detach_queue import MAX_CONNECTIONS, DetachQueue
from reactor.presence.attachment import Attachment, AttachmentEvent, AttachmentState
from reactor.presence.keys import Entry
from reactor.presence.store import LostConnection
from reactor.settings import RoomPolicy
from tests.support.waiting import until

POLICY = RoomPolicy(ttl=1000, grace=100, away_grace=200, close_grace=50, message="", max_members=0)


class FakeStore:
    """Replies to a call when released, for each connection in it; records the calls."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[list[str | Unavailable]]] = []
        self.calls: list[list[LostConnection]] = []

    async def detach_all(self, _shard: int, lost: Sequence[LostConnection]) -> list[str | Unavailable]:
        self.calls.append(list(lost))
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


class Tasks:
    def __init__(self) -> None:
        self.running: list[asyncio.Task[Any]] = []

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> None:
        self.running.append(asyncio.get_running_loop().create_task(func(*args)))


def queue_with(store: FakeStore, policy: RoomPolicy = POLICY) -> DetachQueue:
    return DetachQueue(lambda _room_id: policy, store, Tasks())  # type: ignore[arg-type]


def live_attachment(user: str = "ann", room: str = "lobby") -> Attachment:
    attachment = Attachment(Entry(room, user), "n1.1", POLICY, 7, f"{room}:user:{user}")
    attachment.submitted("n1.1")
    attachment.answered(1)
    attachment.advance(AttachmentEvent.JOINED)
    return attachment


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_waits_for_a_detach_that_was_added_while_it_waited() -> None:
    store = FakeStore()
    queue, first, second = queue_with(store), live_attachment(), live_attachment()
    for attachment in (first, second):
        attachment.advance(AttachmentEvent.SOCKET_CLOSED)
    queue.add(first)
    waiting = asyncio.ensure_future(queue.join())
    await turns()
    queue.add(second)
    await turns()
    store.answers[0].set_result(["grace"])
    await turns()
    assert not waiting.done()
    store.answers[1].set_result(["grace"])
    await asyncio.wait_for(waiting, 5)
    assert {first.state, second.state} == {AttachmentState.ENDED}


async def test_it_asks_again_until_redis_answers() -> None:
    store = FakeStore()
    queue, attachment = queue_with(store), live_attachment()
    attachment.advance(AttachmentEvent.SOCKET_CLOSED)
    queue.add(attachment)
    await turns()
    store.answers[0].set_exception(Unavailable("away"))
    await until(lambda: len(store.answers) == 2)
    assert attachment.state is AttachmentState.DETACHING
    store.answers[1].set_result(["kept"])
    await asyncio.wait_for(queue.join(), 5)


async def test_connections_that_are_lost_together_go_in_bounded_calls_one_at_a_time() -> None:
    store = FakeStore()
    queue, lost = queue_with(store), [live_attachment(f"u{number}") for number in range(MAX_CONNECTIONS + 3)]
    for attachment in lost:
        attachment.advance(AttachmentEvent.SOCKET_CLOSED)
        queue.add(attachment)
    await turns()
    assert [len(call) for call in store.calls] == [MAX_CONNECTIONS]
    store.answers[0].set_result(["grace"] * MAX_CONNECTIONS)
    await turns()
    assert [len(call) for call in store.calls] == [MAX_CONNECTIONS, 3]
    store.answers[1].set_result(["grace"] * 3)
    await asyncio.wait_for(queue.join(), 5)
    assert [one.entry.user_id for call in store.calls for one in call] == [one.entry.user_id for one in lost]


async def test_a_connection_that_redis_refuses_delays_no_other() -> None:
    store = FakeStore()
    queue, lost = queue_with(store), [live_attachment("damaged"), live_attachment("ann")]
    for attachment in lost:
        attachment.advance(AttachmentEvent.SOCKET_CLOSED)
        queue.add(attachment)
    await turns()
    store.answers[0].set_result([Unavailable("WRONGTYPE"), "grace"])
    await until(lambda: len(store.calls) == 2)
    assert lost[1].state is AttachmentState.ENDED
    assert [one.entry.user_id for one in store.calls[1]] == ["damaged"]
    store.answers[1].set_result(["grace"])
    await asyncio.wait_for(queue.join(), 5)


async def test_only_a_connection_that_is_gone_has_its_unanswered_joins_refused() -> None:
    store = FakeStore()
    queue, gone, leaving = queue_with(store), live_attachment(), live_attachment()
    gone.submitted("n1.1")
    gone.advance(AttachmentEvent.SOCKET_CLOSED)
    leaving.submitted("n1.1")
    leaving.advance(AttachmentEvent.LEAVE_SUBMITTED)
    queue.add(gone)
    queue.add(leaving)
    await turns()
    assert [one.join_unanswered for one in store.calls[0]] == [True, False]
    store.answers[0].set_result(["kept", "kept"])
    await asyncio.wait_for(queue.join(), 5)


def lost_for(queue: DetachQueue, seconds: float, user: str = "ann", room: str = "lobby") -> None:
    """Add a connection that was lost some seconds ago."""
    attachment = live_attachment(user, room)
    attachment.advance(AttachmentEvent.SOCKET_CLOSED)
    queue.add(attachment, since=asyncio.get_running_loop().time() - seconds)


async def test_the_grace_runs_from_the_loss_of_the_connection_and_half_of_it_is_always_left() -> None:
    store = FakeStore()
    queue = queue_with(store, replace(POLICY, grace=60_000, away_grace=900_000))
    lost_for(queue, 20, room="first")
    lost_for(queue, 300, room="second")
    await turns()
    first, second = store.calls[0]
    assert 30_000 < first.grace <= 40_000
    assert (second.grace, second.away_grace) == (30_000, first.away_grace - 280_000)


async def test_the_grace_begins_anew_where_redis_did_not_answer() -> None:
    store = FakeStore()
    queue = queue_with(store, replace(POLICY, grace=60_000))
    lost_for(queue, 300)
    await turns()
    store.answers[0].set_exception(Unavailable("away"))
    await until(lambda: len(store.calls) == 2)
    assert store.calls[0][0].grace == 30_000
    assert store.calls[1][0].grace > 45_000


async def test_connections_of_one_room_go_together_with_one_grace() -> None:
    store = FakeStore()
    queue = queue_with(store, replace(POLICY, grace=60_000))
    for number in range(4):
        for room in ("lobby", "kitchen"):
            lost_for(queue, 10 + number, f"u{number}", room)
    await turns()
    (call,) = store.calls
    assert [one.entry.room_id for one in call] == ["lobby"] * 4 + ["kitchen"] * 4
    assert len({one.grace for one in call if one.entry.room_id == "lobby"}) == 1
    assert call[0].grace > 48_000, "that of the connection which was lost last"
