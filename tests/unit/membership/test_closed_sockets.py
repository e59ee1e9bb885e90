"""Connections in very many rooms that close together are detached room by room, some at a time."""

import asyncio
from typing import Any

from reactor.membership.closed_sockets import AT_ONCE, ClosedSockets
from reactor.presence.attachment import Attachment, AttachmentEvent
from reactor.presence.keys import Entry
from reactor.settings import RoomPolicy

POLICY = RoomPolicy(ttl=1000, grace=100, away_grace=200, close_grace=50, message="", max_members=0)
ROOMS = AT_ONCE + 50


class Recorder:
    """What is begun, and how many memberships the detach queue is to count as pending."""

    def __init__(self) -> None:
        self.begun: list[tuple[Any, str]] = []
        self.pending = 0
        self.tasks: list[asyncio.Task[None]] = []

    def detach(self, connection: Any, attachment: Attachment, _since: float) -> None:
        self.begun.append((connection, attachment.entry.room_id))

    def expect(self, count: int) -> None:
        self.pending += count

    def start_soon(self, func: Any, /, *args: Any) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(func(*args)))


def live_attachment(room: str, user: str) -> Attachment:
    attachment = Attachment(Entry(room, user), "n1.1", POLICY, 7, f"{room}:user:{user}")
    attachment.submitted("n1.1")
    attachment.answered(1)
    attachment.advance(AttachmentEvent.JOINED)
    return attachment


async def test_those_of_a_room_are_detached_one_after_the_other_and_some_rooms_at_a_time() -> None:
    recorder: Any = Recorder()
    closed = ClosedSockets(recorder.detach, recorder, recorder)
    connections: list[Any] = ["first", "second", "third"]
    for connection in connections:
        closed.add(connection, [live_attachment(f"room{n}", connection) for n in range(ROOMS)])
    assert recorder.pending == 3 * ROOMS
    await asyncio.sleep(0)
    assert len(recorder.begun) == AT_ONCE
    assert recorder.pending == 3 * ROOMS - AT_ONCE
    await asyncio.gather(*recorder.tasks)
    assert recorder.begun == [(one, f"room{n}") for n in range(ROOMS) for one in connections]
    assert recorder.pending == 0


async def test_one_that_departed_meanwhile_is_not_detached() -> None:
    recorder: Any = Recorder()
    closed = ClosedSockets(recorder.detach, recorder, recorder)
    attachments = [live_attachment(f"room{n}", "ann") for n in range(ROOMS)]
    connection: Any = "first"
    closed.add(connection, attachments)
    attachments[-1].advance(AttachmentEvent.EXPELLED)
    await asyncio.gather(*recorder.tasks)
    assert len(recorder.begun) == ROOMS - 1
    assert recorder.pending == 0
