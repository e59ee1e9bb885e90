"""Names of keys and channels in Redis: composing and parsing them. PURE.

Every key of a shard starts with `{NAMESPACE:SHARD}`. The braces are a hash tag, so that a shard is in one
cluster slot and every change is one atomic script
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags). The format
`room:ROOM:user:USER` follows the tag. In ids, separators, braces, glob characters and white space are
percent-encoded, so that any id round-trips and no two ids give the same key.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote
from zlib import crc32

SHARDS = 16
"""Fixed, since all programs on one namespace have to agree. A cluster cannot use more primaries than this."""

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
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def shard_of(room_id: str) -> int:
    """Return the shard of a room: CRC-32 of its UTF-8 text (ISO 3309, as in zlib), modulo SHARDS."""
    return crc32(room_id.encode()) % SHARDS


def shard_prefix(namespace: str, shard: int) -> str:
    """Return what every key of the shard starts with."""
    return f"{{{namespace}:{shard}}}"


def fleet_prefix(namespace: str) -> str:
    """Return what the keys about nodes start with: registry, leases, leaderships, rules."""
    return f"{{{namespace}:fleet}}"


def suffix(entry: Entry) -> str:
    """Return `ROOM:user:USER`, the end of a member's two keys, by which scripts name it."""
    return f"{escape(entry.room_id)}:user:{escape(entry.user_id)}"


def parse_suffix(text: str) -> Entry:
    """Return the member that a suffix names."""
    room, _, user = text.partition(":user:")
    return Entry(unescape(room), unescape(user))


def presence_key(namespace: str, entry: Entry) -> str:
    """Return the key whose existence is the member's presence."""
    return f"{shard_prefix(namespace, shard_of(entry.room_id))}:room:{suffix(entry)}"


def shadow_key(namespace: str, entry: Entry) -> str:
    """Return the key that outlives the presence key and holds what a departure needs."""
    return f"{shard_prefix(namespace, shard_of(entry.room_id))}:shadow:room:{suffix(entry)}"


def diff_channel(namespace: str, room_id: str) -> str:
    """Return the channel of a room's diffs and messages."""
    return f"{shard_prefix(namespace, shard_of(room_id))}:diff:{escape(room_id)}"


def wake_channel(namespace: str, shard: int) -> str:
    """Return the channel on which a shard publishes that its earliest deadline has become earlier."""
    return f"{shard_prefix(namespace, shard)}:wake"


def rules_channel(namespace: str) -> str:
    """Return the channel on which the rooms are published whose rule was set or removed."""
    return f"{fleet_prefix(namespace)}:rules"


def departures_stream(namespace: str, shard: int) -> str:
    """Return the capped stream of a shard's departures."""
    return f"{shard_prefix(namespace, shard)}:departures"


class ExpiredKeys:
    """Recognises this namespace's presence keys among all keys that expire in the database.

    Keys of other programs are rejected by their first bytes, before anything is decoded.
    """

    __slots__ = ("_head", "_namespace")

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._head = f"{{{namespace}:".encode()

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
        if not all(entry) or presence_key(self._namespace, entry).encode() != key:
            return None
        return shard_of(entry.room_id), text
