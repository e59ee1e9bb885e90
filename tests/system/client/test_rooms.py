"""A client and its rooms, on a server that is well."""

import asyncio

import anyio
import pytest

from reactor.client import Client, Status
from reactor.errors import (
    ConnectionClosed,
    NotJoined,
    ReactorError,
    Refused,
    RequestTimedOut,
    RoomFull,
    ServerUnreachable,
    SettingError,
)
from reactor.presence.keys import Entry
from reactor.settings import RoomRule
from tests.support.nodes import served
from tests.support.servers import Server, free_port
from tests.support.waiting import PATIENCE, until
from tests.system.client.clients import RoomRecorder, client_of, url_of


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_two_clients_see_each_other_join_change_and_leave(redis_server: Server, codec):
    async with served(redis_server) as node, client_of(node, codec=codec) as one:
        ann = await one.join("lobby", user_id="ann", username="Ann", data={"team": "red"})
        recorder = RoomRecorder(ann)
        assert ann.me is not None
        assert (ann.me.username, ann.me.data, ann.me.connections) == ("Ann", {"team": "red"}, 1)
        assert (ann.count, ann.others, ann.status, ann.view) == (1, [], Status.CONNECTED, "members")

        async with client_of(node, codec=codec) as two:
            bob = await two.join("lobby", user_id=7)
            assert bob.user_id == "7"
            assert bob.members.keys() == {"ann", "7"}
            assert [member.username for member in bob.others] == ["Ann"]
            await recorder.until_members("ann", "7")

            await bob.update(username="Bob", data=[1, None, {"deep": True}])
            await recorder.until_member("7", username="Bob")
            assert ann.members["7"].data == [1, None, {"deep": True}]
            await bob.update(data=None)
            await recorder.until_member("7", data=None)
            assert ann.members["7"].username == "Bob"
            await bob.away()
            await recorder.until_member("7", away=True)
            await bob.back()
            await recorder.until_member("7", away=False)

        await recorder.until_members("ann")
        assert recorder.changes == [("join", "7"), *[("update", "7")] * 4, ("leave", "7")]
        assert recorder.reasons == {"7": "left"}
        assert await bob.ended() is None
        assert bob.status is Status.CLOSED


async def test_the_example_of_the_readme(bundled_server: Server):
    lines = []

    async def main(url: str) -> None:
        async with Client(url) as client:
            room = await client.join("lobby", user_id=42, username="Ann")
            async for event in room:
                name = event.member.username if event.member else ""
                lines.append(f"{event.kind} {name} {room.count}")
            lines.append(f"over: {await room.ended()}")

    async with served(bundled_server) as node, client_of(node) as other:
        bob = await other.join("lobby", user_id="bob")
        recorder = RoomRecorder(bob)
        task = asyncio.ensure_future(main(url_of(node)))
        await recorder.until_members("bob", "42")
        async with client_of(node) as third:
            await third.join("lobby", user_id="cy")
            await recorder.until_members("bob", "42", "cy")
        await recorder.until_members("bob", "42")
        await node.store.kick(Entry("lobby", "42"), "Time to go.")
        with anyio.fail_after(PATIENCE):
            await task
    assert lines == ["sync  2", "join cy 3", "leave cy 2", "over: Time to go."]


