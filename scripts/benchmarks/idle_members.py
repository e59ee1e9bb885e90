"""Idle members: added with the join script, for a node that this module keeps registered."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio

from reactor.backend.scripts import ScriptRunner, load_scripts
from reactor.errors import ReactorError, Unavailable
from reactor.fleet.registry import NOT_REGISTERED, NodeRecord, Registry
from reactor.presence.keys import Entry, Keyspace
from reactor.presence.lua_sources import lua_sources
from reactor.presence.replies import Joined, JoinRefused
from reactor.presence.store import Store
from scripts.benchmarks.server import Bench

PAYLOAD = 60
"""Bytes of a member's username and data together."""

RETRY_AFTER = 0.5
_IN_FLIGHT = 1024
_LEASE_MS = 30_000
_MARK_LEASE_MS = 5_000
_RENEW_EVERY = 1.0
"""Seconds between renewals of the lease, which must be well below the lease of 5 s."""


class IdleMembers:
    """Adds members in rooms of a given size. Its `node` is registered, so that no sweep removes them."""

    def __init__(self, runner: ScriptRunner, keys: Keyspace) -> None:
        self.store = Store(runner, keys)
        self._registry = Registry(runner, keys)
        self.node = secrets.token_hex(4)
        self.loaded = 0

    async def load(
        self,
        count: int,
        room_size: int,
        ttl: Callable[[int], int],
        *,
        tick: Callable[[int], None] = lambda _: None,
        start: int = 0,
    ) -> None:
        """Add the members with the numbers `start` to `count`. ttl(number): milliseconds."""
        numbers = iter(range(start, count))

        async def enter_some() -> None:
            for number in numbers:
                reply = await self._enter(number, entry(number, room_size), ttl)
                if not isinstance(reply, Joined):
                    raise ReactorError(f"member {number} was not taken: {reply.reason}")
                self.loaded += 1
                if self.loaded % 500 == 0:
                    tick(self.loaded)

        await asyncio.gather(*(enter_some() for _ in range(_IN_FLIGHT)))
        tick(self.loaded)

    async def _enter(self, number: int, place: Entry, ttl: Callable[[int], int]) -> Joined | JoinRefused:
        username, data = payload(number)
        while True:
            try:
                return await self.store.join(
                    place, f"{self.node}.{number:x}", ttl=ttl(number), username=username, data=data
                )
            except Unavailable:
                await anyio.sleep(RETRY_AFTER)  # a busy machine; a repeated join changes nothing

    async def keep_alive(self, registered: anyio.Event | None = None) -> None:
        """Keep the node registered until cancelled: otherwise expiry would be suspended for a while."""
        counter = 0
        while True:
            counter += 1
            with suppress(Unavailable):
                record = NodeRecord(counter, self.node, NOT_REGISTERED, "benchmark: idle members")
                await self._registry.renew(self.node, record, lease_ms=_LEASE_MS, first=True)
                for shard in self.store.keys.shards:
                    await self.store.mark_shard_alive(shard, lease=_MARK_LEASE_MS)
                if registered is not None:
                    registered.set()
            await anyio.sleep(_RENEW_EVERY)


@asynccontextmanager
async def idle_members(bench: Bench) -> AsyncIterator[IdleMembers]:
    """Keep a node with idle members registered during the block."""
    runner = ScriptRunner(bench.redis, load_scripts(lua_sources(departures_kept=100_000)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.serve)
        members = IdleMembers(runner, bench.keys)
        registered = anyio.Event()
        tasks.start_soon(members.keep_alive, registered)
        await registered.wait()
        try:
            yield members
        finally:
            tasks.cancel_scope.cancel()


def entry(number: int, room_size: int) -> Entry:
    """Return the membership with that number."""
    return Entry(f"room-{number // room_size:07d}", f"user-{number:07d}")


def payload(number: int) -> tuple[str, bytes]:
    """Return a username and data of PAYLOAD bytes together."""
    username = f"User {number:07d}"
    data = {"avatar": f"{number:07d}.png", "status": ""}
    data["status"] = "x" * (PAYLOAD - len(username) - len(json.dumps(data, separators=(",", ":"))))
    return username, json.dumps(data, separators=(",", ":")).encode()
