"""Whatever comes, one clear error answers it."""

import json
import timeit
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.protocol import requests
from reactor.protocol.codec import JSON, MSGPACK, Codec
from reactor.protocol.limits import Limits
from reactor.protocol.messages import (
    ErrorMessage,
    ProtocolError,
)
from reactor.protocol.session import Session
from tests.unit.protocol.strategies import any_request, anything, texts

codecs = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
HEARTBEAT = b'{"type":"room:heartbeat","roomId":"lobby"}'
ALL_TYPES = (
    "auth, join_room, room:heartbeat, room:update, room:away, room:back, room:members, room:count, "
    "room:is_present, leave_room, room:send, room:watch, room:unwatch, people:watch, "
    "people:unwatch, closing"
)


def refused(codec: Codec, payload: bytes) -> ErrorMessage:
    with pytest.raises(ProtocolError) as caught:
        codec.decode(payload)
    return caught.value.reply()


def pack(codec: Codec, value: Any) -> bytes:
    return msgspec.msgpack.encode(value) if codec.binary else msgspec.json.encode(value)


BAD: list[tuple[Any, str, str, Any, str | None]] = [
    # payload, code, part of the message, id and room that the reply carries
    ([], "bad_message", "must be an object", None, None),
    (3, "bad_message", "must be an object", None, None),
    (None, "bad_message", "must be an object", None, None),
    ("join_room", "bad_message", "must be an object", None, None),
    ({}, "bad_message", f'"type" must be text, one of: {ALL_TYPES}', None, None),
    ({"type": 5, "id": 9}, "bad_message", '"type" must be text', 9, None),
    ({"type": None, "roomId": "r"}, "bad_message", '"type" must be text', None, "r"),
    ({"type": "join", "id": "a", "roomId": 5}, "unknown_type", f'"join": use one of {ALL_TYPES}', "a", "5"),
    ({"type": "x" * 999}, "unknown_type", f'unknown type "{"x" * 64}"', None, None),
    ({"type": "error", "code": "internal", "message": ""}, "unknown_type", '"error"', None, None),
    ({"type": "room:members", "roomId": "r", "limit": "1"}, "bad_message", "a whole number", None, "r"),
    ({"type": "room:members", "roomId": "r", "cursor": 1}, "bad_message", "must be text", None, "r"),
    ({"type": "auth"}, "bad_message", 'auth needs "token": text', None, None),
    ({"type": "auth", "token": 1}, "bad_message", '"token" of auth must be text', None, None),
    ({"type": "join_room", "userId": "u"}, "bad_message", 'join_room needs "roomId": text or a', None, None),
    ({"type": "join_room", "roomId": "r", "userId": None}, "bad_id", '"userId" of join_room', None, "r"),
    ({"type": "join_room", "roomId": True, "userId": "u"}, "bad_id", '"roomId" of join_room', None, None),
    ({"type": "join_room", "roomId": 1.5, "userId": "u"}, "bad_id", "text or a whole number", None, None),
    ({"type": "join_room", "roomId": 1.0, "userId": "u"}, "bad_id", "text or a whole number", None, None),
    ({"type": "join_room", "roomId": None, "userId": "u"}, "bad_id", "text or a whole number", None, None),
    ({"type": "join_room", "roomId": ["r"], "userId": "u"}, "bad_id", '"roomId"', None, None),
    ({"type": "join_room", "roomId": "r", "userId": {}}, "bad_id", '"userId" of join_room', None, "r"),
    (
        {"type": "join_room", "roomId": "r", "userId": "u", "username": 5},
        "bad_message",
        '"username"',
        None,
        "r",
    ),
    (
        {"type": "join_room", "roomId": "r", "userId": "u", "view": "all"},
        "bad_message",
        '"count" or',
        None,
        "r",
    ),
    ({"type": "room:heartbeat", "roomId": False}, "bad_id", '"roomId" of room:heartbeat', None, None),
    (
        {"type": "room:heartbeat", "roomId": "r", "id": True},
        "bad_message",
        '"id" of room:heartbeat',
        None,
        "r",
    ),
    ({"type": "room:heartbeat", "roomId": "r", "id": 0.5}, "bad_message", '"id"', None, "r"),
    ({"type": "room:heartbeat", "roomId": "r", "id": 2**53}, "bad_message", "JavaScript", None, "r"),
    ({"type": "room:heartbeat", "roomId": "r", "id": "x" * 129}, "bad_message", "128 characters", None, "r"),
    ({"type": "room:heartbeat", "roomId": "r", "id": []}, "bad_message", '"id"', None, "r"),
    ({"type": "room:members"}, "bad_message", 'room:members needs "roomId"', None, None),
    ({"type": "leave_room", "id": 4}, "bad_message", 'leave_room needs "roomId"', 4, None),
    ({"type": "room:is_present", "roomId": "r"}, "bad_message", 'room:is_present needs "userId"', None, "r"),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: json.dumps(case[0])[:50])
