"""Rows of Redis: the registry of a member's fields, and what becomes of rows that are not readable."""

import timeit
import tracemalloc
from functools import partial

import msgspec
import pytest
from msgspec.structs import replace

from reactor.presence.lua_sources import lua_sources
from reactor.presence.rows import (
    MEMBER_FIELDS,
    MemberRow,
    built_member,
    member_from_hash,
    members_from_flat,
    parse_room_message,
)
from reactor.protocol.codec import JSON, MSGPACK
from reactor.protocol.messages import Member
from reactor.protocol.room import visibly_changed

ANN = Member("ann", "Ann", 1, 2, away=True, connections=3, data=[1])
FLAT: list[bytes | int] = [b"ann", b"Ann", b"[1]", 1, 2, 1, 3]


def test_a_row_has_the_fields_of_the_registry_in_its_order() -> None:
    assert tuple(MEMBER_FIELDS.values()) == MemberRow.__struct_fields__
    assert set(MEMBER_FIELDS.values()) == set(Member.__struct_fields__)


def test_the_lua_reads_every_field_of_the_registry() -> None:
    sources = lua_sources(departures_kept=1)
    assert sources.constants["MEMBER_FIELDS"] == tuple(MEMBER_FIELDS)
    members = sources.library["lib/members.lua"]
    assert all(f"row[{place}]" in members for place in range(1, len(MEMBER_FIELDS) + 1))
    assert f"row[{len(MEMBER_FIELDS) + 1}]" not in members


def test_a_list_holds_each_members_fields_in_a_row() -> None:
    assert members_from_flat([*FLAT, b"bob", b"Bob", b"", 1, 2, 0, 1]) == [ANN, Member("bob", "Bob", 1, 2)]


def test_an_unreadable_member_of_a_list_is_left_out() -> None:
    assert members_from_flat([b"\xff", *FLAT[1:], *FLAT, b"bob", b"Bob", b"{", *FLAT[3:]]) == [ANN]


def test_a_presence_key_holds_the_fields_of_the_registry() -> None:
    stored = [value if isinstance(value, bytes) else str(value).encode() for value in FLAT]
    fields = dict(zip(map(str.encode, MEMBER_FIELDS), stored, strict=True))
    assert member_from_hash(fields) == ANN
    assert member_from_hash({**fields, b"joinedAt": b"soon"}) is None
    assert member_from_hash({}) is None


@pytest.mark.parametrize(
    "read",
    [
        lambda data: built_member(members_from_flat([b"ann", b"Ann", data, 1, 2, 0, 1])[0]),
        lambda data: parse_room_message("r", b"!1 " + data)[0],
        lambda data: parse_room_message("r", b'#1 ["ann","s",null,' + data + b"]")[0],
    ],
    ids=["member", "message of the application", "message of a member"],
)
def test_numbers_that_are_slow_to_parse_do_not_stop_the_nodes_of_a_room(read) -> None:
    quick, slow = (b"[" + b",".join([number] * 600) + b"]" for number in (b"0.125", b"1e300"))
    assert read(slow).data == [1e300] * 600
    # A seventh more when measured; msgspec's own parser takes 300 times as long.
    best_quick, best_slow = (min(timeit.repeat(partial(read, data), number=1)) for data in (quick, slow))
    assert best_slow < 20 * best_quick


def test_a_members_data_takes_no_more_than_its_bytes_and_is_sent_as_what_it_is() -> None:
    value = [{"": number % 10} for number in range(500)]  # each takes 200 bytes as an object
    text = msgspec.json.encode(value)
    tracemalloc.start()
    member, *others = members_from_flat(20 * [b"ann", b"Ann", text, *FLAT[3:]])
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 2 * 20 * len(text)
    assert len(others) == 19
    assert built_member(member) == replace(ANN, data=value)
    for codec in (JSON, MSGPACK):
        assert codec.encode(member) == codec.encode(built_member(member))
    (same,) = members_from_flat([b"ann", b"Ann", text, *FLAT[3:]])
    (other,) = members_from_flat([b"ann", b"Ann", text.replace(b"1", b"2"), *FLAT[3:]])
    assert member == same != other
    assert not visibly_changed(member, same)
    assert visibly_changed(member, other)
    with pytest.raises(TypeError):
        JSON.encode(replace(member, data=object()))
