"""What requests cost is charged to their client, which is refused further ones until it is paid off."""

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from reactor.membership.pending import MAX_ABSORBED
from reactor.presence.keys import Entry
from reactor.protocol.codec import codec_for
from reactor.server.node import Node
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

DATA = "x" * 4000


async def test_a_client_that_asks_for_too_much_learns_when_to_ask_again(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=10, cost_burst=10) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann", data=DATA)
        for number in range(180):
            await ann.send("room:count", roomId="lobby", id=number)
        await ann.until(lambda: len(ann.of("room:count", "error")) == 180)
        refused = ann.of("error")
        assert {error["code"] for error in refused} == {"too_many_requests"}
        assert all(0 < error["retryAfter"] <= 1001 for error in refused)
        assert node.handler.costs.refused["connection"] == len(refused) > 50
        await ann.ask("room:heartbeat", "room:heartbeat:ack")  # never refused
        assert (await bob.answer("room:count", roomId="lobby"))["count"] == 2
        await asyncio.sleep(refused[-1]["retryAfter"] / 1000)
        assert (await ann.answer("room:count", roomId="lobby"))["count"] == 2


async def test_heartbeats_for_all_rooms_of_a_client_that_spends_too_much_share_one(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server, cost_per_second=10, cost_burst=10) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        await ann.join("den", "ann")  # costs more than the burst
        before = node.heartbeats.acknowledged
        for number in range(100):
            await ann.send("room:heartbeat", id=number)
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await ann.until(lambda: len(ann.of("room:heartbeat:ack")) == 100)
        assert [ack["id"] for ack in ann.of("room:heartbeat:ack")] == list(range(100))
        assert node.heartbeats.acknowledged - before < 20
        # Those for a room are not held back, nor is a client that has paid.
        await ann.ask("room:heartbeat", "room:heartbeat:ack", roomId="den")


async def test_heartbeats_that_wait_are_bounded_and_end_with_their_connection(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=1, ttl=60) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")
        (connection,) = node.roster.connections_of("lobby", "ann")
        connection.spending = None  # as if it had paid
        await ann.join("den", "ann")
        for number in range(MAX_ABSORBED + 2):
            await ann.send("room:heartbeat", id=number)
        error = await ann.has_received("error", id=MAX_ABSORBED + 1)
        assert error["code"] == "too_many_pending"
        await ann.until(lambda: len(ann.of("room:heartbeat:ack")) == MAX_ABSORBED + 1)
        node.handler.costs.charge(connection, 100, asyncio.get_running_loop().time())
        await ann.send("room:heartbeat", id="last")
        await ann.answer("room:heartbeat", roomId="none")  # the one before has been processed
        waiting = node.handler._paced._collected
        assert list(waiting) == [connection]
        connection.abort()
        await until(lambda: not waiting)


async def test_a_large_message_is_charged_and_refused_before_it_is_decoded(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=6) as node,
        RawClient.connect(node) as ann,
    ):
        users = [f"user {number}" for number in range(300)]
        for number in range(6):  # each is invalid, which is found out for the first ones only
            await ann.send("people:watch", userIds=[*users, "\x07"], id=number)
        await ann.until(lambda: len(ann.of("error")) == 6)
        codes = [error["code"] for error in ann.of("error")]
        assert codes == sorted(codes)
        assert set(codes) == {"bad_id", "too_many_requests"}
        assert [error["id"] for error in ann.of("error")] == list(range(6))
        assert ann.of("error")[-1]["retryAfter"] > 0
        # As large as it can be, a heartbeat is accepted still.
        room = "\U0001f600" * 64
        assert (await ann.answer("room:heartbeat", roomId=room))["code"] == "not_joined"


async def test_a_message_that_is_not_small_is_charged_for_its_time_also_where_it_is_invalid(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=2) as node,
        RawClient.connect(node) as ann,
    ):
        for number in range(100):  # 0.1 ms each, and not charged by size
            await ann.send("invalid", values=[{}] * 500, id=number)
        await ann.until(lambda: len(ann.of("error")) == 100)
        codes = [error["code"] for error in ann.of("error")]
        assert set(codes) == {"unknown_type", "too_many_requests"}
        assert codes == sorted(codes, reverse=True)
        assert [error["id"] for error in ann.of("error")] == list(range(100))
        # What is never refused is not refused either where it has more than CHEAP_MESSAGE bytes.
        for kind in ("room:heartbeat", "leave_room"):
            assert (await ann.answer(kind, roomId="\U0001f600" * 64))["code"] == "not_joined"
        assert (await ann.answer("room:count", roomId="\U0001f600" * 64))["code"] == "too_many_requests"


