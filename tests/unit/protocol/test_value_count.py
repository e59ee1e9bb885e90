"""The values of a message are counted before objects are built of them."""

import itertools
import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis.strategies import binary

from reactor.protocol.codec import JSON, MSGPACK, Codec
from reactor.protocol.messages import ProtocolError
from reactor.protocol.requests import JoinRoom
from reactor.protocol.value_count import count_in_json, count_in_msgpack, has_lists_as_keys
from tests.unit.protocol.strategies import anything

codecs = pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])


def count_of(value: Any) -> int:
    """The values and keys of which this one consists."""
    if isinstance(value, dict):
        return 1 + sum(count_of(key) + count_of(item) for key, item in value.items())
    return 1 + sum(map(count_of, value)) if isinstance(value, list | tuple) else 1


@given(value=anything)
def test_every_value_is_counted(value: Any):
    value = msgspec.json.decode(msgspec.json.encode(value))
    expected = count_of(value)
    for text in (json.dumps(value), json.dumps(value, indent=2, ensure_ascii=False)):
        assert count_in_json(text.encode(), 10**6) >= expected
        assert count_in_json(text.encode(), expected) == expected
    assert count_in_msgpack(msgspec.msgpack.encode(value), 10**6) == expected


@pytest.mark.parametrize("size", [0, 31, 32, 255, 256, 65535, 65536])
def test_values_of_every_size_are_counted(size: int):
    for value in ("x" * size, [0] * size, b"x" * size, {str(n): 2**64 - 1 for n in range(size)}):
        encoded = msgspec.msgpack.encode([value, msgspec.msgpack.Ext(5, b"x" * size), -1, 1.5, None])
        assert count_in_msgpack(encoded, 10**6) == 5 + count_of(value)


@pytest.mark.parametrize(
    "value", [[[]] * 1300, [{}] * 1300, ["[]{}"] * 300], ids=["lists", "objects", "text"]
)
def test_empty_lists_and_objects_are_counted_without_looking_at_each(value: Any, monkeypatch: Any):
    """The regular expression takes 0.2 us for each value."""
    monkeypatch.setattr("reactor.protocol.value_count._JSON_VALUE", None)
    text = json.dumps(value, separators=(",", ":")).encode()
    assert count_of(value) <= count_in_json(text, 2112) < 2112


def test_counting_ends_where_it_is_to():
    assert count_in_json(b"[" * 60_000 + b"]" * 60_000, 100) == 100
    assert count_in_msgpack(b"\x91" * 60_000 + b"\x90", 100) == 100


def map_of(keys: list[bytes]) -> bytes:
    """A map in MessagePack with these keys, each with 0 as its value."""
    return b"\xde" + len(keys).to_bytes(2) + b"".join(key + b"\0" for key in keys)


SAME_HASH = [bytes((0x99, *key)) for key in itertools.product(b"\xff\xfe", repeat=9)][:200]
"""Lists in MessagePack, which become tuples with the same hash as keys: -1 and -2 have the same."""


def test_lists_with_the_same_hash_are_not_put_into_one_dict(monkeypatch: pytest.MonkeyPatch):
    assert len({hash(msgspec.msgpack.decode(b"\x81" + key + b"\0").popitem()[0]) for key in SAME_HASH}) == 1
    head = msgspec.msgpack.encode({"type": "room:update", "roomId": 7, "id": 3})[1:]
    for data in (map_of(SAME_HASH), b"\x81\xa1a\x92\xc0" + map_of([b"\xa1b", *SAME_HASH])):
        with pytest.raises(ProtocolError, match="lists as keys") as caught:
            MSGPACK.decode(b"\x84" + head + msgspec.msgpack.encode("data") + data)
        assert (caught.value.id, caught.value.room_id) == (3, "7")


@given(value=anything)
def test_lists_that_are_no_keys_are_not_taken_for_keys(value: Any):
    encoded = msgspec.msgpack.encode([[[]] * 100, value, {"a": value, "b": [value]}, {}])
    assert not has_lists_as_keys(encoded)
    assert has_lists_as_keys(b"\x92" + encoded + map_of([b"\x90"]))


@given(data=binary())
def test_what_is_no_messagepack_is_looked_at_to_its_end_at_most(data: bytes):
    has_lists_as_keys(b"\x90" * 65 + data)
    has_lists_as_keys(b"\xdc\xff\xff" + b"\x90" * 65 + data)


def pack(codec: Codec, message: Any, data: bytes) -> bytes:
    """A message with this encoded `data`."""
    encoded = codec.encode({**message, "data": "DATA"})
    return encoded.replace(codec.encode("DATA"), data)


LIST_OF_60_000 = b"\xdd\x00\x00\xea\x60"
BOMBS: dict[str, dict[str, bytes]] = {
    "lists": {"json": b"[" + b"[]," * 20_000 + b"[]]", "msgpack": LIST_OF_60_000 + b"\x90" * 60_000},
    "maps": {"json": b"[" + b"{}," * 20_000 + b"{}]", "msgpack": LIST_OF_60_000 + b"\x80" * 60_000},
    "pairs": {"json": b"[" + b"[[]]," * 12_000 + b"1]", "msgpack": LIST_OF_60_000 + b"\x91\xc0" * 60_000},
    "spread out": {"json": b"[" + b"[ ]  ," * 10_000 + b"1]", "msgpack": LIST_OF_60_000 + b"\xc0" * 60_000},
}


@codecs
@pytest.mark.parametrize("name", BOMBS)
def test_data_with_too_many_values_is_refused_before_it_is_built(codec: Codec, name: str):
    message = {"type": "join_room", "roomId": 7, "userId": "u", "id": 3}
    payload = pack(codec, message, BOMBS[name][codec.name])
    assert len(payload) > 50_000
    for bad in (payload, payload.replace(b"userId", b"\x75serI\x44").replace(b"join_room", b"join_moor")):
        tracemalloc.start()
        with pytest.raises(ProtocolError) as caught:
            codec.decode(bad)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (caught.value.code, caught.value.id, caught.value.room_id) == ("data_too_big", 3, "7")
        assert peak < 200_000


@codecs
def test_a_broken_bomb_is_refused_before_it_is_built(codec: Codec):
    payload = pack(codec, {"type": "join_room", "id": 3}, BOMBS["lists"][codec.name])[:-1]
    tracemalloc.start()
    with pytest.raises(ProtocolError) as caught:
        codec.decode(payload)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == ("bad_message" if codec.binary else "bad_json")
    assert peak < 300_000


@codecs
def test_data_up_to_the_limit_is_decoded_in_any_notation(codec: Codec):
    values = [0] * 2047  # 4,095 bytes of JSON
    request = codec.decode(pack(codec, {"type": "join_room", "roomId": "r"}, codec.encode(values)))
    assert isinstance(request, JoinRoom)
    assert request.data == values
    wide = {
        "json": json.dumps(values, indent=20).encode(),
        "msgpack": b"\xdd\x00\x00\x07\xff" + (b"\xcf" + bytes(8)) * 2047,
    }
    request = codec.decode(pack(codec, {"type": "join_room", "roomId": "r"}, wide[codec.name]))
    assert isinstance(request, JoinRoom)
    assert request.data == values


@codecs
def test_a_larger_limit_allows_more_values(codec: Codec):
    data = codec.encode([[]] * 5000)
    message = {"type": "join_room", "roomId": "r"}
    with pytest.raises(ProtocolError, match="fit into 4096 bytes"):
        codec.decode(pack(codec, message, data))
    assert isinstance(codec.decode(pack(codec, message, data), 65536), JoinRoom)
