"""Names of everything in Redis, and back again.

Every key of a shard starts with `{NAMESPACE:SHARD}`. The braces are a hash tag, so that a shard lives in
one cluster slot and every transition is one atomic script
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags). Behind the tag
stands what operators know: `room:ROOM:user:USER`. Ids are percent-encoded where they hold a separator, a
brace, a glob character or white space, so that any id round-trips and none can be taken for another.
"""

import re
from typing import NamedTuple
from urllib.parse import unquote
from zlib import crc32

SHARDS = 16
"""Fixed: all programs on one namespace have to agree on it. It bounds how far a cluster can spread."""

_RESERVED = re.compile(r"[%:{}*?\[\]\\\s]")


class Entry(NamedTuple):
    """A member's place: one user in one room."""

    room_id: str
    user_id: str


def escape(identifier: str) -> str:
    """An id as it stands inside a key."""
    return _RESERVED.sub(_percent, identifier)


def unescape(text: str) -> str:
    """The id that `escape` was given."""
    return unquote(text) if "%" in text else text


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def shard_of(room_id: str) -> int:
    """The shard that a room lives in: CRC-32 of its UTF-8 text (ISO 3309, as in zlib), modulo SHARDS."""
    return crc32(room_id.encode()) % SHARDS


def shard_prefix(namespace: str, shard: int) -> str:
    """What every key of the shard starts with."""
    return f"{{{namespace}:{shard}}}"


def fleet_prefix(namespace: str) -> str:
    """What the keys about nodes start with: registry, leases, the pacemaker's lock."""
    return f"{{{namespace}:fleet}}"


def suffix(entry: Entry) -> str:
    """`ROOM:user:USER`, the end of a member's two keys and its name inside the scripts."""
    return f"{escape(entry.room_id)}:user:{escape(entry.user_id)}"


def parse_suffix(text: str) -> Entry:
    """The member that a suffix names."""
    room, _, user = text.partition(":user:")
    return Entry(unescape(room), unescape(user))


def presence_key(namespace: str, entry: Entry) -> str:
    """The key whose life is the member's presence: it exists, so the user is in the room."""
    return f"{shard_prefix(namespace, shard_of(entry.room_id))}:room:{suffix(entry)}"


def shadow_key(namespace: str, entry: Entry) -> str:
    """The key that outlives the presence key and holds what a departure needs."""
    return f"{shard_prefix(namespace, shard_of(entry.room_id))}:shadow:room:{suffix(entry)}"


def diff_channel(namespace: str, room_id: str) -> str:
    """The channel that carries a room's diffs between nodes."""
    return f"{shard_prefix(namespace, shard_of(room_id))}:diff:{escape(room_id)}"


def wake_channel(namespace: str, shard: int) -> str:
    """The channel on which a shard says that its earliest deadline came nearer."""
    return f"{shard_prefix(namespace, shard)}:wake"


def rules_channel(namespace: str) -> str:
    """The channel that says which room's rule was set or taken back."""
    return f"{fleet_prefix(namespace)}:rules"


def departures_stream(namespace: str, shard: int) -> str:
    """The capped stream of a shard's departures."""
    return f"{shard_prefix(namespace, shard)}:departures"


class ExpiredKeys:
    """Tells our presence keys from everything else that expires in the same database.

    Foreign keys are dropped on their first bytes, before anything is decoded.
    """

    __slots__ = ("_head", "_namespace")

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._head = f"{{{namespace}:".encode()

    def parse(self, key: bytes) -> tuple[int, str] | None:
        """(shard, suffix) of a presence key of this namespace, or None for any other key."""
        if not key.startswith(self._head):
            return None
        try:
            text = key.partition(b"}:room:")[2].decode()
        except UnicodeDecodeError:
            return None
        entry = parse_suffix(text)
        # Ours is only what we would have written in the same way.
        if not all(entry) or presence_key(self._namespace, entry).encode() != key:
            return None
        return shard_of(entry.room_id), text
