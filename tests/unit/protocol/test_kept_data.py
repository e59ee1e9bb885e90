"""Data that a node keeps: checked, and built only for those who need its value."""

from time import thread_time

import msgspec
import pytest

from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.data import JsonText, built, kept
from reactor.protocol.messages import Member

NUMBERS = "[" + ",".join(["1e9"] * 1023) + "]"


def member(text: str) -> Member:
    return Member(
        user_id="ann", username="Ann", joined_at=1, last_active_at=1, away=False, connections=1,
        data=kept(text),
    )  # fmt: skip


def seconds(text: str) -> float:
    began = thread_time()
    for _ in range(50):
        kept(text)
    return thread_time() - began


def test_data_of_many_numbers_is_kept_without_building_them() -> None:
    assert seconds(NUMBERS) < 4 * seconds("[" + ",".join(["{}"] * 1365) + "]")


@pytest.mark.parametrize("text", ["[1", "[1,]", '["\\x"]', '["a\nb"]'])
def test_long_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        kept(" " * 100 + text)


@pytest.mark.parametrize("number", ["1e999", "1" * 5000, str(2**64), str(-(2**63) - 1)])
def test_numbers_that_another_program_wrote_and_that_are_none_harm_no_message(number: str) -> None:
    text = f"[{number:>100}]"
    data = kept(text)
    assert isinstance(data, JsonText)
    value = built(data)
    assert value is None or str(value[0]) == number
    assert text.encode() in JSON.encode(member(text))
    assert msgspec.msgpack.decode(MSGPACK.encode(member(text)))["data"] is None


def test_both_encodings_hold_the_same_value() -> None:
    values = [
        msgspec.json.decode(JSON.encode(member(NUMBERS))),
        msgspec.msgpack.decode(MSGPACK.encode(member(NUMBERS))),
    ]
    assert values[0] == values[1]
    assert values[0]["data"] == [1e9] * 1023
