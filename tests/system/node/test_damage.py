"""External changes to a member's keys affect that member alone, and those to an index no member."""

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from reactor import Presence
from reactor.fleet.registry import NodeRecord
from reactor.presence.keys import Entry
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.webhooks.receiver import Receiver, webhook_settings

Damage = Callable[[Server, str], Any]


def _presence(*fields: str, **changed: Any) -> Damage:
    """Take fields away from the presence key of the room's victim, or change some."""

    def harm(server: Server, room: str) -> None:
        key = redis_state.presence_key(room, "victim")
        for field in fields:
            server.control.hdel(key, field)
        for field, value in changed.items():
            server.control.hset(key, field, value)

    return harm


def _shard(room: str) -> str:
    return redis_state.prefix(room)


DAMAGE: dict[str, Damage] = {
    "data that is no JSON": _presence(data="{not json"),
    "a time that is no number": _presence(joinedAt="yesterday"),
    "a count that is no number": _presence(connections="many"),
    "a name that is no UTF-8": _presence(username=b"\xff\xfe"),
    "no user": _presence("userId"),
    "no times": _presence("joinedAt", "lastActiveAt"),
    "another type": lambda server, room: server.control.set(redis_state.presence_key(room, "victim"), "mine"),
    "no end": lambda server, room: server.control.persist(redis_state.presence_key(room, "victim")),
    "no shadow": lambda server, room: server.control.delete(redis_state.shadow_key(room, "victim")),
    "a shadow of another type": lambda server, room: server.control.set(
        redis_state.shadow_key(room, "victim"), "mine"
    ),
    "no row": lambda server, room: server.control.zrem(f"{_shard(room)}:members:{room}", "victim"),
    "no rooms": lambda server, room: server.control.delete(f"{_shard(room)}:rooms"),
    "no position": lambda server, room: server.control.delete(f"{_shard(room)}:state:{room}"),
}
ROOMS = {name: name.replace(" ", "-") for name in DAMAGE}


async def test_damage_to_one_member_does_not_affect_the_others(redis_server: Server) -> None:
    async with (
        served(redis_server, ttl=10, sweep_interval=0.3) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as victim,
        RawClient.connect(node) as late,
        Presence.open(redis_server.socket_url) as presence,
    ):
        for room in ROOMS.values():
            await ann.join(room, "ann")
            await victim.join(room, "victim", data={"x": 1})
        for client in (ann, victim, late):
            client.start_heartbeats(0.3)
        for name, room in ROOMS.items():
            DAMAGE[name](redis_server, room)
        # Present members are served, others can join, and leaves are sent.
        for room in ROOMS.values():
            assert (await ann.answer("room:heartbeat", roomId=room))["type"] == "room:heartbeat:ack", room
            joined = await late.answer("join_room", roomId=room, userId="late")
            assert {"ann", "late"} <= {member["userId"] for member in joined.get("members", ())}, (
                room,
                joined,
            )
            here = await ann.answer("room:members", roomId=room)
            assert {"ann", "late"} <= {member["userId"] for member in here["members"]}, room
            assert (await ann.answer("room:count", roomId=room))["count"] >= 2, room
            listed = {member.user_id: member.username for member in await presence.members(room)}
            assert {"ann": "ann", "late": "late"}.items() <= listed.items(), room
            assert listed.keys() <= {"ann", "late", "victim"}, room
        for room in ROOMS.values():
            assert (await late.answer("leave_room", roomId=room))["type"] == "room:left", room
            assert (await ann.answer("room:update", roomId=room, username="Ann"))["type"] == "room:updated"
        for room in ROOMS.values():
            await ann.until(lambda room=room: _left(ann, room))  # type: ignore[misc]
        rounds = node.sweep.rounds
        await until(lambda: node.sweep.rounds > rounds + 1)
        assert ann.open
        assert not ann.of("service:degraded", "room:force-leave")
        # Repaired, so that the node can detach its members when it stops.
        redis_server.control.delete(redis_state.shadow_key(ROOMS["a shadow of another type"], "victim"))


def _left(client: RawClient, room: str) -> bool:
    return any(
        left["userId"] == "late"
        for diff in client.of("room:diff")
        if diff["roomId"] == room
        for left in diff["left"]
    )


