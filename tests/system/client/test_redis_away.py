"""What a client makes of a server that has no Redis, or another one than before."""

import asyncio
from contextlib import AsyncExitStack

import anyio
import pytest

from reactor.client import Status
from reactor.errors import RequestTimedOut, Unavailable
from tests.support.nodes import served
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.system.client.clients import RoomRecorder, client_of
from tests.system.client.interceptor import Interceptor

DOWN_AND_UP = [Status.DEGRADED, Status.CONNECTED]


async def test_without_redis_the_status_is_degraded_and_requests_are_refused(redis_server: Server):
    async with (
        served(redis_server, heartbeat_interval=0.1) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port, request_timeout=1.0) as client,
    ):
        room = await client.join("lobby", user_id="ann", username="Ann")
        recorder = RoomRecorder(room)
        statuses: list[Status] = []
        client.on("status", statuses.append)
        redis_server.kill()
        await recorder.until_status(Status.DEGRADED)
        assert client.status is Status.DEGRADED
        with pytest.raises(Unavailable, match="Redis does not answer"):
            await room.update(username="Anna")
        with pytest.raises(Unavailable):
            await room.leave()
        with pytest.raises((Unavailable, RequestTimedOut)):
            await client.join("hall", user_id="ann")
        (said,) = interceptor.received
        already = len(said)
        # Each is given up before the next is sent, but the link is not.
        await until(lambda: [one["type"] for one in said[already:]].count("room:heartbeat") >= 3)
        assert len(interceptor.received) == 1
        assert statuses == recorder.statuses == [Status.DEGRADED]
        redis_server.start()
        await recorder.until_status(Status.CONNECTED)
        assert statuses == recorder.statuses == DOWN_AND_UP
        assert room.members.keys() == {"ann"}
        await until(lambda: node.heartbeats.members > 0)
        assert recorder.changes == []
        # The node may take another second to hear a new room's diffs, and the first client is too hasty.
        async with client_of(node) as patient:
            hall = await patient.join("hall", user_id="ann")
            assert hall.count == 1


async def test_a_loss_of_all_data_in_redis_makes_no_event(redis_server: Server):
    async with (
        served(redis_server) as one,
        served(redis_server) as two,
        AsyncExitStack() as stack,
    ):
        names = [f"user {number}" for number in range(6)]
        recorders = []
        for number, name in enumerate(names):
            client = await stack.enter_async_context(client_of((one, two)[number % 2]))
            recorders.append(RoomRecorder(await client.join("lobby", user_id=name)))
        for recorder in recorders:
            await recorder.until_members(*names)
            recorder.events.clear()
        await asyncio.to_thread(redis_server.restart)
        # Someone new shows that all nodes follow the room of today.
        newcomer = await stack.enter_async_context(client_of(one))
        with anyio.fail_after(PATIENCE):
            while True:
                try:
                    await newcomer.join("lobby", user_id="newcomer")
                    break
                except Unavailable:
                    await anyio.sleep(0.05)
        for recorder in recorders:
            await recorder.until_members(*names, "newcomer")
            assert recorder.changes == [("join", "newcomer")]
            assert set(recorder.statuses) <= {Status.DEGRADED, Status.CONNECTED}
        await recorders[0].room.leave()
        for recorder in recorders[1:]:
            await recorder.until_members(*names[1:], "newcomer")
            assert recorder.changes == [("join", "newcomer"), ("leave", names[0])]
            assert recorder.reasons == {names[0]: "left"}


@pytest.mark.slow
async def test_a_member_that_is_not_registered_again_leaves_after_settling(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        client_of(node) as one,
        client_of(node) as two,
    ):
        recorder = RoomRecorder(await one.join("lobby", user_id="ann"))
        await two.join("lobby", user_id="bob")
        await recorder.until_members("ann", "bob")
        # Bob's connection and Redis's memory of it go together.
        await two.close(leave=False)
        await until(lambda: len(node.gateway.connections) == 1)
        await asyncio.to_thread(bundled_server.restart)
        await recorder.until_members("ann")
        assert [change for change in recorder.changes if change[0] != "update"] == [
            ("join", "bob"),
            ("leave", "bob"),
        ]
        assert recorder.reasons == {"bob": "disconnected"}


@pytest.mark.slow
async def test_a_client_that_reconnects_while_redis_is_down_waits_for_it(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client:
        recorder = RoomRecorder(await client.join("lobby", user_id="ann", data=7))
        bundled_server.kill()
        await recorder.until_status(Status.DEGRADED)
        for connection in list(node.gateway.connections):
            connection.abort()
        await recorder.until_status(Status.RECONNECTING)
        await until(lambda: client.status is not Status.RECONNECTING)
        assert recorder.room.status is Status.RECONNECTING, "the room is not joined yet"
        bundled_server.start()
        await recorder.until_status(Status.CONNECTED)
        assert recorder.room.me is not None
        assert recorder.room.me.data == 7
        assert recorder.changes == []
