"""Who comes back is as it was, and what was asked meanwhile is done."""

import asyncio

import anyio
import pytest

from reactor.client import Status
from reactor.errors import Refused, RequestTimedOut
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import until
from tests.system.client.clients import RoomRecorder, client_of
from tests.system.client.interceptor import Interceptor, Message

THERE_AND_BACK = [Status.RECONNECTING, Status.CONNECTED]


async def test_a_rejoin_restores_name_data_view_and_away(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as other,
        client_of(proxy.port) as client,
    ):
        witness = RoomRecorder(await other.join("lobby", user_id="bob"))
        lobby = await client.join("lobby", user_id="ann", username="Ann")
        await lobby.update(username="Anna", data={"x": 1})
        await lobby.away()
        hall = await client.join("hall", user_id="ann", view="count")
        many = [await client.join(f"room {number}", user_id="ann") for number in range(40)]
        for room in many:
            await room.away()
        recorders = [RoomRecorder(room) for room in (lobby, hall, *many)]
        proxy.cut()
        for recorder in recorders:
            await recorder.until_statuses(*THERE_AND_BACK)
        await witness.until_member("ann", away=True)
        ann = witness.room.members["ann"]
        assert (ann.username, ann.data, ann.connections) == ("Anna", {"x": 1}, 1)
        assert (hall.view, hall.count) == ("count", 1)
        assert ("leave", "ann") not in witness.changes
        for recorder in recorders[2:]:
            await recorder.until_member("ann", away=True)
        await lobby.back()
        proxy.cut()
        await until(lambda: lobby.status is Status.RECONNECTING)
        await until(lambda: lobby.status is Status.CONNECTED)
        assert lobby.me is not None
        assert not lobby.me.away


async def test_a_rejoin_does_not_revert_a_change_by_another_device(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as phone,
        client_of(proxy.port) as desk,
    ):
        at_desk = await desk.join("lobby", user_id="ann", username="Ann", data="desk")
        on_phone = await phone.join("lobby", user_id="ann")
        await on_phone.update(data="phone")
        recorder = RoomRecorder(at_desk)
        await recorder.until_member("ann", data="phone")
        proxy.cut()
        await recorder.until_statuses(*THERE_AND_BACK)
        members = {member.user_id: member for member in await phone.members("lobby")}
        assert members["ann"].data == "phone"


async def test_requests_during_a_reconnect_are_sent_after_it(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        old = await client.join("old", user_id="ann")
        recorder = RoomRecorder(room)
        proxy.refuse = True
        proxy.cut()
        await recorder.until_status(Status.RECONNECTING)
        done = []

        async def do(name: str, work) -> None:
            await work
            done.append(name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(do, "update", room.update(username="Ann"))
            tasks.start_soon(do, "away", room.away())
            tasks.start_soon(do, "join", client.join("new", user_id="ann"))
            tasks.start_soon(do, "leave", old.leave())
            tasks.start_soon(do, "count", client.count("lobby"))
            attempts = proxy.opened
            await until(lambda: proxy.opened >= attempts + 2)
            assert done == []
            proxy.refuse = False
        assert sorted(done) == ["away", "count", "join", "leave", "update"]
        await recorder.until_member("ann", username="Ann", away=True)
        assert await client.count("new") == 1
        assert await client.count("old") == 0


async def test_requests_under_way_when_the_connection_was_lost_are_sent_again(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as client,
    ):
        room, old = await client.join("lobby", user_id="ann"), await client.join("old", user_id="ann")
        proxy.withhold()
        asked = [room.update(username="Ann"), room.away(), old.leave(), client.count("lobby")]
        tasks = [asyncio.ensure_future(one) for one in (*asked, client.join("new", user_id="ann"))]
        await asyncio.sleep(0)
        proxy.cut()
        proxy.release()
        with anyio.fail_after(5):
            await asyncio.gather(*tasks)
        assert await client.is_present("new", "ann")
        assert await client.count("old") == 0
        await RoomRecorder(room).until_member("ann", username="Ann", away=True)


async def test_a_refused_change_is_not_repeated_by_a_rejoin(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as client,
    ):
        recorder = RoomRecorder(await client.join("lobby", user_id="ann", data="small"))
        with pytest.raises(Refused):
            await recorder.room.update(data="x" * 5000)
        proxy.cut()
        await recorder.until_statuses(*THERE_AND_BACK)
        assert recorder.room.me is not None
        assert recorder.room.me.data == "small"


async def test_many_rooms_are_rejoined_within_the_limit_of_pending_requests(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        errors: list[Message] = []

        def note(message: Message) -> bool:
            if message["type"] == "error":
                errors.append(message)
            return False

        rooms = [await client.join(f"room {number}", user_id="ann") for number in range(60)]
        for room in rooms:
            await room.away()
        interceptor.drop = note
        recorders = [RoomRecorder(room) for room in rooms]
        await interceptor.close_all(1012)
        for recorder in recorders:
            await recorder.until_statuses(*THERE_AND_BACK)
            assert recorder.events == []
        assert errors == []


async def test_without_a_connection_a_request_times_out(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port, request_timeout=0.2) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        other = await client.join("hall", user_id="ann")
        proxy.refuse = True
        proxy.cut()
        await until(lambda: room.status is Status.RECONNECTING)
        with pytest.raises(RequestTimedOut, match=r"no connection to ws://.* for room:update within 0.2 s"):
            await room.update(username="Ann")
        with pytest.raises(RequestTimedOut, match="no connection"):
            await client.join("new", user_id="ann")
        with pytest.raises(RequestTimedOut):
            await other.leave()
        assert await other.ended() is None
        proxy.refuse = False
        await until(lambda: room.status is Status.CONNECTED)
        assert await client.count("new") == 0
        assert room.me is not None
        assert room.me.username == "Ann", "what was wanted is not forgotten"
