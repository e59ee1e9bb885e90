"""Finds every server of a Redis, whatever its shape, and which of them can be reached."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
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
from reactor.backend.topology import SLOTS, UNNAMED, host_of, ip_of
from reactor.doctor.deployment import (
    Address,
    Deployment,
    InspectedSentinel,
    InspectedServer,
    Role,
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
    await _add_replicas(deployment, await _replicas_of(target, server))


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
            named = [(str(replica["ip"]), int(replica["port"])) for replica in found]
            return [deployment.target.reachable(address) for address in named]
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
    slots = await _read_slots(deployment, answering[0])
    nodes = slots.roles
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
    # CLUSTER SLOTS leaves out a replica that has not received any data yet. The primary names replicas by the
    # IP from which they connect, which may be another name of one that is listed: so only if it has more.
    for primary in deployment.primaries:
        connected = await _replicas_of(target, primary)
        if len(connected) > slots.replicas[primary.address]:
            missing = [address for address in connected if address not in {*nodes, *slots.further_names}]
            await _add_replicas(deployment, missing)


@dataclass
class _Slots:
    """The servers of a cluster by their addresses, as the first that answered names them.

    replicas: how many each primary has. further_names: addresses with the IP of a server that is listed by
    its hostname. by_hostname: whether the cluster wants its servers to be reached by their hostnames.
    """

    roles: dict[Address, Role] = field(default_factory=dict)
    replicas: Counter[Address] = field(default_factory=Counter)
    further_names: set[Address] = field(default_factory=set)
    by_hostname: bool = False


async def _read_slots(deployment: Deployment, seed: InspectedServer) -> _Slots:
    """The address and role of each server of the cluster; notes which slots no primary serves."""
    target, found = deployment.target, _Slots()
    try:
        info: Any = await seed.client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        ranges: Any = await seed.client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
    except CONNECTION_ERRORS as error:
        raise await explain(error, _single(target, seed.address)) from error
    owners, missing, next_slot = [], [], 0
    ids: set[str] = set()
    for first, last, *servers in sorted(ranges, key=lambda slots: int(slots[0])):
        if first > next_slot:
            missing.append((next_slot, first - 1))
        next_slot = last + 1
        named = ((host_of(server, seed.address[0]), int(server[1])) for server in servers)
        primary, *replicas = map(target.reachable, named)
        owners.append((int(first), int(last), _name(primary)))
        found.roles |= {primary: "primary", **dict.fromkeys(replicas, "replica")}
        found.replicas[primary] = len(replicas)
        for server in servers:
            ids.add(str_if_bytes(server[2]))
            if ip := ip_of(server):
                found.by_hostname |= server[0] not in (None, b"", UNNAMED)
                found.further_names.add(target.reachable((ip.decode(), int(server[1]))))
    for address in await _nodes_known_to(target, seed, besides=ids, by_hostname=found.by_hostname):
        found.roles.setdefault(address, "replica")
    if next_slot < SLOTS:
        missing.append((next_slot, SLOTS - 1))
    deployment.slots = SlotMap(str(info["cluster_state"]), tuple(missing), tuple(owners))
    if not found.roles:
        raise RedisUnreachable(
            f"{target}: no server of the cluster serves a slot; see `redis-cli --cluster help`."
        )
    return found


async def _nodes_known_to(
    target: Target, seed: InspectedServer, *, besides: set[str], by_hostname: bool
) -> list[Address]:
    """All servers that a server knows, also dead ones; none where the user may not ask.

    besides: ids of servers that are left out. They may go by another name here: CLUSTER NODES has the IP also
    where clients are to use hostnames.
    """
    try:
        found: Any = await seed.client.execute_command("CLUSTER NODES")  # type: ignore[no-untyped-call]
    except CONNECTION_ERRORS:
        return []
    known = {
        name: about
        for name, about in found.items()
        if about["node_id"] not in besides and not {"noaddr", "handshake"} & _flags(about)
    }
    addresses = [
        (about["hostname"] if by_hostname and about["hostname"] else _address(name)[0], _address(name)[1])
        for name, about in known.items()
    ]
    return [target.reachable(address) for address in addresses if address[0] and address[1]]


def _flags(about: Any) -> set[str]:
    return set(str(about["flags"]).split(","))


async def _replicas_of(target: Target, server: InspectedServer) -> list[Address]:
    """The replicas that a primary knows: one that gets its first copy over two connections is there twice."""
    try:
        info: Any = await server.client.info("replication")
    except CONNECTION_ERRORS:
        return []
    found = [value for key, value in info.items() if key.startswith("slave") and isinstance(value, dict)]
    named = dict.fromkeys((str(replica["ip"]), int(replica["port"])) for replica in found)
    return [target.reachable(address) for address in named]


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