@codecs
def test_an_invalid_message_gets_a_specific_error(codec: Codec, case):
    payload, code, words, request_id, room_id = case
    error = refused(codec, pack(codec, payload))
    assert (error.code, error.id, error.room_id) == (code, request_id, room_id)
    assert words in error.message
    assert len(error.message) < 300
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("payload", "code", "words"),
    [
        (b"", "bad_json", "truncated"),
        (b"hello", "bad_json", "send one object a message"),
        (b"{'type':'auth'}", "bad_json", "byte 1"),
        (HEARTBEAT[:-1], "bad_json", "truncated"),
        (HEARTBEAT + HEARTBEAT, "bad_json", "trailing"),
        (b"\xef\xbb\xbf" + HEARTBEAT, "bad_json", "byte 0"),
        (b'{"type":"join_room","roomId":"r","userId":"u","data":NaN}', "bad_json", "invalid character"),
        (b'{"type":"join_room","roomId":"r","userId":"u","data":1e999}', "bad_json", "out of range"),
        (b'{"type":"join_room","roomId":"r","userId":"u","data":' + b"9" * 5000 + b"}", "bad_json", "range"),
        (b'{"type":"leave_room","roomId":' + b"9" * 5000 + b"}", "bad_json", "out of range"),
        (b'{"type":"leave_room","roomId":"\\ud800"}', "bad_json", "not JSON"),
        (
            b'{"type":"leave_room","roomId":"r","x":' + b"[" * 30000 + b"]" * 30000 + b"}",
            "bad_json",
            "too deep",
        ),
        (b'{"a":' * 10000, "bad_json", "too deep"),
        (b'{"type":"leave_room","roomId":"\xff"}', "not_utf8", "UTF-8"),
        (b'{"type":"leave_room","roomId":"r","unknown":"\xed\xa0\x80"}', "not_utf8", "UTF-8"),
        (b"\xff\xfe", "not_utf8", "UTF-8"),
        (b'{"type":"leave_room","type":"auth","roomId":"r"}', "bad_message", "token"),
        (b'{"type":"auth","type":"leave_room","roomId":"r"}', "bad_message", "not a message"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_invalid_json_messages(payload: bytes, code: str, words: str):
    error = refused(JSON, payload)
    assert error.code == code
    assert words in error.message


UNREADABLE_DATA = [
    rb'{"t":"\ud83d"}',
    b'{"n":NaN}',
    b"1e999",
    b"9" * 5000,
    b"[" * 5000 + b"]" * 5000,
    b"{'a':1}",
    b'{"id":8,"b":undefined}',
    rb'"\" \\\",\"id\":8,{" NaN',
    rb'[{"\"id":8}, "}", {"id": 8}, +1]',
]


@pytest.mark.parametrize("data", UNREADABLE_DATA, ids=lambda data: repr(data)[:40])
@pytest.mark.parametrize("request_id", [7, -7, 2**53 - 1, "a", "", 'x"\\é', "id"], ids=repr)
def test_the_error_for_broken_json_repeats_the_id_at_its_top_level(data: bytes, request_id: Any):
    of_id = b'"id" : ' + msgspec.json.encode(request_id)
    for fields in (
        [b'"type":"room:update"', b'"data":' + data, of_id],
        [of_id, b'"type":"room:update"', b'"data":' + data],
        [b'"type":"room:update"', of_id, b'"data":' + data],
    ):
        error = refused(JSON, b" {" + b", ".join(fields) + b"}\n")
        assert (error.code, error.id) == ("bad_json", request_id)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"data":{"id":8},"x":NaN}',
        b'{"data":[{"id":8}],"x":',
        rb'{"a\"id":8,"x":NaN}',
        b'{"id":8.5,"x":NaN}',
        b'{"id":9007199254740992,"x":NaN}',
        b'{"id":"' + b"x" * 129 + b'","x":NaN}',
        b'{"id":[8],"x":NaN}',
        rb'{"id":"\ud83d"}',
        b'{"t":"not closed,"id":8}',
        b'{"id":8',
        b'"id":8}',
        b'{"a":{"id":8},' * 4000 + b"NaN",
    ],
    ids=lambda payload: repr(payload)[:40],
)
def test_the_error_for_broken_json_has_no_other_id(payload: bytes):
    assert refused(JSON, payload).id is None


