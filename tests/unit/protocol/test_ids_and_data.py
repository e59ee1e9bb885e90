"""What an id, a name and a member's data may be."""

import timeit
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reactor.protocol.data import MAX_DEPTH, data_as_json
from reactor.protocol.ids import check_text, clean_id, clean_ids
from reactor.protocol.messages import ProtocolError
from tests.unit.protocol.strategies import anything


def nested(depth: int, value: Any = 0, *, objects: bool = False) -> Any:
    for _ in range(depth):
        value = {"a": value} if objects else [value]
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("lobby", "lobby"),
        (0, "0"),
        (-5, "-5"),
        (2**64 - 1, "18446744073709551615"),
        (-(2**63), "-9223372036854775808"),
        ("__proto__", "__proto__"),
        ("a:b{c}*?[d]\\ e", "a:b{c}*?[d]\\ e"),
        ("🧑‍🚀", "🧑‍🚀"),
        ("e\u0301", "e\u0301"),
        (" ", " "),
        ("x" * 256, "x" * 256),
        ("é" * 128, "é" * 128),
        ("\u2028", "\u2028"),
        ("\xa0", "\xa0"),
    ],
)
def test_valid_ids(value: object, text: str):
    assert clean_id(value, "roomId") == text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "empty"),
        ("x" * 257, "longer than 256 bytes"),
        ("é" * 128 + "x", "longer than 256 bytes"),
        ("🧑" * 65, "longer than 256 bytes"),
        ("\ud800" * 100, "longer than 256 bytes"),
        ("a\x00", "control character"),
        ("a\nb", "control character"),
        ("\x1f", "control character"),
        ("\x7f", "control character"),
        ("\x80", "control character"),
        ("\x9f", "control character"),
        ("\ud800", "surrogate"),
        ("a\udfff", "surrogate"),
        (2**64, "64 bits: send it as text"),
        (-(2**63) - 1, "64 bits"),
        (10**5000, "64 bits"),
        (True, "text or a whole number"),
        (False, "text or a whole number"),
        (1.0, "text or a whole number"),
        (float("nan"), "text or a whole number"),
        (None, "text or a whole number"),
        (b"r", "text or a whole number"),
        (["r"], "text or a whole number"),
    ],
    ids=lambda value: (
        repr(value)[:20] if not isinstance(value, int) else str(value)[:20] if value < 2**70 else "huge"
    ),
)
def test_invalid_ids(value: object, words: str):
    with pytest.raises(ProtocolError, match=words) as caught:
        clean_id(value, "roomId")
    assert caught.value.code == "bad_id"
    assert caught.value.message.startswith("roomId ")


def test_the_limit_of_an_id_is_an_argument():
    assert clean_id("abcd", "userId", 4) == "abcd"
    with pytest.raises(ProtocolError, match="userId is longer than 4 bytes"):
        clean_id("abcde", "userId", 4)
    with pytest.raises(ProtocolError) as caught:
        check_text("\x00", "username", 4, "bad_message")
    assert caught.value.code == "bad_message"


@given(anything)
def test_data_becomes_compact_json(value: Any):
    encoded = data_as_json(value, 10**6)
    assert msgspec.json.decode(encoded) == value


@given(st.text(max_size=30), st.integers(0, 60))
def test_data_is_measured_as_json(text: str, limit: int):
    size = len(msgspec.json.encode(text))
    if size <= limit:
        assert len(data_as_json(text, limit)) == size
    else:
        with pytest.raises(ProtocolError, match=f"{size} bytes as JSON, the limit is {limit}") as caught:
            data_as_json(text, limit)
        assert caught.value.code == "data_too_big"


def test_data_at_the_limit_and_one_byte_over_it():
    assert len(data_as_json("x" * 4094, 4096)) == 4096
    with pytest.raises(ProtocolError, match="4097 bytes"):
        data_as_json("x" * 4095, 4096)


@pytest.mark.parametrize("objects", [False, True])
def test_data_at_the_deepest_nesting_and_one_level_deeper(objects):
    assert data_as_json(nested(MAX_DEPTH, objects=objects), 4096)
    with pytest.raises(ProtocolError, match="deeper than 32 levels") as caught:
        data_as_json(nested(MAX_DEPTH + 1, objects=objects), 4096)
    assert caught.value.code == "bad_message"
    with pytest.raises(ProtocolError):
        data_as_json(nested(100_000, objects=objects), 4096)


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: {"a": [value]}])
@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        float("nan"),
        float("inf"),
        -float("inf"),
        2**64,
        -(2**63) - 1,
        datetime(2026, 1, 1, tzinfo=UTC),
        msgspec.msgpack.Ext(5, b"x"),
        {1: 2},
        {(1,): 2},
        {None: 2},
        {b"a": 2},
        {1.5: 2},
    ],
    ids=lambda value: repr(value).partition(" object at ")[0],  # the same name in every process
)
def test_data_that_json_or_msgpack_cannot_encode(value: Any, wrap):
    with pytest.raises(ProtocolError, match=r"^data ") as caught:
        data_as_json(wrap(value), 4096)
    assert caught.value.code == "bad_message"


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.integers(-(2**63) - 1, 2**64),
            st.text(max_size=5),
            st.sampled_from(
                ["", "a\x07", "a\u200b", "\ud800", "é" * 9, "é" * 8, "x" * 16, "x" * 17, "1", "5"]
            ),
        ),
        max_size=6,
    )
)
def test_many_ids_are_cleaned_as_each_of_them_is(values):
    def outcome(clean):
        try:
            return clean()
        except ProtocolError as error:
            return error.code

    one_by_one = outcome(lambda: list(dict.fromkeys(clean_id(value, "it", 16) for value in values)))
    assert outcome(lambda: clean_ids(values, "it", 16)) == one_by_one


def test_numbers_of_the_same_hash_are_refused_before_they_are_keys():
    same_hash = [1 + n * (2**61 - 1) for n in range(20_000)]
    assert len(set(map(hash, same_hash))) == 1

    def refused() -> None:
        with pytest.raises(ProtocolError, match="more than 64 bits"):
            clean_ids(same_hash, "userIds")

    # 1 ms when measured, and some 20 s where they are put into a dict.
    assert min(timeit.repeat(refused, number=1, repeat=3)) < 0.3
