"""Finds every server of a Redis, whatever its shape, and tells which of them answer."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from reactor.backend.clients import CONNECTION_ERRORS, check_server, client_at, close_client, open_sentinels
from reactor.backend.diagnose import explain
from reactor.backend.target import Target, parse_url
from reactor.backend.topology import SLOTS
from reactor.doctor.deployment import Address, Patient, Sentinel, Server, Slots
from reactor.errors import ReactorError, RedisUnreachable
from reactor.settings import Settings


@asynccontextmanager
async def admitted(settings: Settings) -> AsyncIterator[Patient]:
    """Connect as the server would, to all servers that belong to the Redis of the settings.

    Raises ReactorError where none can be worked with; the line says why, and what mends it.
    """
    patient = Patient(parse_url(settings.redis_url or ""), settings)
    try:
        match patient.target.kind:
            case "single":
                await _admit_single(patient)
            case "sentinel":
                await _admit_watched(patient)
            case "cluster":
                await _admit_cluster(patient)
        yield patient
    finally:
        with anyio.CancelScope(shield=True):
            for _, client in patient.clients:
                await close_client(client)


async def _admit_single(patient: Patient) -> None:
    target = patient.target
    address = target.hosts[0] if target.hosts else ("", 0)
    name = _name(address) if target.hosts else str(target.path)
    server = Server(name, address, client_at(target, address))
    patient.servers.append(server)
    await check_server(target, server.client)
    await _admit_replicas(patient, await _replicas_of(server))


async def _admit_watched(patient: Patient) -> None:
    target = patient.target
    asked = open_sentinels(target)
    patient.sentinels = [
        Sentinel(_name(address), client)
        for address, client in zip(target.hosts, asked.sentinels, strict=True)
    ]
    await _all_at_once(patient.sentinels, lambda sentinel: _ask_sentinel(target, sentinel))
    try:
        primary = await asked.discover_master(target.master_name or "")
    except CONNECTION_ERRORS as error:
        raise await explain(error, target) from error
    server = _server(target, primary)
    patient.servers.append(server)
    await check_server(_one(target, primary), server.client)
    await _admit_replicas(patient, await _replicas_named(patient))


async def _ask_sentinel(target: Target, sentinel: Sentinel) -> None:
    try:
        master: Any = await sentinel.client.sentinel_master(target.master_name or "")
        sentinel.master = dict(master)
    except ResponseError as error:
        sentinel.unreachable = f"answers: {error}"
    except CONNECTION_ERRORS as error:
        sentinel.unreachable = _reason(await explain(error, _one(target, _address(sentinel.name))))


async def _replicas_named(patient: Patient) -> list[Address]:
    """The replicas as the first Sentinel that answers names them."""
    for sentinel in patient.sentinels:
        if sentinel.unreachable:
            continue
        try:
            found: Any = await sentinel.client.sentinel_slaves(patient.target.master_name or "")
        except CONNECTION_ERRORS as error:
            sentinel.unreachable = f"went away: {error}"
        else:
            return [(str(one["ip"]), int(one["port"])) for one in found]
    return []


async def _admit_cluster(patient: Patient) -> None:
    target = patient.target
    seeds = [_server(target, address) for address in target.hosts]
    failed: list[ReactorError] = []

    async def knock(seed: Server) -> None:
        try:
            await check_server(replace(_one(target, seed.address), kind="cluster"), seed.client)
        except ReactorError as error:
            patient.seeds[seed.name] = seed.unreachable = _reason(error)
            failed.append(error)

    await _all_at_once(seeds, knock)
    answering = [seed for seed in seeds if not seed.unreachable]
    patient.servers = seeds  # closed with the others, whatever comes
    if not answering:
        raise failed[0]
    nodes = await _read_slots(patient, answering[0])
    for seed in seeds:
        if seed.address not in nodes:
            await close_client(seed.client)
    known = {seed.address: seed for seed in seeds}
    patient.servers = [known.get(address) or _server(target, address) for address in sorted(nodes)]
    for server in patient.servers:
        server.role = nodes[server.address]
    await _all_at_once(
        [server for server in patient.servers if server not in seeds], lambda server: _reach(target, server)
    )
    # CLUSTER SLOTS leaves out a replica that has received nothing yet.
    for primary in patient.primaries:
        met = {server.address for server in patient.servers}
        await _admit_replicas(patient, [one for one in await _replicas_of(primary) if one not in met])


async def _read_slots(patient: Patient, seed: Server) -> "dict[Address, Any]":
    """Each node of the cluster with its role; notes which slots nobody has."""
    try:
        info: Any = await seed.client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        ranges: Any = await seed.client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
    except CONNECTION_ERRORS as error:
        raise await explain(error, _one(patient.target, seed.address)) from error
    nodes: dict[Address, Any] = {}
    owners, missing, following = [], [], 0
    for first, last, *servers in sorted(ranges, key=lambda one: int(one[0])):
        if first > following:
            missing.append((following, first - 1))
        following = last + 1
        for place, server in enumerate(servers):
            host = str_if_bytes(server[0]) or seed.address[0]
            nodes[host, int(server[1])] = "replica" if place else "primary"
            if not place:
                owners.append((int(first), int(last), _name((host, int(server[1])))))
    nodes |= {address: "replica" for address in await _known_to(seed) if address not in nodes}
    if following < SLOTS:
        missing.append((following, SLOTS - 1))
    patient.slots = Slots(str(info["cluster_state"]), tuple(missing), tuple(owners))
    if not nodes:
        raise RedisUnreachable(
            f"{patient.target}: no node of the cluster has a slot; see `redis-cli --cluster help`."
        )
    return nodes


async def _known_to(seed: Server) -> list[Address]:
    """All nodes that a node knows, the dead ones too; nothing where the user may not ask."""
    try:
        found: Any = await seed.client.execute_command("CLUSTER NODES")  # type: ignore[no-untyped-call]
    except CONNECTION_ERRORS:
        return []
    known = {name: about for name, about in found.items() if not {"noaddr", "handshake"} & _flags(about)}
    return [_address(name) for name in known if _address(name)[0] and _address(name)[1]]


def _flags(about: Any) -> set[str]:
    return set(str(about["flags"]).split(","))


async def _replicas_of(server: Server) -> list[Address]:
    try:
        info: Any = await server.client.info("replication")
    except CONNECTION_ERRORS:
        return []
    found = [value for key, value in info.items() if key.startswith("slave") and isinstance(value, dict)]
    return [(str(one["ip"]), int(one["port"])) for one in found]


async def _admit_replicas(patient: Patient, addresses: list[Address]) -> None:
    replicas = [_server(patient.target, address) for address in sorted(addresses)]
    patient.servers += replicas
    for replica in replicas:
        replica.role = "replica"
    await _all_at_once(replicas, lambda replica: _reach(patient.target, replica))


async def _reach(target: Target, server: Server) -> None:
    try:
        await server.client.ping()
    except CONNECTION_ERRORS as error:
        server.unreachable = _reason(await explain(error, _one(target, server.address)))


async def _all_at_once(items: list[Any], work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async with anyio.create_task_group() as tasks:
        for item in items:
            tasks.start_soon(work, item)


def _server(target: Target, address: Address) -> Server:
    client: Redis = client_at(_one(target, address), address)
    return Server(_name(address), address, client)


def _one(target: Target, address: Address) -> Target:
    """The same target as if it were this one server alone."""
    scheme = "rediss" if target.tls else "redis"
    return replace(
        target, kind="single", url=f"{scheme}://{_name(address)}", hosts=(address,), master_name=None
    )


def _reason(error: ReactorError) -> str:
    """What is wrong, without the address that the report has in another place."""
    return str(error).partition(": ")[2] or str(error)


def _name(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(name: str) -> Address:
    host, _, port = name.rpartition(":")
    return host.strip("[]"), int(port)
