"""The detach queue: what it waits for, and what it asks of Redis."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from reactor.errors import Unavailable
from reactor.membership.detach_queue import DetachQueue
from reactor.presence.attachment import Attachment, AttachmentEvent, AttachmentState
from reactor.presence.keys import Entry
from reactor.settings import RoomPolicy
from tests.support.waiting import until

POLICY = RoomPolicy(ttl=1000, grace=100, away_grace=200, message="", max_members=0)


class FakeStore:
    """Replies to a detach when released; records whether each had an unanswered join."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[str]] = []
        self.join_unanswered: list[bool] = []

    async def detach(
        self, entry: Entry, connection: str, *, grace: int, away_grace: int, join_unanswered: bool
    ) -> str:
        self.join_unanswered.append(join_unanswered)
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]


class Tasks:
    def __init__(self) -> None:
        self.running: list[asyncio.Task[Any]] = []

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> None:
        self.running.append(asyncio.get_running_loop().create_task(func(*args)))


def queue_with(store: FakeStore) -> DetachQueue:
    return DetachQueue(lambda _room_id: POLICY, store, Tasks())  # type: ignore[arg-type]


def live_attachment() -> Attachment:
    attachment = Attachment(Entry("lobby", "ann"), "n1.1", POLICY)
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
    store.answers[0].set_result("grace")
    await turns()
    assert not waiting.done()
    store.answers[1].set_result("grace")
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
    store.answers[1].set_result("kept")
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
    assert store.join_unanswered == [True, False]
    for answer in store.answers:
        answer.set_result("kept")
    await asyncio.wait_for(queue.join(), 5)
