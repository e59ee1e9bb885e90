"""Messages to bytes and back, in both codecs."""

import json
import timeit
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given

from reactor.protocol import requests
from reactor.protocol.codec import JSON, MSGPACK, Codec, codec_for
from reactor.protocol.limits import Limits
from reactor.protocol.messages import (
    CountChanged,
    Departed,
    ErrorMessage,
    HeartbeatAck,
    Member,
    ProtocolError,
    RoomDiff,
    RoomJoined,
)
from reactor.protocol.session import Session
from tests.unit.protocol.strategies import REPLIES, REQUESTS, any_request, replies

codecs = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
HEARTBEAT = b'{"type":"room:heartbeat","roomId":"lobby"}'


def pack(codec: Codec, value: Any) -> bytes:
    return msgspec.msgpack.encode(value) if codec.binary else msgspec.json.encode(value)


@codecs
@given(message=any_request)
def test_every_request_round_trips(codec: Codec, message: requests.Request):
    assert codec.decode(codec.encode(message)) == message


@codecs
@given(message=replies)
def test_every_server_message_round_trips(codec: Codec, message: Any):
    assert codec.decode_reply(codec.encode(message)) == message


@pytest.mark.parametrize(
    ("payload", "request_"),
    [
        ({"type": "auth", "token": "t"}, requests.Auth("t")),
        (
            {
                "type": "join_room",
                "roomId": "r",
                "userId": 7,
                "username": "U",
                "data": [1],
                "view": "count",
                "id": 1,
            },
            requests.JoinRoom("r", 7, "U", [1], "count", 1),
        ),
        ({"type": "join_room", "roomId": "r", "userId": "u"}, requests.JoinRoom("r", "u")),
        ({"type": "room:heartbeat", "roomId": "r"}, requests.Heartbeat("r")),
        ({"type": "room:heartbeat"}, requests.Heartbeat()),
        ({"type": "room:update", "roomId": "r", "data": None}, requests.Update("r", None, None)),
        ({"type": "room:away", "roomId": "r"}, requests.Away("r")),
        ({"type": "room:back"}, requests.Back()),
        ({"type": "room:members", "roomId": "r", "id": "a"}, requests.Members("r", "a")),
        ({"type": "room:count", "roomId": "r"}, requests.Count("r")),
        ({"type": "room:is_present", "roomId": "r", "userId": "u"}, requests.IsPresent("r", "u")),
        ({"type": "leave_room", "roomId": "r"}, requests.LeaveRoom("r")),
        # Null is nothing, unknown fields are for newer servers, order does not matter.
        ({"roomId": None, "id": None, "zoom": {"a": [1]}, "type": "room:heartbeat"}, requests.Heartbeat()),
        ({"type": "join_room", "roomId": "r", "userId": "u", "username": None}, requests.JoinRoom("r", "u")),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
@codecs
def test_requests_as_clients_encode_them(codec: Codec, payload: dict[str, Any], request_: requests.Request):
    assert codec.decode(pack(codec, payload)) == request_


def test_messages_as_clients_decode_them():
    ann = Member("ann", "Ann", 1, 2)
    bob = Member("bob", "Bob", 3, 4, away=True, connections=2, data=None)
    diff = RoomDiff("r", "e", 3, 5, 2, [ann], [bob], [Departed("cy", "kicked")])
    assert json.loads(JSON.encode(diff)) == {
        "type": "room:diff",
        "roomId": "r",
        "epoch": "e",
        "from": 3,
        "version": 5,
        "count": 2,
        "joined": [
            {
                "userId": "ann",
                "username": "Ann",
                "joinedAt": 1,
                "lastActiveAt": 2,
                "away": False,
                "connections": 1,
            }
        ],
        "updated": [
            {
                "userId": "bob",
                "username": "Bob",
                "joinedAt": 3,
                "lastActiveAt": 4,
                "away": True,
                "connections": 2,
                "data": None,
            }
        ],
        "left": [{"userId": "cy", "reason": "kicked"}],
    }
    joined = RoomJoined("r", "u", "s", 9, 8, False, "e", 1, 1, "members", members=[ann], id=0)
    assert (
        json.loads(JSON.encode(joined)).items() >= {"socketId": "s", "heartbeatInterval": 8, "id": 0}.items()
    )
    assert JSON.encode(HeartbeatAck(5)) == b'{"type":"room:heartbeat:ack","timestamp":5}'
    assert (
        JSON.encode(CountChanged("r", "e", 1, 2))
        == b'{"type":"room:count","roomId":"r","epoch":"e","version":1,"count":2}'
    )
    assert JSON.encode(ErrorMessage("internal", "m")) == b'{"type":"error","code":"internal","message":"m"}'


def test_each_type_has_one_struct():
    for kinds in (REQUESTS, REPLIES):
        tags = [kind.__struct_config__.tag for kind in kinds]
        assert len(tags) == len(set(tags))


def test_a_message_type_that_only_a_newer_server_knows_is_ignored():
    assert JSON.decode_reply(b'{"type":"room:moved","to":"x"}') is None
    with pytest.raises(ProtocolError, match="is invalid"):
        JSON.decode_reply(b'{"type":"room:left"}')
    with pytest.raises(ProtocolError, match="not JSON"):
        JSON.decode_reply(b"{")


def test_a_valid_message_is_parsed_once(monkeypatch):
    monkeypatch.setattr(JSON, "_anything", lambda payload: pytest.fail("parsed a second time"))
    session = Session(Limits())
    assert session.receive(JSON.decode(b'{"type":"join_room","roomId":"lobby","userId":"ann"}'))
    session.joined("lobby")
    assert session.receive(JSON.decode(HEARTBEAT))


@codecs
def test_decoding_a_heartbeat_takes_microseconds(codec: Codec):
    session = Session(Limits())
    session.receive(requests.JoinRoom("lobby", "ann"))
    session.joined("lobby")
    payload = codec.encode(requests.Heartbeat("lobby"))
    # Half a microsecond when measured; the bound only catches another order of size.
    best = min(timeit.repeat(lambda: session.receive(codec.decode(payload)), number=500, repeat=20))
    assert best / 500 < 10e-6


def test_codecs_by_subprotocol():
    assert codec_for(None) is codec_for("reactor.json") is codec_for("other") is JSON
    assert codec_for("reactor.msgpack") is MSGPACK
    assert (JSON.name, JSON.binary, MSGPACK.name, MSGPACK.binary) == ("json", False, "msgpack", True)


@codecs
@pytest.mark.parametrize(
    ("message", "never_refused"),
    [
        ({"type": "room:heartbeat"}, True),
        ({"type": "room:heartbeat", "roomId": "r", "id": 1, "other": [{}, {"a": []}]}, True),
        ({"type": "leave_room", "roomId": "r"}, True),
        ({"type": "leave_room"}, False),
        ({"type": "room:heartbeat", "roomId": []}, False),
        ({"type": "room:count", "roomId": "room:heartbeat"}, False),
        ({"type": "unknown"}, False),
        ([], False),
    ],
)
def test_what_is_never_refused_is_recognised_by_its_type(codec: Codec, message: Any, never_refused: bool):
    encode = msgspec.msgpack.encode if codec.binary else msgspec.json.encode
    assert codec.is_never_refused(encode(message)) is never_refused
    assert not codec.is_never_refused(encode(message)[:-1])


@codecs
def test_what_is_never_refused_is_decoded_in_no_time_whatever_it_holds(codec: Codec):
    held: list[list[Any]] = [[[]] * 3000, [0] * 5000, ["," * 20] * 2500]
    for one in held:
        heartbeat, count = (
            pack(codec, {"type": kind, "x": one}) for kind in ("room:heartbeat", "room:count")
        )
        assert codec.decode(heartbeat) == requests.Heartbeat()
        best, checked = (
            min(timeit.repeat(partial(decoded, codec, payload), number=1, repeat=20))
            for payload in (heartbeat, count)
        )
        assert best < checked / 4  # a tenth to a fiftieth when measured


def decoded(codec: Codec, payload: bytes) -> requests.Request | None:
    """Return the request, or None for an invalid message."""
    try:
        return codec.decode(payload)
    except ProtocolError:
        return None


@codecs
@pytest.mark.parametrize(
    "message",
    [
        {"type": "room:count", "roomId": "r", "id": 1},
        {"type": "room:heartbeat"},
        {"type": "room:count"},
        [],
        5,
    ],
)
def test_a_small_message_is_decoded_at_once_or_not_at_all(codec: Codec, message: Any):
    payload = pack(codec, message)
    assert codec.decode_at_once(payload) == decoded(codec, payload)
    assert codec.decode_at_once(payload[:-1]) is None


def test_a_small_message_that_takes_long_to_be_found_valid_is_not_decoded_at_once():
    heartbeat = {"type": "room:heartbeat", "x": [[]] * 100}
    assert MSGPACK.decode_at_once(pack(MSGPACK, heartbeat)) is None
    assert JSON.decode_at_once(pack(JSON, heartbeat)) == JSON.decode(pack(JSON, heartbeat))
    assert JSON.decode_at_once(b'{"type":"room:heartbeat","x":"\xff"}') is None
    assert not JSON.is_never_refused(b'{"type":"room:heartbeat","x":"\xff"}')
