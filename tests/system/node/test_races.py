"""Joins that cross an expiry, a kick, a lost reply, or the end of their connection."""

from typing import Any

import anyio
import pytest

from reactor.protocol.room import RoomView
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import RawClient, departures
from tests.support.servers import Server
from tests.support.waiting import until

NOTHING_REACTS: dict[str, Any] = {"pacemaker": False, "listener": False, "sweep_interval": 0}


async def test_a_rejoin_over_an_expired_membership_begins_another_one(redis_server: Server) -> None:
    """The former departure is sent, and the connection is in the room by a membership that lasts."""
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with (
        served(redis_server, ttl=0.5, diff_window=0, **NOTHING_REACTS) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
    ):
        await watcher.join("lobby", "watcher")
        watcher.start_heartbeats(0.1)
        first = await ann.join("lobby", "ann")
        await redis_state.wait_for_expiry(redis_server, first["members"][1]["joinedAt"], 0.5)
        again = await ann.join("lobby", "ann", id="again")
        assert (again["id"], again["resumed"]) == ("again", False)
        assert {m["userId"] for m in again["members"]} == {"ann", "watcher"}
        await watcher.until(
            lambda: [m["userId"] for d in watcher.of("room:diff") for m in d["joined"]] == ["ann"] * 2
        )
        assert departures(watcher.received) == [("ann", "inactivity_timeout")]
        # From here on it is a member like any other: it sends, it receives, and it leaves.
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        ann.start_heartbeats(0.1)
        await watcher.ask("room:update", "room:updated", roomId="lobby", username="W")
        await ann.receive_next(lambda message: bool(message.get("updated")))
        assert ann.open
        await ann.ask("leave_room", "room:left", roomId="lobby")
        assert redis_state.members(redis_server, "lobby").keys() == {"watcher"}
        assert redis_state.rows(redis_server, "lobby").keys() == {"watcher"}


async def test_an_expired_connection_is_expelled_and_one_that_joins_then_stays(
    redis_server: Server,
) -> None:
    redis_server.control.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    async with (
        served(redis_server, ttl=0.5, **NOTHING_REACTS) as one,
        served(redis_server, ttl=0.5, **NOTHING_REACTS) as two,
        RawClient.connect(one) as old,
        RawClient.connect(one) as tab,
        RawClient.connect(two) as phone,
    ):
        first = await old.join("lobby", "ann")
        await redis_state.wait_for_expiry(redis_server, first["members"][0]["joinedAt"], 0.5)
        joined = await tab.join("lobby", "ann")
        assert joined["resumed"] is False
        assert (await phone.join("lobby", "ann"))["resumed"] is True
        tab.start_heartbeats(0.1), phone.start_heartbeats(0.1)
        assert await old.closed() == 4003
        await redis_state.wait_for_expiry(redis_server, joined["members"][0]["joinedAt"], 0.5)
        for client in (tab, phone):
            await client.send("room:heartbeat", roomId="lobby")
            await client.has_received("room:heartbeat:ack", roomId="lobby")
            assert client.open
            assert not client.of("room:force-leave")
        assert redis_state.members(redis_server, "lobby")["ann"]["connections"] == "2"


@pytest.mark.slow
async def test_a_join_whose_reply_was_lost_leaves_no_ghost(redis_server: Server) -> None:
    """Redis stalled and took the join later, after the client had received `unavailable`."""
    async with (
        served(redis_server, grace=0.3) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as watcher,
    ):
        await watcher.join("lobby", "watcher")
        redis_server.pause()
        try:
            await ann.send("join_room", roomId="lobby", userId="ann")
            await bob.send("join_room", roomId="lobby", userId="bob")
            for client in (ann, bob):
                assert (await client.receive("error"))["code"] == "unavailable"
        finally:
            redis_server.resume()
        await watcher.receive("service:restored")
        assert (await bob.join("lobby", "bob"))["count"] >= 2  # a second attempt succeeds
        await until(lambda: redis_state.members(redis_server, "lobby").keys() == {"watcher", "bob"})
        await anyio.sleep(0.5)  # the refused joins do not arrive any more
        await bob.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")
        assert redis_state.members(redis_server, "lobby").keys() == {"watcher", "bob"}
        assert "connections" not in redis_state.members(redis_server, "lobby")["bob"]


