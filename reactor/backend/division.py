"""Finds out whether one address stands for several servers over which a proxy divides the keys.

Envoy, twemproxy and services that hide a cluster behind one endpoint pass each command on by its key. A
script that uses keys of two shards then fails, or finds nothing. INFO shows one server all the same, so it is
tried: a key is renamed from shard to shard, which succeeds to the end only where all are on one server.
"""

from collections.abc import Sequence
from itertools import pairwise
from secrets import token_hex
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, ClusterCrossSlotError, ResponseError

_ATTEMPTS = 3
"""On one server the key may be evicted or flushed meanwhile, but not each time."""
_KEY_TTL_MS = 10_000
DIVIDED = "divides its keys over several servers"
DIVISION_FIX = "use its cluster interface, as redis+cluster://HOST:PORT, or a database that is not divided"


async def division_of(redis: Redis, prefixes: Sequence[str]) -> str:
    """Return what shows that keys with these prefixes are on several servers; empty where nothing does.

    Nothing follows from a command that is refused for another reason, as where a right is missing. Leaves
    nothing behind. Raises an error of redis-py when the connection breaks.
    """
    found = ""
    for _ in range(_ATTEMPTS):
        if not (found := await _rename_through(redis, prefixes)):
            break
    return found


async def _rename_through(redis: Redis, prefixes: Sequence[str]) -> str:
    suffix = f":doctor:{token_hex(8)}"
    keys = [prefix + suffix for prefix in prefixes]
    pipeline = redis.pipeline(transaction=False)
    pipeline.set(keys[0], b"", px=_KEY_TTL_MS)
    for key, following in pairwise(keys):
        pipeline.rename(key, following)
    pipeline.delete(keys[-1])
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    place, refusal = next(
        ((place, reply) for place, reply in enumerate(replies) if isinstance(reply, ResponseError)), (0, None)
    )
    if refusal is None:
        return ""
    removal = redis.pipeline(transaction=False)
    for key in keys:  # one by one, since they may be on several servers
        removal.delete(key)
    await removal.execute(raise_on_error=False)
    if isinstance(refusal, AskError):
        return f"a key is redirected to another server ({refusal})"
    if isinstance(refusal, ClusterCrossSlotError) or "CROSSSLOT" in str(refusal):
        return f"a command on keys of two shards is refused ({refusal})"
    if place and "no such key" in str(refusal):
        return "a key that was renamed from one shard to another is not found there"
    return ""
