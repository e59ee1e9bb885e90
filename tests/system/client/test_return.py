"""Who comes back is as it was, and what was asked meanwhile is done."""

import asyncio
from typing import Literal

import anyio
import pytest

from reactor.client import Client, Status
from reactor.errors import ForceLeave, Refused, RequestTimedOut
from reactor.presence.keys import Entry
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import PATIENCE, until
from tests.system.client.clients import RoomRecorder, client_of, ended
from tests.system.client.interceptor import Interceptor, Message


async def until_left(client: Client, room_id: str) -> None:
    with anyio.fail_after(PATIENCE):
        while await client.count(room_id):  # noqa: ASYNC110 - nothing announces it
            await anyio.sleep(0.01)


THERE_AND_BACK = [Status.RECONNECTING, Status.CONNECTED]


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_a_return_by_position_reports_what_has_changed_with_its_reasons(
    bundled_server: Server, codec: Literal["json", "msgpack"]
):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as bob,
        client_of(node) as cy,
        client_of(node) as dee,
        client_of(proxy.port, codec=codec) as client,
    ):
        await bob.join("lobby", user_id="bob")
        cys = await cy.join("lobby", user_id="cy")
        dees = await dee.join("lobby", user_id="dee")
        room = await client.join("lobby", user_id="ann")
        recorder = RoomRecorder(room)
        proxy.refuse = True
        proxy.cut()
        await recorder.until_status(Status.RECONNECTING)
        await node.store.kick(Entry("lobby", "bob"), "")
        await cys.update({"x": [1]})
        proxy.refuse = False
        await recorder.until_status(Status.CONNECTED)
        assert recorder.changes == [("leave", "bob"), ("update", "cy")]
        assert recorder.reasons == {"bob": "kicked"}
        assert room.members["cy"].data == {"x": [1]}
        assert (set(room.members), room.count) == ({"ann", "cy", "dee"}, 3)
        assert node.feed.recent.results == {"diffs": 1}
        # What follows continues it.
        await dees.update(username="Dee")
        await recorder.until_member("dee", username="Dee")


async def test_without_a_list_there_is_no_return_by_position(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as client,
    ):
        recorder = RoomRecorder(await client.join("lobby", user_id="ann", view="count"))
        proxy.cut()
        await recorder.until_statuses(*THERE_AND_BACK)
        room = await client.join("lobby", view="members")
        assert set(room.members) == {"ann"}
        assert not node.feed.recent.results


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
            assert done == ["leave"], "the room ends here at once, and is left at the return"
            proxy.refuse = False
        assert sorted(done) == ["away", "count", "join", "leave", "update"]
        await until_left(client, "old")
        await recorder.until_member("ann", username="Ann", away=True)
        assert await client.count("new") == 1


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
        with anyio.fail_after(PATIENCE):
            await asyncio.gather(*tasks)
        assert await client.is_present("new", "ann")
        await until_left(client, "old")
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
        client_of(proxy.port, request_timeout=0.8) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        other = await client.join("hall", user_id="ann")
        proxy.refuse = True
        proxy.cut()
        await until(lambda: room.status is Status.RECONNECTING)
        with pytest.raises(RequestTimedOut, match=r"no connection to ws://.* for room:update within 0.8 s"):
            await room.update(username="Ann")
        with pytest.raises(RequestTimedOut, match="no connection"):
            await client.join("new", user_id="ann")
        await other.leave()
        assert await other.ended() is None
        proxy.refuse = False
        await until(lambda: room.status is Status.CONNECTED)
        assert await client.count("new") == 0
        assert room.me is not None
        assert room.me.username == "Ann", "what was wanted is not forgotten"


