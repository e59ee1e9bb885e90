"""How a stay in a room ends, and a client: by the server, by the user, by an error, half-way."""

import asyncio
import gc
from contextlib import suppress

import anyio
import pytest

from reactor.client import Client, Room, Status
from reactor.client.link import Link
from reactor.client.stay import Stay
from reactor.errors import (
    ConnectionClosed,
    ForceLeave,
    NotJoined,
    ReactorError,
    RequestTimedOut,
    RoomFull,
    ServerUnreachable,
)
from reactor.presence.keys import Entry
from reactor.protocol.closing import CloseCode
from reactor.settings import RoomRule
from tests.client.meddler import Meddler, Message
from tests.client.people import Ears, client_of, until
from tests.proxy import Proxy
from tests.servers import Server
from tests.system.running import PATIENCE, served


async def ended(room: Room) -> ReactorError | None:
    with anyio.fail_after(PATIENCE):
        return await room.ended()


# By the server.


async def test_b4_who_sends_no_heartbeat_is_told_and_the_room_ends(redis_server: Server):
    async with (
        served(redis_server, ttl=0.4, inactivity_message="Still there?", heartbeat_interval=0.1) as node,
        client_of(node) as other,
        client_of(node, heartbeat_interval=60) as silent,
    ):
        witness = Ears(await other.join("lobby", user_id="bob"))
        room = await silent.join("lobby", user_id="ann")
        ears = Ears(room)
        joined_at = room.members["ann"].joined_at
        events = [event.kind async for event in room]
        assert events == ["sync"]

        end = await ended(room)
        assert isinstance(end, ForceLeave)
        assert str(end) == end.message == "Still there?"
        assert (end.room_id, end.reason) == ("lobby", "inactivity_timeout")
        assert joined_at + 400 <= end.timestamp < joined_at + 2000
        assert ears.force_leaves == [end]
        assert ears.statuses == [Status.CLOSED]
        await witness.until_members("bob")
        assert witness.reasons == {"ann": "inactivity_timeout"}

        with pytest.raises(ForceLeave, match="Still there"):
            await room.update(username="Ann")
        await room.leave()
        await until(lambda: silent.status is Status.IDLE)
        await until(lambda: len(node.gateway.connections) == 1)
        again = await silent.join("lobby", user_id="ann")
        assert again != room
        assert again.status is Status.CONNECTED
        assert again.members.keys() == {"ann", "bob"}


async def test_who_is_kicked_from_one_room_stays_in_the_other(bundled_server: Server):
    async with (
        served(bundled_server, heartbeat_interval=0.1, ttl=0.8) as node,
        client_of(node) as desk,
        client_of(node) as phone,
    ):
        lobby, hall = await desk.join("lobby", user_id="ann"), await desk.join("hall", user_id="ann")
        on_phone = await phone.join("lobby", user_id="ann")
        ears = Ears(hall)
        await node.store.kick(Entry("lobby", "ann"), "Out!")
        for room in (lobby, on_phone):
            end = await ended(room)
            assert isinstance(end, ForceLeave)
            assert (end.message, end.reason) == ("Out!", "kicked")
        await until(lambda: phone.status is Status.IDLE)
        await hall.update(username="Ann")
        await ears.until_member("ann", username="Ann")
        assert ears.statuses == []
        assert desk.status is Status.CONNECTED
        back = await desk.join("lobby", user_id="ann")
        assert back.count == 1


async def test_who_lost_the_place_while_the_connection_was_lost_is_told(bundled_server: Server):
    rules = (RoomRule(match="small", max_members=1),)
    async with (
        served(bundled_server, grace=0.1, rooms=rules) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as other,
        client_of(proxy.port) as client,
    ):
        room, hall = await client.join("small", user_id="ann"), await client.join("hall", user_id="ann")
        proxy.refuse = True
        proxy.cut()
        await until(lambda: room.status is Status.RECONNECTING)
        with anyio.fail_after(PATIENCE):
            while True:
                with suppress(RoomFull):
                    await other.join("small", user_id="bob")
                    break
        proxy.refuse = False
        assert isinstance(await ended(room), RoomFull)
        await until(lambda: hall.status is Status.CONNECTED)


