"""Scans for keys in the namespace that this version would not have written."""

import re
from time import perf_counter
from typing import Any

from redis.exceptions import ResponseError

from reactor.doctor.deployment import InspectedServer, KeySample, error_text
from reactor.presence.keys import KEY_TYPES, ExpiredKeys, Keyspace

MAX_KEYS = 200_000
MAX_SECONDS = 5.0
"""Limits of the scan on one server: a sample is enough, and the server should not be kept busy."""

UNSHARDED = "without a shard, as older versions named them"
UNKNOWN_SHARD = "of a shard that the namespace does not have"
NUMBERED = "of a development version before format 1"
UNKNOWN_KIND = "of a kind that this version does not know"
WRONG_SHARD = "of a room that belongs to another shard, or in another format"

DAMAGED = "of a wrong type"
SET_ASIDE = "of a wrong type once, and renamed aside"

_UNSHARDED_KEY = re.compile(rb"(?:\w+:)?room:.+:user:.+", re.DOTALL)


class KeyFormat:
    """Recognizes the keys of one namespace in the format of this version."""

    def __init__(self, keys: Keyspace) -> None:
        self.hash_tag = f"{{{keys.namespace}:".encode()
        self._unsharded = f"{keys.namespace}:".encode()
        self._prefixes = {prefix.encode() for prefix in (*keys.prefixes, keys.fleet)}
        self._presence = ExpiredKeys(keys)

    def objection(self, key: bytes) -> str:
        """What is wrong with a key; empty for keys of this version and of other programs."""
        if key.startswith(self.hash_tag):
            return self._objection_in_namespace(key)
        if key.startswith(self._unsharded) or _UNSHARDED_KEY.fullmatch(key):
            return UNSHARDED
        return ""

    def _objection_in_namespace(self, key: bytes) -> str:
        prefix, _, rest = key.partition(b"}:")
        if prefix + b"}" not in self._prefixes:
            return NUMBERED if prefix.removeprefix(self.hash_tag).isdigit() else UNKNOWN_SHARD
        kind = rest.partition(b":")[0].decode("ascii", "replace")
        if kind == "damaged":
            return SET_ASIDE
        if kind not in KEY_TYPES and kind != "doctor":
            return UNKNOWN_KIND
        if kind == "room" and self._presence.parse(key) is None:
            return WRONG_SHARD
        return ""

    def type_objection(self, key: bytes, redis_type: bytes) -> str:
        """What is wrong with the type of a key that has no other objection; empty if nothing is."""
        if not key.startswith(self.hash_tag):
            return ""
        kind = key.partition(b"}:")[2].partition(b":")[0].decode()
        expected = KEY_TYPES.get(kind)
        # The key may have expired since the scan.
        return DAMAGED if expected and redis_type.decode() not in (*expected, "none") else ""


async def scan_keys(server: InspectedServer, keys: Keyspace) -> None:
    """Note the keys of a server that are not in this version's format, by what is wrong with them."""
    key_format = KeyFormat(keys)
    unknown: dict[str, tuple[int, str]] = {}
    cursor, scanned = 0, 0
    deadline = perf_counter() + MAX_SECONDS
    try:
        while True:
            reply: Any = await server.client.scan(cursor, count=1000)
            cursor, found = reply
            scanned += len(found)
            types = await _types(server, [key for key in found if key.startswith(key_format.hash_tag)])
            for key in found:
                objection = key_format.objection(key) or key_format.type_objection(
                    key, types.get(key, b"none")
                )
                if objection:
                    count, example = unknown.get(objection, (0, key.decode(errors="backslashreplace")))
                    unknown[objection] = (count + 1, example)
            if not cursor or scanned >= MAX_KEYS or perf_counter() > deadline:
                break
    except ResponseError as error:
        server.keys = KeySample(refused=error_text(error))
        return
    server.keys = KeySample(scanned, not cursor, unknown)


async def _types(server: InspectedServer, keys: list[bytes]) -> dict[bytes, bytes]:
    """The type of each key, or none at all where this user may not ask."""
    pipeline = server.client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return {key: reply for key, reply in zip(keys, replies, strict=True) if isinstance(reply, bytes)}
