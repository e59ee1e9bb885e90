"""Bad input gets one `error` with a stable code, or the right close code, and leaves no trace in Redis."""

import json
from typing import Any

import msgspec
import pytest

from tests.support import redis_state
from tests.support.nodes import served
from tests.support.people import until_record
from tests.support.raw_client import RawClient
from tests.support.servers import Server
from tests.support.waiting import until

LONG = "x" * 257
DEEP = "[" * 20_000 + "]" * 20_000


def _join(**fields: Any) -> str:
    return json.dumps({"type": "join_room", "roomId": "lobby", "userId": "u", **fields})


ERRORS: dict[str, tuple[str, str]] = {
    "nothing": ("", "bad_json"),
    "not JSON": ("hello", "bad_json"),
    "half of it": ('{"type":"join_room"', "bad_json"),
    "two at once": ('{"type":"room:count","roomId":"x"}{}', "bad_json"),
    "nested without end": (DEEP, "bad_json"),
    "nested in data": (_join()[:-1] + ',"data":' + DEEP + "}", "bad_json"),
    "a list": ("[]", "bad_message"),
    "a text": ('"join_room"', "bad_message"),
    "a number": ("7", "bad_message"),
    "null": ("null", "bad_message"),
    "no type": ("{}", "bad_message"),
    "a type that is no text": ('{"type":1}', "bad_message"),
    "an unknown type": ('{"type":"room:explode","roomId":"x"}', "unknown_type"),
    "the server's own type": ('{"type":"room:diff","roomId":"x"}', "unknown_type"),
    "no room": ('{"type":"join_room","userId":"u"}', "bad_message"),
    "no user": ('{"type":"join_room","roomId":"lobby"}', "bad_message"),
    "a room that is null": (_join(roomId=None), "bad_id"),
    "a room that is true": (_join(roomId=True), "bad_id"),
    "a room that is a fraction": (_join(roomId=1.5), "bad_id"),
    "a room that is a list": (_join(roomId=["lobby"]), "bad_id"),
    "an empty room": (_join(roomId=""), "bad_id"),
    "an empty user": (_join(userId=""), "bad_id"),
    "a room too long": (_join(roomId=LONG), "bad_id"),
    "a user too long in bytes": (_join(userId="é" * 129), "bad_id"),
    "a number too large": (_join(userId=2**70), "bad_id"),
    "a new line": (_join(userId="a\nb"), "bad_id"),
    "a zero byte": (_join(roomId="a\x00"), "bad_id"),
    "a delete": (_join(roomId="a\x7f"), "bad_id"),
    "a C1 control": (_join(roomId="a\x85"), "bad_id"),
    "half a surrogate pair": ('{"type":"join_room","roomId":"\\ud800","userId":"u"}', "bad_json"),
    "a name that is a number": (_join(username=7), "bad_message"),
    "a name too long": (_join(username=LONG), "bad_message"),
    "a name with a new line": (_join(username="a\nb"), "bad_message"),
    "an unknown view": (_join(view="all"), "bad_message"),
    "data too big": (_join(data="x" * 4096), "data_too_big"),
    "data too deep": (_join(data=json.loads("[" * 40 + "]" * 40)), "bad_message"),
    "an id too long": (_join(id="x" * 129), "bad_message"),
    "an id that is a list": (_join(id=[1]), "bad_message"),
    "a heartbeat for a room not joined": ('{"type":"room:heartbeat","roomId":"nowhere"}', "not_joined"),
    "a leave of a room not joined": ('{"type":"leave_room","roomId":"nowhere"}', "not_joined"),
    "an update of a room not joined": ('{"type":"room:update","roomId":"nowhere"}', "not_joined"),
    "away in a room not joined": ('{"type":"room:away","roomId":"nowhere"}', "not_joined"),
    "another user in the same room": (_join(roomId="home", userId="other"), "already_joined"),
    "a token, where none is asked for": ('{"type":"auth","token":"x"}', "auth_disabled"),
    "a question about a bad room": ('{"type":"room:members","roomId":""}', "bad_id"),
    "a question about a bad user": ('{"type":"room:is_present","roomId":"x","userId":""}', "bad_id"),
}


