"""Names of keys: any id round-trips, no two things share a key, and keys of others are not taken for ours."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reactor.presence.keys import (
    KEY_TYPES,
    Entry,
    ExpiredKeys,
    escape,
    fleet_prefix,
    parse_suffix,
    suffix,
    unescape,
)
from tests.support.keyspace import (
    departures_stream,
    diff_channel,
    keyspace,
    presence_key,
    shadow_key,
    shard_of,
    shard_prefix,
    wake_channel,
)

LUA = Path(str(files("reactor.presence"))) / "lua"

SEPARATORS = st.sampled_from(
    [":", ":user:", ":room:", "%", "%3A", "{", "}", "*", "?", "[", "]", "\\", " ", "\n"]
)
IDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.lists(st.one_of(SEPARATORS, st.text("aé💥\u2028\x00.", min_size=1, max_size=2)), min_size=1).map(
        "".join
    ),
)
ENTRIES = st.builds(Entry, IDS, IDS)


@given(IDS)
@example("%")
@example("%25")
@example("\u00a0\u2028\u3000\x85")
def test_any_id_round_trips(identifier: str) -> None:
    escaped = escape(identifier)
    assert unescape(escaped) == identifier
    assert not set(escaped) & set(":{}*?[]\\ \n\t")


@given(ENTRIES)
@example(Entry("a:user:b", "c"))
@example(Entry("a", "b:user:c"))
def test_any_member_round_trips(entry: Entry) -> None:
    assert parse_suffix(suffix(entry)) == entry
    shard = shard_of(entry.room_id)
    assert ExpiredKeys(keyspace("ns")).parse(presence_key("ns", entry).encode()) == (shard, suffix(entry))


@given(ENTRIES, ENTRIES)
@example(Entry("a:user:b", "c"), Entry("a", "b:user:c"))
@example(Entry("a%3Auser%3Ab", "c"), Entry("a:user:b", "c"))
@example(Entry("", ":user:"), Entry(":user:", ""))
def test_no_two_members_share_a_key(one: Entry, other: Entry) -> None:
    keys = {name("ns", entry) for name in (presence_key, shadow_key) for entry in (one, other)}
    assert len(keys) == (2 if one == other else 4)
    assert (diff_channel("ns", one.room_id) == diff_channel("ns", other.room_id)) == (
        one.room_id == other.room_id
    )


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_no_key_of_another_program_is_recognised(key: bytes) -> None:
    assert ExpiredKeys(keyspace("ns")).parse(key) is None


@given(ENTRIES, st.data())
def test_a_key_that_differs_in_one_byte_is_recognised_only_as_another_members(
    entry: Entry, data: st.DataObject
) -> None:
    key = bytearray(presence_key("ns", entry).encode())
    place = data.draw(st.integers(0, len(key) - 1))
    key[place] = data.draw(st.integers(0, 255))
    found = ExpiredKeys(keyspace("ns")).parse(bytes(key))
    if found is not None:
        shard, text = found
        assert presence_key("ns", parse_suffix(text)).encode() == bytes(key)
        assert shard == shard_of(parse_suffix(text).room_id)


LOBBY = shard_of("lobby")
TAG = "7dnb"
"""Of the lobby's shard."""


@pytest.mark.parametrize(
    "key",
    [
        f"{shard_prefix('ns', LOBBY + 1)}:room:lobby:user:ann",  # another shard's
        f"{keyspace('ns2').prefixes[LOBBY].replace('ns2', 'ns')}:room:lobby:user:ann",
        f"{{ns:{LOBBY}}}:room:lobby:user:ann",
        f"{{ns:0{TAG}}}:room:lobby:user:ann",
        f"{{ns:+{TAG}}}:room:lobby:user:ann",
        f"{{ns:{TAG} }}:room:lobby:user:ann",
        "{ns:²}:room:lobby:user:ann",
        f"{{ns:{'9' * 5000}}}:room:lobby:user:ann",
        "{ns:}:room:lobby:user:ann",
        f"{{ns2:{TAG}}}:room:lobby:user:ann",  # another namespace's
        f"{{ns:x:{TAG}}}:room:lobby:user:ann",
        f"x{{ns:{TAG}}}:room:lobby:user:ann",
        f"{{ns:{TAG}}}:shadow:room:lobby:user:ann",  # another kind
        f"{{ns:{TAG}}}:fenced:n1",
        "{ns:fleet}:lease:n1",
        f"{{ns:{TAG}}}:room:lobby:user",  # cut off
        f"{{ns:{TAG}}}:room:lobby:user:",
        f"{{ns:{shard_prefix('ns', shard_of(''))[4:-1]}}}:room::user:ann",
        f"{{ns:{TAG}}}:room:lobby",
        f"{{ns:{TAG}}}:room:lobby:user:ann:user:bob",  # written in a way of its own
        f"{{ns:{TAG}}}:room:lobby:user:a b",
        f"{{ns:{TAG}}}:room:lobby:user:%61nn",
        f"{{ns:{TAG}}}:room:lobby:user:a%3ab",
        f"{{ns:{TAG}}}:room:lobby:user:a%",
        "room:lobby:user:ann",
    ],
)
def test_a_similar_key_is_not_recognised(key: str) -> None:
    assert ExpiredKeys(keyspace("ns")).parse(key.encode()) is None


def test_bytes_that_are_not_utf8_are_not_recognised() -> None:
    assert ExpiredKeys(keyspace("ns")).parse(b"{ns:%s}:room:lobby:user:\xff" % TAG.encode()) is None


@pytest.mark.parametrize(
    ("room", "shard"), [("lobby", 7), ("1", 7), ("é💥", 11), ("a:user:b{c}*", 14), ("", 0)]
)
def test_a_room_is_always_in_the_same_shard(room: str, shard: int) -> None:
    assert shard_of(room) == shard


def test_names_have_the_documented_format() -> None:
    entry = Entry("lobby", "ann")
    assert presence_key("reactor", entry) == "{reactor:7kf}:room:lobby:user:ann"
    assert shadow_key("reactor", entry) == "{reactor:7kf}:shadow:room:lobby:user:ann"
    assert diff_channel("reactor", "lobby") == "{reactor:7kf}:diff:lobby"
    assert wake_channel("reactor", 7) == "{reactor:7kf}:wake"
    assert departures_stream("reactor", 7) == "{reactor:7kf}:departures"
    assert shard_prefix("reactor", 7) == "{reactor:7kf}"
    assert fleet_prefix("reactor") == "{reactor:fleet}"


def test_the_types_of_all_keys_that_scripts_write_are_known() -> None:
    lua = "\n".join(path.read_text() for path in LUA.rglob("*.lua"))
    written = set(re.findall(r"(?:SHARD|home|shard) \.\. ':(\w+)", lua)) - {"damaged"}
    assert KEY_TYPES.keys() == written
