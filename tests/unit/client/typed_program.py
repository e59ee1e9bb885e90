"""A program with every kind of event, for type checkers: it casts nothing, and no type is unknown."""

from typing import assert_type

from reactor import (
    Client,
    ForceLeave,
    JoinEvent,
    LeaveEvent,
    Member,
    Presence,
    ReactorError,
    Room,
    RoomEvent,
    RoomMessage,
    Status,
    SyncEvent,
    UpdateEvent,
)


def describe(event: RoomEvent) -> str:
    if event.kind == "sync":
        assert_type(event, SyncEvent)
        return ", ".join(member.username for member in event.members)
    if event.kind == "leave":
        assert_type(event, LeaveEvent)
        return f"{event.member.username} left ({event.reason or 'unknown'})"
    assert_type(event, JoinEvent | UpdateEvent)
    return event.member.username.upper()


seen: list[str] = []


def on_message(message: RoomMessage) -> None:
    seen.append(str(message.timestamp + 1))


def note(error: ReactorError) -> None:
    seen.append(str(error))


async def live(url: str) -> list[str]:
    async with Client(url, token=lambda: None) as client:
        room = await client.join("lobby", user_id=42, username="Ann", data={"x": 1}, view="members")
        assert_type(room, Room)
        room.on("join", lambda event: seen.append(event.member.username.upper()))
        room.on("leave", lambda event: seen.append(event.reason or event.member.username))
        room.on("update", lambda event: seen.append(str(event.member.away is True)))
        room.on("sync", lambda event: seen.append(str(len(event.members))))
        room.on("force-leave", lambda end: seen.append(end.message.upper()))
        room.on("status", lambda status: seen.append(str(status is Status.CONNECTED)))
        remove = room.on("message", on_message)
        remove()
        client.on("connection-error", note)
        assert_type(room.me, Member | None)
        lines = [describe(event) async for event in room]
        end = await room.ended()
        if isinstance(end, ForceLeave):
            lines.append(end.reason.upper())
        return lines


async def ask(url: str) -> int:
    async with Presence.open(url) as presence:
        seen.extend([describe(event) async for event in presence.watch("lobby")])
        return sum(member.connections for member in await presence.members("lobby"))
