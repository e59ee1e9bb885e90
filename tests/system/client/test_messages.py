"""What members send each other, and changes of a part of their data."""

import asyncio
from typing import Any

import pytest

from reactor import Refused, RoomMessage, Status, Unavailable
from tests.support.nodes import served
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import Changes, until
from tests.system.client.clients import RoomRecorder, client_of
from tests.system.client.interceptor import Interceptor


class Received(list[RoomMessage]):
    """The messages of a room, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = Changes()

    async def until_data(self, expected: list[Any]) -> None:
        await self.changes.until(lambda: [message.data for message in self] == expected)

    def note(self, message: RoomMessage) -> None:
        self.append(message)
        self.changes.notify()


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_a_message_reaches_the_others_or_those_that_are_named(redis_server: Server, codec):
    async with (
        served(redis_server) as node,
        client_of(node, codec=codec) as ann,
        client_of(node) as bob,
        client_of(node) as cy,
    ):
        room = await ann.join("lobby", user_id="ann")
        received = {}
        for name, client in (("bob", bob), ("cy", cy)):
            received[name] = Received()
            (await client.join("lobby", user_id=name)).on("message", received[name].note)
        mine = Received()
        room.on("message", mine.note)
        await room.send({"typing": True})
        await room.send("only for cy", to=["cy"])
        await room.send([1])
        await received["bob"].until_data([{"typing": True}, [1]])
        await received["cy"].until_data([{"typing": True}, "only for cy", [1]])
        message = received["bob"][0]
        assert (message.room_id, message.user_id, message.socket_id) == ("lobby", "ann", room.socket_id)
        assert mine == []


async def test_a_message_is_not_kept_for_later(bundled_server: Server):
    async with (
        served(bundled_server) as node,
        Proxy.to(node.gateway.port) as proxy,
        client_of(proxy.port) as client,
    ):
        room = await client.join("lobby", user_id="ann")
        proxy.refuse = True
        proxy.cut()
        await until(lambda: room.status is Status.RECONNECTING)
        with pytest.raises(Unavailable, match="not kept for later"):
            await room.send("hello")
        proxy.refuse = False
        await until(lambda: room.status is Status.CONNECTED)
        proxy.withhold()
        sending = asyncio.ensure_future(room.send("hello"))
        await asyncio.sleep(0)
        proxy.cut()
        with pytest.raises(Unavailable):
            await sending
        proxy.release()


async def test_a_message_that_cannot_be_sent_or_is_not_allowed_is_refused(bundled_server: Server):
    async with served(bundled_server, member_messages=False) as node, client_of(node) as client:
        room = await client.join("lobby", user_id="ann")
        for wrong, code in ((object(), "bad_request"), ("x" * 5000, "too_big"), ("hello", "forbidden")):
            with pytest.raises(Refused) as refused:
                await room.send(wrong)
            assert refused.value.code == code
        with pytest.raises(Refused, match="to takes text"):
            await room.send("hello", to=[1.5])  # type: ignore[list-item]


async def test_patches_of_two_devices_for_different_fields_are_all_kept(redis_server: Server):
    async with served(redis_server) as node, client_of(node) as desk, client_of(node) as phone:
        at_desk = await desk.join("lobby", user_id="ann", data={"mood": "blue", "cursor": {"x": 1}})
        on_phone = await phone.join("lobby", user_id="ann")
        await asyncio.gather(
            *(at_desk.patch({"cursor": {"x": number}}) for number in range(20)),
            *(on_phone.patch({"typing": number}) for number in range(20)),
        )
        await at_desk.patch({"mood": None})
        await RoomRecorder(on_phone).until_member("ann", data={"cursor": {"x": 19}, "typing": 19})
        with pytest.raises(Refused, match="patch takes a dict, not list"):
            await at_desk.patch([1])  # type: ignore[arg-type]
        with pytest.raises(Refused, match=r"patch\.a is of type set"):
            await at_desk.patch({"a": {1}})


async def test_a_patch_made_offline_is_sent_at_the_return_and_keeps_what_changed_meanwhile(
    bundled_server: Server,
):
    async with (
        served(bundled_server) as node,
        Interceptor.before(node) as interceptor,
        client_of(interceptor.port) as desk,
        client_of(node) as phone,
    ):
        at_desk = RoomRecorder(await desk.join("lobby", user_id="ann", data={"a": 1}, view="count"))
        on_phone = await phone.join("lobby", user_id="ann")
        interceptor.close_code = lambda message: 1012 if message["type"] == "room:update" else None
        patching = asyncio.ensure_future(at_desk.room.patch({"b": 2}))
        await at_desk.until(lambda: Status.RECONNECTING in at_desk.statuses)
        await on_phone.patch({"a": 3, "c": 4})
        interceptor.close_code = lambda _: None
        await patching
        await RoomRecorder(on_phone).until_member("ann", data={"a": 3, "b": 2, "c": 4})