SHARD = redis_state.prefix("lobby")
INDEXES = (
    "rooms", "nodes", "pulse", "departures", "totals", "members:lobby", "state:lobby",
    "shadow:room:lobby:user:ann",
)  # fmt: skip


@pytest.mark.parametrize("index", [f"{SHARD}:{name}" for name in INDEXES])
async def test_an_index_of_a_wrong_type_is_renamed_aside_and_restored(
    redis_server: Server, index: str
) -> None:
    """Dead nodes are noticed, users join, and everything is listed as before, in that room and in others."""
    control = redis_server.control
    with capture_logs() as logs:
        async with (
            served(redis_server, ttl=60, grace=0.3, lease=1, sweep_interval=0.5) as node,
            RawClient.connect(node) as ann,
            RawClient.connect(node) as late,
        ):
            dead = NodeRecord(1, "dead", "-", "a node that renews its lease only once")
            await node.registry.renew("dead", dead, lease_ms=1000, first=True)
            for room in ("lobby", "hall"):
                await ann.join(room, "ann")
                await node.store.join(Entry(room, "bob"), "dead.1", ttl=60_000)
            control.delete(index)
            control.set(index, "x")
            await ann.receive_departures(2)
            assert dict(departures(ann.received)) == {"bob": "disconnected"}
            joined = await late.join("lobby", "late")
            assert {member["userId"] for member in joined["members"]} == {"ann", "late"}
            await until(lambda: control.type(index) in {"hash", "set", "zset", "stream", "none"})
            await until(lambda: _complete(redis_server, node.name(), {"ann", "late"}))
            assert control.get(index.replace("}", "}:damaged")) == "x"
            assert 0 < control.ttl(index.replace("}", "}:damaged")) <= 7 * 86_400
            assert node.roster_audit.damaged.total() == 1
    assert [line["key"] for line in logs if line["event"] == "key_damaged"] == [index.partition("}:")[2]]
    assert not [line for line in logs if line["log_level"] == "error"]


def _complete(server: Server, node: str, users: set[str]) -> bool:
    """Whether the indexes of the lobby's shard have its members and their node."""
    control = server.control
    return (
        set(control.zrange(f"{SHARD}:members:lobby", 0, -1)) == users
        and control.zscore(f"{SHARD}:rooms", "lobby") is not None
        and set(control.smembers(f"{SHARD}:nodes")) == {node}
        and "lobby" in control.smembers(f"{SHARD}:node:{node}")
        and set(control.zrange(f"{SHARD}:node:{node}:lobby", 0, -1)) == users
        and all(control.hexists(redis_state.shadow_key("lobby", user), "j") for user in users)
    )


@pytest.mark.parametrize(
    ("key", "field", "value"),
    [
        ("pulse", "at", "x"), ("pulse", "lease", ""),
        ("state:lobby", "version", "x"), ("totals", "left", "x"),
        ("state:lobby", "version", str(2**63 - 1)), ("state:lobby", "version", "-5"),
        ("state:lobby", "epoch", b"\xff"), ("state:lobby", "epoch", "x"), ("totals", "left", str(2**63 - 1)),
    ],
)  # fmt: skip
async def test_a_damaged_number_in_an_index_stops_no_join_and_no_departure(
    redis_server: Server, key: str, field: str, value: str | bytes
) -> None:
    async with (
        served(redis_server, ttl=60, lease=1, sweep_interval=0.5) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        await ann.receive_departures(1)
        redis_server.control.hset(f"{SHARD}:{key}", field, value)
        await bob.join("lobby", "bob")
        await bob.ask("leave_room", "room:left", roomId="lobby")
        await ann.receive_departures(2)
        await until(lambda: str(redis_server.control.hget(f"{SHARD}:pulse", "at")).isdigit())
        assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] == 1