@pytest.mark.parametrize("code", [1001, 1011, 1012, 4008, 4029])
async def test_codes_that_say_come_again(bundled_server: Server, code):
    async with (
        served(bundled_server) as node,
        Meddler.before(node) as meddler,
        client_of(meddler.port) as client,
    ):
        ears = Ears(await client.join("lobby", user_id="ann"))
        await meddler.close_all(code)
        await ears.until_statuses(Status.RECONNECTING, Status.CONNECTED)
        assert ears.events == []


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 4001, 4999])
async def test_codes_that_say_stay_away(bundled_server: Server, code):
    async with (
        served(bundled_server) as node,
        Meddler.before(node) as meddler,
        client_of(meddler.port) as client,
    ):
        statuses: list[Status] = []
        client.on("status", statuses.append)
        room = await client.join("lobby", user_id="ann")
        await meddler.close_all(code, "so it is")
        end = await ended(room)
        assert isinstance(end, ConnectionClosed)
        assert end.code == code
        assert "so it is" in str(end)
        assert statuses == [Status.CLOSED]
        with pytest.raises(ConnectionClosed, match="so it is"):
            await client.join("lobby", user_id="ann")
        with pytest.raises(ConnectionClosed):
            await room.update(username="Ann")
        with pytest.raises(ConnectionClosed):
            await client.count("lobby")


# Tokens.


async def test_a_server_without_tokens_lets_in_who_has_one(bundled_server: Server):
    for token in ("secret", lambda: "secret"):
        async with (
            served(bundled_server) as node,
            Meddler.before(node) as meddler,
            client_of(meddler.port, token=token) as client,
        ):
            await client.join("lobby", user_id="ann")
            assert [message["type"] for message in meddler.heard[0]] == ["auth", "join_room"]
            assert meddler.heard[0][0]["token"] == "secret"


async def test_a_token_that_ran_out_is_asked_for_again(bundled_server: Server):
    given: list[str] = []

    async def token() -> str:
        await asyncio.sleep(0)
        given.append(f"token {len(given)}")
        return given[-1]

    async with (
        served(bundled_server) as node,
        Meddler.before(node) as meddler,
        client_of(meddler.port, token=token) as client,
    ):
        ears = Ears(await client.join("lobby", user_id="ann"))
        meddler.hang_up = lambda message: 4001 if message.get("token") == "token 1" else None
        await meddler.close_all(CloseCode.UNAUTHORISED)
        await ears.until_statuses(Status.RECONNECTING, Status.CONNECTED)
        assert given == ["token 0", "token 1", "token 2"]
        assert [said[0]["token"] for said in meddler.heard] == given
        meddler.hang_up = lambda message: 4001 if message["type"] == "auth" else None
        await meddler.close_all(CloseCode.UNAUTHORISED)
        end = await ended(ears.room)
        assert isinstance(end, ConnectionClosed)
        assert end.code == 4001
        assert len(given) == 5, "two in a row that are not taken are enough"


async def test_a_token_that_is_not_taken_at_first_is_said(bundled_server: Server):
    async with served(bundled_server) as node, Meddler.before(node) as meddler:
        meddler.hang_up = lambda message: 4001 if message["type"] == "auth" else None
        with pytest.raises(ConnectionClosed, match="4001: unauthorised"):
            async with client_of(meddler.port, token="wrong"):
                pytest.fail("not let in")
        assert len(meddler.heard) == 1

    def broken() -> str:
        raise LookupError("no such secret")

    async with served(bundled_server) as node:
        with pytest.raises(ServerUnreachable, match="no such secret"):
            async with client_of(node, token=broken):
                pytest.fail("no token")


# By the user.


