"""Messages to a room reach every connection in it, on every node, and no other."""

from typing import cast

import pytest
from msgspec import msgpack
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from reactor.errors import Refused
from reactor.presence.api import Presence
from tests.support.nodes import served
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.system.admin.serving import admin_served, ok, rejected

MSGPACK = [Subprotocol("reactor.msgpack")]


async def test_a_message_reaches_every_connection_in_the_room_on_every_node(redis_server: Server) -> None:
    async with (
        admin_served(redis_server) as (node, admin),
        served(redis_server) as other,
        RawClient.connect(node) as ann,
        RawClient.connect(other) as bob,
        RawClient.connect(other, subprotocols=["reactor.json"]) as count,
        RawClient.connect(other) as elsewhere,
    ):
        await ann.join("lobby", "ann")
        await bob.join("lobby", "bob")
        await count.join("lobby", "cleo", view="none")
        await elsewhere.join("hall", "dan")
        data = {"text": "grün 🎉", "n": [1, 2.5, None]}
        sent = await ok(admin, "/v1/rooms/lobby/messages", "POST", json={"data": data})
        assert (sent["roomId"], sent["nodes"]) == ("lobby", 2)
        for client in (ann, bob, count):
            heard = await client.receive("room:message")
            assert heard == {
                "type": "room:message", "roomId": "lobby", "data": data, "timestamp": sent["timestamp"]
            }  # fmt: skip
        await ok(admin, "/v1/rooms/hall/messages", "POST", json={"data": None})
        assert (await elsewhere.receive("room:message"))["data"] is None
        assert len(elsewhere.of("room:message")) == 1
        assert node.feed.resyncs.total() == other.feed.resyncs.total() == 0
        assert (await ok(admin, "/v1/rooms/empty/messages", "POST", json={"data": 1}))["nodes"] == 0


async def test_a_message_beyond_the_limits_is_rejected(bundled_server: Server) -> None:
    async with admin_served(bundled_server, max_message=1000) as (_, admin):
        path = "/v1/rooms/lobby/messages"
        assert await rejected(admin, path, "POST", json={"data": "x" * 999}) == (413, "data_too_big")
        assert await rejected(admin, path, "POST", content=b"x" * 20_000) == (413, "too_big")
        for body in (
            b"",
            b"{}",
            b'{"data": 1, "more": 2}',
            b"[1]",
            b"\xff",
            b"[" * 5000,
            b'{"data": "\xff"}',
        ):
            assert await rejected(admin, path, "POST", content=body) == (400, "bad_request"), body
        deep = b'{"data": ' + b"[" * 40 + b"]" * 40 + b"}"
        assert await rejected(admin, path, "POST", content=deep) == (400, "bad_message")


async def test_a_back_end_sends_messages_through_redis_alone(redis_server: Server) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node, subprotocols=["reactor.json"]) as ann,
        Presence.open(redis_server.url) as presence,
    ):
        await ann.join("a/b", "ann")
        assert await presence.say("a/b", {"n": 1}) == 1
        assert (await ann.receive("room:message"))["data"] == {"n": 1}
        assert await presence.say("elsewhere", None) == 0
        for wrong in (object(), b"bytes", float("nan"), {1, 2}, "\ud83d", "x" * 70_000):
            with pytest.raises(Refused, match=r"^data "):
                await presence.say("a/b", wrong)


@pytest.mark.parametrize("forged", ["!", "!x 1", "!1 {", "!1 " + "[" * 5000, f"!1 {10**40}", "!1 \udcff"])
async def test_a_forged_message_is_ignored(bundled_server: Server, forged: str) -> None:
    async with (
        admin_served(bundled_server) as (node, admin),
        RawClient.connect(node) as ann,
        connect(
            f"ws://127.0.0.1:{node.gateway.port}/ws", subprotocols=[Subprotocol("reactor.msgpack")]
        ) as packed,
    ):
        await ann.join("lobby", "ann")
        await packed.send(msgpack.encode({"type": "join_room", "roomId": "lobby", "userId": "bob"}))
        assert msgpack.decode(cast("bytes", await packed.recv()))["type"] == "room:joined"
        bundled_server.control.publish("{reactor:7kf}:diff:lobby", forged.encode("utf-8", "surrogateescape"))
        await ok(admin, "/v1/rooms/lobby/messages", "POST", json={"data": "real"})
        assert (await ann.receive("room:message", data="real"))["roomId"] == "lobby"
        while msgpack.decode(cast("bytes", await packed.recv())).get("data") != "real":
            pass
        assert node.channels.listening
