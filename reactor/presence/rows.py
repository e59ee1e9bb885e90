"""How members, diffs and departures stand in Redis, and the structs they become."""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import msgspec
from msgspec.structs import replace

from reactor.errors import UNREADABLE
from reactor.log import RateLimitedLog
from reactor.presence.keys import unescape
from reactor.protocol.data import JsonText, built, decode_json, json_float, kept
from reactor.protocol.messages import Departed, Member, RoomDiff, RoomMessage

_log = RateLimitedLog()

PAGE_BYTES = 262_144
"""Bytes of a page of a listed room, about: a millisecond or two of the time of Redis."""
MIN_PAGE, MAX_PAGE = 64, 1000
"""Rows of such a page: the first number while it is not known how large they are."""
_ROW_BYTES = 150  # of a member without its data, about


class MemberRow(msgspec.Struct, array_like=True, rename="camel"):
    """A member as the scripts publish it; `data` is JSON text, or empty where there is none.

    This is the one ordered table of a member's fields. A new field goes to the end and has a default, since
    nodes of an earlier version publish rows without it.
    """

    user_id: str
    username: str
    data: str
    joined_at: int
    last_active_at: int
    away: int
    connections: int

    def member(self) -> Member:
        """Return the member as the protocol has it. Raises msgspec.DecodeError when `data` is not JSON."""
        return Member(
            user_id=self.user_id,
            username=self.username,
            joined_at=self.joined_at,
            last_active_at=self.last_active_at,
            away=self.away == 1,
            connections=self.connections,
            data=kept(self.data) if self.data else msgspec.UNSET,
        )


MEMBER_FIELDS = {field.encode_name: field.name for field in msgspec.structs.fields(MemberRow)}
"""The fields of a member, in the order of diffs and lists: the name in the presence key, and in MemberRow."""
_DATA_FIELD = list(MEMBER_FIELDS).index("data")


class LeftRow(msgspec.Struct, array_like=True):
    """A departure as the scripts publish it.

    `reason` is one of `REASONS` or any text of a newer node. `message` is empty unless a kick or a ban gave
    one. `ends_at`: when a ban ends (ms); 0 for any other departure.
    """

    user_id: str
    reason: str
    at: int
    message: str
    ends_at: int = 0


class DiffRow(msgspec.Struct, array_like=True):
    """A change of a room, from position `from_version` to `version` of `epoch`."""

    epoch: str
    from_version: int
    version: int
    count: int
    joined: list[MemberRow]
    updated: list[MemberRow]
    left: list[LeftRow]

    def diff(self, room_id: str) -> RoomDiff:
        """Return the diff as the protocol has it. Raises msgspec.DecodeError when data is not JSON."""
        return RoomDiff(
            room_id=room_id,
            epoch=self.epoch,
            from_=self.from_version,
            version=self.version,
            count=self.count,
            joined=[row.member() for row in self.joined],
            updated=[row.member() for row in self.updated],
            left=[Departed(user_id=row.user_id, reason=row.reason) for row in self.left],
        )


MESSAGE_OF_APPLICATION, MESSAGE_OF_MEMBER = b"!", b"#"
"""The first bytes of a message to a room on the room's channel; a diff begins with that of an array."""

_MARKS = range(ord("!"), ord("/") + 1)


def is_unknown_kind(payload: bytes) -> bool:
    """Return whether a publication is of a kind that only newer nodes know, to be ignored.

    A kind of publication other than a diff is marked by its first byte, an ASCII punctuation mark from `!` to
    `/`, which begins no MessagePack array.
    """
    return bool(payload) and payload[0] in _MARKS and not is_room_message(payload)


def is_room_message(payload: bytes) -> bool:
    """Return whether a publication is a message to the room."""
    return payload.startswith((MESSAGE_OF_APPLICATION, MESSAGE_OF_MEMBER))


class MessageRow(msgspec.Struct, array_like=True):
    """What a member sends, as nodes publish it: to the users in `to`, or to all others where that is None."""

    user_id: str
    socket_id: str
    to: list[str] | None
    data: Any


_decode_message = msgspec.json.Decoder(MessageRow, float_hook=json_float).decode