async def test_who_closes_without_leaving_may_come_back_within_the_grace(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as other:
        witness = Ears(await other.join("lobby", user_id="bob"))
        async with client_of(node) as client:
            room = await client.join("lobby", user_id="ann")
            await witness.until_members("ann", "bob")
            await client.close(leave=False)
            assert client.status is Status.CLOSED
            assert await ended(room) is None
            await client.close()
        await until(lambda: len(node.gateway.connections) == 1)
        assert await other.is_present("lobby", "ann")
        async with client_of(node) as client:
            await client.join("lobby", user_id="ann")
            assert witness.heard == [("join", "ann")]
        await witness.until_members("bob")
        assert witness.reasons == {"ann": "left"}


async def test_an_error_in_the_block_comes_out_as_it_is(bundled_server: Server):
    async with served(bundled_server) as node:
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012 - the block is what raises
            async with client_of(node) as client:
                room = await client.join("lobby", user_id="ann")
                raise KeyError("mine")
        assert await ended(room) is None
        await until(lambda: not node.gateway.connections)


async def test_a_cancelled_block_leaves_its_rooms_too(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as other:
        witness = Ears(await other.join("lobby", user_id="bob"))

        async def stay() -> None:
            async with client_of(node) as client:
                async for _ in await client.join("lobby", user_id="ann"):
                    pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stay)
            await witness.until_members("ann", "bob")
            tasks.cancel_scope.cancel()
        await witness.until_members("bob")
        task = asyncio.ensure_future(stay())
        await witness.until_members("ann", "bob")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await witness.until_members("bob")
        assert witness.heard == [("join", "ann"), ("leave", "ann")] * 2
        assert set(witness.reasons.values()) == {"left"}


async def test_a_block_may_end_in_another_task_than_it_began_in(bundled_server: Server):
    async with served(bundled_server) as node:
        one, two = client_of(node), client_of(node)
        await asyncio.create_task(one.__aenter__())
        await two.__aenter__()
        await one.join("lobby", user_id="ann")
        await one.__aexit__(None, None, None)
        await asyncio.create_task(two.__aexit__(None, None, None))
        assert two.status is Status.CLOSED


async def test_closing_does_not_wait_for_a_dead_link(bundled_server: Server):
    async with served(bundled_server) as node, Proxy.to(node.gateway.port) as proxy:
        with anyio.fail_after(3.0):
            async with client_of(proxy.port, close_timeout=0.2) as client:
                await client.join("lobby", user_id="ann")
                proxy.withhold()
            async with anyio.create_task_group():
                proxy.release()


async def test_closing_while_it_comes_back_ends_that(bundled_server: Server):
    async with served(bundled_server) as node, Proxy.to(node.gateway.port) as proxy:
        async with client_of(proxy.port) as client:
            room = await client.join("lobby", user_id="ann")
            proxy.refuse = True
            proxy.cut()
            await until(lambda: client.status is Status.RECONNECTING)
            update = asyncio.ensure_future(room.update(username="Ann"))
            join = asyncio.ensure_future(client.join("hall", user_id="ann"))
            await asyncio.sleep(0)
            await client.close()
            opened = proxy.opened
            with pytest.raises(ReactorError):
                await update
            with pytest.raises(ConnectionClosed, match="closed"):
                await join
            assert await ended(room) is None
        assert proxy.opened == opened


# Half-way.


def tasks_of_clients() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("reactor client", "reactor.client"))]


async def test_a_join_that_is_given_up_is_undone(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node, request_timeout=0.2) as client:
        await client.join("hall", user_id="ann")
        bundled_server.pause()
        try:
            cancelled = asyncio.ensure_future(client.join("one", user_id="ann"))
            late = asyncio.ensure_future(client.join("two", user_id="ann"))
            (connection,) = node.gateway.connections
            await until(lambda: {"one", "two"} <= connection.session.rooms.keys())
            cancelled.cancel()
            with pytest.raises(RequestTimedOut):
                await late
        finally:
            bundled_server.resume()
        await until(lambda: connection.session.rooms.keys() == {"hall"})
        assert await client.count("one") == 0
        assert await client.count("two") == 0
        room = await client.join("one", user_id="ann")
        assert room.count == 1


