"""Follows a room with nothing but a server's address: as a member, or by listing it periodically."""

from collections.abc import Callable
from typing import Any

import anyio
from msgspec.structs import replace

from reactor.client.client import Client
from reactor.client.status import Status
from reactor.errors import Refused, RequestTimedOut, Unavailable
from reactor.protocol.events import RoomEvent, SyncEvent, events_of
from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import diff_between


async def watch(
    url: str,
    room: str,
    on_event: Callable[[RoomEvent], object],
    *,
    user: str | None = None,
    every: float = 1.0,
    on_status: Callable[[Status], object] | None = None,
    **options: Any,
) -> None:
    """Report the events of a room, until cancelled or until the membership in it ends.

    Args:
        url: `ws://HOST:PORT/ws`.
        room: The room.
        on_event: Called with each event, first with a `sync`.
        user: Join the room as this user, and receive every event at once, departures with their reasons.
            Without a user the room is listed periodically, invisibly for its members: what joins and leaves
            between two listings is not reported, nor are reasons.
        every: Seconds between listings.
        on_status: Called with each new status of the connection, such as that it is lost.
        options: Further arguments of `Client`.

    Raises:
        ReactorError: The error that ended the membership, such as a `ForceLeave`; or as `Client`.

    """
    async with Client(url, **options) as client:
        if on_status is not None:
            client.on("status", on_status)
        if user is not None:
            joined = await client.join(room, user_id=user)
            async for event in joined:
                on_event(event)
            if (end := await joined.ended()) is not None:
                raise end
        else:
            await _list_periodically(client, room, on_event, every)


async def _list_periodically(
    client: Client, room: str, on_event: Callable[[RoomEvent], object], every: float
) -> None:
    before: dict[str, Member] | None = None
    count = -1
    while True:
        try:
            members = {member.user_id: member for member in await client.members(room)}
        except (Unavailable, RequestTimedOut):
            pass  # The last list stands until the server can answer.
        except Refused as error:
            if error.code != "too_large":
                raise
            former, before, count = count, None, await client.count(room)
            if count != former:
                on_event(SyncEvent(kind="sync", room_id=room, count=count))
        else:
            if before is None:
                everyone = tuple(members.values())
                on_event(SyncEvent(kind="sync", room_id=room, count=len(members), members=everyone))
            else:
                changes = diff_between(before, members.values())
                for event in events_of(RoomDiff(room, "", 0, 0, len(members), *changes), before):
                    on_event(replace(event, reason=None) if event.kind == "leave" else event)
            before, count = members, -1
        await anyio.sleep(every)
