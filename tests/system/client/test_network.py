"""What the network does to a client, and what the client makes of it."""

import random
from contextlib import AsyncExitStack
from time import time

import anyio
import pytest

from reactor.client import Client, Status, open_connection
from reactor.protocol.events import RoomEvent
from reactor.protocol.messages import Member
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server, free_port
from tests.support.waiting import until
from tests.system.client.clients import RoomRecorder, client_of
from tests.system.client.interceptor import Interceptor

THERE_AND_BACK = [Status.RECONNECTING, Status.CONNECTED]


async def test_a_reconnect_within_the_grace_is_not_noticed(redis_server: Server):
    async with (
        served(redis_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as other,
        client_of(proxy.port) as client,
    ):
        witness = RoomRecorder(await other.join("lobby", user_id="bob"))
        recorder = RoomRecorder(await client.join("lobby", user_id="ann", username="Ann", data={"x": 1}))
        await witness.until_members("ann", "bob")
        for times in range(1, 4):
            proxy.cut()
            await recorder.until_statuses(*THERE_AND_BACK * times)
        assert recorder.events == []
        assert witness.changes == [("join", "ann")]
        await recorder.room.update(data={"x": 2})
        await witness.until_member("ann", data={"x": 2})
        assert witness.changes == [("join", "ann"), ("update", "ann")]


async def test_changes_during_a_reconnect_are_reported_once_and_together(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        AsyncExitStack() as stack,
        client_of(proxy.port) as client,
    ):
        others = {}
        for name in ("bob", "cy", "dan", "eve"):
            others[name] = await stack.enter_async_context(client_of(node))
        rooms = {name: await others[name].join("lobby", user_id=name) for name in ("bob", "cy", "dan")}
        room = await client.join("lobby", user_id="ann")
        recorder = RoomRecorder(room)
        sizes = []
        room.on("leave", lambda _: sizes.append(len(room.members)))
        room.on("join", lambda _: sizes.append(len(room.members)))
        proxy.refuse = True
        proxy.cut()
        await recorder.until_status(Status.RECONNECTING)
        assert room.members.keys() == {"ann", "bob", "cy", "dan"}, "as it was last known"
        await rooms["bob"].leave()
        await rooms["cy"].away()
        await others["eve"].join("lobby", user_id="eve")
        proxy.refuse = False
        await recorder.until_status(Status.CONNECTED)
        assert recorder.changes == [("leave", "bob"), ("join", "eve"), ("update", "cy")]
        assert sizes == [4, 4], "the list was complete when the first event was reported"


async def test_a_reconnect_after_the_grace_is_noticed_by_the_other_members(bundled_server: Server):
    async with (
        served(bundled_server, grace=0.2, away_grace=0.2) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as other,
        client_of(proxy.port) as client,
    ):
        witness = RoomRecorder(await other.join("lobby", user_id="bob"))
        room = await client.join("lobby", user_id="ann", username="Ann", data=[1])
        recorder = RoomRecorder(room)
        await room.away()
        await witness.until_member("ann", away=True)
        witness.events.clear()
        proxy.refuse = True
        proxy.cut()
        await witness.until_members("bob")
        proxy.refuse = False
        await witness.until_member("ann", away=True)
        assert [change for change in witness.changes if change[0] != "update"] == [
            ("leave", "ann"),
            ("join", "ann"),
        ]
        assert witness.reasons == {"ann": "disconnected"}
        assert witness.room.members["ann"].username == "Ann"
        assert witness.room.members["ann"].data == [1]
        await recorder.until_member("ann", away=True, data=[1])
        assert [change for change in recorder.changes if change[0] != "update"][-2:] == [
            ("leave", "ann"),
            ("join", "ann"),
        ]


async def test_a_dead_connection_is_detected_by_a_heartbeat(bundled_server: Server):
    async with (
        served(bundled_server, heartbeat_interval=0.1) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port, request_timeout=1.5) as client,
    ):
        recorder = RoomRecorder(await client.join("lobby", user_id="ann"))
        proxy.withhold()
        await recorder.until_status(Status.RECONNECTING)
        proxy.release()
        await recorder.until_status(Status.CONNECTED)
        # The server may learn of the return before the loss, and then counts two connections for a moment.
        assert [event.kind for event in recorder.events] in ([], ["update"], ["update", "update"])


async def test_a_dead_connection_is_detected_without_a_room(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port, request_timeout=1.5, heartbeat_interval=0.1) as client,
    ):
        proxy.withhold()
        await until(lambda: client.status is Status.RECONNECTING)
        proxy.release()
        await until(lambda: client.status is Status.CONNECTED)
        assert await client.count("lobby") == 0