async def test_a_join_after_one_that_was_given_up_is_its_own(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client:
        for _ in range(20):
            given_up = asyncio.ensure_future(client.join("lobby", user_id="ann"))
            await asyncio.sleep(0)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            room = await client.join("lobby", user_id="ann")
            assert await client.is_present("lobby", "ann")
            leaving = asyncio.ensure_future(room.leave())
            await asyncio.sleep(0)
            again = await client.join("lobby", user_id="ann")
            assert again != room
            assert await client.is_present("lobby", "ann")
            await leaving
            assert again.status is Status.CONNECTED
            await again.leave()
            assert await client.count("lobby") == 0


async def test_who_leaves_where_the_server_has_already_put_it_out_has_left(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Meddler.before(node) as meddler,
        client_of(meddler.port) as client,
    ):
        await client.join("hall", user_id="ann")
        room = await client.join("lobby", user_id="ann")
        lost: list[str] = []

        def swallow(message: Message) -> bool:
            if message["type"] != "room:force-leave":
                return False
            lost.append(message["roomId"])
            return True

        meddler.swallow = swallow
        await node.store.kick(Entry("lobby", "ann"))
        await until(lambda: lost == ["lobby"])
        with pytest.raises(NotJoined):
            await room.update(username="Ann")
        await room.leave()
        assert await ended(room) is None


async def test_a_join_that_is_given_up_spares_who_else_joins(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client:
        await client.count("lobby")
        for _ in range(20):
            one = asyncio.ensure_future(client.join("lobby", user_id="ann"))
            two = asyncio.ensure_future(client.join("lobby", user_id="ann"))
            await asyncio.sleep(0)
            one.cancel()
            room = await two
            assert await client.is_present("lobby", "ann")
            await room.leave()
            again = asyncio.ensure_future(client.join("lobby", user_id="ann"))
            await asyncio.sleep(0)
            again.cancel()
            room = await client.join("lobby", user_id="ann")
            assert await client.is_present("lobby", "ann")
            await room.leave()


@pytest.mark.parametrize("how", ["in order", "cancelled", "by an error", "while it comes back"])
async def test_nothing_is_left_behind(bundled_server: Server, how):
    async def use(proxy: Proxy) -> None:
        async with client_of(proxy.port) as client:
            room = await client.join("lobby", user_id="ann")
            reading = aiter(room)
            await anext(reading)
            assert len(tasks_of_clients()) >= 2
            if how == "cancelled":
                await anext(reading)
            elif how == "by an error":
                raise KeyError
            elif how == "while it comes back":
                proxy.refuse = True
                proxy.cut()
                await until(lambda: client.status is Status.RECONNECTING)

    async with served(bundled_server) as node, Proxy.to(node.gateway.port) as proxy:
        for _ in range(5):
            with suppress(KeyError), anyio.move_on_after(0.1 if how == "cancelled" else None):
                await use(proxy)
            proxy.refuse = False
            assert not tasks_of_clients()
            await until(lambda: not node.gateway.connections and not proxy._writers)
        gc.collect()
        assert not [thing for thing in gc.get_objects() if type(thing) in (Client, Link, Stay)]


async def test_a_mistake_inside_ends_the_rooms_and_is_said_at_the_end(
    bundled_server: Server, monkeypatch, caplog
):
    async with served(bundled_server) as node:
        client = client_of(node)
        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012 - the block is what raises
            async with client:
                room = await client.join("lobby", user_id="ann")
                monkeypatch.setattr(client._connection._waits, "lost", lambda *_: 1 / 0)
                (connection,) = node.gateway.connections
                connection.abort()
                end = await ended(room)
                assert isinstance(end, ConnectionClosed)
        assert raised.group_contains(ZeroDivisionError)
        assert "the client failed" in caplog.text
