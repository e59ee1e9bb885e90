"""The member list of a large room, encoded once for all connections that request it at about the same time.

A client that joins a room of thousands in a storm of joins receives the list of the client before it, plus
a few members. So the latest lists are cached in parts of about PART_BYTES: new members are appended, and
after another change of the room only the parts with it are encoded again. Encoding all of 2,500 takes 250 us.
A part that is no longer cached is encoded when it is written, so that a list that waits for a slow
reader holds references to members that the node knows anyway, and no bytes.

As JSON a member's data is copied. For MessagePack it is parsed and packed, which takes up to 0.5 ms for 4 KB.
So who is sent a list in MessagePack has it prepared before, a part in each turn of the event loop, and is
charged for that time.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence, Sized
from itertools import islice
from time import thread_time
from typing import Any, NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from reactor.gateway.connection import Connection
from reactor.protocol.codec import Codec
from reactor.protocol.data import JsonText
from reactor.protocol.messages import Member
from reactor.protocol.room import RoomView

LARGE = 100
"""Members from which on a list is cached."""
PART_BYTES = 65536
"""Bytes of a part, about."""
MAX_CACHED = 16 << 20
"""Bytes of all parts that are cached."""
TURN_SECONDS = 0.002
"""For which parts are encoded in one turn of the event loop, and until the end of the part that is begun."""
PAY_AGAIN = 1.0
"""Seconds after which it is looked whether who has to wait can pay, or others have prepared the list."""
_MEMBER_BYTES = 100  # about, without texts
_MAX_APPENDED = 100  # members that are added to the last part
_WAITING_BYTES = 64  # that a waiting list takes for each of its parts


Pay = Callable[[float], float]
"""Charges who is sent a list for seconds of the node's time; returns the seconds until more may be done for
it. May raise Unavailable: nothing more is to be done."""


class _Part:
    """Some members in a row.

    encoded: their bytes; None before they are needed, and when the part is no longer cached. size: of these
    bytes; 0 before they are needed.
    """

    __slots__ = ("_codec", "between", "encoded", "members", "size")

    def __init__(self, members: list[Member], codec: Codec, between: bytes) -> None:
        self.members, self.size = members, 0
        self.encoded: bytes | None = None
        self._codec, self.between = codec, between

    def __len__(self) -> int:
        return _WAITING_BYTES

    def encode(self) -> bytes:
        if self.encoded is not None:
            return self.encoded
        codec = self._codec
        return self.between + codec.between.join(map(codec.encode, self.members))

    def keep(self, encoded: bytes) -> int:
        """Keep these bytes, which are cached from here on; return how many."""
        self.encoded, self.size = encoded, len(encoded)
        return self.size


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

    async def prepare(self, view: RoomView, codec: Codec, pay: Pay) -> None:
        """Encode a view's list, as far as it is not cached, for its receiver. Raises what `pay` does."""
        if self._is_slow(view.members, codec):
            await self._prepare(lambda: self._first_missing(self._parts_of(view, codec)), pay)

    async def prepare_members(self, members: list[Member], codec: Codec, pay: Pay) -> None:
        """Encode a list that `send_members` is to send. Raises what `pay` does."""
        if self._is_slow(members, codec):
            await self._prepare(lambda: self._first_missing(self._parts_of_listed(members, codec)), pay)

    def is_prepared(self, view: RoomView, codec: Codec) -> bool:
        """Return whether a view's list can be sent at once."""
        return not self._is_slow(view.members, codec) or not self._first_missing(self._parts_of(view, codec))

    def send(self, connection: Connection, message: Any, view: RoomView, *, whole: bool = True) -> int:
        """Send a message whose `members` is unset: with the view's members if `whole`, otherwise as it is.

        Returns its size in bytes.
        """
        if not whole:
            return connection.send(message)
        if len(view.members) < LARGE:
            return connection.send(replace(message, members=list(view.members.values())))
        parts = self._parts_of(view, connection.codec)
        return self._send_parts(connection, message, parts, len(view.members))

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
        parts = self._parts_of_listed(members, connection.codec)
        return self._send_parts(connection, message, parts, len(members))

    @staticmethod
    def _is_slow(members: Sized, codec: Codec) -> bool:
        return codec.binary and len(members) >= LARGE

    async def _prepare(self, missing: Callable[[], _Part | None], pay: Pay) -> None:
        """Encode what is missing, a little in each turn: several who do so for one list share the work."""
        while (part := missing()) is not None:
            began = thread_time()
            self._fill(part)
            while (seconds := thread_time() - began) < TURN_SECONDS and (part := missing()) is not None:
                self._fill(part)
            wait = pay(seconds)
            while wait > 0 and missing() is not None:
                await asyncio.sleep(min(wait, PAY_AGAIN))
                wait = pay(0.0)
            await asyncio.sleep(0)

    @staticmethod
    def _first_missing(parts: Sequence[_Part]) -> _Part | None:
        return next((part for part in parts if part.encoded is None), None)

    def _fill(self, part: _Part) -> None:
        self._cached += part.keep(part.encode())

    def _send_parts(self, connection: Connection, message: Any, parts: Sequence[_Part], count: int) -> int:
        for part in parts:
            if part.encoded is None:
                self._fill(part)
        self._limit_cached()
        codec = connection.codec
        head = codec.open_members(codec.encode(message), count)
        size = len(head) + sum(part.size for part in parts) + len(codec.end)
        connection.send_parts(size, head, *parts, codec.end)
        return size

    def _parts_of(self, view: RoomView, codec: Codec) -> Sequence[_Part]:
        """Return the parts of a view's list; those that are not cached are not encoded yet."""
        key = view.room_id, codec
        cached = self._lists.pop(key, None) or _CachedList()
        self._lists[key] = cached  # the most recently used list is the last
        if cached.run is not view.run:
            self._update(cached, list(view.members.values()), codec)
        elif cached.count < len(view.members):
            self._append(cached, list(islice(view.members.values(), cached.count, None)), codec)
        cached.run, cached.count = view.run, len(view.members)
        return cached.parts

    def _parts_of_listed(self, members: list[Member], codec: Codec) -> Sequence[_Part]:
        listed = self._listed
        if listed is None or listed.members is not members or listed.codec is not codec:
            if listed is not None:
                self._drop(listed.parts)
            listed = self._listed = _Listed(members, codec, _split(members, codec, first=True))
        return listed.parts

    def _append(self, cached: _CachedList, members: list[Member], codec: Codec) -> None:
        last = cached.parts[-1] if cached.parts else None
        if last is None or last.encoded is None or last.size >= PART_BYTES or len(members) > _MAX_APPENDED:
            cached.parts += _split(members, codec, first=last is None)
            return
        encoded = codec.between.join((last.encoded, *map(codec.encode, members)))
        self._drop([last])
        cached.parts[-1] = _Part([*last.members, *members], codec, last.between)
        self._cached += cached.parts[-1].keep(encoded)

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
                parts += _split(members[start:at], codec, first=not parts)
            parts.append(part)
            start = at = at + len(part.members)
        if at > start:
            parts += _split(members[start:at], codec, first=not parts)
        kept = set(map(id, parts))
        self._drop(part for part in cached.parts if id(part) not in kept)
        cached.parts = parts

    def _limit_cached(self) -> None:
        while self._cached > MAX_CACHED and len(self._lists) > 1:
            self._drop(self._lists.pop(next(iter(self._lists))).parts)

    def _drop(self, parts: Iterable[_Part]) -> None:
        for part in parts:
            if part.encoded is not None:
                self._cached -= len(part.encoded)
                part.encoded = None


def _split(members: list[Member], codec: Codec, *, first: bool) -> list[_Part]:
    """Return parts of about PART_BYTES, to be encoded. first: whether the list begins with them."""
    parts, size, start = list[_Part](), 0, 0
    for number, member in enumerate(members, 1):
        data = member.data
        size += _MEMBER_BYTES + len(member.user_id) + len(member.username)
        if isinstance(data, JsonText):
            size += len(data.text)
        elif isinstance(data, str):
            size += len(data)
        if size >= PART_BYTES or number == len(members):
            between = b"" if first and not parts else codec.between
            parts.append(_Part(members[start:number], codec, between))
            size, start = 0, number
    return parts