@pytest.mark.parametrize("view", ["members", "count", "none"])
async def test_a_rejoin_keeps_what_another_device_changed_in_every_view(bundled_server: Server, view):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as phone,
        client_of(proxy.port) as desk,
    ):
        at_desk = RoomRecorder(await desk.join("lobby", user_id="ann", username="Ann", data=1, view=view))
        on_phone = await phone.join("lobby", user_id="ann")
        await on_phone.update(2)
        proxy.cut()
        await on_phone.update(username="Anna")
        await at_desk.until_statuses(*THERE_AND_BACK)
        (ann,) = await phone.members("lobby")
        assert (ann.username, ann.data) == ("Anna", 2)
        # What the client had not acknowledged is sent after the return, and that alone.
        proxy.refuse = True
        proxy.cut()
        await at_desk.until(lambda: at_desk.room.status is Status.RECONNECTING)
        changing = asyncio.ensure_future(at_desk.room.update(3))
        await on_phone.update(username="Annette")
        proxy.refuse = False
        await changing
        (ann,) = await phone.members("lobby")
        assert (ann.username, ann.data) == ("Annette", 3)


@pytest.mark.parametrize("view", ["members", "count"])
async def test_who_is_kicked_while_offline_gets_the_message_and_does_not_return(bundled_server: Server, view):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as other,
        client_of(proxy.port) as client,
    ):
        witness = RoomRecorder(await other.join("lobby", user_id="bob"))
        recorder = RoomRecorder(await client.join("lobby", user_id="ann", view=view))
        hall = RoomRecorder(await client.join("hall", user_id="ann"))
        await witness.until_members("ann", "bob")
        proxy.refuse = True
        proxy.cut()
        await recorder.until_status(Status.RECONNECTING)
        await node.store.kick(Entry("lobby", "ann"), "Come back tomorrow.")
        await witness.until_members("bob")
        proxy.refuse = False
        end = await ended(recorder.room)
        assert isinstance(end, ForceLeave)
        assert (end.message, end.reason) == ("Come back tomorrow.", "kicked")
        assert recorder.force_leaves == [end]
        await hall.until_status(Status.CONNECTED)
        assert await other.count("lobby") == 1
        # It is the user's own decision to join again.
        again = await client.join("lobby", user_id="ann")
        assert again.count == 2


async def test_a_room_that_is_left_while_offline_is_left_at_the_return(bundled_server: Server):
    async with (
        served(bundled_server, grace=60) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as other,
        client_of(proxy.port) as client,
    ):
        witness = RoomRecorder(await other.join("lobby", user_id="bob"))
        rooms = [await client.join(name, user_id="ann") for name in ("lobby", "hall", "den")]
        await witness.until_members("ann", "bob")
        proxy.refuse = True
        proxy.cut()
        await until(lambda: client.status is Status.RECONNECTING)
        for room in rooms:
            await room.leave()
            assert room.status is Status.CLOSED
        joining = asyncio.ensure_future(client.join("den", user_id="ann"))
        proxy.refuse = False
        await witness.until_members("bob")
        assert witness.reasons == {"ann": "left"}
        await until_left(other, "hall")
        assert (await joining).status is Status.CONNECTED
        assert await other.is_present("den", "ann"), "joining again cancels the leave"


async def test_a_room_that_one_user_left_while_offline_is_left_before_another_one_joins(
    bundled_server: Server,
):
    async with (
        served(bundled_server, grace=300) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(node) as other,
        client_of(proxy.port, request_timeout=PATIENCE) as client,
    ):
        witness = RoomRecorder(await other.join("lobby", user_id="cy"))
        hall = await client.join("hall", user_id="ann")
        room = await client.join("lobby", user_id="ann")
        await witness.until_members("ann", "cy")
        proxy.refuse = True
        proxy.cut()
        await until(lambda: client.status is Status.RECONNECTING)
        await room.leave()
        joining = asyncio.ensure_future(client.join("lobby", user_id="bob"))
        proxy.refuse = False
        joined = await joining
        assert (joined.user_id, set(joined.members)) == ("bob", {"bob", "cy"})
        await witness.until_members("bob", "cy")
        assert witness.changes == [("join", "ann"), ("leave", "ann"), ("join", "bob")]
        await until(lambda: hall.status is Status.CONNECTED)
        await joined.update({"x": 1})
        await witness.until_member("bob", data={"x": 1})