async def test_small_messages_are_charged_where_they_are_invalid(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=2) as node,
        RawClient.connect(node) as ann,
    ):
        for number in range(100):
            await ann.send("room:members", roomId="r", limit=[{}] * 30, id=number)
        await ann.until(lambda: len(ann.of("error")) == 100)
        codes = [error["code"] for error in ann.of("error")]
        assert set(codes) == {"bad_message", "too_many_requests"}
        assert codes == sorted(codes)


async def test_leaving_is_never_refused_and_a_refused_join_can_be_repeated(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=3) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann")  # costs more than twice the burst
        await ann.send("join_room", roomId="den", userId="ann", id="join")
        await ann.send("room:heartbeat", roomId="den", id="deferred")
        refused = await ann.has_received("error", id="join")
        assert (refused["code"], refused["roomId"]) == ("too_many_requests", "den")
        assert (await ann.has_received("error", id="deferred"))["code"] == "not_joined"
        await ann.ask("leave_room", "room:left", roomId="lobby")
        await asyncio.sleep(3.1)  # the leave was charged since, up to twice the burst
        await ann.join("den", "ann")


async def test_what_a_change_costs_grows_with_the_room(bundled_server: Server) -> None:
    async with served(bundled_server, cost_per_second=1, cost_burst=100_000) as node:
        spent = []
        for others in (1, 40):
            async with RawClient.connect(node) as ann, RawClient.connect(node) as crowd:
                room = f"room of {others}"
                await ann.join(room, "ann")
                for number in range(others):
                    async with RawClient.connect(node) as other:
                        await other.join(room, f"u{number}")
                await crowd.join(room, "crowd")
                (connection,) = node.roster.connections_of(room, "ann")
                assert connection.spending is not None
                before = connection.spending.own
                await ann.ask("room:update", "room:updated", roomId=room, data=DATA)
                spent.append(connection.spending.own - before)
        assert spent[1] > 4 * spent[0]


async def test_what_a_change_costs_grows_with_the_connections_of_each_member(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=100_000) as node,
        served(bundled_server) as other,
        RawClient.connect(node) as ann,
        AsyncExitStack() as connections,
    ):
        await ann.join("lobby", "ann")
        (connection,) = node.roster.connections_of("lobby", "ann")

        async def spent(kind: str, data: str = DATA, **fields: Any) -> float:
            assert connection.spending is not None
            before = connection.spending.own
            await ann.answer(kind, roomId="lobby", data=data, **fields)
            return connection.spending.own - before

        async def all_spent(letter: str) -> list[float]:
            to_bob = await spent("room:send", to=["bob"])
            return [to_bob, await spent("room:send"), await spent("room:update", letter * 4000)]

        for one in (node, other):  # wherever they are
            bob = await connections.enter_async_context(RawClient.connect(one))
            await bob.join("lobby", "bob")
        before = await all_spent("a")
        for number in range(20):
            bob = await connections.enter_async_context(RawClient.connect((node, other)[number % 2]))
            await bob.join("lobby", "bob")
        view = node.feed.view("lobby")
        assert view is not None
        await until(lambda: view.connections == 23)
        after = await all_spent("b")
        assert all(then > 2 * now for now, then in zip(before, after, strict=True)), (before, after)


async def test_the_first_to_join_a_room_on_a_node_pays_for_the_list(bundled_server: Server) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=100_000) as node,
        served(bundled_server) as other,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
        AsyncExitStack() as connections,
    ):
        for number in range(30):
            member = await connections.enter_async_context(RawClient.connect(other))
            await member.join("lobby", f"u{number}", data=DATA)
        spent = []
        for client, user in ((ann, "ann"), (bob, "bob")):
            await client.join("lobby", user, view="none")
            (connection,) = node.roster.connections_of("lobby", user)
            now = asyncio.get_running_loop().time()
            assert connection.spending is not None
            spent.append(connection.spending.own - now)
        assert spent[0] - spent[1] > 20  # 30 members with 4 KB each