async def test_a_slow_network_is_not_taken_for_a_dead_one(bundled_server: Server):
    async with (
        served(bundled_server, heartbeat_interval=0.1, ttl=10) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as other,
    ):
        proxy.delay = 0.15
        async with client_of(proxy.port, request_timeout=10) as client:
            recorder = RoomRecorder(await client.join("lobby", user_id="ann"))
            for number in range(3):
                room = await other.join("lobby", user_id=f"user {number}")
                await recorder.until(lambda: recorder.room.count == 2)
                await room.leave()
                await recorder.until(lambda: recorder.room.count == 1)
            assert recorder.statuses == []
            assert proxy.opened == 1


async def test_a_restart_of_the_server_is_not_noticed_by_members(
    redis_server: Server,
):
    port = free_port()
    async with AsyncExitStack() as stack:
        async with served(redis_server, port=port):
            clients = [await stack.enter_async_context(client_of(port)) for _ in range(5)]
            rooms = [
                await client.join("lobby", user_id=f"user {number}", username=f"User {number}")
                for number, client in enumerate(clients)
            ]
            recorders = [RoomRecorder(room) for room in rooms]
            for recorder in recorders:
                await recorder.until_members(*(room.user_id for room in rooms))
            for recorder in recorders:
                recorder.events.clear()
        for recorder in recorders:
            await recorder.until_status(Status.RECONNECTING)
        async with served(redis_server, port=port) as node:
            for recorder in recorders:
                await recorder.until_status(Status.CONNECTED)
                assert recorder.changes == []
            assert len(node.gateway.connections) == 5
            await rooms[0].update(username="Still here")
            for recorder in recorders:
                await recorder.until_member("user 0", username="Still here")
                assert recorder.changes == [("update", "user 0")]
            for client in clients:
                await client.close()


async def test_reconnects_are_spread_over_time(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as client,
    ):
        proxy.refuse = True
        proxy.cut()
        await until(lambda: proxy.opened >= 8)
        assert client.status is Status.RECONNECTING
        refused, proxy.refuse = proxy.opened, False
        await until(lambda: client.status is Status.CONNECTED)
        assert proxy.opened == refused + 1


async def test_a_suspended_machine_sends_a_heartbeat_when_it_resumes(bundled_server: Server, monkeypatch):
    monkeypatch.setattr(open_connection, "_CLOCK_CHECK", 0.05)
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        await client.join("lobby", user_id="ann")
        (said,) = interceptor.received
        assert [message["type"] for message in said] == ["join_room"]
        monkeypatch.setattr(open_connection, "time", lambda: time() + 3600)
        await until(lambda: len(said) == 2)
        assert said[1]["type"] == "room:heartbeat"
        assert "roomId" not in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_on_an_unreliable_network_the_events_lead_to_the_true_list(bundled_server: Server, seed):
    draw = random.Random(seed)
    names = [f"user {number}" for number in range(6)]
    async with (
        served(bundled_server, grace=0.3) as node,
        Proxy.to(node.gateway.port) as proxy,
        AsyncExitStack() as stack,
        client_of(proxy.port, heartbeat_interval=0.2, request_timeout=1.0) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        replayed: dict[str, Member] = {}

        async def follow() -> None:
            async for event in room:
                replay(event, replayed)

        async def live(person: Client, name: str) -> None:
            for _ in range(12):
                mine = await person.join("lobby", user_id=name)
                await anyio.sleep(draw.random() * 0.05)
                await mine.update(data=draw.random())
                await anyio.sleep(draw.random() * 0.05)
                await mine.leave()
            await person.join("lobby", user_id=name, data="last")

        async def weather() -> None:
            while True:
                await anyio.sleep(draw.random() * 0.3)
                proxy.refuse = draw.random() < 0.3
                proxy.delay = draw.choice([0.0, 0.0, 0.02])
                proxy.cut()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            storm = anyio.CancelScope()

            async def storms() -> None:
                with storm:
                    await weather()

            tasks.start_soon(storms)
            async with anyio.create_task_group() as lives:
                for name in names:
                    person = await stack.enter_async_context(client_of(node))
                    lives.start_soon(live, person, name)
            storm.cancel()
            proxy.refuse, proxy.delay = False, 0.0
            await until(
                lambda: (
                    room.members.keys() == {"ann", *names}
                    and all(room.members[name].data == "last" for name in names)
                )
            )
            await until(lambda: replayed == dict(room.members))
            tasks.cancel_scope.cancel()


def replay(event: RoomEvent, members: dict[str, Member]) -> None:
    if event.kind == "sync":
        members.clear()
        members.update((member.user_id, member) for member in event.members)
        return
    assert event.member is not None
    if event.kind == "leave":
        del members[event.member.user_id]
    else:
        assert (event.member.user_id in members) == (event.kind == "update")
        members[event.member.user_id] = event.member
