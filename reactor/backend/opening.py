"""Opens the backend that an address means."""

from reactor.backend.cluster import open_cluster
from reactor.backend.connect import close_client, open_data, open_pubsub_client
from reactor.backend.interface import Backend
from reactor.backend.single import SentinelBackend, SingleBackend
from reactor.backend.target import Target
from reactor.errors import ReactorError


async def open_backend(target: Target, *, departures_kept: int) -> Backend:
    """Connect to a Redis of whatever shape.

    Raises RedisUnreachable, RedisMisconfigured, RedisTooOld or SettingError, each with its mend.
    """
    if target.kind == "cluster":
        return await open_cluster(target, departures_kept=departures_kept)
    data = await open_data(target)
    try:
        pubsub = await open_pubsub_client(target)
    except ReactorError:
        await close_client(data)
        raise
    kind = SentinelBackend if target.kind == "sentinel" else SingleBackend
    return kind(target, data, pubsub, departures_kept=departures_kept)
