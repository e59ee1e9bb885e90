"""A client joins a room."""

from typing import Any

from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server

MEMBER = {"userId", "username", "joinedAt", "lastActiveAt", "away", "connections"}

HOSTILE: list[Any] = [
    "a:b",
    "a%3Ab",
    ":user:",
    "room:x:user:y",
    "{x}",
    "}{",
    "*?[a-z]",
    "\\",
    " a  b ",
    "'\"<script>",
    "\u2028\u00a0",
    "naïve",
    "nai\u0308ve",
    "😀‍👩",
    "shadow",
    ".",
    "..%2F",
    "None",
    0,
    -7,
    2**63,
    "é" * 128,
    "a" * 256,
    ":" * 256,
]


async def test_a_join_writes_the_presence_key_with_the_rooms_ttl_and_its_shadow_key(
    redis_server: Server,
) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        before = redis_state.now(redis_server)
        joined = await ann.join("lobby", "u1", username="Ann", data={"mood": ["good", 1]}, id=7)
        assert joined["id"] == 7
        assert (joined["roomId"], joined["userId"], joined["resumed"]) == ("lobby", "u1", False)
        assert (joined["ttl"], joined["heartbeatInterval"]) == (21_600_000, 25_000)
        assert (joined["count"], joined["view"]) == (1, "members")

        key = redis_state.presence_key("lobby", "u1")
        assert key == "{reactor:7kf}:room:lobby:user:u1"
        fields: Any = redis_server.control.hgetall(key)
        times = int(fields.pop("joinedAt")), int(fields.pop("lastActiveAt"))
        assert before <= times[0] == times[1] <= redis_state.now(redis_server)
        assert fields == {
            "socketId": joined["socketId"],
            "userId": "u1",
            "roomId": "lobby",
            "username": "Ann",
            "data": '{"mood":["good",1]}',
        }
        assert 21_595_000 < redis_server.control.pttl(key) <= 21_600_000
        assert redis_server.control.exists(redis_state.shadow_key("lobby", "u1")) == 1


async def test_a_client_that_joins_receives_the_room_and_the_other_members_a_diff(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as other_room,
    ):
        first = await ann.join("lobby", "ann")
        assert [member["userId"] for member in first["members"]] == ["ann"]
        await other_room.join("elsewhere", "eve")
        joined = await bob.join("lobby", "bob", data=None)
        assert {member["userId"]: set(member) for member in joined["members"]} == {
            "ann": MEMBER,
            "bob": MEMBER | {"data"},
        }
        diff = await ann.receive("room:diff")
        assert (diff["from"], diff["version"]) == (first["version"], joined["version"])
        assert (diff["epoch"], diff["count"]) == (joined["epoch"], 2)
        assert first["epoch"] == joined["epoch"]
        assert diff["left"] == diff["updated"] == []
        assert [joined["members"][1]] == diff["joined"]
        assert diff["joined"][0]["userId"] == "bob"
        await other_room.barrier()
        assert not other_room.of("room:diff")


async def test_the_reply_to_a_join_has_the_limits_and_the_time_of_the_membership(
    bundled_server: Server,
) -> None:
    settings: dict[str, Any] = {"max_message": 9000, "max_data": 100, "max_id": 40}
    async with (
        served(bundled_server, **settings) as node,
        RawClient.connect(node) as tab,
        RawClient.connect(node) as phone,
    ):
        first = await tab.join("lobby", "ann", view="none")
        assert first["limits"] == {"message": 9000, "data": 100, "id": 40}
        stored = redis_state.members(bundled_server, "lobby")["ann"]
        assert first["joinedAt"] == int(stored["joinedAt"])
        assert (await phone.join("lobby", "ann"))["joinedAt"] == first["joinedAt"]
        assert (await tab.join("lobby", "ann"))["joinedAt"] == first["joinedAt"]


async def test_a_second_connection_of_a_user_is_the_same_member(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as tab,
        RawClient.connect(node) as phone,
    ):
        await watcher.join("lobby", "watcher")
        first = await tab.join("lobby", "ann", username="Ann")
        second = await phone.join("lobby", "ann")
        assert second["resumed"] is True
        assert second["count"] == 2
        assert second["socketId"] != first["socketId"]
        diff = await watcher.receive("room:diff", joined=[], left=[])
        (updated,) = diff["updated"]
        assert (updated["userId"], updated["username"], updated["connections"]) == ("ann", "Ann", 2)
        assert updated["joinedAt"] == first["members"][1]["joinedAt"]


async def test_a_join_on_one_node_is_sent_to_clients_of_the_other(redis_server: Server) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(two) as bob,
    ):
        first = await ann.join("lobby", "ann")
        joined = await bob.join("lobby", "bob")
        assert [member["userId"] for member in joined["members"]] == ["ann", "bob"]
        diff = await ann.receive("room:diff")
        assert (diff["from"], diff["version"]) == (first["version"], joined["version"])
        assert [member["userId"] for member in diff["joined"]] == ["bob"]


async def test_hostile_ids_round_trip(redis_server: Server) -> None:
    async with (
        served(redis_server, max_rooms=100) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as asker,
    ):
        for room_id in HOSTILE:
            for user_id in (room_id, "ann"):
                joined = await ann.join(room_id, user_id)
                assert (joined["roomId"], joined["userId"]) == (str(room_id), str(user_id))
                here = await asker.ask("room:members", "room:members", roomId=room_id)
                assert [(m["userId"], m["username"]) for m in here["members"]] == [
                    (str(user_id), str(user_id))
                ]
                assert (
                    await asker.ask("room:is_present", "room:is_present", roomId=room_id, userId=user_id)
                )["present"]
                assert redis_server.control.hget(
                    redis_state.presence_key(str(room_id), str(user_id)), "roomId"
                ) == str(room_id)
                if user_id == "ann":
                    continue
                await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId=room_id)
                await ann.ask("leave_room", "room:left", roomId=room_id)
                assert redis_state.members(redis_server, str(room_id)) == {}
        assert set(redis_state.everywhere(redis_server)) == {str(room_id) for room_id in HOSTILE}
        assert all(list(found) == ["ann"] for found in redis_state.everywhere(redis_server).values())


async def test_a_member_that_joins_again_over_the_same_connection_receives_the_room_again(
    redis_server: Server,
) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann, RawClient.connect(node) as bob:
        first = await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        again = await ann.join("lobby", "ann")
        assert again["resumed"] is True
        assert again["socketId"] == first["socketId"]
        assert [(m["userId"], m["connections"]) for m in again["members"]] == [("ann", 1), ("bob", 1)]
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
