"""When observers are sent the changes of rooms; tests/system/gateway/test_fanout.py has what bounds that."""

import asyncio

from reactor.gateway.watched_members import WatchedMembers
from reactor.protocol.messages import RoomDiff
from tests.support.waiting import until


async def test_a_change_while_a_timer_is_due_at_once_is_sent_too() -> None:
    """For less than half a millisecond uvloop gives a handle without a time."""
    sent: list[str] = []

    def send(room_id: str, _diffs: list[RoomDiff]) -> tuple[int, int]:
        sent.append(room_id)
        return 1, 100

    members = WatchedMembers(
        send, lambda _room: 1, asyncio.get_running_loop(), window=0.0001, seconds=lambda *_: (0.0, 0.0)
    )
    rooms = [f"room {number}" for number in range(3)]
    for room_id in rooms:
        members.changed(RoomDiff(room_id, "e", 1, 2, 1, [], [], []))
    await until(lambda: set(sent) == set(rooms))
    members.stop()
