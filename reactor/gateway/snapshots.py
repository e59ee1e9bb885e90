"""The member list of a large room, encoded once for all connections that request it at about the same time.

A client that joins a room of thousands in a storm of joins receives the list of the client before it, plus
a few members. So the latest lists are cached in parts of about PART_BYTES: new members are appended, and
after another change of the room only the parts with it are encoded again. Encoding all of 2,500 takes 250 us.
A part that is no longer cached is encoded when it is written, so that a list that waits for a slow
reader holds references to members that the node knows anyway, and no bytes.

As JSON a member's data is copied. For MessagePack it is parsed and packed, which takes up to 0.5 ms for 4 KB.
So who is sent a list in MessagePack has it prepared before, a part in each turn of the event loop, and is
charged for that time. Lists are prepared one after the other, so that each is ready some time: if two took
turns, the one would need the memory of the other. Who cannot pay waits, and lets others go first.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from itertools import islice
from time import thread_time
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from reactor.errors import Unavailable
from reactor.gateway.addresses import AddressUsage
from reactor.gateway.connection import Connection
from reactor.protocol.codec import JSON, Codec
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
MAX_AT_ONCE = 1.0
"""Seconds after which another list is prepared: one that changes all the time would never be ready."""
MAX_READ = 64 << 20
"""Bytes of the members that were read for one answer, of all lists that are being prepared."""
MAX_READ_OF_ADDRESS = 16 << 20
"""Of these, of lists that the clients of one address asked for."""
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
    """The parts of a list. source: what has the members, which thus exists for as long as its id is used.

    preparing: how many are having it prepared. read: the address and the bytes for which it is counted
    meanwhile, where it was read for one answer.
    """

    __slots__ = ("count", "parts", "preparing", "read", "run", "source")

    def __init__(self, source: object) -> None:
        self.source = source
        self.read: tuple[str | None, int] | None = None
        self.run: object = None
        self.count = self.preparing = 0
        self.parts: list[_Part] = []


_Key = tuple[int, Codec]
"""A list: the id of its source, which is a view or the members that were read for one answer."""


class Snapshots:
    """Sends member lists, and caches the latest."""

    def __init__(self) -> None:
        self._lists: dict[_Key, _CachedList] = {}
        self._cached = 0  # bytes
        self._in_turn = asyncio.Lock()
        self._active: _Key | None = None  # the list that is being prepared, which has to stay cached
        self._latest: _Key = 0, JSON  # of the lists that were read for one answer
        self._read: Counter[str | None] = Counter()  # bytes of those that are being prepared, by address

    async def prepare(self, view: RoomView, codec: Codec, pay: Pay) -> None:
        """Encode a view's list, as far as it is not cached, for its receiver. Raises what `pay` does."""
        if self.is_slow(view.members, codec):
            await self._prepare((id(view), codec), lambda: self._cached_view(view, codec), pay)

    async def prepare_members(
        self, members: list[Member], codec: Codec, pay: Pay, address: AddressUsage | None = None
    ) -> None:
        """Encode a list that `send_members` is to send. Raises what `pay` does.

        address: of who is sent it. Raises Unavailable where too many such lists wait to be prepared.
        """
        if not self.is_slow(members, codec):
            return
        key = id(members), codec
        if key not in self._lists or not self._lists[key].preparing:
            read = address.name if address is not None else None, sum(map(_size_of, members))
            most = MAX_READ_OF_ADDRESS * address.factor if address is not None else MAX_READ
            if self._read[read[0]] + read[1] > most or self._read.total() + read[1] > MAX_READ:
                raise Unavailable("too many lists wait to be prepared")
            self._cached_members(members, codec).read = read
            self._read[read[0]] += read[1]
        await self._prepare(key, lambda: self._cached_members(members, codec), pay)

    def is_prepared(self, view: RoomView, codec: Codec) -> bool:
        """Return whether a view's list can be sent at once."""
        if not self.is_slow(view.members, codec):
            return True
        return (id(view), codec) in self._lists and not _first_missing(self._cached_view(view, codec))

    def send(self, connection: Connection, message: Any, view: RoomView, *, whole: bool = True) -> int:
        """Send a message whose `members` is unset: with the view's members if `whole`, otherwise as it is.

        Returns its size in bytes.
        """
        if not whole:
            return connection.send(message)
        if len(view.members) < LARGE:
            return connection.send(replace(message, members=list(view.members.values())))
        cached = self._cached_view(view, connection.codec)
        return self._send_parts(connection, message, cached.parts, len(view.members))

    def send_diffs(self, connection: Connection, message: Any, encoded: Iterable[bytes]) -> int:
        """Send a message with `diffs` that are encoded already. Returns its size in bytes."""
        return connection.send(replace(message, diffs=[Raw(one) for one in encoded]))

    def send_members(self, connection: Connection, message: Any, members: list[Member]) -> int:
        """Send a message with the members of a room that this node does not follow.

        Clients that share a list are answered one after the other, so the latest is kept encoded. Returns the
        message's size in bytes.
        """
        if len(members) < LARGE:
            return connection.send(replace(message, members=members))
        cached = self._cached_members(members, connection.codec)
        return self._send_parts(connection, message, cached.parts, len(members))

    @staticmethod
    def is_slow(members: Sized, codec: Codec) -> bool:
        """Return whether a list has to be prepared."""
        return codec.binary and len(members) >= LARGE

    async def _prepare(self, key: _Key, update: Callable[[], _CachedList], pay: Pay) -> None:
        """Encode a list, once for all who have it prepared. update: returns it as it is now."""
        cached = update()
        cached.preparing += 1
        try:
            while _first_missing(update()):
                async with self._in_turn:
                    wait = await self._encode(key, update, pay)
                while wait > 0 and _first_missing(update()):
                    await asyncio.sleep(min(wait, PAY_AGAIN))
                    wait = pay(0.0)
        finally:
            cached.preparing -= 1
            if not cached.preparing:
                self._end_preparation(key, cached)

    def _end_preparation(self, key: _Key, cached: _CachedList) -> None:
        if _first_missing(cached):
            self._forget(key)
        if cached.read is not None:
            address, size = cached.read
            cached.read = None
            self._read[address] -= size
            if not self._read[address]:
                del self._read[address]

    async def _encode(self, key: _Key, update: Callable[[], _CachedList], pay: Pay) -> float:
        """Encode what is missing, a little in each turn; return for how long nothing more may be done."""
        clock = asyncio.get_running_loop().time
        until, wait = clock() + MAX_AT_ONCE, pay(0.0)
        self._active = key
        try:
            while wait <= 0 and clock() < until and (part := _first_missing(update())) is not None:
                wait = pay(self._fill_for_a_turn(part, update))
                self._limit_cached()
                await asyncio.sleep(0)
        finally:
            self._active = None
        return wait

    def _fill_for_a_turn(self, part: _Part, update: Callable[[], _CachedList]) -> float:
        """Encode this part and further ones, for TURN_SECONDS; return the seconds that it took."""
        began = thread_time()
        self._fill(part)
        while (seconds := thread_time() - began) < TURN_SECONDS and (more := _first_missing(update())):
            self._fill(more)
        return seconds

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

    def _cached_view(self, view: RoomView, codec: Codec) -> _CachedList:
        """Return a view's list; what is not cached of it is not encoded yet."""
        cached = self._last_used((id(view), codec), view)
        if cached.run is not view.run:
            self._update(cached, list(view.members.values()), codec)
        elif cached.count < len(view.members):
            self._append(cached, list(islice(view.members.values(), cached.count, None)), codec)
        cached.run, cached.count = view.run, len(view.members)
        return cached

    def _cached_members(self, members: list[Member], codec: Codec) -> _CachedList:
        """Return a list that was read for one answer. Of these only the latest stays when it is prepared."""
        key = id(members), codec
        cached = self._last_used(key, members)
        if cached.run is None:
            cached.run, cached.parts = members, _split(members, codec, first=True)
        latest, self._latest = self._latest, key
        if latest != key and latest in self._lists and not self._lists[latest].preparing:
            self._forget(latest)
        return cached

    def _last_used(self, key: _Key, source: object) -> _CachedList:
        cached = self._lists.pop(key, None) or _CachedList(source)
        self._lists[key] = cached  # the most recently used list is the last
        return cached

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
        for key in (*self._lists,)[:-1] if self._cached > MAX_CACHED else ():
            if self._cached <= MAX_CACHED:
                return
            if key != self._active:
                self._forget(key)

    def _forget(self, key: _Key) -> None:
        """Cache a list no more; one that is being prepared is only encoded again."""
        cached = self._lists[key]
        self._drop(cached.parts)
        if not cached.preparing:
            del self._lists[key]

    def _drop(self, parts: Iterable[_Part]) -> None:
        for part in parts:
            if part.encoded is not None:
                self._cached -= len(part.encoded)
                part.encoded = None


def _split(members: list[Member], codec: Codec, *, first: bool) -> list[_Part]:
    """Return parts of about PART_BYTES, to be encoded. first: whether the list begins with them."""
    parts, size, start = list[_Part](), 0, 0
    for number, member in enumerate(members, 1):
        size += _size_of(member)
        if size >= PART_BYTES or number == len(members):
            between = b"" if first and not parts else codec.between
            parts.append(_Part(members[start:number], codec, between))
            size, start = 0, number
    return parts


def _size_of(member: Member) -> int:
    """Return the bytes of a member, about."""
    size, data = _MEMBER_BYTES + len(member.user_id) + len(member.username), member.data
    if isinstance(data, JsonText):
        return size + len(data.text)
    return size + len(data) if isinstance(data, str) else size


def is_part(members: Iterable[Member]) -> bool:
    """Return whether members take no more bytes than a part, which is encoded in one turn."""
    return sum(map(_size_of, members)) <= PART_BYTES


def _first_missing(cached: _CachedList) -> _Part | None:
    """Return the first part of a list that is not encoded."""
    return next((part for part in cached.parts if part.encoded is None), None)
