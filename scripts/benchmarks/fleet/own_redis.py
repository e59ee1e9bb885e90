"""A Redis server that the benchmark freezes, kills and restarts, and a count of the members in it."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import Popen

import anyio
from anyio import to_thread
from redis.asyncio import Redis

from reactor.backend.clients import open_command_client
from reactor.backend.embedded import find_binaries, spawn
from reactor.backend.target import parse_url
from reactor.errors import RedisUnreachable
from reactor.presence.keys import Keyspace
from reactor.presence.tags import SHARDS
from scripts.benchmarks.server import Bench

START_WITHIN = 10.0
_CONFIG = {"port": "0", "save": "", "appendonly": "no", "notify-keyspace-events": "Ex"}


class OwnRedis:
    """A server without persistence, on a Unix socket that stays the same after a restart."""

    def __init__(self, binary: Path | None) -> None:
        self._binary = binary or find_binaries()[0]
        self._folder = Path(tempfile.mkdtemp(prefix="reactor-bench-"))
        self._watch: Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"unix://{self._folder / 'redis.sock'}?db=0"

    async def start(self) -> None:
        """Start it without data and wait until it answers. Raises RedisUnreachable."""
        self._folder.mkdir(exist_ok=True)
        socket = {"unixsocket": str(self._folder / "redis.sock")}
        self._watch = spawn(self._binary, {**_CONFIG, **socket}, self._folder)
        with anyio.fail_after(START_WITHIN):
            while True:
                try:
                    async with await open_command_client(parse_url(self.url)):
                        return
                except RedisUnreachable:
                    await anyio.sleep(0.01)

    def send(self, number: int) -> None:
        """Send it a signal."""
        os.kill(int((self._folder / "pid").read_text()), number)

    async def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)
        assert self._watch is not None
        await to_thread.run_sync(self._watch.wait)

    async def stop(self) -> None:
        """Shut it down."""
        if self._watch is not None and self._watch.stdin is not None:
            self._watch.stdin.close()
            await to_thread.run_sync(self._watch.wait)
        shutil.rmtree(self._folder, ignore_errors=True)


@asynccontextmanager
async def own_redis(binary: Path | None) -> AsyncIterator[tuple[OwnRedis, Bench]]:
    """Run a server that may be killed; yield it and a client."""
    server = OwnRedis(binary)
    try:
        await server.start()
        async with await open_command_client(parse_url(server.url)) as redis:
            yield server, Bench(server.url, redis, "reactor", owned=True)
    finally:
        with anyio.CancelScope(shield=True):
            await server.stop()


async def members_in_redis(redis: Redis, namespace: str) -> int:
    """Count the members in the index whose presence keys exist, in three round trips."""
    async with redis.pipeline(transaction=False) as pipeline:
        prefixes = Keyspace(namespace, shards=SHARDS).prefixes
        for prefix in prefixes:
            pipeline.zrange(f"{prefix}:rooms", 0, -1)
        rooms = [
            (prefix, room.decode())
            for prefix, found in zip(prefixes, await pipeline.execute(), strict=True)
            for room in found
        ]
        for prefix, room in rooms:
            pipeline.zrange(f"{prefix}:members:{room}", 0, -1)
        for (prefix, room), users in zip(rooms, await pipeline.execute(), strict=True):
            if users:
                pipeline.exists(*(f"{prefix}:room:{room}:user:{user.decode()}" for user in users))
        return sum(await pipeline.execute())
