"""Nodes on a set of servers, what their clients were told, and how a test waits for either."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from time import time
from typing import Any, TypeVar
from urllib.parse import unquote

from anyio import to_thread

from reactor.presence.keys import SHARDS, shard_of
from reactor.server.node import Node
from tests.support import redis_state
from tests.support.nodes import served
from tests.support.raw_client import Message, RawClient
from tests.support.server_sets import ServerSet, SetServer
from tests.support.waiting import until

T = TypeVar("T")

TOLD_WITHIN = 1.5
"""Seconds after a deadline, or after a set of servers has agreed again, in which its end is told."""


def serving(fleet: ServerSet, **options: Any) -> AbstractAsyncContextManager[Node]:
    """A node on the set. The lease is longer than a failover takes, so that ends by time go on counting."""
    plenty = {"messages_per_second": 10_000, "message_burst": 10_000}
    return served(fleet.servers[0], **({"redis_url": fleet.url, "lease": 10, "ttl": 30} | plenty | options))


async def aside(work: Callable[..., T], *args: Any) -> T:
    """Do what blocks in a thread: the nodes of this process go on."""
    return await to_thread.run_sync(work, *args)


@asynccontextmanager
async def crowd(nodes: list[Node], room_ids: Iterable[str], size: int) -> AsyncIterator[list[RawClient]]:
    """Clients that are in all of the rooms and send heartbeats, spread over the nodes."""
    async with AsyncExitStack() as stack:
        clients = []
        for i in range(size):
            client = await stack.enter_async_context(RawClient.connect(nodes[i % len(nodes)]))
            for room_id in room_ids:
                await client.join(room_id, f"u{i}", data={"n": i})
            clients.append(client.beat())
        yield clients


def one_room_in_each_shard() -> list[str]:
    found: dict[int, str] = {}
    number = 0
    while len(found) < SHARDS:
        found.setdefault(shard_of(f"room {number}"), f"room {number}")
        number += 1
    return list(found.values())


def replayed(client: RawClient, room_id: str) -> dict[str, Message]:
    """The room as a client must have it that believes what it was told; fails where that has a gap."""
    epoch, version, members = "", 0, dict[str, Message]()
    for message in client.heard:
        if message.get("roomId") != room_id:
            continue
        if message["type"] in {"room:joined", "room:members"}:
            members = {member["userId"]: member for member in message["members"]}
        elif message["type"] == "room:diff":
            if message["epoch"] != epoch:
                assert message["from"] == 0, f"another epoch must come whole: {message}"
                members = {}
            elif message["version"] <= version:
                continue  # the snapshot was ahead of it
            else:
                assert message["from"] <= version, f"after {version} came {message}"
            for left in message["left"]:
                members.pop(left["userId"], None)
            for member in [*message["joined"], *message["updated"]]:
                members[member["userId"]] = member
            assert len(members) == message["count"], f"{sorted(members)} after {message}"
        else:
            continue
        epoch, version = message["epoch"], message["version"]
    return members


async def in_step(clients: Iterable[RawClient], fleet: ServerSet, room_id: str, users: Iterable[str]) -> None:
    """Wait until these users are in the room, in Redis and in what each client was told."""
    wanted, primary = set(users), await aside(fleet.primary_of, room_id)

    def found() -> list[set[str]]:
        rows = {unquote(user) for user in redis_state.rows(primary, room_id)}
        return [
            rows,
            set(redis_state.members(primary, room_id)),
            *(set(replayed(one, room_id)) for one in clients),
        ]

    with suppress(AssertionError):
        await until(lambda: all(one == wanted for one in found()))
    assert found() == [wanted] * len(found()), f"in the index, in Redis, and told to clients: {found()}"


async def said(client: RawClient) -> None:
    """Return when all that was told to a client up to now has come."""
    await client.ask("room:is_present", "room:is_present", roomId="elsewhere", userId="nobody")


def lateness(deadline: int) -> float:
    """Seconds since a deadline (ms)."""
    return time() - deadline / 1000


def beside(room_id: str, name: str) -> str:
    """Another room of the same shard, whose name begins like that."""
    return next(found for i in count() if shard_of(found := f"{name} {i}") == shard_of(room_id))


def hush_replicas(fleet: ServerSet) -> None:
    """Let no server that may become a primary tell of expired keys by itself."""
    for server in fleet.servers:
        if not server.is_primary:
            server.control.config_set("notify-keyspace-events", "")


def is_listened_to(server: SetServer) -> bool:
    """Whether the server tells of expired keys, and somebody hears it."""
    flags: Any = server.control.config_get("notify-keyspace-events")
    heard: Any = server.control.pubsub_numsub("__keyevent@0__:expired")
    return set("Ex") <= set(flags["notify-keyspace-events"]) and heard[0][1] > 0
