"""Following a room from outside: who has only a server's address, and is no member, asks again and again."""

from collections.abc import Callable
from typing import Any

import anyio
from msgspec.structs import replace

from reactor.client.client import Client
from reactor.errors import Refused, RequestTimedOut, Unavailable
from reactor.protocol.events import RoomEvent, events_of
from reactor.protocol.messages import Member, RoomDiff
from reactor.protocol.room import diff_between


async def watch(
    url: str,
    room: str,
    tell: Callable[[RoomEvent], object],
    *,
    user: str | None = None,
    every: float = 1.0,
    **options: Any,
) -> None:
    """Tell what happens in a room, until cancelled or until the stay in it ends.

    Args:
        url: `ws://HOST:PORT/ws`.
        room: The room.
        tell: Called with each event, first with a `sync`.
        user: Be in the room as this user, and hear of everything at once and with its reason. Without one the
            room is listed again and again, and nobody sees the watcher: what came and went in between is not
            told, nor why somebody left.
        every: Seconds between listings.
        options: For the `Client`.

    Raises:
        ReactorError: What ended the stay, such as a `ForceLeave`; or there is no server, as `Client`.

    """
    async with Client(url, **options) as client:
        if user is not None:
            joined = await client.join(room, user_id=user)
            async for event in joined:
                tell(event)
            if (end := await joined.ended()) is not None:
                raise end
        else:
            await _list_again_and_again(client, room, tell, every)


async def _list_again_and_again(
    client: Client, room: str, tell: Callable[[RoomEvent], object], every: float
) -> None:
    before: dict[str, Member] | None = None
    count = -1
    while True:
        try:
            members = {member.user_id: member for member in await client.members(room)}
        except (Unavailable, RequestTimedOut):
            pass  # the list is as it was last seen, until the server can tell
        except Refused as error:
            if error.code != "too_large":
                raise
            former, before, count = count, None, await client.count(room)
            if count != former:
                tell(RoomEvent(kind="sync", room_id=room, count=count))
        else:
            if before is None:
                everybody = tuple(members.values())
                tell(RoomEvent(kind="sync", room_id=room, count=len(members), members=everybody))
            else:
                changes = diff_between(before, members.values())
                for event in events_of(RoomDiff(room, "", 0, 0, len(members), *changes), before):
                    tell(replace(event, reason=None))
            before, count = members, -1
        await anyio.sleep(every)
