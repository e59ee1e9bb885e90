"""The reaper: every member found gone departs exactly once, also when Redis fails in between."""

import asyncio
from typing import Any

import anyio
import pytest

from reactor.backend import clients
from reactor.errors import Unavailable
from reactor.expiry.reaper import MAX_CALLS, MAX_CLAIMS, Reaper
from reactor.presence.replies import Claimed
from tests.redis.expiry.path import ExpiryPath, expiry_path
from tests.support.keyspace import SHARDS, shard_of
from tests.support.servers import Server
from tests.support.waiting import until


def expired(it: ExpiryPath, *users: str, room: str = "lobby") -> list[str]:
    it.probe.join_many(users, room=room)
    it.probe.expire(*users, room=room)
    return [f"{room}:user:{user}" for user in users]


async def test_a_member_found_several_times_departs_once_and_the_first_path_is_counted(
    redis_server: Server,
) -> None:
    async with expiry_path(redis_server) as it:
        (ann,) = expired(it, "ann")
        it.reaper.enqueue(shard_of("lobby"), [ann], "event")
        it.reaper.enqueue(shard_of("lobby"), [ann, ann], "pacemaker")
        await until(lambda: it.reaper.found_by.total() == 1)
        it.reaper.enqueue(shard_of("lobby"), [ann], "sweep")
        (bob,) = expired(it, "bob")
        it.reaper.enqueue(shard_of("lobby"), [bob], "sweep")
        await until(lambda: it.reaper.found_by.total() == 2)
        assert it.reaper.found_by == {"event": 1, "sweep": 1}
        assert it.probe.totals() == {"inactivity_timeout": 2}


async def test_a_live_or_unknown_member_is_not_removed(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        it.join("ann", ttl=60_000)
        (bob,) = expired(it, "bob")
        it.probe.received()
        it.reaper.enqueue(shard_of("lobby"), ["lobby:user:ann", "lobby:user:nobody", bob], "event")
        await until(lambda: it.reaper.found_by.total() == 1)
        assert it.probe.received().changes == ["2>3 (1) -bob:inactivity_timeout"]


async def test_many_members_of_all_shards_are_claimed_in_batches(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        users = [f"u{number}" for number in range(2 * MAX_CLAIMS + 1)]
        it.reaper.enqueue(shard_of("lobby"), expired(it, *users), "event")
        rooms = [f"room{number}" for number in range(50)]
        for room in rooms:
            it.reaper.enqueue(shard_of(room), expired(it, "ann", room=room), "event")
        await until(lambda: it.reaper.found_by.total() == len(users) + len(rooms))
        largest = max(len(row.left) for _, row in it.probe.received().diffs)
        assert largest == MAX_CLAIMS
        assert len({shard_of(room) for room in rooms}) == SHARDS


async def test_a_claim_that_redis_did_not_answer_is_repeated(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 1.0)
    async with expiry_path(redis_server) as it:
        users = [f"u{number}" for number in range(MAX_CLAIMS + 1)]
        names = expired(it, *users)
        it.probe.received()
        redis_server.pause()
        try:
            it.reaper.enqueue(shard_of("lobby"), names, "event")
            await until(lambda: it.redis.health == [False])
            it.reaper.enqueue(shard_of("lobby"), names[:1], "sweep")
        finally:
            redis_server.resume()
        # Claims that ran although their reply timed out are counted by none of the paths.
        await until(lambda: it.probe.totals() == {"inactivity_timeout": len(users)})
        left = [one.user_id for _, row in it.probe.received().diffs for one in row.left]
        assert sorted(left) == sorted(users)


async def test_claim_raises_unavailable_while_redis_is_away(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        (ann,) = expired(it, "ann")
        redis_server.kill()
        with pytest.raises(Unavailable):
            await it.reaper.claim(shard_of("lobby"), [ann], {})


async def test_a_bounded_number_of_claims_is_under_way_and_all_that_wait_are_counted() -> None:
    under_way, largest, release = 0, 0, asyncio.Event()

    class Store:
        async def ask_nodes(self, _shard: int, _suffixes: list[str]) -> bool:
            return False

        async def claim(self, _shard: int, _suffixes: list[str]) -> list[Claimed]:
            nonlocal under_way, largest
            under_way += 1
            largest = max(largest, under_way)
            await release.wait()
            under_way -= 1
            return []

    store: Any = Store()
    reaper = Reaper(store)
    for shard in range(SHARDS):
        reaper.enqueue(shard, [f"lobby:user:u{number}" for number in range(2 * MAX_CLAIMS)], "event")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reaper.serve)
        await until(lambda: under_way == MAX_CALLS)
        assert reaper.pending == 2 * MAX_CLAIMS * SHARDS
        release.set()
        await until(lambda: reaper.pending == 0)
        tasks.cancel_scope.cancel()
    assert largest == MAX_CALLS


async def test_nodes_are_asked_again_for_members_whose_claim_redis_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While Redis takes no writes, no node can object to a departure."""
    monkeypatch.setattr("reactor.expiry.reaper.ANSWER_TIME", 0.01)
    calls: list[str] = []

    class Store:
        async def ask_nodes(self, _shard: int, _suffixes: list[str]) -> bool:
            calls.append("ask")
            return True

        async def claim(self, _shard: int, _suffixes: list[str]) -> list[Claimed]:
            calls.append("claim")
            if calls.count("claim") == 1:
                raise Unavailable("refused")
            return []

    store: Any = Store()
    reaper = Reaper(store)
    reaper.enqueue(0, ["lobby:user:ann"], "pacemaker")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reaper.serve)
        await until(lambda: calls.count("claim") == 2)
        tasks.cancel_scope.cancel()
    assert calls == ["ask", "claim", "ask", "claim"]