@pytest.mark.parametrize(
    ("request_", "followed"),
    [
        ({"type": "join_room", "roomId": "lobby", "userId": "ann"}, True),
        ({"type": "room:watch", "roomId": "lobby", "view": "members"}, True),
        ({"type": "room:members", "roomId": "lobby"}, True),
        ({"type": "room:members", "roomId": "lobby"}, False),
        ({"type": "room:members", "roomId": "lobby", "limit": 100}, False),
    ],
)
async def test_who_is_sent_a_list_in_messagepack_pays_for_the_time_to_encode_it(
    bundled_server: Server, request_: dict[str, Any], followed: bool
) -> None:
    data = b"[" + b"1e300," * 600 + b"1]"
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=100_000) as node,
        served(bundled_server) as other,
        RawClient.connect(node) as bob,
    ):
        await fill(other, ["lobby"], data)
        if followed:
            await bob.ask("room:watch", "room:watching", roomId="lobby", view="count")
        spent = []
        for subprotocol in ("reactor.json", "reactor.msgpack"):
            before, url = set(node.gateway.connections), f"ws://127.0.0.1:{node.gateway.port}/ws"
            async with connect(url, subprotocols=[Subprotocol(subprotocol)], max_size=None) as socket:
                codec = codec_for(subprotocol)
                payload = codec.encode(request_)
                await socket.send(payload if codec.binary else payload.decode())
                await socket.recv()
                (connection,) = node.gateway.connections - before
                assert connection.spending is not None
                spent.append(connection.spending.own - asyncio.get_running_loop().time())
        # It takes 0.3 ms or more for each of 100 members, which are 3 units; all else is the same.
        assert spent[1] - spent[0] > 150, spent


def from_address(node: Node, number: int) -> AbstractAsyncContextManager[RawClient]:
    return RawClient.connect(node, additional_headers={"X-Forwarded-For": f"10.0.0.{number}"})


async def fill(node: Node, rooms: Iterable[str], data: bytes = b"") -> None:
    """Make each of the rooms larger than a page of a list."""
    await asyncio.gather(
        *(
            node.store.join(Entry(room, f"u{number}"), f"{node.lease.name}.ff", ttl=60_000, data=data)
            for room in rooms
            for number in range(130)
        )
    )


async def test_large_rooms_are_listed_for_an_address_as_far_as_it_can_pay(bundled_server: Server) -> None:
    large = [f"large {number}" for number in range(10)]
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=60) as node,
        served(bundled_server) as other,
        AsyncExitStack() as connections,
    ):
        await fill(other, large)
        clients = [await connections.enter_async_context(from_address(node, 1)) for _ in large]
        await asyncio.gather(
            *(
                client.send("join_room", roomId=room, userId="ann")
                for client, room in zip(clients, large, strict=True)
            )
        )
        # Each list costs 26 units or more, each join 6, and the address has 300.
        await until(lambda: len(node.feed.rooms()) == len(large))
        await until(lambda: all(room.begun.is_set() for room in node.feed._rooms.values()))
        bob = await connections.enter_async_context(from_address(node, 1))
        await bob.join("small", "bob")  # who does not wait behind them
        listed = [room for room in large if node.feed.view(room) is not None]
        assert 1 <= len(listed) <= 8, listed
        waits = next(room for room in large if room not in listed)
        # Who comes later and can pay does not wait for the first.
        cy = await connections.enter_async_context(from_address(node, 2))
        assert (await cy.join(waits, "cy"))["count"] >= 131
        await clients[large.index(waits)].has_received("room:joined")
        # Nothing is read for those that are gone.
        for client in clients:
            await client.socket.close()
        await until(lambda: all(room.paid.is_set() for room in node.feed._rooms.values()))
        assert len([room for room in large if node.feed.view(room) is not None]) <= len(listed) + 1


async def test_watched_rooms_are_listed_for_an_address_as_far_as_it_can_pay(bundled_server: Server) -> None:
    large = [f"large {number}" for number in range(8)]
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=20) as node,
        served(bundled_server) as other,
        from_address(node, 1) as ann,
        from_address(node, 2) as bob,
    ):
        await fill(other, large)
        await ann.send("room:watch", roomIds=large, view="count")
        await until(lambda: len(node.feed.rooms()) > 0)
        await until(lambda: all(room.begun.is_set() for room in node.feed._rooms.values()))
        waiting = [room for room in node.feed.rooms() if node.feed.view(room) is None]
        assert waiting
        # Those that wait take no place from others, and others get them.
        await bob.ask("room:watch", "room:counts", roomIds=[*waiting[:2], "small"], view="count")
        assert not ann.of("room:counts")


async def test_a_patch_is_charged_for_what_redis_reads_also_where_it_changes_nothing_or_is_too_large(
    bundled_server: Server,
) -> None:
    async with (
        served(bundled_server, cost_per_second=1, cost_burst=100_000) as node,
        RawClient.connect(node) as ann,
    ):
        await ann.join("lobby", "ann", data={"long": DATA})
        (connection,) = node.roster.connections_of("lobby", "ann")

        async def spent(**fields: Any) -> float:
            assert connection.spending is not None
            before = connection.spending.own
            await ann.answer("room:update", roomId="lobby", **fields)
            return connection.spending.own - before

        small = await spent(username="Ann")
        assert await spent(patch={"none": None}) > small + 10
        assert await spent(patch={"other": DATA}) > small + 20  # refused: data_too_big
