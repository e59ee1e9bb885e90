"""A user leaves a room."""

from typing import Any

from reactor.errors import Unavailable
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until


async def test_a_member_that_leaves_is_removed_at_once_and_the_others_are_notified(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        RawClient.connect(one) as ann,
        RawClient.connect(one) as bob,
        RawClient.connect(two) as zoe,
    ):
        for client, name in ((ann, "ann"), (zoe, "zoe"), (bob, "bob")):
            await client.join("lobby", name)
        await bob.send("leave_room", roomId="lobby", id=3)
        assert await bob.receive("room:left") == {"type": "room:left", "roomId": "lobby", "id": 3}
        keys = redis_state.presence_key("lobby", "bob"), redis_state.shadow_key("lobby", "bob")
        assert redis_server.control.exists(*keys) == 0
        assert set(redis_state.rows(redis_server, "lobby")) == {"ann", "zoe"}
        for client in (ann, zoe):
            assert await client.receive_departure_of("bob") == "left"
            diff = client.of("room:diff")[-1]
            assert (diff["count"], diff["joined"], diff["updated"]) == (2, [], [])
        # Its socket stays, is in no room, and hears nothing of this one any more.
        refused = await bob.ask("room:heartbeat", "error", roomId="lobby")
        assert refused["code"] == "not_joined"
        assert (await bob.ask("leave_room", "error", roomId="lobby"))["code"] == "not_joined"
        await ann.ask("leave_room", "room:left", roomId="lobby")
        assert await zoe.receive_departure_of("ann") == "left"
        assert not departures(bob.received)
        assert not bob.of("room:force-leave")
        joined = await bob.join("lobby", "bob")
        assert (joined["resumed"], [m["userId"] for m in joined["members"]]) == (False, ["zoe", "bob"])


async def test_a_member_that_leaves_with_one_of_two_connections_stays(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as tab,
        RawClient.connect(node) as phone,
    ):
        await watcher.join("lobby", "watcher")
        await tab.join("lobby", "ann")
        await phone.join("lobby", "ann")
        await watcher.receive("room:diff", left=[], joined=[])
        await tab.ask("leave_room", "room:left", roomId="lobby")
        diff = await watcher.receive("room:diff")
        assert [(m["userId"], m["connections"]) for m in diff["updated"]] == [("ann", 1)]
        assert diff["left"] == []
        await phone.ask("leave_room", "room:left", roomId="lobby")
        assert await watcher.receive_departure_of("ann") == "left"
        assert departures(watcher.received) == [("ann", "left")]
        assert [entry["reason"] for entry in redis_state.stream(redis_server, "lobby")] == ["left"]


async def test_joins_and_leaves_sent_at_once_are_processed_in_order(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
    ):
        first = await watcher.join("lobby", "watcher")
        for number in range(10):
            await ann.send("join_room", roomId="lobby", userId="ann", id=number)
            await ann.send("room:update", roomId="lobby", data=number, id=number)
            await ann.send("leave_room", roomId="lobby", id=number)
        for number in range(10):
            assert (await ann.receive("room:joined", id=number))["resumed"] is False
            await ann.receive("room:updated", id=number)
            await ann.receive("room:left", id=number)
        await watcher.receive("room:diff", version=first["version"] + 30)
        assert redis_state.members(redis_server, "lobby").keys() == {"watcher"}
        assert len(redis_state.stream(redis_server, "lobby")) == 10
        assert not ann.of("error")


async def test_a_client_that_leaves_and_closes_before_its_join_is_answered_leaves_no_ghost(
    redis_server: Server,
) -> None:
    async with (
        served(redis_server, grace=300) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await watcher.join("lobby", "watcher")
        redis_server.pause()
        try:
            for client, name in ((ann, "ann"), (bob, "bob")):
                await client.send("join_room", roomId="lobby", userId=name)
                await client.send("leave_room", roomId="lobby")
            await bob.send("join_room", roomId="lobby", userId="bob")
            for client in (ann, bob):
                await client.barrier()
                client.vanish()
            await until(lambda: len(node.gateway.connections) == 1)
        finally:
            redis_server.resume()
        await until(lambda: redis_state.members(redis_server, "lobby").keys() == {"watcher", "bob"})
        # The reason of the departure, where the join was seen at all.
        assert [entry["reason"] for entry in redis_state.stream(redis_server, "lobby")] == ["left"]


async def test_a_member_whose_leave_failed_has_missed_no_diff(redis_server: Server) -> None:
    async with (
        served(redis_server, diff_window=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        taken = node.store.leave

        async def refused(*_: Any, **__: Any) -> Any:
            node.store.leave = taken  # type: ignore[method-assign]
            await bob.join("lobby", "bob")
            raise Unavailable("the link broke")

        node.store.leave = refused  # type: ignore[method-assign]
        assert (await ann.answer("leave_room", roomId="lobby"))["code"] == "unavailable"
        assert (await ann.receive("room:diff"))["from"] == ann.of("room:joined")[0]["version"]
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        await ann.ask("leave_room", "room:left", roomId="lobby")
        assert await bob.receive_departure_of("ann") == "left"


async def test_a_leave_without_a_reply_succeeds_where_the_departure_was_seen(redis_server: Server) -> None:
    async with (
        served(redis_server, diff_window=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        taken = node.store.leave

        async def lost(*args: Any, **known: Any) -> Any:
            await taken(*args, **known)
            await bob.receive_departure_of("ann")
            raise Unavailable("the link broke")

        node.store.leave = lost  # type: ignore[method-assign]
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await ann.ask("room:is_present", "room:is_present", roomId="lobby", userId="ann")
        assert departures(ann.received) == []
        assert not ann.of("room:force-leave")
