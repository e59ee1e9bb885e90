"""What a hand did to our keys concerns whom it was done to, and nobody else."""

from collections.abc import Callable
from typing import Any

import pytest

from reactor import Presence
from tests.servers import Server
from tests.system import plain
from tests.system.running import RawClient, served

KEY = plain.presence_key("lobby", "victim")


def _field(name: str, value: Any) -> Callable[[Server], Any]:
    return lambda server: server.control.hset(KEY, name, value)


DAMAGE: dict[str, Callable[[Server], Any]] = {
    "data that is no JSON": _field("data", "{not json"),
    "a time that is no number": _field("joinedAt", "yesterday"),
    "a count that is no number": _field("connections", "many"),
    "a name that is no UTF-8": _field("username", b"\xff\xfe"),
    "no user": lambda server: server.control.hdel(KEY, "userId"),
    "no time": lambda server: server.control.hdel(KEY, "joinedAt", "lastActiveAt"),
    "another type": lambda server: server.control.set(KEY, "mine now"),
    "no end": lambda server: server.control.persist(KEY),
    "no shadow": lambda server: server.control.delete(plain.shadow_key("lobby", "victim")),
    "a shadow of another type": lambda server: server.control.set(plain.shadow_key("lobby", "victim"), "x"),
    "no row": lambda server: server.control.zrem("{reactor:7}:members:lobby", "victim"),
    "no room": lambda server: server.control.delete("{reactor:7}:rooms"),
    "no position": lambda server: server.control.delete("{reactor:7}:state:lobby"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
async def test_damage_to_one_member_is_no_damage_to_others(
    redis_server: Server, damage: Callable[[Server], Any]
) -> None:
    async with (
        served(redis_server, ttl=1.5, sweep_interval=0.3) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as victim,
        RawClient.connect(node) as late,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await ann.join("lobby", "ann")
        await ann.join("attic", "ann")
        ann.beat(0.2)
        await victim.join("lobby", "victim", data={"x": 1})
        victim.beat(0.2)
        damage(redis_server)
        # Who is there is served, who comes may come, and who leaves is told.
        for client in (ann, victim):
            await client.say("room:heartbeat", roomId="lobby", id="after")
        await ann.has_heard("room:heartbeat:ack", id="after")
        joined = await late.join("lobby", "late")
        assert {"ann", "late"} <= {member["userId"] for member in joined["members"]}
        late.beat(0.2)
        here = await ann.ask("room:members", "room:members", roomId="lobby")
        assert {"ann", "late"} <= {member["userId"] for member in here["members"]}
        assert (await ann.ask("room:count", "room:count", roomId="lobby"))["count"] >= 2
        listed = {member.user_id: member.username for member in await presence.members("lobby")}
        assert {"ann": "ann", "late": "late"}.items() <= listed.items()
        assert listed.keys() <= {"ann", "late", "victim"}
        await late.ask("leave_room", "room:left", roomId="lobby")
        assert await ann.hear_left("late") == "left"
        await ann.ask("room:update", "room:updated", roomId="lobby", username="Ann")
        rounds = node.sweep.rounds
        await plain.until(lambda: node.sweep.rounds > rounds + 1)
        assert ann.open
        assert not ann.of("service:degraded", "room:force-leave")