async def test_bad_input_gets_one_error_each_and_leaves_no_trace(redis_server: Server) -> None:
    async with (
        served(redis_server, sweep_interval=0) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await ann.join("home", "ann")
        await bob.join("home", "bob")
        await ann.receive("room:diff")
        for user in ("ann", "bob"):
            await until_record(node, user, lambda record: bool(record.counted))
        before = _content(redis_server)
        for name, (payload, code) in ERRORS.items():
            heard = len(ann.received)
            await ann.socket.send(payload)
            await ann.send("room:heartbeat", roomId="home", id=name)
            await ann.has_received("room:heartbeat:ack", heard, id=name)
            (error,) = (
                ann.received[heard:-1]
                if ann.received[-1]["type"] == "room:heartbeat:ack"
                else ann.received[heard:]
            )
            assert (error["type"], error["code"]) == ("error", code), (name, error)
            assert 10 < len(error["message"]) < 400, (name, error)
            assert error.keys() <= {"type", "code", "message", "id", "roomId"}
        assert _content(redis_server) == before
        assert ann.open
        await bob.ask("room:update", "room:updated", roomId="home", username="Bob")
        await ann.receive_next(lambda message: bool(message.get("updated")))


def _content(server: Server) -> dict[str, Any]:
    """Everything in Redis except what nodes write by themselves and what a heartbeat renews."""
    return {
        key: server.control.execute_command("DUMP", key, NEVER_DECODE=True)
        for key in server.control.scan_iter(count=1000)
        if "fleet}" not in key
        and not key.endswith(":pulse")
        and key != redis_state.presence_key("home", "ann")
    }


async def test_an_error_repeats_the_id_and_the_room_of_its_request(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        error = await ann.answer("room:heartbeat", roomId="nowhere")
        assert (error["code"], error["roomId"]) == ("not_joined", "nowhere")
        error = await ann.answer("join_room", roomId="lobby", userId="")
        assert error["code"] == "bad_id"
        await ann.socket.send('{"type":"room:update","roomId":"lobby","data":{"t":"\\ud83d"},"id":7}')
        error = await ann.has_received("error", id=7)
        assert error["code"] == "bad_json"
        error = await ann.answer("join_room", roomId="lobby", userId="u", username=3)
        assert (error["code"], error["roomId"]) == ("bad_message", "lobby")
        assert redis_state.everywhere(redis_server) == {}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (json.dumps({"type": "room:count", "roomId": "x" * 70_000}), 1009),
        (b"\x81\xa4type", 1003),
    ],
    ids=["a message over 64 KiB", "binary where text was agreed on"],
)
async def test_a_connection_that_exceeds_a_protocol_limit_is_closed(
    redis_server: Server, payload: str | bytes, code: int
) -> None:
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as ann,
        RawClient.connect(node) as bob,
    ):
        await bob.join("lobby", "bob")
        await ann.join("lobby", "ann")
        await ann.socket.send(payload)
        assert await ann.closed() == code
        await bob.ask("room:heartbeat", "room:heartbeat:ack", roomId="lobby")


async def test_text_that_is_not_utf8_is_closed_with_1007(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann:
        await ann.socket.send(b'{"type":"room:count","roomId":"\xff\xfe"}', text=True)
        assert await ann.closed() == 1007
        assert redis_state.everywhere(redis_server) == {}


async def test_a_thousand_joins_on_one_connection(redis_server: Server) -> None:
    """As many joins as a connection may have succeed; each of the others gets its error."""
    async with (
        served(redis_server) as node,
        RawClient.connect(node) as greedy,
        RawClient.connect(node) as bob,
    ):
        for number in range(1000):
            await greedy.send("join_room", roomId=f"room-{number}", userId="greedy", id=number)
        await bob.join("lobby", "bob")
        await greedy.until(lambda: len({message["id"] for message in greedy.received}) == 1000)
        joined, errors = greedy.of("room:joined"), greedy.of("error")
        assert (len(joined), len(errors)) == (128, 872)
        assert {error["code"] for error in errors} == {"too_many_rooms"}
        assert set(redis_state.everywhere(redis_server)) == {message["roomId"] for message in joined} | {
            "lobby"
        }
        await greedy.ask("leave_room", "room:left", roomId=joined[0]["roomId"])
        await greedy.join("one more", "greedy")


async def test_a_join_while_redis_is_away_is_refused_and_leaves_no_trace(redis_server: Server) -> None:
    async with served(redis_server) as node, RawClient.connect(node) as ann, RawClient.connect(node) as bob:
        await bob.join("lobby", "bob")
        redis_server.kill()
        await ann.receive("service:degraded")
        error = await ann.answer("join_room", roomId="lobby", userId="ann")
        assert (error["code"], error["roomId"]) == ("unavailable", "lobby")
        for kind, fields in {
            "room:members": {},
            "room:count": {},
            "room:is_present": {"userId": "bob"},
        }.items():
            assert (await ann.answer(kind, roomId="lobby", **fields))["code"] == "unavailable"
        redis_server.start()
        await ann.receive("service:restored")
        await until(lambda: redis_state.members(redis_server, "lobby").keys() == {"bob"})
        assert (await ann.join("lobby", "ann"))["count"] == 2


async def test_bad_messagepack_gets_the_same_errors(redis_server: Server) -> None:
    cases: dict[bytes, str] = {
        b"\xc1": "bad_message",
        b"": "bad_message",
        msgspec.msgpack.encode([1]): "bad_message",
        msgspec.msgpack.encode({"type": "x"}): "unknown_type",
        msgspec.msgpack.encode({"type": "join_room", "roomId": "a", "userId": b"bytes"}): "bad_id",
        msgspec.msgpack.encode(
            {"type": "join_room", "roomId": "a", "userId": "u", "data": b"x"}
        ): "bad_message",
        msgspec.msgpack.encode(
            {"type": "join_room", "roomId": "a", "userId": "u", "data": {1: 2}}
        ): "bad_message",
        b"\x83\xa4type\xa9join_room\xa6roomId\xa2\xff\xfe\xa6userId\xa1u": "bad_message",
    }
    from websockets.asyncio.client import connect

    async with served(redis_server) as node:
        url = f"ws://127.0.0.1:{node.gateway.port}/ws"
        async with connect(url, subprotocols=["reactor.msgpack"], ping_interval=None) as socket:  # type: ignore[list-item]
            for payload, code in cases.items():
                await socket.send(payload)
                answer = msgspec.msgpack.decode(await socket.recv(decode=False))
                assert (answer["type"], answer["code"]) == ("error", code), payload
            join = {"type": "join_room", "roomId": "a", "userId": 7, "data": {"x": [1.5, None]}}
            await socket.send(msgspec.msgpack.encode(join))
            joined = msgspec.msgpack.decode(await socket.recv(decode=False))
            assert joined["members"][0]["data"] == {"x": [1.5, None]}
    assert redis_state.members(redis_server, "a").keys() <= {"7"}
