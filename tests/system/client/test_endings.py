"""How a stay in a room ends, and a client: by the server, by the user, by an error, half-way."""

import asyncio
from contextlib import suppress

import anyio
import pytest

from reactor.client import Backoff, Status
from reactor.errors import (
    ConnectionClosed,
    ForceLeave,
    ReactorError,
    RoomFull,
)
from reactor.presence.keys import Entry
from reactor.protocol.closing import CloseCode
from reactor.settings import RoomRule
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.system.client.clients import RoomRecorder, client_of, ended
from tests.system.client.interceptor import Interceptor


async def test_a_member_without_heartbeats_gets_a_force_leave_and_the_room_ends(redis_server: Server):
    async with (
        served(redis_server, ttl=2.0, inactivity_message="Still there?", heartbeat_interval=0.1) as node,
        Interceptor.before(node) as interceptor,
        client_of(node) as other,
        client_of(interceptor.port, heartbeat_interval=60) as silent,
    ):
        interceptor.drop = lambda message: message["type"] == "room:heartbeat:due"
        witness = RoomRecorder(await other.join("lobby", user_id="bob"))
        room = await silent.join("lobby", user_id="ann")
        recorder = RoomRecorder(room)
        joined_at = room.members["ann"].joined_at
        events = [event.kind async for event in room]
        assert events == ["sync"]

        end = await ended(room)
        assert isinstance(end, ForceLeave)
        assert str(end) == end.message == "Still there?"
        assert (end.room_id, end.reason) == ("lobby", "inactivity_timeout")
        assert joined_at + 2000 <= end.timestamp < joined_at + 7000
        assert recorder.force_leaves == [end]
        assert recorder.statuses == [Status.CLOSED]
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


async def test_a_join_that_crosses_the_close_after_a_kick_is_not_delayed_by_the_backoff(
    bundled_server: Server,
):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port, backoff=Backoff(first=600, cap=600)) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        await room.leave()
        interceptor.close_code = lambda _: CloseCode.FORCE_LEAVE if len(interceptor.received) == 1 else None
        hall = await client.join("hall", user_id="ann")
        assert hall.status is Status.CONNECTED
        assert len(interceptor.received) == 2


async def test_a_member_kicked_from_one_room_stays_in_the_other(bundled_server: Server):
    async with (
        served(bundled_server, heartbeat_interval=0.1, ttl=5) as node,
        client_of(node) as desk,
        client_of(node) as phone,
    ):
        lobby, hall = await desk.join("lobby", user_id="ann"), await desk.join("hall", user_id="ann")
        on_phone = await phone.join("lobby", user_id="ann")
        recorder = RoomRecorder(hall)
        await node.store.kick(Entry("lobby", "ann"), "Out!")
        for room in (lobby, on_phone):
            end = await ended(room)
            assert isinstance(end, ForceLeave)
            assert (end.message, end.reason) == ("Out!", "kicked")
        await until(lambda: phone.status is Status.IDLE)
        await hall.update(username="Ann")
        await recorder.until_member("ann", username="Ann")
        assert recorder.statuses == []
        assert desk.status is Status.CONNECTED
        back = await desk.join("lobby", user_id="ann")
        assert back.count == 1


async def test_a_place_lost_during_a_reconnect_ends_the_room_with_room_full(bundled_server: Server):
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


async def test_after_a_close_without_leaving_a_rejoin_within_the_grace_resumes(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as other:
        witness = RoomRecorder(await other.join("lobby", user_id="bob"))
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
            assert witness.changes == [("join", "ann")]
        await witness.until_members("bob")
        assert witness.reasons == {"ann": "left"}


async def test_an_exception_in_the_block_is_raised_unchanged(bundled_server: Server):
    async with served(bundled_server) as node:
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012 - the block is what raises
            async with client_of(node) as client:
                room = await client.join("lobby", user_id="ann")
                raise KeyError("mine")
        assert await ended(room) is None
        await until(lambda: not node.gateway.connections)


async def test_a_cancelled_block_leaves_its_rooms(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as other:
        witness = RoomRecorder(await other.join("lobby", user_id="bob"))

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
        assert witness.changes == [("join", "ann"), ("leave", "ann")] * 2
        assert set(witness.reasons.values()) == {"left"}


async def test_a_block_may_be_left_in_another_task_than_it_was_entered_in(bundled_server: Server):
    async with served(bundled_server) as node:
        one, two = client_of(node), client_of(node)
        await asyncio.create_task(one.__aenter__())
        await two.__aenter__()
        await one.join("lobby", user_id="ann")
        await one.__aexit__(None, None, None)
        await asyncio.create_task(two.__aexit__(None, None, None))
        assert two.status is Status.CLOSED


async def test_closing_does_not_wait_for_a_dead_connection(bundled_server: Server):
    async with served(bundled_server) as node, Proxy.to(node.gateway.port) as proxy:
        with anyio.fail_after(9):  # less than a request waits
            async with client_of(proxy.port, close_timeout=0.2) as client:
                await client.join("lobby", user_id="ann")
                proxy.withhold()
            async with anyio.create_task_group():
                proxy.release()


async def test_closing_during_a_reconnect_ends_the_attempts(bundled_server: Server):
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
