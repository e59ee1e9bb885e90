"""Opens the backend for an address: a single server, a primary behind Sentinels, or a cluster."""

from reactor.backend.clients import close_client, open_command_client, open_pubsub_client
from reactor.backend.cluster import open_cluster
from reactor.backend.interface import Backend
from reactor.backend.single import SentinelBackend, SingleBackend
from reactor.backend.target import Target
from reactor.errors import ReactorError


async def open_backend(target: Target, *, departures_kept: int) -> Backend:
    """Connect to the Redis that `target` names.

    departures_kept: entries that each shard's departures stream keeps, approximately.
    Raises RedisUnreachable, RedisMisconfigured, RedisTooOld or SettingError, each with its fix.
    """
    if target.kind == "cluster":
        return await open_cluster(target, departures_kept=departures_kept)
    commands = await open_command_client(target)
    try:
        pubsub = await open_pubsub_client(target)
    except ReactorError:
        await close_client(commands)
        raise
    backend = SentinelBackend if target.kind == "sentinel" else SingleBackend
    return backend(target, commands, pubsub, departures_kept=departures_kept)