async def test_a_room_that_is_left_during_its_return_is_left(bundled_server: Server):
    async with (
        served(bundled_server, grace=60) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
        client_of(node) as other,
    ):
        room = await client.join("lobby", user_id="ann")
        held: list[Message] = []

        def hold(message: Message) -> bool:
            if message["type"] == "room:joined":
                held.append(message)
            return bool(message["type"] == "room:joined")

        interceptor.drop = hold
        await interceptor.close_all(1012)
        await until(lambda: held)
        await room.leave()
        interceptor.drop = lambda _: False
        await interceptor.send(held[0])
        await until_left(other, "lobby")


async def test_two_refused_changes_under_way_leave_no_trace(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        recorder = RoomRecorder(await client.join("lobby", user_id="ann", data={"ok": 1}))
        await client.join("hall", user_id="ann")
        # The server takes less than it has said.
        client._reconnector._connection.limits = None  # type: ignore[union-attr]
        client._reconnector.limits = None
        room = recorder.room
        changes = [room.update({"t": "x" * 5000}), room.away(), room.update({"t": "x" * 5001})]
        done = await asyncio.gather(*changes, return_exceptions=True)
        assert [getattr(one, "code", one) for one in done] == ["data_too_big", None, "data_too_big"]
        await interceptor.close_all(1012)
        await recorder.until_statuses(*THERE_AND_BACK)
        await recorder.until_member("ann", data={"ok": 1}, away=True)


async def test_of_a_burst_that_is_too_fast_the_last_value_stays(bundled_server: Server):
    async with (
        served(bundled_server, messages_per_second=20, message_burst=5, max_rooms=1) as node,
        client_of(node) as client,
        client_of(node) as other,
    ):
        room = await client.join("lobby", user_id="ann")
        seen: list[int] = []
        witness = await other.join("lobby", user_id="bob")
        witness.on("update", lambda event: seen.append(event.member.data))
        await asyncio.gather(*(room.update(number) for number in range(100)))
        await RoomRecorder(witness).until_member("ann", data=99)
        assert seen == sorted(seen), "no older value is shown after a newer one"
        assert client.status is Status.CONNECTED


async def test_an_error_without_an_id_answers_the_oldest_open_request(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        interceptor.drop = lambda message: message["type"] in ("room:updated", "room:count")
        update = asyncio.ensure_future(room.update(1))
        await until(lambda: len(interceptor.received[0]) == 2)
        count = asyncio.ensure_future(client.count("hall"))
        await until(lambda: len(interceptor.received[0]) == 3)
        await interceptor.send({"type": "error", "code": "token_expired", "message": "it has expired"})
        await interceptor.send({"type": "error", "code": "bad_json", "message": "it is broken"})
        with pytest.raises(Refused, match="it is broken"):
            await update
        assert not count.done()
        await interceptor.send({"type": "error", "code": "internal", "message": "it failed"})
        with pytest.raises(Refused, match="it failed"):
            await count


async def test_a_heartbeat_that_is_due_is_sent_at_once(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as client,
    ):
        await client.join("lobby", user_id="ann")
        (sent,) = interceptor.received
        assert [message["type"] for message in sent] == ["join_room"]
        await interceptor.send({"type": "room:heartbeat:due"})
        await until(lambda: [message["type"] for message in sent] == ["join_room", "room:heartbeat"])


async def test_a_heartbeat_that_is_refused_ends_nothing(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port, heartbeat_interval=0.05) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        interceptor.drop = lambda message: message["type"] == "room:heartbeat:ack"
        (sent,) = interceptor.received
        await until(lambda: len(sent) == 2)
        refusal = {"type": "error", "code": "too_many_pending", "message": "wait", "id": sent[1]["id"]}
        await interceptor.send(refusal)
        await until(lambda: len(sent) == 3)
        assert room.status is Status.CONNECTED
