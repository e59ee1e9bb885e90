"""Names of keys and channels in Redis: composing and parsing them. PURE.

Every key of a shard starts with `{NAMESPACE:TAG}`, see tags.py. The braces are a hash tag, so that a shard is
in one cluster slot and every change is one atomic script
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags). The format
`room:ROOM:user:USER` follows the tag. In ids, separators, braces, glob characters and white space are
percent-encoded, so that any id round-trips and no two ids give the same key.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote
from zlib import crc32

from reactor.presence.tags import shard_tags

_RESERVED = re.compile(r"[%:{}*?\[\]\\\s]")


class Entry(NamedTuple):
    """What identifies a member: one user in one room."""

    room_id: str
    user_id: str


def escape(identifier: str) -> str:
    """Return an id in its escaped form, as keys contain it."""
    return _RESERVED.sub(_percent, identifier)


def unescape(text: str) -> str:
    """Return the id of an escaped form."""
    return unquote(text) if "%" in text else text


def _percent(match: re.Match[str]) -> str:
    return _percent_of(match[0])


@lru_cache(256)  # of the 36 characters that are reserved
def _percent_of(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def fleet_prefix(namespace: str) -> str:
    """Return what the keys about nodes start with: registry, leases, leaderships, rules."""
    return f"{{{namespace}:fleet}}"


def text_of(raw: bytes) -> str:
    """Return a name from a reply as text, for `raw_of`.

    Another program may have written bytes that are not UTF-8: they become lone surrogates (PEP 383).
    """
    return raw.decode(errors="surrogateescape")


def raw_of(text: str) -> bytes:
    """Return the bytes of a name that `text_of` read."""
    return text.encode(errors="surrogateescape")


def suffix(entry: Entry) -> str:
    """Return `ROOM:user:USER`, the end of a member's two keys, by which scripts name it."""
    return f"{escape(entry.room_id)}:user:{escape(entry.user_id)}"


def parse_suffix(text: str) -> Entry:
    """Return the member that a suffix names."""
    room, _, user = text.partition(":user:")
    return Entry(unescape(room), unescape(user))


def database_mark(database: int) -> str:
    """Return what stands between the prefix and the kind in the channels of a database.

    A server's channels are those of all its databases
    (https://redis.io/docs/latest/develop/pubsub/#database--scoping), so they name theirs where it is not 0.
    """
    return f":db{database}" if database else ""


DISCONNECT_MARK, MISSING_MARK, DAMAGED_MARK, REVOKED_MARK, BAN_MARK = b"-", b"?", b"!", b"^", b"~"
"""What begins a message on the fleet's channel or on one for wake-ups that is not the time of a wake-up.

They are followed by a request to disconnect a user; by the suffix of a member that may have been evicted;
by the name of a key that a script renamed aside; by times and users whose tokens were
revoked; and by a ban that was made, or lifted. A wake-up is a number.
"""


def fleet_channel(namespace: str, database: int = 0) -> str:
    """Return the channel on which the fleet's keys are published that were renamed aside."""
    return f"{fleet_prefix(namespace)}{database_mark(database)}:wake"


def rules_channel(namespace: str, database: int = 0) -> str:
    """Return the channel on which the rooms are published whose rule was set or removed."""
    return f"{fleet_prefix(namespace)}{database_mark(database)}:rules"


