"""How many members left, and why: a durable record that other programs can read."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio

from reactor import Presence
from reactor.presence.api import Departure
from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until

REASONS = {"left": "leaver", "kicked": "troll", "disconnected": "cut", "inactivity_timeout": "silent"}


async def test_every_departure_is_recorded_with_its_reason(redis_server: Server) -> None:
    rooms = (RoomRule(match="brief*", ttl=0.8),)
    async with (
        served(redis_server, ttl=60, grace=0.3, rooms=rooms) as node,
        RawClient.connect(node) as leaver,
        RawClient.connect(node) as troll,
        RawClient.connect(node) as cut,
        RawClient.connect(node) as silent,
        Presence.open(redis_server.socket_url) as presence,
    ):
        following = asyncio.create_task(_take(7, presence.departures(follow=True)))
        began = redis_state.now(redis_server)
        joined_at: dict[str, int] = {}
        for room in ("lobby", "attic"):
            for client, name in ((leaver, "leaver"), (troll, "troll"), (cut, "cut")):
                joined = await client.join(room, name, username=name.title())
                joined_at[name] = next(m["joinedAt"] for m in joined["members"] if m["userId"] == name)
        await silent.join("brief", "silent")
        active = (await cut.ask("room:heartbeat", "room:heartbeat:ack", roomId="attic"))["timestamp"]
        for room in ("lobby", "attic"):
            await leaver.ask("leave_room", "room:left", roomId=room)
            assert await presence.kick(room, "troll", "Enough.") is True
            assert await presence.kick(room, "troll") is False
            assert (await troll.receive("room:force-leave", roomId=room))["message"] == "Enough."
        assert await troll.closed() == 4003
        cut.vanish()
        await until(lambda: len(redis_state.stream(redis_server, "attic")) == 3)
        await silent.receive("room:force-leave")
        await until(lambda: len(redis_state.stream(redis_server, "lobby")) == 3)

        # Read with plain commands.
        (entry,) = (e for e in redis_state.stream(redis_server, "attic") if e["user"] == "cut")
        assert {key: entry[key] for key in ("room", "username", "reason", "node")} == {
            "room": "attic",
            "username": "Cut",
            "reason": "disconnected",
            "node": node.name(),
        }
        assert (int(entry["joinedAt"]), int(entry["lastActiveAt"])) == (joined_at["cut"], active)
        assert active + 300 <= int(entry["leftAt"]) <= redis_state.now(redis_server)

        # Read with the API: by room, in all, since a time, and as they happen.
        found = [departure async for departure in presence.departures()]
        assert sorted((d.room_id, d.user_id, d.reason) for d in found) == sorted(
            [
                (room, REASONS[reason], reason)
                for room in ("lobby", "attic")
                for reason in ("left", "kicked", "disconnected")
            ]
            + [("brief", "silent", "inactivity_timeout")]
        )
        assert [d.left_at for d in found] == sorted(d.left_at for d in found)
        assert [d.user_id async for d in presence.departures("brief")] == ["silent"]
        assert [d async for d in presence.departures(since=began)] == found
        assert [d async for d in presence.departures(since=redis_state.now(redis_server) + 1)] == []
        assert await presence.totals() == {"left": 2, "kicked": 2, "disconnected": 2, "inactivity_timeout": 1}
        with anyio.fail_after(PATIENCE):
            followed = await following
        assert sorted(followed, key=lambda d: d.id) == sorted(found, key=lambda d: d.id)


async def _take(number: int, departures: AsyncIterator[Departure]) -> list[Departure]:
    """The first departures that arrive."""
    taken = []
    async for departure in departures:
        taken.append(departure)
        if len(taken) == number:
            break
    return taken


async def test_the_record_of_departures_outlives_the_nodes_and_is_capped(redis_server: Server) -> None:
    kept = 100
    async with served(redis_server, departures_kept=kept) as node, RawClient.connect(node) as ann:
        for _ in range(kept * 4):
            await ann.send("join_room", roomId="lobby", userId="ann")
            await ann.ask("leave_room", "room:left", roomId="lobby")
    key = redis_state.prefix("lobby")
    length: Any = redis_server.control.xlen(f"{key}:departures")
    assert kept <= length < kept * 3  # it is trimmed by whole blocks
    assert redis_server.control.hgetall(f"{key}:totals") == {"left": str(kept * 4)}
