"""Any message there is, for properties."""

from typing import Any, get_args

import msgspec
from hypothesis import strategies as st
from msgspec import UNSET, UnsetType

from reactor.protocol.messages import (
    Departed,
    Member,
    Message,
    MessageLimits,
    Person,
    RefusedRoom,
    RoomChanges,
    RoomCounted,
    ServerMessage,
)
from reactor.protocol.requests import Request, Resume

REQUESTS: tuple[type[Message], ...] = get_args(Request)
REPLIES: tuple[type[Message], ...] = get_args(ServerMessage)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
whole = st.integers(-(2**63), 2**64 - 1)
safe = st.integers(-(2**53) + 1, 2**53 - 1)
positive = st.integers(0, 2**53 - 1)
anything = st.recursive(
    st.none() | st.booleans() | whole | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
members = st.builds(
    Member, texts, texts, positive, positive, st.booleans(), st.integers(1, 99), st.just(UNSET) | anything
)

people = st.builds(
    Person,
    texts,
    st.sampled_from(["online", "away", "offline"]),
    st.just(UNSET) | positive,
    st.just(UNSET) | st.lists(texts, max_size=3),
)

_BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "id": st.none() | safe | st.text(st.characters(exclude_categories=["Cs"]), max_size=128),
    "view": st.sampled_from(["members", "count", "none"]),
    "data": anything,
    "members": st.lists(members, max_size=3),
    "joined": st.lists(members, max_size=3),
    "updated": st.lists(members, max_size=3),
    "left": st.lists(st.builds(Departed, texts, texts), max_size=3),
    "resumed": st.booleans(),
    "to": st.none() | st.lists(texts | whole, max_size=3),
    "resume": st.none() | st.builds(Resume, texts, positive, positive, st.none() | positive),
    "diffs": st.lists(
        st.builds(
            RoomChanges,
            positive,
            positive,
            positive,
            st.lists(members, max_size=2),
            st.lists(members, max_size=2),
            st.lists(st.builds(Departed, texts, texts), max_size=2),
        ),
        max_size=2,
    ),
    "limits": st.builds(MessageLimits, positive, positive, positive),
    "present": st.booleans(),
    "rooms": st.lists(st.builds(RoomCounted, texts, texts, positive, positive), max_size=3),
    "refused": st.lists(st.builds(RefusedRoom, texts, texts, texts), max_size=3),
    "people": st.lists(people, max_size=3),
    "changed": st.lists(people, max_size=3),
}


def _field(kind: type[Message], field: msgspec.structs.FieldInfo) -> st.SearchStrategy[Any]:
    if field.name == "view" and "none" not in get_args(field.type):
        return st.sampled_from(get_args(field.type))
    if field.name == "room_ids":
        return st.none() | st.lists(texts | whole if kind in REQUESTS else texts, max_size=3)
    if field.name == "user_ids":
        users = st.lists(texts | whole, max_size=3)
        return users if field.required else st.none() | users
    if field.name in _BY_NAME:
        known = _BY_NAME[field.name]
        return st.just(UNSET) | known if field.default is UNSET else known
    if field.type in (int, int | None, int | UnsetType):
        return positive if field.required else st.just(field.default) | positive
    strategy: st.SearchStrategy[Any] = texts
    if kind in REQUESTS and field.name in ("room_id", "user_id"):
        strategy = texts | whole
    if field.default is UNSET:
        return st.just(UNSET) | strategy
    return strategy if field.required else st.none() | strategy


def of(kind: type[Message]) -> st.SearchStrategy[Any]:
    """Any message of this kind."""
    return st.builds(kind, **{field.name: _field(kind, field) for field in msgspec.structs.fields(kind)})


any_request: st.SearchStrategy[Request] = st.one_of([of(kind) for kind in REQUESTS])
replies: st.SearchStrategy[ServerMessage] = st.one_of([of(kind) for kind in REPLIES])
