"""Scans for keys in the namespace that this version would not have written."""

import re
from time import perf_counter
from typing import Any

from redis.exceptions import ResponseError

from reactor.backend.scripts import load_scripts
from reactor.doctor.deployment import InspectedServer, KeySample, error_text
from reactor.presence.keys import SHARDS, ExpiredKeys
from reactor.presence.lua_sources import lua_sources

MAX_KEYS = 200_000
MAX_SECONDS = 5.0
"""Limits of the scan on one server: a sample is enough, and the server should not be kept busy."""

UNSHARDED = "without a shard, as older versions named them"
UNKNOWN_SHARD = "of a shard that this version does not have"
UNKNOWN_KIND = "of a kind that this version does not know"
WRONG_SHARD = "of a room that belongs to another shard, or in another format"

_KINDS_IN_SCRIPTS = re.compile(r"(?:SHARD|KEYS\[1\]) \.\. ':([a-z_]+)")
_UNSHARDED_KEY = re.compile(rb"(?:\w+:)?room:.+:user:.+", re.DOTALL)


class KeyFormat:
    """Recognizes the keys of one namespace in the format of this version."""

    def __init__(self, namespace: str) -> None:
        scripts = load_scripts(lua_sources(departures_kept=0)).values()
        self.kinds = {kind for script in scripts for kind in _KINDS_IN_SCRIPTS.findall(script.source)}
        self.kinds.add("doctor")
        self._hash_tag = f"{{{namespace}:".encode()
        self._unsharded = f"{namespace}:".encode()
        self._presence = ExpiredKeys(namespace)

    def objection(self, key: bytes) -> str:
        """What is wrong with a key; empty for keys of this version and of other programs."""
        if key.startswith(self._hash_tag):
            return self._objection_in_namespace(key)
        if key.startswith(self._unsharded) or _UNSHARDED_KEY.fullmatch(key):
            return UNSHARDED
        return ""

    def _objection_in_namespace(self, key: bytes) -> str:
        shard, _, rest = key.removeprefix(self._hash_tag).partition(b"}:")
        if shard != b"fleet" and not (shard.isdigit() and int(shard) < SHARDS):
            return UNKNOWN_SHARD
        kind = rest.partition(b":")[0].decode("ascii", "replace")
        if kind not in self.kinds:
            return UNKNOWN_KIND
        if kind == "room" and self._presence.parse(key) is None:
            return WRONG_SHARD
        return ""


async def scan_keys(server: InspectedServer, namespace: str) -> None:
    """Note the keys of a server that are not in this version's format, by what is wrong with them."""
    key_format = KeyFormat(namespace)
    unknown: dict[str, tuple[int, str]] = {}
    cursor, scanned = 0, 0
    deadline = perf_counter() + MAX_SECONDS
    try:
        while True:
            reply: Any = await server.client.scan(cursor, count=1000)
            cursor, keys = reply
            scanned += len(keys)
            for key in keys:
                if objection := key_format.objection(key):
                    count, example = unknown.get(objection, (0, key.decode(errors="backslashreplace")))
                    unknown[objection] = (count + 1, example)
            if not cursor or scanned >= MAX_KEYS or perf_counter() > deadline:
                break
    except ResponseError as error:
        server.keys = KeySample(refused=error_text(error))
        return
    server.keys = KeySample(scanned, not cursor, unknown)
