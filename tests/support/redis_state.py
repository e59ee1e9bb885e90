"""Reads what the package has stored in Redis, with plain commands and the documented key names.

It imports nothing from the package, because the tests check what the package stores against it.
"""

import re
from typing import Any
from urllib.parse import unquote
from zlib import crc32

import anyio

from tests.support.servers import Server

TAGS = (
    "0lf", "1mf", "2nf", "3gbg", "4xb", "5yb", "6zb", "7kf", "8df", "9fnq", "10bw", "11y", "12gvk", "13dqy",
    "14fw", "15gw",
)  # fmt: skip
"""Of the namespace `reactor` with 16 shards."""

_KEY = re.compile(r"^\{reactor:(\w+)\}:room:([^:]+):user:([^:]+)$")
_PERMANENT = re.compile(r"^\{reactor:\w+\}:(departures|totals|format)$")


def shard(room_id: str) -> int:
    return crc32(room_id.encode()) % 16


def prefix(room_id: str) -> str:
    """What every key of the room's shard starts with."""
    return f"{{reactor:{TAGS[shard(room_id)]}}}"


def encoded(identifier: str) -> str:
    """An id as in key names: separators, braces, glob characters and white space as %XX of their UTF-8."""
    return re.sub(
        r"[%:{}*?\[\]\\\s]", lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), identifier
    )


def presence_key(room_id: str, user_id: str) -> str:
    return f"{prefix(room_id)}:room:{encoded(room_id)}:user:{encoded(user_id)}"


def shadow_key(room_id: str, user_id: str) -> str:
    return f"{prefix(room_id)}:shadow:room:{encoded(room_id)}:user:{encoded(user_id)}"


def rows(server: Server, room_id: str) -> dict[str, float]:
    """The room's index: users (encoded) and the deadlines noted for them."""
    found: Any = server.control.zrange(
        f"{prefix(room_id)}:members:{encoded(room_id)}", 0, -1, withscores=True
    )
    return dict(found)


def members(server: Server, room_id: str) -> dict[str, dict[str, str]]:
    """The presence keys of the room that exist: user, fields."""
    return everywhere(server).get(room_id, {})


def everywhere(server: Server) -> dict[str, dict[str, dict[str, str]]]:
    """All presence keys that exist: room, user, fields."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for key in server.control.scan_iter(match="{reactor:*}:room:*", count=1000):
        named = _KEY.match(key)
        if named is None or named[1] != TAGS[shard(unquote(named[2]))]:
            continue  # a key of another application with a similar name
        room_id, user_id = unquote(named[2]), unquote(named[3])
        fields: Any = server.control.hgetall(key)
        if fields:  # the key may expire between the two commands
            found.setdefault(room_id, {})[user_id] = fields
    return found


def fences(server: Server) -> list[str]:
    """The names of the nodes and connections that are fenced."""
    return [key.partition(":fenced:")[2] for key in server.control.scan_iter(match="{reactor:*}:fenced:*")]


def stream(server: Server, room_id: str) -> list[dict[str, str]]:
    """The departures of a room, as its stream holds them."""
    entries: Any = server.control.xrange(f"{prefix(room_id)}:departures")
    return [fields for _, fields in entries if fields["room"] == room_id]


def now(server: Server) -> int:
    """Redis's time, in milliseconds."""
    seconds, microseconds = server.control.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


def leftovers(server: Server) -> list[str]:
    """The keys without a TTL, except the departure streams and totals."""
    return [
        key
        for key in server.control.scan_iter(count=1000)
        if server.control.ttl(key) == -1 and not _PERMANENT.match(key)
    ]


async def wait_for_expiry(server: Server, joined_at: int, ttl: float) -> None:
    """Wait until the TTL (seconds) of a member that sent no heartbeat has passed, without reading its key."""
    await anyio.sleep((joined_at - now(server)) / 1000 + ttl + 0.02)
