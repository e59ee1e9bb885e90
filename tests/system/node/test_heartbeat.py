"""A heartbeat renews the TTL and is acknowledged after Redis has taken it."""

import time
from asyncio import gather
from typing import Any

import anyio

from reactor.settings import RoomRule
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.people import until_record
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

BEAT = "room:heartbeat"
ACK = "room:heartbeat:ack"


async def test_a_heartbeat_updates_last_active_and_renews_the_whole_ttl(redis_server: Server) -> None:
    key = redis_state.presence_key("lobby", "ann")
    async with served(redis_server, ttl=600) as node, RawClient.connect(node) as ann:
        joined = await ann.join("lobby", "ann")
        redis_server.control.pexpire(key, 5000)
        before = redis_state.now(redis_server)
        ack = await ann.ask(BEAT, ACK, roomId="lobby", id="x")
        assert ack.keys() == {"type", "roomId", "timestamp", "id"}
        assert ack["id"] == "x"
        assert before <= ack["timestamp"] <= redis_state.now(redis_server)
        assert redis_server.control.pttl(key) > 590_000
        fields: Any = redis_server.control.hgetall(key)
        assert fields["lastActiveAt"] == str(ack["timestamp"])
        assert fields["joinedAt"] == str(joined["members"][0]["joinedAt"])


async def test_a_heartbeat_without_a_room_is_for_all_rooms_of_the_connection(redis_server: Server) -> None:
    rooms = ["a", "b", "c", "d", "e"]  # they live in several shards
    async with served(redis_server, ttl=600) as node, RawClient.connect(node) as ann:
        for room in rooms:
            await ann.join(room, "ann")
            redis_server.control.pexpire(redis_state.presence_key(room, "ann"), 5000)
        ack = await ann.ask(BEAT, ACK)
        assert ack.keys() == {"type", "timestamp"}
        assert all(
            redis_server.control.pttl(redis_state.presence_key(room, "ann")) > 590_000 for room in rooms
        )
        await ann.barrier()
        assert len(ann.of(ACK)) == 1


