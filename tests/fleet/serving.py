"""Nodes and clients on a set of servers, and functions that wait for their state."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from time import time
from typing import Any, TypeVar
from urllib.parse import unquote

from anyio import to_thread

from reactor.server.node import Node
from tests.support import redis_state
from tests.support.keyspace import SHARDS, shard_of
from tests.support.nodes import served
from tests.support.raw_client import Message, RawClient
from tests.support.server_sets import ServerSet, SetServer
from tests.support.waiting import until

T = TypeVar("T")

NOTIFIED_WITHIN = 10.0
"""Seconds after an expiry, or after a failover is complete, within which clients must be notified.

Less than the sweep (60 s) or a TTL (30 s) would take, which would end it without an event or a scan in time.
"""


def serving(fleet: ServerSet, **options: Any) -> AbstractAsyncContextManager[Node]:
    """A node on the set. The lease is longer than a failover, so that expiry is not suspended by one.

    On a cluster, too, it has as many shards as on a single server, so that the tests know the keys.
    """
    defaults = {
        "redis_url": fleet.url,
        "lease": 10,
        "shards": SHARDS,
        "ttl": 30,
        "messages_per_second": 10_000,
        "message_burst": 10_000,
    }
    return served(fleet.servers[0], **(defaults | options))


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run a blocking function in a thread, so that the nodes of this process continue."""
    return await to_thread.run_sync(work, *args)


@asynccontextmanager
async def crowd(nodes: list[Node], room_ids: Iterable[str], size: int) -> AsyncIterator[list[RawClient]]:
    """Clients that are in all the rooms and send heartbeats, spread over the nodes."""
    async with AsyncExitStack() as stack:
        clients = []
        for i in range(size):
            client = await stack.enter_async_context(RawClient.connect(nodes[i % len(nodes)]))
            for room_id in room_ids:
                await client.join(room_id, f"u{i}", data={"n": i})
            clients.append(client.start_heartbeats())
        yield clients


def one_room_in_each_shard() -> list[str]:
    found: dict[int, str] = {}
    number = 0
    while len(found) < SHARDS:
        found.setdefault(shard_of(f"room {number}"), f"room {number}")
        number += 1
    return list(found.values())


def replayed(client: RawClient, room_id: str) -> dict[str, Message]:
    """The members of a room by the messages of a client; fails if the diffs have a gap."""
    epoch, version, members = "", 0, dict[str, Message]()
    for message in client.received:
        if message.get("roomId") != room_id:
            continue
        if message["type"] in {"room:joined", "room:members"}:
            members = {member["userId"]: member for member in message["members"]}
        elif message["type"] == "room:diff":
            if message["epoch"] != epoch:
                assert message["from"] == 0, f"a new epoch must start with all members: {message}"
                members = {}
            elif message["version"] <= version:
                continue  # the snapshot already included it
            else:
                assert message["from"] <= version, f"gap after {version}: {message}"
            for left in message["left"]:
                members.pop(left["userId"], None)
            for member in [*message["joined"], *message["updated"]]:
                members[member["userId"]] = member
            assert len(members) == message["count"], f"{sorted(members)} after {message}"
        else:
            continue
        epoch, version = message["epoch"], message["version"]
    return members


async def converged(
    clients: Iterable[RawClient], fleet: ServerSet, room_id: str, users: Iterable[str]
) -> None:
    """Wait until Redis and every client have exactly these users in the room."""
    wanted, primary = set(users), await in_thread(fleet.primary_of, room_id)

    def found() -> list[set[str]]:
        rows = {unquote(user) for user in redis_state.rows(primary, room_id)}
        return [
            rows,
            set(redis_state.members(primary, room_id)),
            *(set(replayed(one, room_id)) for one in clients),
        ]

    with suppress(AssertionError):
        await until(lambda: all(one == wanted for one in found()))
    assert found() == [wanted] * len(found()), f"in the index, in Redis, and by client: {found()}"


async def round_trip(client: RawClient) -> None:
    """Return when the client has received everything that was sent to it before."""
    await client.ask("room:is_present", "room:is_present", roomId="elsewhere", userId="no one")


def lateness(deadline: int) -> float:
    """Seconds since a deadline in milliseconds."""
    return time() - deadline / 1000


def same_shard_room(room_id: str, name: str) -> str:
    """The name of another room in the same shard, with this prefix."""
    return next(found for i in count() if shard_of(found := f"{name} {i}") == shard_of(room_id))


def mute_events_of_replicas(fleet: ServerSet) -> None:
    """Switch off keyspace events on every server that may become a primary."""
    for server in fleet.servers:
        if not server.is_primary:
            server.control.config_set("notify-keyspace-events", "")


def has_listener(server: SetServer) -> bool:
    """Whether the server publishes expired events and a node is subscribed to them."""
    flags: Any = server.control.config_get("notify-keyspace-events")
    heard: Any = server.control.pubsub_numsub("__keyevent@0__:expired")
    return set("Ex") <= set(flags["notify-keyspace-events"]) and heard[0][1] > 0
