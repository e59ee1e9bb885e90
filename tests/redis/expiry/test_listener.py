"""The listener: each expired event of this namespace leads to a claim, and no other event does."""

import pytest

from reactor.expiry.listener import Listener
from reactor.expiry.reaper import Reaper
from tests.redis.expiry.path import expiry_path
from tests.redis.presence.cases import probing
from tests.support.keyspace import keyspace, shard_of, shard_prefix
from tests.support.servers import Server
from tests.support.stores import NAMESPACE, connected
from tests.support.waiting import until

EXPIRED = "__keyevent@0__:expired"
LOBBY = shard_of("lobby")
HERE = shard_prefix("t", LOBBY)


async def test_an_event_leads_to_one_departure_even_when_it_is_repeated(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        for user in ("ann", "bob"):
            it.join(user, ttl=60_000)
        it.probe.expire("ann")
        assert not it.probe.client.exists(it.probe.presence_key("ann"))  # the touch
        await until(lambda: it.reaper.found_by == {"event": 1})
        for _ in range(3):
            redis_server.control.publish(EXPIRED, it.probe.presence_key("ann"))
        await until(lambda: it.listener.received == 4)
        it.probe.expire("bob")
        it.probe.client.exists(it.probe.presence_key("bob"))
        await until(lambda: it.reaper.found_by == {"event": 2})
        assert it.probe.totals() == {"inactivity_timeout": 2}


async def test_a_forged_or_stale_event_never_removes_a_live_member(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        it.join("ann", ttl=60_000)
        it.probe.received()
        redis_server.control.publish(EXPIRED, it.probe.presence_key("ann"))
        redis_server.control.publish(EXPIRED, it.probe.presence_key("never there"))
        it.join("bob", ttl=60_000)
        it.probe.expire("bob")
        it.probe.client.exists(it.probe.presence_key("bob"))
        await until(lambda: it.reaper.found_by == {"event": 1})
        assert it.listener.received == 3
        assert it.probe.received().changes == ["1>2 (2) +bob", "2>3 (1) -bob:inactivity_timeout"]


async def test_keys_of_other_applications_are_neither_claimed_nor_touched(redis_server: Server) -> None:
    foreign = [
        "session:1", "room:lobby:user:ann", f"{{other:{LOBBY}}}:room:lobby:user:ann",
        f"{HERE}:room:lobby", f"{{t:{LOBBY}}}:room:lobby:user:ann", "{t:fleet}:lease:n1",
        f"{HERE}:shadow:room:lobby:user:ann", f"{shard_prefix('t', (LOBBY + 1) % 16)}:room:lobby:user:ann",
    ]  # fmt: skip
    async with expiry_path(redis_server) as it:
        await it.listen()
        it.join("ann", ttl=60_000)
        for key in foreign:
            it.probe.client.set(key, "foreign", px=2)
            it.probe.client.set(f"{key}:stays", "foreign")
        it.probe.advance_clock()
        before = {key: it.probe.client.dump(f"{key}:stays") for key in foreign}
        for key in foreign:
            assert not it.probe.client.exists(key)
        it.join("bob", ttl=60_000)
        it.probe.expire("bob")
        it.probe.client.exists(it.probe.presence_key("bob"))
        await until(lambda: it.reaper.found_by == {"event": 1})
        assert it.listener.received == 1
        assert {key: it.probe.client.dump(f"{key}:stays") for key in foreign} == before
        for key in foreign:
            it.probe.client.delete(f"{key}:stays")


async def test_a_lost_connection_is_reported_as_a_gap_and_events_arrive_again_after_it(
    redis_server: Server,
) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        assert it.gaps == [True]
        assert it.listener.listening
        redis_server.control.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: it.gaps == [True, False])
        it.join("ann", ttl=60_000)
        it.probe.expire("ann")
        it.probe.client.exists(it.probe.presence_key("ann"))
        await until(lambda: it.reaper.found_by == {"event": 1})


async def test_a_burst_of_events_is_received_completely(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.listen()
        users = [f"u{number}" for number in range(1500)]
        it.probe.join_many(users)
        it.probe.expire(*users)
        it.probe.client.exists(*(it.probe.presence_key(user) for user in users))
        await until(lambda: it.reaper.found_by == {"event": len(users)})
        assert it.probe.totals() == {"inactivity_timeout": len(users)}


async def test_deferred_events_are_claimed_when_the_leader_is_gone(redis_server: Server) -> None:
    led_elsewhere = True
    async with expiry_path(redis_server) as it:
        listener = Listener(
            it.redis.backend, keys=it.redis.store.keys, reaper=it.reaper, on_gap=it.gaps.append,
            led_elsewhere=lambda: led_elsewhere,
        )  # fmt: skip
        it.redis.tasks.start_soon(listener.serve)
        await listener.subscribed()
        it.join("ann", ttl=60_000)
        it.probe.expire("ann")
        it.probe.client.exists(it.probe.presence_key("ann"))
        await until(lambda: listener.received == 1)
        await it.redis.registry.nodes()  # answered after any claim that was sent before
        assert not it.reaper.found_by
        led_elsewhere = False
        listener.claim_deferred()
        await until(lambda: it.reaper.found_by == {"event": 1})
        assert it.probe.totals() == {"inactivity_timeout": 1}


@pytest.mark.parametrize("database", [0, 3])
async def test_it_listens_only_to_the_database_in_use(redis_server: Server, database: int) -> None:
    with probing(redis_server):
        async with connected(redis_server) as redis:
            reaper = Reaper(redis.store)
            listener = Listener(
                redis.backend,
                keys=keyspace(NAMESPACE, database),
                reaper=reaper,
                on_gap=lambda _first: None,
            )
            redis.tasks.start_soon(listener.serve)
            await listener.subscribed()
            key = f"{HERE}:room:lobby:user:ann"
            for other in (1 - min(database, 1), database):
                redis_server.control.publish(f"__keyevent@{other}__:expired", key)
            await until(lambda: listener.received == 1)
            channels = [str(name) for name in redis_server.control.pubsub_channels("__keyevent*")]
            assert channels == [f"__keyevent@{database}__:expired"]
