"""Nodes of one fleet on a test server, each no more than its lease, and the members that join on them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from reactor.fleet.lease import Lease
from reactor.fleet.peers import FailureDetector
from reactor.settings import RoomPolicy
from tests.redis.presence.consistent import assert_consistent
from tests.redis.presence.probe import AWAY_GRACE, GRACE, TTL, Probe
from tests.support.servers import Server
from tests.support.stores import Connected, connected

LEASE = 0.6
TERMS = RoomPolicy(ttl=TTL, grace=GRACE, away_grace=AWAY_GRACE, close_grace=50, message="", max_members=0)


class Tasks:
    """Starts tasks, for which a test can wait."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def start_soon(self, func: Callable[..., Coroutine[Any, Any, Any]], /, *args: Any) -> None:
        task = asyncio.create_task(func(*args))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    @property
    def running(self) -> bool:
        return bool(self._running)

    async def done(self) -> None:
        await asyncio.gather(*self._running)


class Node:
    """A node's lease and failure detector, with the callbacks that they made."""

    def __init__(self, redis: Connected, probe: Probe, lease: float = LEASE) -> None:
        self.renamed_from: list[str] = []
        self.suspended: list[float] = []
        self.probe = probe
        self.tasks = Tasks()
        self.detector = FailureDetector(
            redis.store, redis.registry, self.tasks, lease=lease, policy=lambda _room_id: TERMS
        )
        self.lease = Lease(
            redis.store, redis.registry, self.detector, lease=lease,
            on_renamed=self.renamed_from.append, on_expiry_suspended=self.suspended.append,
        )  # fmt: skip

    @property
    def name(self) -> str:
        return self.lease.name

    async def renew(self) -> None:
        """Renew the lease, and finish what the failure detector has begun by it."""
        await self.lease.renew()
        await self.tasks.done()

    def joins(self, user: str, *, number: int = 1, room: str = "lobby", **options: Any) -> None:
        self.probe.join(user, f"{self.name}.{number}", room=room, **options)


class Fleet:
    def __init__(self, redis: Connected, probe: Probe) -> None:
        self.redis, self.probe = redis, probe

    async def node(self, lease: float = LEASE) -> Node:
        node = Node(self.redis, self.probe, lease)
        await node.lease.register()
        return node

    def counter(self, node: str) -> int:
        record: Any = self.probe.client.hget("{t:fleet}:registry", node)
        return int(record.split(b" ", 1)[0])

    def in_grace(self, *users: str, room: str = "lobby") -> bool:
        return all(self.probe.shadow(user, room).get("r") == "disconnected" for user in users)


@asynccontextmanager
async def fleet(server: Server) -> AsyncIterator[Fleet]:
    probe = Probe(server)
    try:
        async with connected(server) as redis:
            yield Fleet(redis, probe)
            if server.control.ping():
                assert_consistent(probe.client)
    finally:
        probe.close()
