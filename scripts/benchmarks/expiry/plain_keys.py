"""Expiry of plain keys without a reactor: idle keys, probes with a deadline, and four ways to notice them.

Nothing here knows of presence, so that the figures hold for any application that enables
`notify-keyspace-events`. Deadlines are those of Redis's clock; a probe's event is timed as it is read.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from scripts.benchmarks.clocks import measure_clock
from scripts.benchmarks.server import Bench

IDLE_TTL_MS = 6 * 3600 * 1000
_VALUE = "x" * 60
_LOADED_AT_ONCE = 2000
_FIELDS_A_HASH = 50
_LEAD = 1.0
"""Seconds from the start of a measurement to the first deadline."""
_TOUCHED_AT_ONCE = 5000
_SCAN_PAGE = 1000

_LOAD_KEYS = """
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  redis.call('SET', KEYS[1] .. i, ARGV[3], 'PX', tonumber(ARGV[4]) + i)
end"""
_LOAD_FIELDS = """
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local key, field = KEYS[1] .. math.floor(i / tonumber(ARGV[5])), 'user-' .. i
  redis.call('HSET', key, field, ARGV[3])
  redis.call('HPEXPIRE', key, tonumber(ARGV[4]) + i, 'FIELDS', 1, field)
end"""


@dataclass(frozen=True)
class KeyProbe:
    """A key, or a hash with one field, and the deadline (ms, Redis's clock) after which it is gone."""

    name: bytes
    deadline: int


class EventTap:
    """Collects published keys with the time (s, `time.time()`) at which each was read first."""

    def __init__(self) -> None:
        self.seen: dict[bytes, float] = {}
        self.wanted: set[bytes] = set()
        self.complete = asyncio.Event()

    def add(self, key: bytes, at: float) -> None:
        """Note that a key is gone."""
        if key in self.wanted and key not in self.seen:
            self.seen[key] = at
            if len(self.seen) == len(self.wanted):
                self.complete.set()

    @classmethod
    @asynccontextmanager
    async def open(cls, redis: Redis, channel: str) -> AsyncIterator["EventTap"]:
        """Subscribe to a channel during the block."""
        tap = cls()
        pool: Any = redis.connection_pool
        connection = pool.make_connection()
        await connection.connect()
        await connection.send_command("SUBSCRIBE", channel)
        await connection.read_response()
        reading = asyncio.create_task(tap._read(connection._reader))  # noqa: SLF001 - the class's own
        try:
            yield tap
        finally:
            reading.cancel()
            await connection.disconnect()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        # Without the client library's own work for each message, which would count as lateness at high rates.
        parser = hiredis.Reader()
        while data := await stream.read(1 << 16):
            at = time.time()
            parser.feed(data)
            while (message := parser.gets()) is not False:
                self.add(message[2], at)


async def load_keys(bench: Bench, count: int) -> None:
    """Add idle keys with a TTL of six hours."""
    await _load(bench, _LOAD_KEYS, "idle:", count)


async def load_fields(bench: Bench, count: int) -> None:
    """Add idle hash fields with a TTL of six hours, 50 in each hash."""
    await _load(bench, _LOAD_FIELDS, "hash:", count, _FIELDS_A_HASH)


async def _load(bench: Bench, source: str, kind: str, count: int, *more: int) -> None:
    load = bench.redis.register_script(source)
    prefix = _prefix(bench) + kind
    for first in range(0, count, _LOADED_AT_ONCE):
        last = min(first + _LOADED_AT_ONCE, count) - 1
        await load(keys=[prefix], args=[first, last, _VALUE, IDLE_TTL_MS, *more])


async def remove_idle(bench: Bench) -> None:
    """Remove what the lab has loaded."""
    if bench.owned:
        await bench.redis.flushall(asynchronous=True)
        return
    cursor = 0
    while True:
        cursor, keys = await bench.redis.scan(cursor, match=_prefix(bench) + "*", count=5000)
        if keys:
            await bench.redis.unlink(*keys)
        if cursor == 0:
            return


async def has_field_ttl(redis: Redis) -> bool:
    """Return whether the server has a TTL for hash fields."""
    try:
        await redis.execute_command("HPTTL", "reactor:lab:none", "FIELDS", 1, "none")
    except ResponseError:
        return False
    return True


class ProbeKeys:
    """Probes on one server; each method measures one way and returns the lateness of each probe in ms."""

    def __init__(self, bench: Bench, *, count: int, over: float, patience: float, label: str) -> None:
        self._bench, self._redis = bench, bench.redis
        self._count, self._over, self._patience, self._label = count, over, patience, label
        self._offset = 0.0
        self.probes: list[KeyProbe] = []
        self.late_ms: dict[bytes, float] = {}

    async def events(self) -> list[float]:
        """Wait for the `expired` events, and do nothing else."""
        async with self._tap("expired") as tap:
            await self._set_keys()
            await self._wait(tap)
        return self._lateness(tap)

    async def effort(self) -> list[float]:
        """Wait for the events of a server with active-expire-effort 10."""
        before: Any = await self._redis.config_get("active-expire-effort")
        await self._redis.config_set("active-expire-effort", 10)
        try:
            return await self.events()
        finally:
            await self._redis.config_set("active-expire-effort", int(next(iter(before.values()))))

    async def touch(self) -> list[float]:
        """Read each key when its TTL has ended, and wait for its event: the least possible."""
        async with self._tap("expired") as tap:
            await self._set_keys()
            touching = asyncio.create_task(self._touch_all())
            try:
                await self._wait(tap)
            finally:
                touching.cancel()
        return self._lateness(tap)

    async def scan(self, interval: float) -> list[float]:
        """Read the names of all keys by SCAN, once in `interval` seconds.

        A probe counts as noticed with its event, which SCAN may cause, or at the end of a cycle that began
        after its deadline and did not return it.
        """
        async with self._tap("expired") as tap:
            await self._set_keys()
            ended = asyncio.Event()
            polling = asyncio.create_task(self._poll(tap, interval, ended))
            await self._wait(tap)
            ended.set()  # a task that is cancelled within a command of redis-py may go on
            await polling
        return self._lateness(tap)

    async def fields(self) -> list[float]:
        """Wait for the `hexpired` events of hashes with one field that has a TTL."""
        async with self._tap("hexpired") as tap:
            await self._set_keys(field=True)
            await self._wait(tap)
        return self._lateness(tap)

    @asynccontextmanager
    async def _tap(self, event: str) -> AsyncIterator[EventTap]:
        database = self._redis.connection_pool.connection_kwargs.get("db") or 0
        self._offset = (await measure_clock(self._redis, 100)).offset
        async with EventTap.open(self._redis, f"__keyevent@{database}__:{event}") as tap:
            yield tap
            names = [probe.name for probe in self.probes]
            for first in range(0, len(names), 1000):
                await self._redis.unlink(*names[first : first + 1000])

    async def _set_keys(self, *, field: bool = False) -> None:
        prefix = f"{_prefix(self._bench)}probe:{self._label}:{random.getrandbits(32):x}:"
        chance = random.Random(self._label)
        # Keys that are set take a while themselves, at high rates.
        begin = time.time() + self._offset + _LEAD + self._count / 20_000
        self.probes = [
            KeyProbe(f"{prefix}{number}".encode(), int((begin + chance.random() * self._over) * 1000))
            for number in range(self._count)
        ]
        for first in range(0, self._count, 1000):
            pipe = self._redis.pipeline(transaction=False)
            for probe in self.probes[first : first + 1000]:
                if field:
                    pipe.hset(probe.name.decode(), "user", _VALUE)
                    pipe.execute_command("HPEXPIREAT", probe.name, probe.deadline, "FIELDS", 1, "user")
                else:
                    pipe.set(probe.name, _VALUE, pxat=probe.deadline)
            await pipe.execute()

    async def _wait(self, tap: EventTap) -> None:
        tap.wanted.update(probe.name for probe in self.probes)
        last = max(probe.deadline for probe in self.probes) / 1000 - self._offset
        with suppress(TimeoutError):
            await asyncio.wait_for(tap.complete.wait(), last + self._patience - time.time())

    async def _touch_all(self) -> None:
        waiting = sorted(self.probes, key=lambda probe: probe.deadline)
        first = 0
        while first < len(waiting):
            # At its deadline a key still exists; a millisecond later it has expired.
            await asyncio.sleep((waiting[first].deadline + 1) / 1000 - self._offset - time.time())
            now = (time.time() + self._offset) * 1000
            due = first
            while due < len(waiting) and waiting[due].deadline + 1 <= now and due - first < _TOUCHED_AT_ONCE:
                due += 1
            if due > first:
                names = [probe.name for probe in waiting[first:due]]
                while await self._redis.exists(*names):  # noqa: ASYNC110 - the clocks differ a little
                    await asyncio.sleep(0.001)
            first = due

    async def _poll(self, tap: EventTap, interval: float, ended: asyncio.Event) -> None:
        pattern = self.probes[0].name.rpartition(b":")[0] + b":*"
        while not ended.is_set():
            began, cursor = time.time(), 0
            there: set[bytes] = set()
            while True:
                cursor, keys = await self._redis.scan(cursor, match=pattern, count=_SCAN_PAGE)
                there.update(map(_bytes, keys))
                if cursor == 0:
                    break
            read = time.time()
            for probe in self.probes:
                if probe.deadline / 1000 - self._offset < began and probe.name not in there:
                    tap.add(probe.name, read)
            await asyncio.sleep(max(0.0, began + interval - read))

    def _lateness(self, tap: EventTap) -> list[float]:
        return [
            (tap.seen[probe.name] + self._offset) * 1000 - probe.deadline
            if probe.name in tap.seen
            else math.inf
            for probe in self.probes
        ]


def _bytes(key: bytes | str) -> bytes:
    return key if isinstance(key, bytes) else key.encode()


def _prefix(bench: Bench) -> str:
    return f"{{{bench.namespace}:lab}}:"


def spread(lates: Sequence[float]) -> list[float]:
    """Return lateness values in ascending order, for JSON."""
    return [round(late, 2) if math.isfinite(late) else math.inf for late in sorted(lates)]
