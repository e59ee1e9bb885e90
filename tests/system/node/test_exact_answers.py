"""Replies are exact by Redis's clock, whether or not anything has reacted to an expiry yet."""

from typing import Any

from reactor import Presence
from reactor.presence.keys import Entry
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import Message, RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

NOTHING_REACTS: dict[str, Any] = {"pacemaker": False, "listener": False, "sweep_interval": 0}
TTL = 2.0
ROOMS = (
    "listed",
    "counted",
    "asked",
    "joined",
    "updated",
    "api-listed",
    "api-counted",
    "api-asked",
    "api-rooms",
)


async def test_an_expired_member_is_in_no_reply(redis_server: Server) -> None:
    """Each request is the first to read its room after the expiry, and notifies the watcher by it."""
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with (
        served(redis_server, ttl=TTL, **NOTHING_REACTS) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as silent,
        RawClient.connect(node) as asker,
        Presence.open(redis_server.socket_url) as presence,
    ):
        watcher.start_heartbeats(0.1)
        last: Message = {}
        for room in ROOMS:
            await watcher.join(room, "watcher")
            last = await silent.join(room, "silent")
        await redis_state.wait_for_expiry(redis_server, last["members"][1]["joinedAt"], TTL)
        for room in ROOMS:
            assert set(redis_state.rows(redis_server, room)) == {
                "silent",
                "watcher",
            }  # nothing has read the room yet

        def departure_sent(room: str) -> bool:
            """Whether the request also made the departure."""
            return len(redis_state.stream(redis_server, room)) == 1

        listed = await asker.ask("room:members", "room:members", roomId="listed")
        assert ([m["userId"] for m in listed["members"]], listed["count"]) == (["watcher"], 1)
        assert departure_sent("listed")
        assert (await asker.ask("room:count", "room:count", roomId="counted"))["count"] == 1
        assert departure_sent("counted")
        question = {"roomId": "asked", "userId": "silent"}
        assert (await asker.ask("room:is_present", "room:is_present", **question))["present"] is False
        assert departure_sent("asked")
        joined = await asker.join("joined", "asker")
        assert ({m["userId"] for m in joined["members"]}, joined["count"]) == ({"watcher", "asker"}, 2)
        assert departure_sent("joined")
        refused = await silent.ask("room:update", "error", roomId="updated", username="x")
        assert refused["code"] == "not_joined"
        assert departure_sent("updated")
        assert [member.user_id for member in await presence.members("api-listed")] == ["watcher"]
        assert departure_sent("api-listed")
        assert await presence.count("api-counted") == 1
        assert departure_sent("api-counted")
        assert await presence.is_present("api-asked", "silent") is False
        assert departure_sent("api-asked")
        counts = {room.room_id: room.count for room in await presence.rooms()}
        assert counts == dict.fromkeys(ROOMS, 1) | {"joined": 2}

        for room in ROOMS:
            await watcher.until(lambda room=room: bool(departures(watcher.received, room)))  # type: ignore[misc]
            assert departures(watcher.received, room) == [("silent", "inactivity_timeout")]
            assert len(redis_state.stream(redis_server, room)) == 1
        assert await silent.closed() == 4003


async def test_a_disconnected_member_counts_until_its_grace_ends_and_not_after(redis_server: Server) -> None:
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with (
        served(redis_server, ttl=60, grace=0.5, **NOTHING_REACTS) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as cut,
    ):
        await ann.join("lobby", "ann")
        await cut.join("lobby", "cut")
        cut.vanish()
        key = redis_state.presence_key("lobby", "cut")
        await until(lambda: redis_server.control.pttl(key) <= 500)
        deadline = redis_server.control.pexpiretime(key)
        while redis_state.now(redis_server) < deadline - 100:
            asked = await ann.ask("room:count", "room:count", roomId="lobby")
            if redis_state.now(redis_server) < deadline:
                assert asked["count"] == 2
        await until(lambda: redis_state.now(redis_server) > deadline + 1)
        assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] == 1
        assert await ann.receive_departure_of("cut") == "disconnected"


async def test_many_members_that_expire_at_once_are_all_left_out(redis_server: Server) -> None:
    """More than one call settles and more than one page lists."""
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with (
        served(redis_server, ttl=60, **NOTHING_REACTS) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann", view="none")
        for number in range(2500):
            ttl = 60_000 if number % 5 == 0 else 300
            await node.store.join(Entry("lobby", f"u{number}"), f"{node.name()}.f{number}", ttl=ttl)
        last = redis_server.control.pexpiretime(redis_state.presence_key("lobby", "u2499"))
        await until(lambda: redis_state.now(redis_server) > last)
        assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] == 501
        assert len(redis_state.stream(redis_server, "lobby")) == 2000


async def test_a_member_that_is_read_while_it_expires_departs(redis_server: Server) -> None:
    """In the millisecond of its expiry a script may find it alive by one clock and due by the other."""
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with (
        served(redis_server, ttl=60, **NOTHING_REACTS) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann", view="none")
        for number in range(1000):
            await node.store.join(Entry("lobby", f"u{number}"), f"{node.name()}.f{number}", ttl=700 + number)
        last = redis_server.control.pexpiretime(redis_state.presence_key("lobby", "u999"))
        while redis_state.now(redis_server) <= last + 10:
            for _ in range(20):
                found = await node.store.due(redis_state.shard("lobby"), limit=100, retry=1)
                if found.gone:
                    await node.store.claim(redis_state.shard("lobby"), found.gone)
        assert redis_state.rows(redis_server, "lobby").keys() == {"ann"}
