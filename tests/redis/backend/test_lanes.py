"""The two lanes of calls to Redis: heartbeats wait behind no listing, and what waits is bounded."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from reactor.backend import scripts
from reactor.backend.single import SingleBackend
from reactor.errors import Unavailable
from reactor.presence.keys import Entry
from reactor.presence.rows import PAGE_BYTES
from tests.redis.presence.probe import TTL
from tests.support.keyspace import shard_of
from tests.support.servers import Server
from tests.support.stores import Connected, connected
from tests.support.waiting import until

DATA = b'"' + b"x" * 4000 + b'"'


async def fill(redis: Connected, room_id: str, members: int) -> None:
    joins = (
        redis.store.join(Entry(room_id, f"u{number}"), "n1.1", ttl=TTL, data=DATA)
        for number in range(members)
    )
    await asyncio.gather(*joins)


def record_batches(redis: Connected) -> list[list[bytes]]:
    """Record the batches of calls that the lane of listings and joins sends."""
    backend = redis.backend
    assert isinstance(backend, SingleBackend)
    pipeline, batches = backend._scripts._lane_of["list"]._pipeline, list[list[bytes]]()
    exchange = pipeline.exchange

    async def recorded(packed: Callable[[str], Sequence[bytes]]) -> list[Any]:
        batches.append(list(packed("run")))
        return await exchange(packed)

    pipeline.exchange = recorded  # type: ignore[method-assign]
    return batches


async def test_a_heartbeat_waits_behind_no_listing_and_no_join(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        await fill(redis, "large", 300)
        listings = [asyncio.create_task(redis.store.members("large")) for _ in range(40)]
        await asyncio.sleep(0)
        await redis.store.refresh(shard_of("large"), "n1", [("large:user:u1", TTL)])
        assert not any(listing.done() for listing in listings[-10:])
        assert [len((await listing).members) for listing in listings] == [300] * 40


async def test_the_replies_of_a_batch_are_bounded(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        await fill(redis, "large", 200)
        batches = record_batches(redis)
        await asyncio.gather(*(redis.store.members("large") for _ in range(20)))
        assert sum(map(len, batches)) > 40
        assert max(map(len, batches)) <= scripts.MAX_REPLY_BYTES // PAGE_BYTES


async def test_a_cancelled_call_that_still_waits_is_not_sent(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        await redis.store.count("lobby")
        batches = record_batches(redis)
        calls = [asyncio.create_task(redis.store.count(f"room{number}")) for number in range(10)]
        await asyncio.sleep(0)
        for call in calls[1:]:
            call.cancel()
        await calls[0]
        await redis.store.count("last")
        assert [len(batch) for batch in batches] == [1, 1]


async def test_calls_beyond_the_bound_are_refused_and_counted(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "MAX_WAITING_CALLS", 5)
    async with connected(redis_server) as redis:
        calls = [asyncio.create_task(redis.store.count(f"room{number}")) for number in range(8)]
        await until(lambda: redis.backend.lanes["other"].refused == 3)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [False] * 5 + [True] * 3
        assert redis.health == [], "Redis answers"
        assert (await redis.store.count("lobby")).count == 0


async def test_the_bytes_of_waiting_calls_are_bounded(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "MAX_WAITING_BYTES", 20_000)
    async with connected(redis_server) as redis:
        joins = [
            asyncio.create_task(redis.store.join(Entry("lobby", f"u{number}"), "n1.1", ttl=TTL, data=DATA))
            for number in range(8)
        ]
        outcomes = await asyncio.gather(*joins, return_exceptions=True)
        assert [isinstance(outcome, Unavailable) for outcome in outcomes] == [False] * 4 + [True] * 4
        assert redis.backend.lanes["other"].waiting == 0