def parse_room_message(room_id: str, payload: bytes) -> tuple[RoomMessage, list[str] | None]:
    """Return what clients receive, and the users whom it is for: None for all, or for all but the sender.

    Raises ValueError, or another error of msgspec or Python for what cannot be decoded, or not be sent.
    """
    at, _, body = payload[1:].partition(b" ")
    if payload.startswith(MESSAGE_OF_APPLICATION):
        message, to = RoomMessage(room_id, decode_json(body), int(at)), None
    else:
        row = _decode_message(body)
        message, to = RoomMessage(room_id, row.data, int(at), row.user_id, row.socket_id), row.to
    msgspec.msgpack.encode(
        message
    )  # of the two codecs the one that holds less: no number of more than 64 bits
    return message, to


def built_member(member: Member) -> Member:
    """Return a member as applications receive it, with the value of its data in place of the JSON."""
    return replace(member, data=built(member.data)) if isinstance(member.data, JsonText) else member


decode_diff = msgspec.msgpack.Decoder(DiffRow).decode
"""Returns a published diff from its MessagePack bytes. Raises msgspec.MsgspecError."""


def data_size(flat: Sequence[bytes | int]) -> int:
    """Return the bytes of the data of the members in a page."""
    return sum(map(len, flat[_DATA_FIELD :: len(MEMBER_FIELDS)]))  # type: ignore[arg-type]


def next_page_size(flat: Sequence[bytes | int]) -> int:
    """Return how many rows of a room to ask for, from the page before."""
    rows = len(flat) // len(MEMBER_FIELDS)
    size = data_size(flat) + _ROW_BYTES * rows
    return max(MIN_PAGE, min(MAX_PAGE, PAGE_BYTES * rows // size)) if rows else MAX_PAGE


def members_from_flat(flat: Sequence[bytes | int]) -> list[Member]:
    """Return the members of a reply of `list.lua`, which holds the MEMBER_FIELDS of each in a row.

    A member whose fields were edited externally so that they are not readable is left out, and logged.
    """
    members = []
    for i in range(0, len(flat), len(MEMBER_FIELDS)):
        user_id, username, data, *numbers = fields = flat[i : i + len(MEMBER_FIELDS)]
        try:
            row = MemberRow(_text(user_id), _text(username), _text(data), *map(int, numbers))
            members.append(row.member())
        except UNREADABLE:
            # Limited, since a client can ask for the list again and again.
            _log.warning("member_unreadable", monotonic(), user=str(user_id), fields=str(fields)[:200])
    return members


def member_from_hash(fields: Mapping[bytes, bytes]) -> Member | None:
    """Return the member in a presence key's fields, or None where they are missing or not readable."""
    try:
        row = MemberRow(
            fields[b"userId"].decode(),
            fields.get(b"username", fields[b"userId"]).decode(),
            fields.get(b"data", b"").decode(),
            int(fields[b"joinedAt"]),
            int(fields[b"lastActiveAt"]),
            int(b"away" in fields),
            int(fields.get(b"connections", 1)),
        )
        return row.member()
    except (KeyError, *UNREADABLE):
        return None


class Departure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One entry of the departures stream. Times are milliseconds since 1970, by Redis's clock."""

    id: str
    room_id: str
    user_id: str
    username: str
    reason: str
    joined_at: int
    last_active_at: int
    left_at: int
    node: str


def departure_from_stream(entry_id: bytes, fields: dict[bytes, bytes]) -> Departure | None:
    """Return a departure from its stream entry, or None where another program wrote that entry.

    https://redis.io/docs/latest/develop/data-types/streams/
    """
    try:
        return Departure(
            id=entry_id.decode(),
            room_id=fields[b"room"].decode(),
            user_id=fields[b"user"].decode(),
            username=fields[b"username"].decode(),
            reason=fields[b"reason"].decode(),
            joined_at=int(fields[b"joinedAt"]),
            last_active_at=int(fields[b"lastActiveAt"]),
            left_at=int(fields[b"leftAt"]),
            node=fields[b"node"].decode(),
        )
    except (KeyError, ValueError):
        return None


def room_from(escaped: bytes) -> str:
    """Return a room's id from its escaped form in a reply."""
    return unescape(escaped.decode(errors="replace"))


def _text(field: bytes | int) -> str:
    return field.decode() if isinstance(field, bytes) else str(field)
