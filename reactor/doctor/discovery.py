"""Finds every server of a Redis, whatever its shape, and which of them can be reached."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from reactor.backend.clients import (
    CONNECTION_ERRORS,
    check_server,
    client_at,
    close_client,
    open_sentinels,
)
from reactor.backend.connect import target_of
from reactor.backend.diagnose import explain
from reactor.backend.target import Target
from reactor.backend.topology import SLOTS
from reactor.doctor.deployment import (
    Address,
    Deployment,
    InspectedSentinel,
    InspectedServer,
    SlotMap,
    error_text,
)
from reactor.errors import ReactorError, RedisUnreachable
from reactor.settings import Settings


@asynccontextmanager
async def discovered(settings: Settings) -> AsyncIterator[Deployment]:
    """Connect, as the server would, to every server of the Redis of the settings.

    Raises ReactorError with its fix where none of them can be used.
    """
    deployment = Deployment(target_of(settings), settings)
    try:
        match deployment.target.kind:
            case "single":
                await _discover_single(deployment)
            case "sentinel":
                await _discover_by_sentinels(deployment)
            case "cluster":
                await _discover_cluster(deployment)
        yield deployment
    finally:
        with anyio.CancelScope(shield=True):
            for _, client in deployment.clients:
                await close_client(client)


async def _discover_single(deployment: Deployment) -> None:
    target = deployment.target
    address = target.hosts[0] if target.hosts else ("", 0)
    name = _name(address) if target.hosts else str(target.path)
    server = InspectedServer(name, address, client_at(target, address))
    deployment.servers.append(server)
    await check_server(target, server.client)
    await _add_replicas(deployment, await _replicas_of(server))


async def _discover_by_sentinels(deployment: Deployment) -> None:
    target = deployment.target
    sentinels = open_sentinels(target)
    deployment.sentinels = [
        InspectedSentinel(_name(address), client)
        for address, client in zip(target.hosts, sentinels.sentinels, strict=True)
    ]
    await _concurrently(deployment.sentinels, lambda sentinel: _ask_sentinel(target, sentinel))
    try:
        primary = await sentinels.discover_master(target.master_name or "")
    except CONNECTION_ERRORS as error:
        raise await explain(error, target) from error
    server = _server(target, primary)
    deployment.servers.append(server)
    await check_server(_single(target, primary), server.client)
    await _add_replicas(deployment, await _replicas_by_sentinels(deployment))


async def _ask_sentinel(target: Target, sentinel: InspectedSentinel) -> None:
    try:
        master: Any = await sentinel.client.sentinel_master(target.master_name or "")
        sentinel.master = dict(master)
    except ResponseError as error:
        sentinel.unreachable = f"answered: {error_text(error)}"
    except CONNECTION_ERRORS as error:
        sentinel.unreachable = _reason(await explain(error, _single(target, _address(sentinel.name))))


async def _replicas_by_sentinels(deployment: Deployment) -> list[Address]:
    """The replicas that the first Sentinel that answers knows."""
    for sentinel in deployment.sentinels:
        if sentinel.unreachable:
            continue
        try:
            found: Any = await sentinel.client.sentinel_slaves(deployment.target.master_name or "")
        except CONNECTION_ERRORS as error:
            sentinel.unreachable = f"disconnected: {error_text(error)}"
        else:
            return [(str(replica["ip"]), int(replica["port"])) for replica in found]
    return []


async def _discover_cluster(deployment: Deployment) -> None:
    target = deployment.target
    seeds = [_server(target, address) for address in target.hosts]
    failed: list[ReactorError] = []

    async def check(seed: InspectedServer) -> None:
        try:
            await check_server(replace(_single(target, seed.address), kind="cluster"), seed.client)
        except ReactorError as error:
            deployment.unreachable_hosts[seed.name] = seed.unreachable = _reason(error)
            failed.append(error)

    await _concurrently(seeds, check)
    answering = [seed for seed in seeds if not seed.unreachable]
    deployment.servers = seeds  # `discovered` closes their clients
    if not answering:
        raise failed[0]
    nodes = await _read_slots(deployment, answering[0])
    for seed in seeds:
        if seed.address not in nodes:
            await close_client(seed.client)
    known = {seed.address: seed for seed in seeds}
    deployment.servers = [known.get(address) or _server(target, address) for address in sorted(nodes)]
    for server in deployment.servers:
        server.role = nodes[server.address]
    await _concurrently(
        [server for server in deployment.servers if server not in seeds],
        lambda server: _reach(target, server),
    )
    # CLUSTER SLOTS leaves out a replica that has not received any data yet.
    for primary in deployment.primaries:
        known_addresses = {server.address for server in deployment.servers}
        missing = [address for address in await _replicas_of(primary) if address not in known_addresses]
        await _add_replicas(deployment, missing)


async def _read_slots(deployment: Deployment, seed: InspectedServer) -> "dict[Address, Any]":
    """The address and role of each server of the cluster; notes which slots no primary serves."""
    try:
        info: Any = await seed.client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        ranges: Any = await seed.client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
    except CONNECTION_ERRORS as error:
        raise await explain(error, _single(deployment.target, seed.address)) from error
    nodes: dict[Address, Any] = {}
    owners, missing, next_slot = [], [], 0
    for first, last, *servers in sorted(ranges, key=lambda slots: int(slots[0])):
        if first > next_slot:
            missing.append((next_slot, first - 1))
        next_slot = last + 1
        for position, server in enumerate(servers):
            host = str_if_bytes(server[0]) or seed.address[0]
            nodes[deployment.target.reachable((host, int(server[1])))] = "replica" if position else "primary"
            if not position:
                owners.append((int(first), int(last), _name((host, int(server[1])))))
    nodes |= {address: "replica" for address in await _nodes_known_to(seed) if address not in nodes}
    if next_slot < SLOTS:
        missing.append((next_slot, SLOTS - 1))
    deployment.slots = SlotMap(str(info["cluster_state"]), tuple(missing), tuple(owners))
    if not nodes:
        raise RedisUnreachable(
            f"{deployment.target}: no server of the cluster serves a slot; see `redis-cli --cluster help`."
        )
    return nodes


async def _nodes_known_to(seed: InspectedServer) -> list[Address]:
    """All servers that a server knows, also dead ones; none where the user may not ask."""
    try:
        found: Any = await seed.client.execute_command("CLUSTER NODES")  # type: ignore[no-untyped-call]
    except CONNECTION_ERRORS:
        return []
    known = {name: about for name, about in found.items() if not {"noaddr", "handshake"} & _flags(about)}
    return [_address(name) for name in known if _address(name)[0] and _address(name)[1]]


def _flags(about: Any) -> set[str]:
    return set(str(about["flags"]).split(","))


async def _replicas_of(server: InspectedServer) -> list[Address]:
    try:
        info: Any = await server.client.info("replication")
    except CONNECTION_ERRORS:
        return []
    found = [value for key, value in info.items() if key.startswith("slave") and isinstance(value, dict)]
    return [(str(replica["ip"]), int(replica["port"])) for replica in found]


async def _add_replicas(deployment: Deployment, addresses: list[Address]) -> None:
    replicas = [_server(deployment.target, address) for address in sorted(addresses)]
    deployment.servers += replicas
    for replica in replicas:
        replica.role = "replica"
    await _concurrently(replicas, lambda replica: _reach(deployment.target, replica))


async def _reach(target: Target, server: InspectedServer) -> None:
    try:
        await server.client.ping()
    except CONNECTION_ERRORS as error:
        server.unreachable = _reason(await explain(error, _single(target, server.address)))


async def _concurrently(items: list[Any], work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async with anyio.create_task_group() as tasks:
        for item in items:
            tasks.start_soon(work, item)


def _server(target: Target, address: Address) -> InspectedServer:
    client: Redis = client_at(_single(target, address), address)
    return InspectedServer(_name(address), address, client)


def _single(target: Target, address: Address) -> Target:
    """The target reduced to one of its servers."""
    scheme = "rediss" if target.tls else "redis"
    return replace(
        target, kind="single", url=f"{scheme}://{_name(address)}", hosts=(address,), master_name=None
    )


def _reason(error: ReactorError) -> str:
    """The error without the address, which the report shows in its own column."""
    return str(error).partition(": ")[2] or str(error)


def _name(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(name: str) -> Address:
    host, _, port = name.rpartition(":")
    return host.strip("[]"), int(port)
