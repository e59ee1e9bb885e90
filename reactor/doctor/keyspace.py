"""Looks through the keys for those that this version would not have written: an older one's, a stranger's."""

import re
from time import perf_counter
from typing import Any

from redis.exceptions import ResponseError

from reactor.backend.scripts import load_scripts
from reactor.doctor.deployment import Keys, Server
from reactor.doctor.look import said
from reactor.presence.keys import SHARDS, ExpiredKeys
from reactor.presence.lua_sources import lua_sources

MOST_KEYS = 200_000
MOST_SECONDS = 5.0
"""How much is looked through of one server at most: a sample tells, and it shall not be kept busy."""

_HEADS = re.compile(r"(?:SHARD|KEYS\[1\]) \.\. ':([a-z_]+)")
_PLAIN = re.compile(rb"(?:\w+:)?room:.+:user:.+", re.DOTALL)


class Known:
    """Tells keys of one namespace, as this version writes them, from all others."""

    def __init__(self, namespace: str) -> None:
        scripts = load_scripts(lua_sources(departures_kept=0)).values()
        self.heads = {head for script in scripts for head in _HEADS.findall(script.source)} | {"doctor"}
        self._tag = f"{{{namespace}:".encode()
        self._plain = f"{namespace}:".encode()
        self._presence = ExpiredKeys(namespace)

    def strange(self, key: bytes) -> str:
        """Say in a few words what is strange about a key; nothing for ours, and for other programs' keys."""
        if key.startswith(self._tag):
            return self._strange_inside(key)
        if key.startswith(self._plain) or _PLAIN.fullmatch(key):
            return "without a shard, as an older program names them"
        return ""

    def _strange_inside(self, key: bytes) -> str:
        shard, _, rest = key.removeprefix(self._tag).partition(b"}:")
        if shard != b"fleet" and not (shard.isdigit() and int(shard) < SHARDS):
            return "of a shard that this version does not have"
        head = rest.partition(b":")[0].decode("ascii", "replace")
        if head not in self.heads:
            return "of a kind that this version does not know"
        if head == "room" and self._presence.parse(key) is None:
            return "of a room that belongs to another shard, or is written in another way"
        return ""


async def look_through(server: Server, known: Known) -> None:
    """Note the strange keys of a server, by what is strange about them."""
    strange: dict[str, tuple[int, str]] = {}
    cursor, seen = 0, 0
    until = perf_counter() + MOST_SECONDS
    try:
        while True:
            found: Any = await server.client.scan(cursor, count=1000)
            cursor, keys = found
            seen += len(keys)
            for key in keys:
                if why := known.strange(key):
                    count, example = strange.get(why, (0, key.decode(errors="backslashreplace")))
                    strange[why] = (count + 1, example)
            if not cursor or seen >= MOST_KEYS or perf_counter() > until:
                break
    except ResponseError as error:
        server.keys = Keys(refused=said(error))
        return
    server.keys = Keys(seen, not cursor, strange)