@pytest.mark.parametrize(
    "part",
    [b'""', b'\\"', b'""[', b'"id":8,', b'{"id":8,', b'"\\"id":8 ', b"[", b"{}", b'"id" ', b'"id":"\\"'],
)
def test_the_id_in_broken_json_is_found_in_one_pass(part: bytes):
    payload = b'{"x":[' + part * (65_000 // len(part)) + b'"id":8,' * 8
    # A few milliseconds when measured; the bound only catches a search that begins again and again.
    assert min(timeit.repeat(lambda: refused(JSON, payload), number=1, repeat=3)) < 0.3


def test_the_error_for_invalid_messagepack_repeats_the_id():
    broken = msgspec.msgpack.encode({"type": "room:update", "roomId": "r", "data": "xx", "id": 7})
    error = refused(MSGPACK, broken.replace(b"xx", b"\xff\xfe"))
    assert (error.code, error.id) == ("bad_message", 7)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\xff" * 9,
        HEARTBEAT,
        msgspec.msgpack.encode({"type": "leave_room", "roomId": "r"})[:-1],
        msgspec.msgpack.encode({"type": "leave_room", "roomId": "r"}) + b"\x00",
        msgspec.msgpack.encode({"type": "leave_room", "roomId": b"r"}),
        msgspec.msgpack.encode({"type": "leave_room", "roomId": "r", 1: 2}),
        msgspec.msgpack.encode({"type": "leave_room", "roomId": msgspec.msgpack.Ext(1, b"r")}),
        msgspec.msgpack.encode({"type": "leave_room", "roomId": datetime(2026, 1, 1, tzinfo=UTC)}),
        b"\x82\xa4type\xaaleave_room\xa6roomId\xa1\xff",
        b"\x81\x81\x01\x02\x03",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1x" + b"\x91" * 60000,
    ],
    ids=lambda value: repr(value)[:40],
)
def test_invalid_msgpack_messages(payload: bytes):
    error = refused(MSGPACK, payload)
    assert error.code in ("bad_message", "bad_id")
    assert error.message


# Whatever comes.

LIMITS = Limits(max_rooms=2, max_pending=3)


def survive(codec: Codec, payload: bytes, session: Session) -> None:
    """Only a ProtocolError may come of it, and its reply can be sent."""
    try:
        session.receive(codec.decode(payload))
    except ProtocolError as error:
        reply = error.reply()
        assert codec.decode_reply(codec.encode(reply)) == reply
        assert JSON.decode_reply(JSON.encode(reply)) == reply


@codecs
@given(payloads=st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_decode_or_raise_a_protocol_error(codec: Codec, payloads: list[bytes]):
    session = Session(LIMITS)
    for payload in payloads:
        survive(codec, payload, session)


@codecs
@given(value=anything)
def test_any_value_decodes_or_raises_a_protocol_error(codec: Codec, value: Any):
    survive(codec, pack(codec, value), Session(LIMITS))


FIELDS = ["type", "roomId", "userId", "username", "data", "view", "id", "token", "other"]
values = (
    anything | texts | st.sampled_from(["members", "room:heartbeat", "lobby", "\x00", "\x9f", "", "x" * 300])
)


@codecs
@given(
    frames=st.lists(
        st.tuples(
            st.sampled_from(ALL_TYPES.split(", ")),
            st.dictionaries(st.sampled_from(FIELDS[1:]), values, max_size=7),
        ),
        max_size=8,
    ),
    answer=st.booleans(),
)
def test_any_fields_keep_a_session_consistent(codec: Codec, frames, answer: bool):
    session = Session(LIMITS)
    for kind, fields in frames:
        survive(codec, pack(codec, {"type": kind, "roomId": "lobby", "userId": "ann"} | fields), session)
        if answer:
            for room_id in list(session._joins):
                session.joined(room_id)


@codecs
@given(message=any_request, data=st.data())
def test_damaged_messages_decode_or_raise_a_protocol_error(codec: Codec, message: requests.Request, data):
    payload = bytearray(codec.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    survive(codec, bytes(payload), Session(LIMITS))
    survive(codec, bytes(payload[: data.draw(st.integers(0, len(payload)))]), Session(LIMITS))