class Keyspace:
    """The keys and channels of one namespace in one database.

    How many shards it has is known only once its format was read (`use_shards`); nothing that belongs to a
    shard has a name before.
    """

    __slots__ = ("_prefixes", "database", "namespace")

    def __init__(self, namespace: str, database: int = 0, *, shards: int | None = None) -> None:
        self.namespace, self.database = namespace, database
        self._prefixes: tuple[str, ...] = ()
        if shards is not None:
            self.use_shards(shards)

    def use_shards(self, shards: int) -> None:
        """Set the number of shards."""
        self._prefixes = tuple(f"{{{self.namespace}:{tag}}}" for tag in shard_tags(self.namespace, shards))

    @property
    def known(self) -> bool:
        """Whether the number of shards is known."""
        return bool(self._prefixes)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What every key of a shard starts with, by shard."""
        if not self._prefixes:
            raise RuntimeError("the format of the namespace has not been read yet")
        return self._prefixes

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(len(self.prefixes))

    @property
    def fleet(self) -> str:
        """What the keys about nodes start with."""
        return fleet_prefix(self.namespace)

    def shard_of(self, room_id: str) -> int:
        """Return the shard of a room: CRC-32 of its UTF-8 text (ISO 3309, as in zlib), modulo the shards."""
        return crc32(room_id.encode()) % len(self.prefixes)

    def place_of(self, entry: Entry) -> tuple[int, str]:
        """Return (shard, suffix) of a member, by which batches and claims name it."""
        return self.shard_of(entry.room_id), suffix(entry)

    def prefix_of(self, room_id: str) -> str:
        """Return what every key of the room's shard starts with."""
        prefixes = self.prefixes
        return prefixes[crc32(room_id.encode()) % len(prefixes)]

    def presence_key(self, entry: Entry) -> str:
        """Return the key whose existence is the member's presence."""
        return f"{self.prefix_of(entry.room_id)}:room:{suffix(entry)}"

    def shadow_key(self, entry: Entry) -> str:
        """Return the key that outlives the presence key and holds what a departure needs."""
        return f"{self.prefix_of(entry.room_id)}:shadow:room:{suffix(entry)}"

    def departures_stream(self, shard: int) -> str:
        """Return the capped stream of a shard's departures."""
        return f"{self.prefixes[shard]}:departures"

    def diff_channel(self, room_id: str) -> str:
        """Return the channel of a room's diffs and messages."""
        return f"{self.prefix_of(room_id)}{database_mark(self.database)}:diff:{escape(room_id)}"

    @property
    def person_mark(self) -> str:
        """What the channel of every user contains behind the namespace, and no other channel."""
        return f"}}{database_mark(self.database)}:person:"

    def person_channel(self, user_id: str) -> str:
        """Return the channel on which a user's changes are published; its shard is that of the user's id."""
        return f"{self.prefix_of(user_id)}{database_mark(self.database)}:person:{escape(user_id)}"

    def wake_channel(self, shard: int) -> str:
        """Return the channel on which a shard publishes that its earliest deadline has become earlier."""
        return f"{self.prefixes[shard]}{database_mark(self.database)}:wake"


KEY_TYPES: Mapping[str, tuple[str, ...]] = {
    "room": ("hash",),
    "shadow": ("hash",),
    "members": ("zset",),
    "rooms": ("zset",),
    "state": ("hash",),
    "nodes": ("set",),
    "node": ("set", "zset"),  # of rooms, and of the members of one of these
    "lost": ("set",),
    "fenced": ("string",),
    "removal": ("string",),
    "ban": ("string",),
    "lifted": ("string",),
    "bans": ("zset",),
    "pulse": ("hash",),
    "departures": ("stream",),
    "totals": ("hash",),
    "changes": ("stream",),
    "places": ("hash",),
    "exits": ("hash",),
    "people": ("set",),
    "person": ("hash",),
    "seen": ("zset",),
    "erased": ("string",),
    "registry": ("hash",),
    "lease": ("string",),
    "turn": ("string",),
    "report": ("string",),
    "rules": ("hash",),
    "revoked": ("zset",),
    "requests": ("hash",),
    "refused": ("stream",),
    "format": ("hash",),
}
"""The types of Redis that each kind of key may have; the kind follows the prefix."""


class ExpiredKeys:
    """Recognises this namespace's presence keys among all keys that expire in the database.

    Keys of other programs are rejected by their first bytes, before anything is decoded.
    """

    __slots__ = ("_head", "_keys")

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys
        self._head = f"{{{keys.namespace}:".encode()

    def parse(self, key: bytes) -> tuple[int, str] | None:
        """Return (shard, suffix) of a presence key of this namespace, or None for any other key."""
        if not key.startswith(self._head):
            return None
        try:
            text = key.partition(b"}:room:")[2].decode()
        except UnicodeDecodeError:
            return None
        entry = parse_suffix(text)
        # Another program's key may look alike: only a key that we would write in the same way is ours.
        if not all(entry) or self._keys.presence_key(entry).encode() != key:
            return None
        return self._keys.shard_of(entry.room_id), text