async def test_two_clients_of_one_user_are_one_member(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as witness:
        watch = await witness.join("lobby", user_id="witness")
        recorder = RoomRecorder(watch)
        async with client_of(node) as desk:
            at_desk = await desk.join("lobby", user_id="ann", username="Ann")
            async with client_of(node) as phone:
                on_phone = await phone.join("lobby", user_id="ann")
                await recorder.until_member("ann", connections=2)
                assert on_phone.me is not None
                assert on_phone.me.username == "Ann"
                await on_phone.update(username="Ann on the phone")
                await RoomRecorder(at_desk).until_member("ann", username="Ann on the phone")
            await recorder.until_member("ann", connections=1)
            assert at_desk.status is Status.CONNECTED
        await recorder.until_members("witness")
        assert [change for change in recorder.changes if change[0] != "update"] == [
            ("join", "ann"),
            ("leave", "ann"),
        ]


async def test_joining_again_changes_what_is_given(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client:
        room = await client.join("lobby", user_id="ann", data=1)
        again = await client.join("lobby", user_id="ann", username="Ann")
        assert again == room
        await RoomRecorder(room).until_member("ann", username="Ann")
        assert room.members["ann"].data == 1
        both = []

        async def join(name: str) -> None:
            both.append(await client.join("hall", user_id="ann", username=name))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(join, "One")
            tasks.start_soon(join, "Two")
        assert both[0] == both[1]
        assert both[0].count == 1
        with pytest.raises(Refused, match="second client") as refused:
            await client.join("lobby", user_id="bob")
        assert refused.value.code == "already_joined"


async def test_a_room_may_be_left_and_joined_again(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client, client_of(node) as other:
        recorder = RoomRecorder(await other.join("lobby", user_id="witness"))
        for _ in range(3):
            room = await client.join("lobby", user_id="ann")
            assert room.members.keys() == {"ann", "witness"}
            await recorder.until_members("ann", "witness")
            await room.leave()
            await room.leave()
            await recorder.until_members("witness")
            assert await room.ended() is None
            with pytest.raises(NotJoined, match="was left"):
                await room.update(username="Ann")
        assert recorder.changes == [("join", "ann"), ("leave", "ann")] * 3
        assert client.status is Status.CONNECTED


async def test_refusals_are_exceptions_with_the_message_of_the_server(bundled_server: Server):
    rules = (RoomRule(match="small", max_members=1),)
    async with (
        served(bundled_server, rooms=rules, max_rooms=2) as node,
        client_of(node) as one,
        client_of(node) as two,
    ):
        ann = await one.join("small", user_id="ann")
        with pytest.raises(RoomFull, match="as many members as it may have"):
            await two.join("small", user_id="bob")
        await ann.leave()
        await two.join("small", user_id="bob")
        room = await two.join("lobby", user_id="bob", data="before")
        with pytest.raises(Refused, match="leave one first") as refused:
            await two.join("third", user_id="bob")
        assert refused.value.code == "too_many_rooms"
        with pytest.raises(Refused) as refused:
            await room.update(data="x" * 5000)
        assert refused.value.code == "too_big"
        assert room.me is not None
        assert room.me.data == "before"
        for wrong, code in (
            ("", "bad_id"),
            ("a\nb", "bad_id"),
            ("x" * 300, "too_big"),
            (True, "bad_request"),
        ):
            with pytest.raises(Refused) as refused:
                await one.join(wrong, user_id="ann")
            assert refused.value.code == code
        with pytest.raises(Refused, match="whole number"):
            await one.join(True, user_id="ann")
        for odd in ("a:b{c}*?[d]\\", "🧑‍🚀", " ", "__proto__"):
            assert (await one.join(odd, user_id=odd)).members.keys() == {odd}
            await (await one.join(odd, user_id=odd)).leave()


async def test_an_unreachable_server_is_reported_in_one_line(bundled_server: Server):
    port = free_port()
    with pytest.raises(ServerUnreachable, match=f"cannot connect to ws://127.0.0.1:{port}/ws"):
        async with client_of(port):
            pytest.fail("there is no server")
    async with served(bundled_server) as node:
        with pytest.raises(ServerUnreachable, match="HTTP status 404"):
            async with Client(f"ws://127.0.0.1:{node.gateway.port}/elsewhere"):
                pytest.fail("there is no socket")
        async with Client(f"ws://127.0.0.1:{node.gateway.port}") as client:
            assert await client.count("lobby") == 0, "the path is known"
    for url in ("http://127.0.0.1/ws", "127.0.0.1:8765", "ws://", "ws://host:99999999/ws"):
        with pytest.raises(SettingError, match="is not a WebSocket URL"):
            Client(url)
    with pytest.raises(SettingError, match="is not a WebSocket URL"):
        Client(5)  # type: ignore[arg-type]
    with pytest.raises(ServerUnreachable, match=r"cannot connect to ws://a\.\.b/ws"):
        async with Client("ws://a..b/ws"):
            pytest.fail("there is no such host")
    with pytest.raises(SettingError, match="codec"):
        Client("ws://host/ws", codec="xml")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="queue"):
        Client("ws://host/ws", queue=0)
    with pytest.raises(SettingError, match="backoff takes a Backoff, not dict"):
        Client("ws://host/ws", backoff={"first": 1})  # type: ignore[arg-type]


async def test_a_client_can_be_entered_only_once(bundled_server: Server):
    async with served(bundled_server) as node:
        client = client_of(node)
        with pytest.raises(RuntimeError, match="inside its block"):
            await client.join("lobby", user_id="ann")
        with pytest.raises(RuntimeError, match="inside its block"):
            await client.count("lobby")
        async with client:
            room = await client.join("lobby", user_id="ann")
        with pytest.raises(ConnectionClosed, match="closed"):
            await client.join("lobby", user_id="ann")
        with pytest.raises(NotJoined):
            await room.away()
        with pytest.raises(RuntimeError, match="only once"):
            async with client:
                pytest.fail("it is used up")


async def test_many_rooms_share_one_connection_and_one_heartbeat(bundled_server: Server):
    async with served(bundled_server, heartbeat_interval=0.1, ttl=2.0) as node, client_of(node) as client:
        rooms = [await client.join(f"room {number}", user_id="ann") for number in range(40)]
        assert len(node.gateway.connections) == 1
        refreshed = node.heartbeats.members
        with anyio.move_on_after(3.0):
            await rooms[0].ended()
        assert all(room.status is Status.CONNECTED for room in rooms), "they live on by heartbeats"
        await until(lambda: node.heartbeats.members >= refreshed + 40 * 5)
        assert len(node.gateway.connections) == 1


async def test_a_missing_reply_raises_request_timed_out(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node, request_timeout=1.5) as client:
        room = await client.join("lobby", user_id="ann")
        bundled_server.pause()
        try:
            with pytest.raises(RequestTimedOut, match=r"no reply to room:update from ws://.* within 1.5 s"):
                await room.update(username="Ann")
        finally:
            bundled_server.resume()
        await until(lambda: room.members["ann"].username == "Ann")
        assert issubclass(RequestTimedOut, TimeoutError)
        assert issubclass(RequestTimedOut, ReactorError)


async def test_refusals_name_arguments_as_they_are_called_in_python(bundled_server: Server):
    async with served(bundled_server) as node, client_of(node) as client:
        with pytest.raises(Refused, match=r"^join needs user_id: text or a whole number$"):
            await client.join("lobby")
        with pytest.raises(Refused, match=r"^room_id is empty: give it at least one character$"):
            await client.count("")
