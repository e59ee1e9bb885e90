"""Makes the backend for an address: a single server, a primary behind Sentinels, or a cluster."""

from collections.abc import Callable
from dataclasses import replace

import anyio

from reactor.backend.cluster import ClusterBackend
from reactor.backend.credentials import credentials_of
from reactor.backend.interface import Backend
from reactor.backend.scripts import ScriptSources
from reactor.backend.single import SentinelBackend, SingleBackend
from reactor.backend.target import Kind, Target, parse_url
from reactor.settings import Settings


def target_of(
    settings: Settings, url: str | None = None, *, load: Callable[[], Settings] | None = None
) -> Target:
    """Return the Redis that settings name, as all their settings about it say. Raises SettingError.

    url: its address, where the settings name none. load: reads the settings again, for a password that is
    replaced meanwhile.
    """
    target = parse_url(url or settings.redis_url or "")
    return replace(target, address_map=settings.redis_address_map, credentials=credentials_of(settings, load))


def make_backend(target: Target, sources: ScriptSources) -> Backend:
    """Return the backend for the Redis that `target` names. Nothing is connected yet.

    sources: the scripts to run there.
    """
    kinds: dict[Kind, Callable[[Target, ScriptSources], Backend]] = {
        "single": SingleBackend, "sentinel": SentinelBackend, "cluster": ClusterBackend,
    }  # fmt: skip
    return kinds[target.kind](target, sources)


async def open_backend(target: Target, sources: ScriptSources) -> Backend:
    """Return a backend that is connected, for programs that do not wait for Redis.

    Raises RedisUnreachable, RedisMisconfigured, RedisTooOld or SettingError, each with its fix.
    """
    backend = make_backend(target, sources)
    try:
        await backend.connect()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await backend.aclose()
        raise
    return backend