@pytest.mark.parametrize("how", ["without its user", "another hash"])
async def test_a_presence_key_that_no_list_can_show_is_completed(redis_server: Server, how: str) -> None:
    """Count and list agree again."""
    control, key = redis_server.control, redis_state.presence_key("lobby", "victim")
    async with (
        served(redis_server, ttl=60, sweep_interval=0.5) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as victim,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", "ann")
        await victim.join("lobby", "victim")
        if how == "without its user":
            control.hdel(key, "userId")
        else:
            control.delete(key)
            control.hset(key, "x", "y")
        await until(lambda: control.hget(key, "userId") == "victim")
        assert {one.user_id for one in await presence.members("lobby")} == {"ann", "victim"}
        assert await presence.count("lobby") == 2
        assert control.pttl(key) > 0
        assert not victim.of("room:force-leave")


async def test_entries_of_other_programs_in_the_registry_and_the_streams_harm_nothing(
    redis_server: Server,
) -> None:
    control = redis_server.control
    control.hset("{reactor:fleet}:registry", mapping={"x": "y", "z": b"\xff"})
    control.xadd(f"{SHARD}:departures", {"not": "ours"})
    async with (
        served(redis_server, ttl=60, lease=0.5) as node,
        RawClient.connect(node) as ann,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", "ann")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        # They are judged as nodes that never renew their lease.
        await until(lambda: control.hkeys("{reactor:fleet}:registry") == [node.name()])
        assert [one.user_id async for one in presence.departures()] == ["ann"]


async def test_names_that_are_no_text_stop_neither_sweep_nor_webhooks_nor_the_detaching_of_a_dead_node(
    redis_server: Server,
) -> None:
    """Entries of another program: bytes that are no UTF-8, no escaped name, or a room of another shard."""
    control = redis_server.control
    foreign: tuple[Any, ...] = (b"\xff\xfe", b"", b"%", b"a:b:c", b"room0")
    with capture_logs() as logs:
        async with (
            Receiver.listening() as receiver,
            served(
                redis_server, ttl=60, grace=0.3, lease=1, sweep_interval=0.3, **webhook_settings(receiver)
            ) as node,
            RawClient.connect(node) as ann,
            RawClient.connect(node) as bob,
            Presence.open(redis_server.socket_url) as presence,
        ):
            await ann.join("lobby", "ann")
            await presence.ban("evil", "lobby", for_=600)
            dead = NodeRecord(1, "dead", "-", "a node that renews its lease only once")
            for name in ("dead", b"\xffdead"):
                control.hset("{reactor:fleet}:registry", name, "1 dead - 1-1/16 0 a node that is dead")
                control.sadd(f"{SHARD}:nodes", name)
            await node.registry.renew("dead", dead, lease_ms=1000, first=True)
            await node.store.join(Entry("lobby", "carol"), "dead.1", ttl=60_000)
            for name in foreign:
                control.sadd(f"{SHARD}:nodes", name)
                control.sadd(f"{SHARD}:node:dead", name)
                control.zadd(f"{SHARD}:members:lobby", {name: 1})
                control.zadd(f"{SHARD}:rooms", {name: 1})
                control.zadd(f"{SHARD}:bans", {name: "+inf", b"room:lobby:user:" + name: "+inf"})
                control.zadd("{reactor:fleet}:bans", {name: "+inf", b"user:" + name: "+inf"})
                control.zadd("{reactor:fleet}:revoked", {name: "+inf"})
                control.xadd(f"{SHARD}:changes", {"room": name, "change": name})
            control.xadd(f"{SHARD}:changes", {"not": "ours"})
            await ann.receive_departure_of("carol")
            await bob.join("lobby", "bob")
            await bob.ask("leave_room", "room:left", roomId="lobby")
            await receiver.until(lambda: [one for one in receiver.accepted if one.get("userId") == "bob"][1:])
            rounds = node.sweep.rounds
            await until(lambda: node.sweep.rounds > rounds + 1)
            await until(lambda: control.scard(f"{SHARD}:nodes") == 1)
            await until(lambda: control.hlen("{reactor:fleet}:registry") == 1)
            assert "evil" in [ban.user_id async for ban in presence.bans()]
            assert await presence.revoke("old")
            await node.revocations.load()
            assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] == 1
            assert {room.room_id: room.count for room in await presence.rooms()}["lobby"] == 1
    assert not [line for line in logs if line["log_level"] == "error"]