async def test_a_connection_closed_before_its_join_is_taken_leaves_no_ghost(redis_server: Server) -> None:
    async with (
        served(redis_server, grace=0.3) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await watcher.join("lobby", "watcher")
        await bob.join("lobby", "bob")
        redis_server.pause()
        try:
            await ann.send("join_room", roomId="lobby", userId="ann")
            await ann.barrier()
            await bob.send("join_room", roomId="lobby", userId="bob")
            await bob.barrier()
            ann.vanish()
            bob.vanish()
            await until(lambda: len(node.gateway.connections) == 1)
        finally:
            redis_server.resume()
        await watcher.receive_departures(2)
        assert set(departures(watcher.received)) == {("ann", "disconnected"), ("bob", "disconnected")}
        assert redis_state.members(redis_server, "lobby").keys() == {"watcher"}


async def test_a_kick_that_crosses_a_rejoin_ends_the_membership_or_has_no_effect(
    redis_server: Server,
) -> None:
    """Whichever came first, the client, the other members and Redis agree in the end."""
    from reactor import Presence

    async with (
        served(redis_server, diff_window=0) as node,
        RawClient.connect(node) as watcher,
        RawClient.connect(node) as keeper,
        RawClient.connect(node) as ann,
        Presence.open(redis_server.socket_url) as presence,
    ):
        await watcher.join("lobby", "watcher")
        await ann.join("elsewhere", "ann")  # its socket stays open
        ended = 0
        for number in range(40):
            await ann.join("lobby", "ann")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(presence.kick, "lobby", "ann")
                await anyio.sleep(0.0002 * (number % 8))
                await ann.send("join_room", roomId="lobby", userId="ann", id=number)
                answer = await ann.receive_next(lambda message, number=number: message.get("id") == number)  # type: ignore[misc]
            await ann.send("room:heartbeat", roomId="lobby", id=f"beat {number}")
            beat_id = f"beat {number}"
            beat = await ann.receive_next(lambda message, id_=beat_id: message.get("id") == id_)  # type: ignore[misc]
            here = await keeper.ask("room:is_present", "room:is_present", roomId="lobby", userId="ann")
            assert here["present"] is (beat["type"] == "room:heartbeat:ack"), (number, answer, beat)
            ended += beat["type"] == "error"
        assert ann.open
        assert redis_state.members(redis_server, "lobby").keys() == {"watcher", "ann"} - (
            {"ann"} if ended == 40 else set()
        )


async def test_a_refused_join_whose_member_is_not_in_the_view_leaves_no_connection(
    redis_server: Server,
) -> None:
    """As where it expired, with expiry suspended, before its node had listed the room again."""
    async with (
        served(redis_server, grace=0.3) as node,
        RawClient.connect(node) as bob,
        RawClient.connect(node) as ann,
    ):
        await bob.join("lobby", "bob")
        reached = node.feed.wait_for_version

        async def not_seen(room_id: str, *_position: Any) -> RoomView:
            node.feed.wait_for_version = reached  # type: ignore[method-assign]
            return RoomView(room_id)

        node.feed.wait_for_version = not_seen  # type: ignore[method-assign, assignment]
        refusal = await ann.ask("join_room", "error", roomId="lobby", userId="ann")
        assert refusal["code"] == "not_joined"
        await bob.until(lambda: departures(bob.received) == [("ann", "disconnected")])
        joined = await ann.join("lobby", "ann")
        assert [member["userId"] for member in joined["members"]] == ["bob", "ann"]
