"""What is given up half-way, by cancellation or for time, leaves nothing behind."""

import asyncio
import gc
from contextlib import suppress

import anyio
import pytest

from reactor.client import Client, Status
from reactor.client.open_connection import OpenConnection
from reactor.client.room_membership import RoomMembership
from reactor.errors import (
    ConnectionClosed,
    NotJoined,
    RequestTimedOut,
)
from reactor.presence.keys import Entry
from reactor.protocol.messages import RoomJoined
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.client.clients import client_of, ended
from tests.system.client.interceptor import Interceptor, Message


def tasks_of_clients() -> list[str]:
    names = [task.get_name() for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith(("reactor client", "reactor.client"))]


async def test_a_cancelled_join_is_undone(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node, request_timeout=1.0) as client:
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


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_join_that_was_given_up_does_not_change_the_view(bundled_server: Server, cancelled: bool):
    async with served(bundled_server) as node, client_of(node, request_timeout=1.0) as client:
        room = await client.join("hall", user_id="ann")
        bundled_server.pause()
        try:
            joining = asyncio.ensure_future(client.join("hall", user_id="ann", view="count"))
            await asyncio.sleep(0)
            if cancelled:
                joining.cancel()
            with pytest.raises((RequestTimedOut, asyncio.CancelledError)):
                await joining
        finally:
            bundled_server.resume()
        await room.update(data="after both")
        (connection,) = node.gateway.connections
        assert connection in node.roster.views("hall")["members"]
        await until(lambda: room.view == "members")
        assert await client.join("hall", user_id="ann", view="count") == room
        assert connection in node.roster.views("hall")["count"]


async def test_a_join_after_a_cancelled_one_is_independent_of_it(bundled_server: Server):
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


async def test_leaving_a_room_that_the_server_has_ended_succeeds(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        await client.join("hall", user_id="ann")
        room = await client.join("lobby", user_id="ann")
        lost: list[str] = []

        def drop(message: Message) -> bool:
            if message["type"] != "room:force-leave":
                return False
            lost.append(message["roomId"])
            return True

        interceptor.drop = drop
        await node.store.kick(Entry("lobby", "ann"))
        await until(lambda: lost == ["lobby"])
        with pytest.raises(NotJoined):
            await room.update(username="Ann")
        await room.leave()
        assert await ended(room) is None


async def test_a_join_reply_without_a_membership_is_answered_by_a_leave(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        await client.count("lobby")
        (connection,) = node.gateway.connections
        connection.send(RoomJoined("ghost", "ann", "s", 1000, 1000, False, "e1", 1, 1, "none"))
        (said,) = interceptor.received
        await until(lambda: said[-1]["type"] == "leave_room")
        assert said[-1]["roomId"] == "ghost"


async def test_a_cancelled_join_does_not_affect_a_concurrent_one(bundled_server: Server):
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
async def test_no_task_connection_or_object_is_left_behind(bundled_server: Server, how):
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
        assert not [
            thing for thing in gc.get_objects() if type(thing) in (Client, OpenConnection, RoomMembership)
        ]


async def test_an_internal_error_ends_the_rooms_and_is_raised_at_the_end_of_the_block(
    bundled_server: Server, monkeypatch, caplog
):
    async with served(bundled_server) as node:
        client = client_of(node)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is what raises
            async with client:
                room = await client.join("lobby", user_id="ann")
                monkeypatch.setattr(client._reconnector._delays, "after_connection", lambda *_, **__: 1 / 0)
                (connection,) = node.gateway.connections
                connection.abort()
                end = await ended(room)
                assert isinstance(end, ConnectionClosed)
        assert "the client failed" in caplog.text
