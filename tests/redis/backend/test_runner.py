"""The script runner: every call is answered in order, whatever happens to scripts and connection."""

import asyncio
import time
from typing import Any

import anyio
import pytest

from reactor.backend import clients
from reactor.backend.scripts import MAX_BATCH
from reactor.errors import Unavailable
from reactor.presence.keys import Entry
from reactor.presence.lua_sources import TOGETHER
from reactor.presence.replies import Joined, JoinRefused
from reactor.presence.rows import decode_diff
from reactor.presence.store import Store
from tests.redis.presence.probe import TTL, Probe
from tests.support.keyspace import presence_key
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, connected
from tests.support.waiting import PATIENCE, until

ANN = Entry("lobby", "ann")


async def join(store: Store, user: str, connection: str = "n1.1") -> Joined:
    reply = await store.join(Entry("lobby", user), connection, ttl=TTL)
    assert isinstance(reply, Joined)
    return reply


async def test_concurrent_calls_get_their_own_replies(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        for number in range(20):
            for user in range(number):
                await redis.store.join(Entry(f"room{number}", f"u{user}"), "n1.1", ttl=TTL)
        rooms = [number % 20 for number in range(3 * MAX_BATCH)]
        positions = await asyncio.gather(*(redis.store.count(f"room{number}") for number in rooms))
        assert [position.count for position in positions] == rooms


async def test_flushed_scripts_are_loaded_again_and_no_call_overtakes_an_earlier_one(
    redis_server: Server,
) -> None:
    probe = Probe(redis_server)
    users, steps, flushes = [f"u{number}" for number in range(20)], 40, 0
    async with connected(redis_server) as redis:
        for user in users:
            await join(redis.store, user)
        probe.received()
        calls: list[asyncio.Task[Any]] = []
        for round_ in range(5):
            for step in range(steps * round_, steps * (round_ + 1)):
                for user in users:
                    name = f"{step:06d}"
                    calls.append(asyncio.create_task(redis.store.update(Entry("lobby", user), username=name)))
                if step % 7 == 0:
                    await asyncio.sleep(0)
                    redis_server.control.script_flush()
                    flushes += 1
            await asyncio.gather(*calls)
    assert all(call.result() is not None for call in calls)
    assert flushes > 20
    seen: dict[str, list[str]] = {user: [] for user in users}
    for _, row in probe.received().diffs:
        for member in row.updated:
            seen[member.user_id].append(member.username)
    assert all(names == [f"{step:06d}" for step in range(5 * steps)] for names in seen.values())
    probe.close()


async def test_a_killed_server_and_its_return_are_reported_at_once(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 2 * PATIENCE)  # no time-out is waited for
    async with connected(redis_server) as redis:
        await join(redis.store, "ann")
        redis_server.kill()
        with anyio.fail_after(PATIENCE), pytest.raises(Unavailable):
            await redis.store.count("lobby")
        assert redis.health == [False]
        with pytest.raises(Unavailable):
            await redis.store.count("lobby")
        redis_server.start()
        assert (await redis.store.count("lobby")).count == 0, "the new server is empty and without scripts"
        assert redis.health == [False, True]


async def test_a_hanging_server_costs_one_timeout_and_no_reply_is_mixed_up(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 1.0)
    async with connected(redis_server) as redis:
        for number in range(5):
            await redis.store.join(Entry("a", f"u{number}"), "n1.1", ttl=TTL)
        redis_server.pause()
        try:
            with anyio.fail_after(PATIENCE), pytest.raises(Unavailable):
                await redis.store.count("a")
            assert redis.health == [False]
        finally:
            redis_server.resume()
        counts = await asyncio.gather(*(redis.store.count(room) for room in "abab"))
        assert [position.count for position in counts] == [5, 0, 5, 0]
        assert redis.health == [False, True]


async def test_a_blocked_event_loop_is_not_an_outage(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 1.0)
    async with connected(redis_server) as redis:
        await join(redis.store, "ann")
        call = asyncio.create_task(redis.store.count("lobby"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(1.5)  # this process is busy, and does not read the reply
        assert (await call).count == 1
        assert redis.health == []


async def test_joins_that_wait_together_share_calls_and_keep_their_own_replies(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        await join(redis.store, "ann")
        commands = redis_server.control
        calls_before = commands.info("commandstats")["cmdstat_evalsha"]["calls"]
        users = ["ann", *(f"u{number}" for number in range(TOGETHER["join"]))]
        replies = await asyncio.gather(
            *(redis.store.join(Entry("lobby", user), "n1.1", ttl=TTL, max_members=20) for user in users),
        )
        calls = commands.info("commandstats")["cmdstat_evalsha"]["calls"] - calls_before
        assert calls <= 3, "the first is sent at once, the others in two"
        joined = [reply for reply in replies if isinstance(reply, Joined)]
        assert [reply.version for reply in joined] == [1, *[20] * 19], "one diff has all who are new"
        assert [len(decode_diff(reply.diff).joined) for reply in joined if reply.diff] == [19]
        assert [reply.resumed for reply in joined] == [True, *[False] * 19]
        refused = [reply for reply in replies if isinstance(reply, JoinRefused)]
        assert {(reply.reason, reply.count) for reply in refused} == {("full", 20)}
        assert len(joined) + len(refused) == len(users)


async def test_a_join_that_shares_a_call_overtakes_no_change_of_its_shard(redis_server: Server) -> None:
    ann, bob = Entry("lobby", "ann"), Entry("lobby", "bob")
    async with connected(redis_server) as redis:
        await redis.store.count("lobby")
        outcomes = await asyncio.gather(
            redis.store.count("elsewhere"),
            redis.store.join(ann, "n1.1", ttl=TTL),
            redis.store.kick(bob),
            redis.store.join(bob, "n1.2", ttl=TTL),
            redis.store.kick(ann),
        )
        assert outcomes[2] is False, "bob joins after the kick"
        assert outcomes[4] is True
        assert [one.user_id for one in (await redis.store.members("lobby")).members] == ["bob"]


async def test_a_call_without_reply_is_not_retried_and_can_be_repeated(
    redis_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "COMMAND_TIMEOUT", 1.0)
    probe = Probe(redis_server)
    async with connected(redis_server) as redis:
        await redis.store.count("lobby")
        redis_server.pause()
        try:
            with pytest.raises(Unavailable):
                await join(redis.store, "ann")
        finally:
            redis_server.resume()
        await until(lambda: probe.version() == 1)
        again = await join(redis.store, "ann")
        assert (again.resumed, again.version, again.diff) == (True, 1, b"")
    assert probe.received().changes == ["0>1 (1) +ann"]
    probe.close()


async def test_an_error_reply_fails_only_its_own_call(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        await join(redis.store, "ann")
        broken = Entry("lobby", "broken")
        redis_server.control.set(presence_key(NAMESPACE, broken), "no hash")
        updates = await asyncio.gather(
            *(
                redis.store.update(entry, username="x")
                for entry in (Entry("lobby", "ann"), broken, Entry("lobby", "ann"))
            ),
            return_exceptions=True,
        )
        assert [type(one) is Unavailable for one in updates] == [False, True, False]
        assert "WRONGTYPE" in str(updates[1])
        assert redis.health == [], "the server is healthy"


async def test_a_server_that_accepts_no_writes_is_unhealthy(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        await join(redis.store, "ann")
        redis_server.control.config_set("min-replicas-to-write", 1)
        with pytest.raises(Unavailable, match="NOREPLICAS"):
            await join(redis.store, "bob")
        assert redis.health == [False]
        redis_server.control.config_set("min-replicas-to-write", 0)
        await join(redis.store, "bob")
        assert redis.health == [False, True]


async def test_a_cancelled_call_affects_no_other(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        await join(redis.store, "ann")
        calls = [asyncio.create_task(redis.store.count("lobby")) for _ in range(100)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False] * 50
        assert (await redis.store.count("lobby")).count == 1


async def test_an_argument_that_cannot_be_encoded_fails_only_its_own_call(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        await join(redis.store, "ann")
        other = asyncio.create_task(redis.store.count("lobby"))
        with pytest.raises(UnicodeEncodeError):
            await redis.store.kick(ANN, "half a pair: \ud800")
        assert (await other).count == 1
        assert await redis.store.is_present(ANN)


async def test_calls_after_the_end_of_the_queue_raise_unavailable(redis_server: Server) -> None:
    async with connected(redis_server) as redis:
        redis_server.pause()
        try:
            waiting = asyncio.create_task(redis.store.count("lobby"))
            await asyncio.sleep(0)
        finally:
            redis.tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                with anyio.fail_after(PATIENCE), pytest.raises(Unavailable):
                    await waiting
                with anyio.fail_after(PATIENCE), pytest.raises(Unavailable):
                    await redis.store.count("lobby")
            redis_server.resume()


async def test_after_a_restart_the_scripts_know_that_the_server_is_another(redis_server: Server) -> None:
    """It has the data of before, in which what changed last may be missing. So no expiry counts yet."""
    client: Any = Probe(redis_server).client
    suffixes = ["lobby:user:ann"]
    async with connected(redis_server) as redis:
        shard = redis.store.keys.shard_of("lobby")
        await join(redis.store, "ann")
        await redis.store.mark_shard_alive(shard, lease=60_000, servers=await redis.backend.run_id())
        client.delete(redis.store.keys.presence_key(ANN))
        data = {key: client.dump(key) for key in client.keys("*")}
        redis_server.restart()
        for key, value in data.items():
            client.restore(key, 0, value)
        while True:
            try:
                assert await redis.store.claim(shard, suffixes) == []
                break
            except Unavailable:  # the connection to the former server
                await asyncio.sleep(0.02)
        known = await redis.backend.run_id()
        await redis.store.mark_shard_alive(shard, lease=60_000, servers=known, all_there=True)
        assert [one.suffix for one in await redis.store.claim(shard, suffixes)] == suffixes