async def test_a_heartbeat_writes_no_index_and_is_not_published(redis_server: Server) -> None:
    quiet: dict[str, Any] = {"lease": 600, "pacemaker": False, "listener": False, "sweep_interval": 0}
    async with (
        served(redis_server, ttl=600, **quiet) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await ann.receive("room:diff")
        for user in ("ann", "bob"):
            await until_record(node, user, lambda record: bool(record.counted))
        # The bans are read at the start, and again once the node hears of new ones.
        pages = 2 * (1 + len(node.keys.prefixes))
        await until(lambda: node.backend.times["list_bans"].count == pages)
        noted = redis_state.rows(redis_server, "lobby")
        redis_server.control.config_resetstat()
        for _ in range(10):
            await gather(*(one.ask(BEAT, ACK, roomId="lobby") for one in (ann, bob)))
        stats: Any = redis_server.control.info("commandstats")
        calls = {name.removeprefix("cmdstat_"): found["calls"] for name, found in stats.items()}
        assert calls["pexpireat"] == calls["hset"] == 20
        # Besides these only the call of the script, its reads of the clock and of the node, pings, the check
        # of rights each second, a script without a command, and the look for departures that the index of
        # people has yet to take in: a script that asks EXISTS once.
        others = {"config|resetstat", "info", "ping"}
        assert set(calls) - others == {"evalsha", "time", "exists", "pexpireat", "hset"}
        assert calls["time"] <= 20
        assert 0 <= calls["exists"] - calls["time"] <= calls["evalsha"] - calls["time"]
        assert redis_state.rows(redis_server, "lobby") == noted
        assert {message["type"] for message in [*ann.received[2:], *bob.received[1:]]} == {ACK}


async def test_a_heartbeat_is_acknowledged_after_redis_has_taken_it(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann, RawClient.connect(node) as bob:
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        redis_server.pause()
        try:
            await ann.send(BEAT, roomId="lobby")
            await bob.send(BEAT)
            for client in (ann, bob):
                await client.barrier()
            await anyio.sleep(0.5)  # longer than heartbeats wait for each other
            assert not ann.of(ACK)
            assert not bob.of(ACK)
            resumed_at = time.time() * 1000
        finally:
            redis_server.resume()
        for client in (ann, bob):
            assert (await client.receive(ACK))["timestamp"] >= int(resumed_at)
        assert {entry["lastActiveAt"] for entry in redis_state.members(redis_server, "lobby").values()} <= {
            str(ack["timestamp"]) for ack in [*ann.of(ACK), *bob.of(ACK)]
        }


async def test_a_heartbeat_during_an_outage_is_acknowledged_after_it(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        await ann.join("lobby", "ann")
        paused_at = redis_state.now(redis_server)
        redis_server.control.execute_command("CLIENT", "PAUSE", 700, "ALL")
        await ann.send(BEAT, roomId="lobby")
        await ann.barrier()
        assert not ann.of(ACK)
        assert (await ann.receive(ACK))["timestamp"] >= paused_at + 700


async def test_a_heartbeat_after_the_ttl_does_not_bring_the_member_back(redis_server: Server) -> None:
    """Nothing has reacted to the expiry yet when the heartbeat arrives."""
    off: dict[str, Any] = {"pacemaker": False, "listener": False, "sweep_interval": 0}
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with served(redis_server, ttl=0.4, **off) as node, RawClient.connect(node) as ann:
        joined = await ann.join("lobby", "ann")
        await redis_state.wait_for_expiry(redis_server, joined["members"][0]["joinedAt"], 0.4)
        assert list(redis_state.rows(redis_server, "lobby")) == ["ann"]  # nothing has read the room yet
        await ann.send(BEAT, roomId="lobby")
        force_leave = await ann.receive("room:force-leave")
        assert force_leave["reason"] == "inactivity_timeout"
        assert await ann.closed() == 4003
        assert not ann.of(ACK)
        assert redis_state.everywhere(redis_server) == {}
        assert redis_state.rows(redis_server, "lobby") == {}


async def test_a_heartbeat_for_all_rooms_is_acknowledged_although_one_membership_ended(
    redis_server: Server,
) -> None:
    off: dict[str, Any] = {"pacemaker": False, "listener": False, "sweep_interval": 0}
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    rooms = (RoomRule(match="short", ttl=0.4),)
    async with served(redis_server, rooms=rooms, **off) as node, RawClient.connect(node) as ann:
        joined = await ann.join("short", "ann")
        await ann.join("long", "ann")
        await redis_state.wait_for_expiry(redis_server, joined["members"][0]["joinedAt"], 0.4)
        await ann.send(BEAT, id=1)
        await ann.has_received("room:force-leave", roomId="short")
        await ann.has_received(ACK, id=1)
        await ann.ask(BEAT, ACK, roomId="long")
        await ann.ask(BEAT, "error", roomId="short")


async def test_a_heartbeat_and_a_leave_that_arrive_together_are_both_answered(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        await ann.join("a", "ann")
        await ann.join("b", "ann")
        for number in range(20):
            await ann.send(BEAT, id=number)
            await ann.send("leave_room", roomId="a")
            await ann.receive("room:left")
            await ann.has_received(ACK, id=number)
            await ann.join("a", "ann")


async def test_a_client_whose_heartbeat_is_overdue_is_asked_for_it_once(bundled_server: Server) -> None:
    """As a hidden page is, whose timers run once a minute: it answers at once, and does not expire."""
    async with (
        served(bundled_server, ttl=1.5, ping_interval=0) as node,
        RawClient.connect(node) as hidden,
        RawClient.connect(node) as busy,
        RawClient.connect(node) as elsewhere,
    ):
        await hidden.join("lobby", "hidden")
        await busy.join("lobby", "busy")
        busy.start_heartbeats(0.1)
        for _ in range(4):
            await hidden.receive("room:heartbeat:due")
            await hidden.ask("room:heartbeat", "room:heartbeat:ack")
        await hidden.receive("room:force-leave")
        assert len(hidden.of("room:heartbeat:due")) == 5, "asked once, and not again without a heartbeat"
        assert not busy.of("room:heartbeat:due")
        assert not elsewhere.of("room:heartbeat:due")
        assert busy.open
