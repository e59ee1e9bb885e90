"""The counts of watched rooms."""

import asyncio
from typing import Any, cast

from reactor.gateway.connection import Connection
from reactor.gateway.watched_counts import WatchedCounts
from reactor.protocol.messages import Member, RoomCounts
from reactor.protocol.room import RoomView


def view_of(room_id: str, members: int) -> RoomView:
    view = RoomView(room_id)
    view.reset("epoch", 1, [Member(f"u{number}", "", 0, 0) for number in range(members)])
    return view


async def test_a_change_that_falls_into_a_list_anew_is_sent_when_the_room_is_known_again():
    """The list may show what was known already: then nothing else says that the room has changed."""
    sent: asyncio.Queue[dict[str, int]] = asyncio.Queue()
    views: dict[str, RoomView | None] = {"lobby": view_of("lobby", 1), "attic": view_of("attic", 3)}

    def send(_rooms: Any, message: object, _connections: Any) -> None:
        assert isinstance(message, RoomCounts)
        sent.put_nowait({room.room_id: room.count for room in message.rooms})

    counts = WatchedCounts(views.get, send, asyncio.get_running_loop(), seconds_per_connection=0.0)
    page = cast("Connection", object())
    try:
        counts.watch(page, ["lobby", "attic"])
        counts.changed("lobby")
        assert await sent.get() == {"lobby": 1}
        views["lobby"] = None
        counts.changed("lobby")
        counts.changed("attic")
        assert await sent.get() == {"attic": 3}
        views["lobby"] = view_of("lobby", 2)
        counts.known("lobby")
        assert await sent.get() == {"lobby": 2}
        counts.known("lobby")
        views["lobby"] = None
        counts.changed("lobby")
        counts.unwatch(page, ["lobby"])
        counts.changed("attic")
        assert await sent.get() == {"attic": 3}
        views["lobby"] = view_of("lobby", 2)
        counts.known("lobby")
        counts.changed("attic")
        assert await sent.get() == {"attic": 3}
    finally:
        counts.stop()
