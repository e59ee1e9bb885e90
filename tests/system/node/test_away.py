"""The app goes to the background: the member is away."""

import asyncio
from typing import Any

from reactor.server.node import Node
from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.keyspace import SHARDS, shard_of, shard_prefix
from tests.support.nodes import served
from tests.support.raw_client import Message, RawClient
from tests.support.servers import Server


def _seen(client: RawClient, user_id: str) -> list[tuple[bool, int]]:
    """The updates of a member that a client received: (away, connections) of each."""
    return [
        (member["away"], member["connections"])
        for diff in client.of("room:diff")
        for member in diff["updated"]
        if member["userId"] == user_id
    ]


async def test_an_away_member_is_shown_as_away_and_stays_while_its_heartbeats_continue(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, ttl=0.8, diff_window=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as metronome,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann")
        ann.start_heartbeats(), bob.start_heartbeats()
        assert await ann.ask("room:away", "room:away:ok", roomId="lobby", id="a") == {
            "type": "room:away:ok",
            "roomId": "lobby",
            "id": "a",
        }
        assert redis_state.members(redis_server, "lobby")["ann"]["away"] == "1"
        await metronome.join("lobby", "metronome")  # sends no heartbeats: it expires a whole TTL later
        assert await bob.receive_departure_of("metronome") == "inactivity_timeout"
        here = await bob.ask("room:members", "room:members", roomId="lobby")
        assert {(m["userId"], m["away"]) for m in here["members"]} == {("ann", True), ("bob", False)}
        assert _seen(bob, "ann") == [(True, 1)]
        assert "roomId" not in await ann.ask("room:back", "room:back:ok")
        await bob.until(lambda: _seen(bob, "ann") == [(True, 1), (False, 1)])
        assert "away" not in redis_state.members(redis_server, "lobby")["ann"]


async def test_a_disconnected_away_member_has_the_away_grace(redis_server: Server) -> None:
    rooms = (RoomRule(match="long-grace", away_grace=2.0),)
    async with (
        served(redis_server, ttl=60, grace=0.3, away_grace=1.2, rooms=rooms) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as here,
        RawClient.connect(node) as away,
        RawClient.connect(node) as returned,
    ):
        for room in ("lobby", "long-grace"):
            await watcher.join(room, "watcher")
            for client, name in ((here, "here"), (away, "away"), (returned, "returned")):
                await client.join(room, name)
        await away.ask("room:away", "room:away:ok")
        await returned.ask("room:away", "room:away:ok", roomId="lobby")
        await returned.ask("room:back", "room:back:ok")
        cut_at = redis_state.now(redis_server)
        for client in (here, away, returned):
            client.vanish()

        def gone(message: Message) -> set[tuple[str, str]]:
            return {(message["roomId"], left["userId"]) for left in message.get("left", ())}

        received: list[tuple[str, str]] = []
        while len(received) < 6:
            diff = await watcher.receive("room:diff")
            assert all(left["reason"] == "disconnected" for left in diff["left"])
            received += sorted(gone(diff))
        rooms_of = {room: [user for one, user in received if one == room] for room in ("lobby", "long-grace")}
        for users in rooms_of.values():
            assert (sorted(users[:2]), users[2]) == (["here", "returned"], "away")

        left: dict[tuple[str, str], Any] = {
            (room, entry["user"]): int(entry["leftAt"]) - cut_at
            for room in ("lobby", "long-grace")
            for entry in redis_state.stream(redis_server, room)
        }
        for (room, user), after in left.items():
            grace = {"lobby": 1200, "long-grace": 2000}[room] if user == "away" else 300
            assert grace <= after < grace + 5000, (room, user, after)


async def test_a_member_that_reconnects_within_the_away_grace_stays_away_until_room_back(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, ttl=60, grace=0.2, away_grace=20, diff_window=0) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as metronome,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann")
        await metronome.join("lobby", "metronome")
        await ann.ask("room:away", "room:away:ok", roomId="lobby")
        ann.vanish()
        metronome.vanish()
        assert await watcher.receive_departure_of("metronome") == "disconnected"
        async with RawClient.connect(node) as again:
            joined = await again.join("lobby", "ann")
            assert joined["resumed"] is True
            assert {(m["userId"], m["away"]) for m in joined["members"]} == {
                ("ann", True),
                ("watcher", False),
            }
            await again.ask("room:back", "room:back:ok", roomId="lobby")
            await watcher.until(lambda: _seen(watcher, "ann") == [(True, 1), (False, 1)])
            assert redis_server.control.pttl(redis_state.presence_key("lobby", "ann")) > 50_000


async def test_a_member_is_away_while_all_its_connections_are(redis_server: Server) -> None:
    async with (
        served(redis_server, ttl=60, diff_window=0) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as tab,
        RawClient.connect(node) as phone,
    ):
        await watcher.join("lobby", "watcher")
        await tab.join("lobby", "ann")
        await phone.join("lobby", "ann")
        await tab.ask("room:away", "room:away:ok", roomId="lobby")
        await phone.ask("room:away", "room:away:ok", roomId="lobby")
        await tab.ask("room:back", "room:back:ok", roomId="lobby")
        await phone.ask("leave_room", "room:left", roomId="lobby")
        await tab.ask("room:away", "room:away:ok", roomId="lobby")
        await watcher.until(lambda: len(_seen(watcher, "ann")) == 5)
        assert _seen(watcher, "ann") == [(False, 2), (True, 2), (False, 2), (False, 1), (True, 1)]


def writes(node: Node) -> int:
    """How often the script that writes changes of `away` has run."""
    return node.backend.times["set_away"].count if "set_away" in node.backend.times else 0


async def test_away_back_and_away_again_is_one_write(bundled_server: Server) -> None:
    async with (
        served(bundled_server, diff_window=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann")
        for number, kind in enumerate(("room:away", "room:back", "room:away")):
            await ann.send(kind, id=number)
        await ann.send("room:members", roomId="lobby", id="list")
        listed = await ann.has_received("room:members", id="list")
        assert [message["id"] for message in ann.received if message.get("id") in (0, 1, 2)] == [0, 1, 2]
        assert {m["userId"]: m["away"] for m in listed["members"]} == {"ann": True, "bob": False}
        await bob.until(lambda: _seen(bob, "ann") == [(True, 1)])
        assert writes(node) == 1


async def test_a_change_in_all_rooms_is_one_write_for_each_shard(bundled_server: Server) -> None:
    rooms = [f"room {number}" for number in range(128)]
    async with served(bundled_server) as node, RawClient.connect(node) as ann:
        for room in rooms:
            await ann.send("join_room", roomId=room, userId="ann")
        await ann.until(lambda: len(ann.of("room:joined")) == len(rooms))
        await ann.ask("room:away", "room:away:ok")
        found = redis_state.everywhere(bundled_server)
        assert [found[room]["ann"]["away"] for room in rooms] == ["1"] * len(rooms)
        assert writes(node) <= SHARDS


async def test_a_client_that_goes_away_and_closes_at_once_has_the_away_grace(bundled_server: Server) -> None:
    async with (
        served(bundled_server, ttl=60, grace=0.2, away_grace=30) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await ann.send("room:away")
        await ann.socket.close()
        await bob.socket.close()
        assert await watcher.receive_departure_of("bob") == "disconnected"
        assert redis_state.members(bundled_server, "lobby")["ann"]["away"] == "1"


async def test_a_damaged_member_fails_no_other_change(bundled_server: Server) -> None:
    async with (
        served(bundled_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        prefix = shard_prefix("reactor", shard_of("lobby"))
        bundled_server.control.delete(f"{prefix}:shadow:room:lobby:user:ann")
        bundled_server.control.set(f"{prefix}:shadow:room:lobby:user:ann", "no hash")
        await asyncio.gather(ann.send("room:away"), bob.send("room:away"))
        await bob.receive("room:away:ok")
        assert redis_state.members(bundled_server, "lobby")["bob"]["away"] == "1"
