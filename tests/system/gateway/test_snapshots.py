"""A list that is sent in pieces says what the room holds, whatever happened to it since the last one."""

from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.gateway import snapshots as module
from reactor.gateway.connection import Connection
from reactor.gateway.snapshots import _MAX_CACHED, Snapshots
from reactor.protocol.codec import JSON, MSGPACK, Codec
from reactor.protocol.messages import Departed, Member, MembersReply, RoomDiff, RoomJoined
from reactor.protocol.room import RoomView


@pytest.fixture(autouse=True)
def all_rooms_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 0)


USERS = [f"u{number}" for number in range(6)]


class Ear:
    """Stands for a connection; keeps the last message."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.heard: Any = None

    def send_pieces(self, *pieces: bytes) -> None:
        self.heard = self.codec.decode_reply(b"".join(pieces))


def member(user: str, at: int = 1) -> Member:
    return Member(user, f'"{user}" Ü', at, at, data={"n": [at, "]}"]})


def told(snapshots: Snapshots, view: RoomView, codec: Codec) -> list[Member]:
    ear = Ear(codec)
    message = RoomJoined(view.room_id, "u", "s", 1, 1, False, view.epoch, view.version, 2, "members", id=7)
    snapshots.send(cast("Connection", ear), message, view)
    assert ear.heard.id == 7
    joined = list(ear.heard.members)
    snapshots.send(cast("Connection", ear), MembersReply(view.room_id, view.epoch, view.version, 2), view)
    assert list(ear.heard.members) == joined
    return joined


def room(*users: str, name: str = "lobby") -> RoomView:
    view = RoomView(name)
    view.reset("e", len(users), [member(user) for user in users])
    return view


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=["json", "msgpack"])
@given(
    st.lists(
        st.tuples(st.sampled_from(["join", "update", "leave", "reset", "list"]), st.sampled_from(USERS)),
        max_size=20,
    )
)
def test_each_list_equals_the_members_of_the_room(codec: Codec, steps: list[tuple[str, str]]) -> None:
    snapshots, view = Snapshots(), room()
    for at, (what, user) in enumerate(steps, 2):
        version = view.version
        joined = [member(user, at)] if what == "join" else []
        updated = [member(user, at)] if what == "update" and user in view.members else []
        left = [Departed(user, "left")] if what == "leave" else []
        if what == "reset":
            view.reset("e", version, [member(user, at)])
        elif joined or updated or left:
            view.apply(RoomDiff("lobby", "e", version, version + 1, 0, joined, updated, left))
        else:
            assert told(snapshots, view, codec) == list(view.members.values())
    assert told(snapshots, view, codec) == list(view.members.values())


def test_only_new_members_of_a_cached_list_are_encoded() -> None:
    snapshots, view, encoded = Snapshots(), room("u1", "u2"), []
    codec = Codec("json", msgspec.json, binary=False)
    encode = codec.encode

    def noted(message: Any) -> bytes:
        encoded.append(message)
        return encode(message)

    codec.encode = noted
    told(snapshots, view, codec)
    view.apply(RoomDiff("lobby", "e", 2, 3, 3, [member("u3")], [], []))
    told(snapshots, view, codec)
    assert [one.user_id for one in encoded if isinstance(one, Member)] == ["u1", "u2", "u3"]


def test_the_number_of_cached_lists_is_bounded() -> None:
    snapshots = Snapshots()
    for number in range(3 * _MAX_CACHED):
        assert told(snapshots, room("u1", name=f"r{number}"), JSON) == [member("u1")]
    assert len(snapshots._lists) == _MAX_CACHED
