"""Collects what each server shows: INFO, configuration, clock, and what can be tried without traces."""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter, time
from typing import Any

import anyio
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError
from redis.utils import str_if_bytes

from reactor.backend.clients import CONNECTION_ERRORS, client_at, close_client
from reactor.backend.target import Target
from reactor.doctor.deployment import ClockOffset, Deployment, InspectedServer, error_text
from reactor.doctor.expiry_probe import measure_expiry
from reactor.doctor.key_scan import scan_keys
from reactor.doctor.permissions import try_permissions
from reactor.presence.keys import SHARDS, shard_prefix

DIRECTIVES = (
    "notify-keyspace-events",
    "maxmemory",
    "maxmemory-policy",
    "client-output-buffer-limit",
    "timeout",
    "tcp-keepalive",
    "save",
    "appendonly",
    "appendfsync",
    "stop-writes-on-bgsave-error",
    "min-replicas-to-write",
    "min-replicas-max-lag",
    "cluster-node-timeout",
    "bind",
    "protected-mode",
)
"""What is read of the configuration (https://redis.io/docs/latest/operate/oss_and_stack/management/config/)."""

_CLOCK_SAMPLES = 5


async def inspect(deployment: Deployment) -> None:
    """Collect everything about every server that was reached."""
    async with anyio.create_task_group() as tasks:
        for server in deployment.reachable:
            tasks.start_soon(_inspect_reachable, deployment, server)


async def _inspect_reachable(deployment: Deployment, server: InspectedServer) -> None:
    try:
        await _inspect_server(deployment, server)
    except CONNECTION_ERRORS as error:
        server.unreachable = f"disconnected: {error_text(error)}"


async def _inspect_server(deployment: Deployment, server: InspectedServer) -> None:
    namespace, target = deployment.settings.namespace, deployment.target
    started = perf_counter()
    await server.client.ping()
    server.answered_in = perf_counter() - started
    await _read_info(server)
    await _read_config(server)
    await _read_clock(server)
    await _try_without_password(server, target)
    await try_permissions(server, namespace, target.db, cluster=target.kind == "cluster")
    if server.role == "replica":
        return
    prefix = next(_prefixes_on(deployment, server), None)
    if prefix is not None:
        await measure_expiry(server, prefix, target.db)
    await scan_keys(server, namespace)


async def _read_info(server: InspectedServer) -> None:
    try:
        server.info = dict(await server.client.info())
    except ResponseError as error:
        server.refused["INFO"] = error_text(error)


async def _read_config(server: InspectedServer) -> None:
    try:
        found: Any = await server.client.config_get(*DIRECTIVES)
    except ResponseError as error:
        server.refused["CONFIG GET"] = error_text(error)
        return
    server.config = {str_if_bytes(name): str_if_bytes(value) for name, value in found.items()}


async def _read_clock(server: InspectedServer) -> None:
    """Compare clocks; of several samples the one with the shortest round trip is the most precise."""
    best: ClockOffset | None = None
    for _ in range(_CLOCK_SAMPLES):
        started, before = perf_counter(), time()
        try:
            seconds, microseconds = await server.client.time()
        except ResponseError as error:
            server.refused["TIME"] = error_text(error)
            return
        margin = (perf_counter() - started) / 2
        if best is None or margin < best.margin:
            best = ClockOffset(int(seconds) + int(microseconds) / 1e6 - (before + margin), margin)
    server.clock = best


async def _try_without_password(server: InspectedServer, target: Target) -> None:
    anonymous = client_at(replace(target, username=None, password=None, db=0), server.address)
    try:
        await anonymous.ping()
    except RedisError:
        server.open = False
    except CONNECTION_ERRORS:
        pass
    else:
        server.open = True
    finally:
        with anyio.CancelScope(shield=True):
            await close_client(anonymous)


def _prefixes_on(deployment: Deployment, server: InspectedServer) -> Iterator[str]:
    """The key prefixes of the shards that a server has."""
    for shard in range(SHARDS):
        prefix = shard_prefix(deployment.settings.namespace, shard)
        if deployment.slots is None or deployment.slots.owner_of(key_slot(prefix.encode())) == server.name:
            yield prefix
