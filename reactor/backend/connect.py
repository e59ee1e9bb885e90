"""Opens the backend for an address: a single server, a primary behind Sentinels, or a cluster."""

from reactor.backend.clients import close_client, open_command_client, open_pubsub_client
from reactor.backend.cluster import open_cluster
from reactor.backend.interface import Backend
from reactor.backend.scripts import ScriptSources
from reactor.backend.single import SentinelBackend, SingleBackend
from reactor.backend.target import Target
from reactor.errors import ReactorError


async def open_backend(target: Target, sources: ScriptSources) -> Backend:
    """Connect to the Redis that `target` names.

    sources: the scripts to run there.
    Raises RedisUnreachable, RedisMisconfigured, RedisTooOld or SettingError, each with its fix.
    """
    if target.kind == "cluster":
        return await open_cluster(target, sources)
    commands = await open_command_client(target)
    try:
        pubsub = await open_pubsub_client(target)
    except ReactorError:
        await close_client(commands)
        raise
    backend = SentinelBackend if target.kind == "sentinel" else SingleBackend
    return backend(target, commands, pubsub, sources)
