"""External changes to a member's keys affect that member alone."""

from collections.abc import Callable
from typing import Any

from reactor import Presence
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

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
    return f"{{reactor:{redis_state.shard(room)}}}"


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
        served(redis_server, ttl=3, sweep_interval=0.3) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as victim,
        RawClient.connect(node) as late,
        Presence.open(redis_server.socket_url) as presence,
    ):
        for room in ROOMS.values():
            await ann.join(room, "ann")
            await victim.join(room, "victim", data={"x": 1})
        for client in (ann, victim):
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
        late.start_heartbeats(0.3)
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
