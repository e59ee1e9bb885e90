"""Collects what each server shows: INFO, configuration, clock, and what can be tried without traces."""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter, time
from typing import Any

import anyio
import msgspec
from redis.crc import key_slot
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis.utils import str_if_bytes

from reactor.backend.clients import CONNECTION_ERRORS, client_at, close_client
from reactor.backend.division import division_of
from reactor.backend.target import Target
from reactor.doctor.deployment import ClockOffset, Deployment, InspectedServer, error_text
from reactor.doctor.expiry_probe import measure_expiry
from reactor.doctor.key_scan import scan_keys
from reactor.doctor.permissions import try_permissions
from reactor.errors import UNREADABLE
from reactor.presence.format import Format, default_shards
from reactor.presence.keys import Keyspace
from reactor.presence.tags import MAX_SHARDS

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
    "active-expire-effort",
)
"""What is read of the configuration (https://redis.io/docs/latest/operate/oss_and_stack/management/config/)."""

_CLOCK_SAMPLES = 5


async def inspect(deployment: Deployment) -> None:
    """Collect everything about every server that was reached."""
    for server in deployment.primaries:
        try:
            await _read_format(deployment, server)
        except CONNECTION_ERRORS as error:
            server.unreachable = f"disconnected: {error_text(error)}"
    async with anyio.create_task_group() as tasks:
        for server in deployment.reachable:
            tasks.start_soon(_inspect_reachable, deployment, server)


async def _inspect_reachable(deployment: Deployment, server: InspectedServer) -> None:
    try:
        await _inspect_server(deployment, server)
    except CONNECTION_ERRORS as error:
        server.unreachable = f"disconnected: {error_text(error)}"


async def _inspect_server(deployment: Deployment, server: InspectedServer) -> None:
    keys, target = _keyspace(deployment), deployment.target
    started = perf_counter()
    await server.client.ping()
    server.answered_in = perf_counter() - started
    await _read_info(server)
    await _read_config(server)
    await _read_clock(server)
    await _try_without_password(server, target)
    await try_permissions(server, keys, cluster=target.kind == "cluster")
    if server.role == "replica":
        return
    if target.kind == "single":
        server.division = await division_of(server.client, [*keys.prefixes, keys.fleet])
    prefix = next(_prefixes_on(deployment, server, keys), None)
    if prefix is not None:
        if "dragonfly_version" in server.info:  # Redis and Valkey accept them
            await _try_undeclared_key(server, prefix)
        await measure_expiry(server, prefix, target.db)
    await scan_keys(server, keys)
    await _read_notices(server, keys.namespace)


async def _read_info(server: InspectedServer) -> None:
    try:
        server.info = dict(await server.client.info())
    except ResponseError as error:
        server.refused["INFO"] = error_text(error)


async def _try_undeclared_key(server: InspectedServer, prefix: str) -> None:
    """Whether a script may use keys with a declared prefix, as all scripts of presence do."""
    try:
        digest = await server.client.script_load("return redis.call('EXISTS', KEYS[1] .. ':doctor')")
        await server.client.evalsha(str_if_bytes(digest), 1, prefix)
    except NoPermissionError:
        return  # reported as a missing permission
    except ResponseError as error:
        server.undeclared_keys = error_text(error)


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
    anonymous = client_at(
        replace(target, username=None, password=None, credentials=None, db=0), server.address
    )
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


class _Report(msgspec.Struct):
    notices: list[str] = []


async def _read_notices(server: InspectedServer, namespace: str) -> None:
    """Read what the nodes report; a server that has other slots, or refuses, shows nothing."""
    try:
        nodes: Any = await server.client.hkeys(f"{{{namespace}:fleet}}:registry")
        for node in map(str_if_bytes, nodes):
            text = await server.client.get(f"{{{namespace}:fleet}}:report:{node}")
            report = msgspec.json.decode(text, type=_Report) if text else _Report()
            if report.notices:
                server.notices[node] = report.notices
    except (ResponseError, *UNREADABLE):
        return


async def _read_format(deployment: Deployment, server: InspectedServer) -> None:
    """Read the format of the namespace; a server that has other slots shows none."""
    key = f"{Keyspace(deployment.settings.namespace).fleet}:format"
    if deployment.slots is not None and deployment.slots.owner_of(key_slot(key.encode())) != server.name:
        return
    try:
        found: Any = await server.client.hgetall(key)
    except ResponseError as error:
        server.refused["HGETALL"] = error_text(error)
        deployment.format_unreadable = error_text(error)
        return
    fields = {str_if_bytes(name): str_if_bytes(value) for name, value in found.items()}
    number, shards = fields.get("number", ""), fields.get("shards", "")
    if number.isdecimal() and shards.isdecimal() and 1 <= int(shards) <= MAX_SHARDS:
        deployment.format = Format(int(number), int(shards))
        names = (name.removeprefix("release:") for name in fields if name.startswith("release:"))
        deployment.releases = tuple(sorted(names))
    elif fields:
        deployment.format_unreadable = f"number {number!r}, shards {shards!r}"


def _keyspace(deployment: Deployment) -> Keyspace:
    """The keys of the namespace: as it is divided, or would be by its first node."""
    settings, target = deployment.settings, deployment.target
    expected = settings.shards or default_shards(target.kind)
    shards = deployment.format.shards if deployment.format else expected
    return Keyspace(settings.namespace, target.db, shards=shards)


def _prefixes_on(deployment: Deployment, server: InspectedServer, keys: Keyspace) -> Iterator[str]:
    """The key prefixes of the shards that a server has."""
    for prefix in keys.prefixes:
        if deployment.slots is None or deployment.slots.owner_of(key_slot(prefix.encode())) == server.name:
            yield prefix
