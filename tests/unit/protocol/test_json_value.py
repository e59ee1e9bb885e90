"""What an application may pass to be sent: plain JSON, copied; the rest is refused with its path."""

import enum
import json
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import Refused
from reactor.protocol.data import data_as_json
from reactor.protocol.json_value import json_copy


class Pair(NamedTuple):
    x: int
    y: int


class Colour(enum.StrEnum):
    RED = "red"


class Level(str, enum.Enum):  # noqa: UP042 - str() of it is not its value
    HIGH = "high"


class Size(enum.IntEnum):
    BIG = 3


cycle: dict[str, Any] = {"a": {}}
cycle["a"]["self"] = [cycle]
deep: Any = "end"
for _ in range(33):
    deep = [deep]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"tags": {"a"}}, "data.tags is of type set, which JSON cannot hold"),
        ([1, {"x": object()}], "data[1].x is of type object"),
        ({"f": len}, "data.f is of type builtin_function_or_method"),
        (b"x", "data is of type bytes"),
        ({"at": datetime.now(UTC)}, "data.at is of type datetime"),
        ({"n": float("nan")}, "data.n is nan, which JSON cannot hold"),
        ([float("-inf")], "data[0] is -inf"),
        ({"t": "Ann \ud83d"}, "data.t holds half a surrogate pair at character 4"),
        ({"\udc00": 1}, r"the key '\udc00' of data holds half a surrogate pair"),
        ({"a b": {"\U0001f600": 2**64}}, r"data['a b']['\U0001f600'] is a whole number"),
        ({"n": -(2**63) - 1}, "data.n is a whole number of more than 64 bits"),
        ({1: "x"}, "data has the key 1, which is not text"),
        ({"in": {None: 1}}, "data.in has the key None"),
        (cycle, "data.a.self[0] contains itself"),
        (deep, "nests deeper than 32 levels"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value: object, message: str):
    with pytest.raises(Refused) as refused:
        json_copy(value, "data")
    assert refused.value.code == "bad_request"
    text = str(refused.value)
    assert text.startswith(message) or message in text
    text.encode()  # it can be printed and logged


@pytest.mark.parametrize(
    ("value", "copy"),
    [
        ((1, (2,)), [1, [2]]),
        (Pair(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        ([Colour.RED, Level.HIGH, Size.BIG, True, None, -0.5], ["red", "high", 3, True, None, -0.5]),
        ({Level.HIGH: 2**64 - 1, "low": -(2**63)}, {"high": 2**64 - 1, "low": -(2**63)}),
        ([[]] * 2, [[], []]),
    ],
)
def test_a_copy_is_made_of_plain_types(value: object, copy: object):
    made = json_copy(value, "data")
    assert made == copy
    assert json.dumps(made) == json.dumps(copy)


def test_later_changes_of_the_original_do_not_reach_the_copy():
    value = {"list": [{"x": 1}]}
    copy = json_copy(value, "data")
    value["list"][0]["x"] = 2
    value["list"].append({})
    assert copy == {"list": [{"x": 1}]}


any_text = st.characters()  # halves of surrogate pairs too
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(any_text, max_size=3) | st.integers(0, 2), inner, max_size=3)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=8,
)


@given(anything)
def test_what_is_accepted_can_be_encoded_and_is_accepted_by_the_server(value: object):
    try:
        copy = json_copy(value, "data")
    except Refused:
        return
    assert data_as_json(copy, 2**20)
    for library in (msgspec.json, msgspec.msgpack):
        assert library.decode(library.encode(copy)) == copy
