"""The Redis that a benchmark runs on: its own, or an existing one whose data it leaves alone."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from redis.asyncio import Redis
from redis.exceptions import RedisError

from reactor.backend.clients import open_command_client
from reactor.backend.embedded import EmbeddedServer
from reactor.backend.target import parse_url
from reactor.presence.keys import Keyspace
from reactor.presence.tags import SHARDS
from scripts.benchmarks.running import console


@dataclass(frozen=True)
class Bench:
    """A server to measure, and the namespace that the benchmark uses on it."""

    url: str
    redis: Redis
    namespace: str
    owned: bool

    @property
    def keys(self) -> Keyspace:
        """The keys of the namespace, with as many shards as on a single server."""
        return Keyspace(self.namespace, shards=SHARDS)


@asynccontextmanager
async def bench_server(redis_url: str | None = None, program: Path | None = None) -> AsyncIterator[Bench]:
    """Yield the server at `redis_url`, or start one: `program`, or the bundled one.

    A foreign server keeps what it has: the benchmark works in a namespace of its own there, and takes it and
    a changed `notify-keyspace-events` back at the end, however it ends.
    """
    if redis_url is None:
        async with (
            EmbeddedServer(binary=program) as server,
            await open_command_client(parse_url(server.url)) as redis,
        ):
            yield Bench(server.url, redis, "reactor", owned=True)
        return
    async with await open_command_client(parse_url(redis_url)) as redis:
        bench = Bench(redis_url, redis, f"bench-{secrets.token_hex(4)}", owned=False)
        events = await _events(redis)
        try:
            yield bench
        finally:
            with anyio.CancelScope(shield=True):
                console.print(f"[dim]taking {bench.namespace} out of the server again[/]")
                await remove_namespace(bench)
                if events is not None and events != await _events(redis):
                    await redis.config_set("notify-keyspace-events", events)


async def remove_namespace(bench: Bench) -> None:
    """Delete the keys of the benchmark's namespace, and no others."""
    cursor = 0
    while True:
        cursor, keys = await bench.redis.scan(cursor, match=f"{{{bench.namespace}:*", count=2000)
        if keys:
            await bench.redis.unlink(*keys)
        if cursor == 0:
            return


async def _events(redis: Redis) -> str | None:
    with suppress(RedisError):
        found: dict[Any, Any] = await redis.config_get("notify-keyspace-events")
        for value in found.values():
            return value.decode() if isinstance(value, bytes) else str(value)
    return None


async def server_facts(redis: Redis) -> dict[str, Any]:
    """Return the kind, version and allocator of the server."""
    info = await redis.info("server")
    memory = await redis.info("memory")
    valkey = info.get("valkey_version")
    return {
        "kind": "valkey" if valkey else "redis",
        "version": str(valkey or info["redis_version"]),
        "allocator": str(memory.get("mem_allocator", "unknown")),
        "hz": int(info.get("hz", 0)),
    }


def server_name(facts: dict[str, Any]) -> str:
    """Return the display name of a server."""
    return f"{'Valkey' if facts['kind'] == 'valkey' else 'Redis'} {facts['version']}"
