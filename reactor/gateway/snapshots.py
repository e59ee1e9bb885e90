"""The member list of a large room, encoded once for all connections that request it at about the same time.

A client that joins a room of thousands in a storm of joins receives the list of the client before it, plus
a few members. So the latest lists are cached in parts of about PART_BYTES: new members are appended, and
after another change of the room only the parts with it are encoded again. Encoding all of 2,500 takes 250 us.
A part that is no longer cached is encoded when it is written, so that a list that waits for a slow
reader holds references to members that the node knows anyway, and no bytes.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from reactor.gateway.connection import Connection
from reactor.protocol.codec import Codec
from reactor.protocol.messages import Member
from reactor.protocol.room import RoomView

LARGE = 100
"""Members from which on a list is cached."""
PART_BYTES = 65536
"""Bytes of a part, about."""
MAX_CACHED = 16 << 20
"""Bytes of all parts that are cached."""
_MAX_APPENDED = 100  # members that are added to the last part
_WAITING_BYTES = 64  # that a waiting list takes for each of its parts


class _Part:
    """Some members in a row; `encoded` is dropped when the part is no longer cached."""

    __slots__ = ("_codec", "between", "encoded", "members", "size")

    def __init__(self, members: list[Member], encoded: bytes, codec: Codec, between: bytes) -> None:
        self.members, self.size = members, len(encoded)
        self.encoded: bytes | None = encoded
        self._codec, self.between = codec, between

    def __len__(self) -> int:
        return _WAITING_BYTES

    def encode(self) -> bytes:
        if self.encoded is not None:
            return self.encoded
        codec = self._codec
        return self.between + codec.between.join(map(codec.encode, self.members))


class _CachedList:
    __slots__ = ("count", "parts", "run")

    def __init__(self) -> None:
        self.run: object = None
        self.count = 0
        self.parts: list[_Part] = []


class _Listed(NamedTuple):
    members: list[Member]
    codec: Codec
    parts: list[_Part]


class Snapshots:
    """Sends member lists, and caches the latest."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, Codec], _CachedList] = {}
        self._listed: _Listed | None = None
        self._cached = 0  # bytes

    def send(self, connection: Connection, message: Any, view: RoomView, *, whole: bool = True) -> int:
        """Send a message whose `members` is unset: with the view's members if `whole`, otherwise as it is.

        Returns its size in bytes.
        """
        if not whole:
            return connection.send(message)
        if len(view.members) < LARGE:
            return connection.send(replace(message, members=list(view.members.values())))
        return self._send_parts(
            connection, message, self._parts_of(view, connection.codec), len(view.members)
        )

    def send_diffs(self, connection: Connection, message: Any, encoded: Iterable[bytes]) -> int:
        """Send a message with `diffs` that are encoded already. Returns its size in bytes."""
        return connection.send(replace(message, diffs=[Raw(one) for one in encoded]))

    def send_members(self, connection: Connection, message: Any, members: list[Member]) -> int:
        """Send a message with the members of a room that this node does not follow.

        Clients that share a list are answered one after the other, so the last list is kept encoded. Returns
        the message's size in bytes.
        """
        if len(members) < LARGE:
            return connection.send(replace(message, members=members))
        listed = self._listed
        if listed is None or listed.members is not members or listed.codec is not connection.codec:
            if listed is not None:
                self._drop(listed.parts)
            parts = self._encode(members, connection.codec, first=True)
            listed = self._listed = _Listed(members, connection.codec, parts)
        return self._send_parts(connection, message, listed.parts, len(members))

    def _send_parts(self, connection: Connection, message: Any, parts: Sequence[_Part], count: int) -> int:
        codec = connection.codec
        head = codec.open_members(codec.encode(message), count)
        size = len(head) + sum(part.size for part in parts) + len(codec.end)
        connection.send_parts(size, head, *parts, codec.end)
        return size

    def _parts_of(self, view: RoomView, codec: Codec) -> Sequence[_Part]:
        key = view.room_id, codec
        cached = self._lists.pop(key, None) or _CachedList()
        self._lists[key] = cached  # the most recently used list is the last
        if cached.run is not view.run:
            self._update(cached, list(view.members.values()), codec)
        elif cached.count < len(view.members):
            self._append(cached, list(islice(view.members.values(), cached.count, None)), codec)
        cached.run, cached.count = view.run, len(view.members)
        while self._cached > MAX_CACHED and len(self._lists) > 1:
            self._drop(self._lists.pop(next(iter(self._lists))).parts)
        return cached.parts

    def _append(self, cached: _CachedList, members: list[Member], codec: Codec) -> None:
        last = cached.parts[-1] if cached.parts else None
        if last is None or last.encoded is None or last.size >= PART_BYTES or len(members) > _MAX_APPENDED:
            cached.parts += self._encode(members, codec, first=last is None)
            return
        encoded = codec.between.join((last.encoded, *map(codec.encode, members)))
        self._drop([last])
        self._cached += len(encoded)
        cached.parts[-1] = _Part([*last.members, *members], encoded, codec, last.between)

    def _update(self, cached: _CachedList, members: list[Member], codec: Codec) -> None:
        """Make the list one of these members, with the parts that have not changed."""
        known = {id(part.members[0]): part for part in cached.parts}
        parts, start, at = list[_Part](), 0, 0
        while at < len(members):
            part = known.get(id(members[at]))
            if (
                part is None
                or part.members != members[at : at + len(part.members)]
                or (part is cached.parts[0]) is not (at == 0)  # the first has no separator before it
            ):
                at += 1
                continue
            if at > start:
                parts += self._encode(members[start:at], codec, first=not parts)
            parts.append(part)
            start = at = at + len(part.members)
        if at > start:
            parts += self._encode(members[start:at], codec, first=not parts)
        kept = set(map(id, parts))
        self._drop(part for part in cached.parts if id(part) not in kept)
        cached.parts = parts

    def _encode(self, members: list[Member], codec: Codec, *, first: bool) -> list[_Part]:
        parts, row, size, start = list[_Part](), list[bytes](), 0, 0
        for number, member in enumerate(members, 1):
            row.append(codec.encode(member))
            size += len(row[-1])
            if size >= PART_BYTES or number == len(members):
                between = b"" if first and not parts else codec.between
                encoded = between + codec.between.join(row)
                parts.append(_Part(members[start:number], encoded, codec, between))
                self._cached += len(encoded)
                row, size, start = [], 0, number
        return parts

    def _drop(self, parts: Iterable[_Part]) -> None:
        for part in parts:
            if part.encoded is not None:
                self._cached -= len(part.encoded)
                part.encoded = None
