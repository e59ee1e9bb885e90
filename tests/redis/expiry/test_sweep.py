"""The sweep: what each of its steps finds, when it runs, and on which node."""

from time import monotonic

import anyio
import pytest
from structlog.testing import capture_logs

from reactor.backend.interface import Stopping
from reactor.expiry.sweep import Sweep
from reactor.fleet.registry import NodeRecord
from tests.redis.expiry.path import ExpiryPath, expiry_path
from tests.redis.presence.probe import MAX_ROWS
from tests.support.keyspace import SHARDS
from tests.support.servers import Server
from tests.support.waiting import until


async def test_it_finds_members_whose_presence_key_expired_or_was_deleted(redis_server: Server) -> None:
    async with expiry_path(redis_server, reaps=False) as it:
        rooms = [f"room{number}" for number in range(40)]
        for room in rooms:
            for user in ("lapsed", "early", "deleted", "shadowless", "stays"):
                it.join(user, room=room, ttl=60_000)
            it.probe.expire("lapsed", room=room)
            it.probe.client.pexpire(it.probe.presence_key("early", room), 2)
            it.probe.client.delete(it.probe.presence_key("deleted", room))
            it.probe.client.delete(it.probe.presence_key("shadowless", room))
            it.probe.client.delete(it.probe.shadow_key("shadowless", room))
        it.probe.advance_clock()
        sweep = it.sweep()
        await sweep.sweep()
        assert it.reaper.found_by == {"sweep": 4 * len(rooms)}
        for room in rooms:
            assert it.probe.client.zrange(it.probe.members_key(room), 0, -1) == [b"stays"]
        await sweep.sweep()
        assert it.reaper.found_by == {"sweep": 4 * len(rooms)}, "no member departs twice"
        assert sweep.rounds == 2
        assert it.swept == [*range(SHARDS), *range(SHARDS)], "each shard is checked for unregistered nodes"


@pytest.mark.parametrize("how", ["lapsed", "deleted"])
async def test_it_finds_thousands_of_members_in_one_room(redis_server: Server, how: str) -> None:
    async with expiry_path(redis_server, reaps=False) as it:
        users = [f"u{number}" for number in range(2 * MAX_ROWS + 1)]
        it.probe.join_many(users)
        it.join("stays", ttl=90_000)
        if how == "lapsed":
            it.probe.expire(*users)
        else:
            it.probe.client.delete(*(it.probe.presence_key(user) for user in users))
        await it.sweep().sweep()
        assert it.probe.client.zrange(it.probe.members_key(), 0, -1) == [b"stays"]
        assert it.probe.totals() == {"inactivity_timeout": len(users)}


async def test_it_changes_and_publishes_nothing_where_all_members_are_alive(redis_server: Server) -> None:
    async with expiry_path(redis_server, reaps=False) as it:
        for number in range(20):
            it.join(f"u{number}", ttl=60_000)
        it.probe.received()
        await it.sweep().sweep()
        received = it.probe.received()
        assert (received.changes, received.expired, received.wakes) == ([], [], [])
        assert it.reaper.found_by == {}


async def test_several_triggers_lead_to_one_round_at_once(redis_server: Server) -> None:
    async with expiry_path(redis_server) as it:
        await it.redis.registry.renew("n1", NodeRecord(1, "life", "-", ""), lease_ms=60_000, first=True)
        other = it.sweep("n2", interval=60)
        assert await it.redis.registry.acquire_leadership("sweep", "n1", ttl_ms=60_000), "n1 leads"
        it.redis.tasks.start_soon(other.serve)
        await anyio.wait_all_tasks_blocked()
        for _ in range(5):
            other.trigger()
        await until(lambda: other.rounds == 1)
        await anyio.sleep(0.2)  # no second round follows
        assert other.rounds == 1
        other.trigger()
        await until(lambda: other.rounds == 2)


async def test_without_an_interval_it_sweeps_only_when_triggered(bundled_server: Server) -> None:
    async with expiry_path(bundled_server) as it:
        sweep = it.sweep(interval=0)
        it.redis.tasks.start_soon(sweep.serve)
        await anyio.sleep(0.5)  # no round starts
        assert sweep.rounds == 0
        sweep.trigger()
        await until(lambda: sweep.rounds == 1)


async def test_one_node_does_the_regular_rounds_and_another_takes_over(bundled_server: Server) -> None:
    async with expiry_path(bundled_server) as it:
        for node in ("n1", "n2"):
            await it.redis.registry.renew(node, NodeRecord(1, "life", "-", ""), lease_ms=60_000, first=True)
        one, two = it.sweep("n1", interval=0.3), it.sweep("n2", interval=0.3)
        scope = serve_alone(it, one)
        await until(lambda: one.rounds == 1)
        it.redis.tasks.start_soon(two.serve)
        await until(lambda: one.rounds == 5)
        assert two.rounds == 0
        scope.cancel()
        died = monotonic()
        await until(lambda: two.rounds == 1)
        assert monotonic() - died < 8.0, "2 s, on a machine with time"


async def test_a_round_that_failed_is_repeated(bundled_server: Server) -> None:
    async with expiry_path(bundled_server) as it:
        sweep = it.sweep(interval=0)
        it.redis.tasks.start_soon(sweep.serve)
        bundled_server.kill()
        sweep.trigger()
        await until(lambda: it.redis.health == [False])
        bundled_server.start()
        it.join("ann", ttl=60_000)
        it.probe.client.delete(it.probe.presence_key("ann"))
        await until(lambda: sweep.rounds == 1)
        assert it.reaper.found_by == {"sweep": 1}


async def test_the_end_of_the_server_is_no_failed_round(
    bundled_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = anyio.Event()

    async def stops(_shard: int) -> None:
        asked.set()
        raise Stopping

    async with expiry_path(bundled_server) as it:
        sweep = it.sweep(interval=0)
        monkeypatch.setattr(it.redis.store, "audit_indexes", stops)
        with capture_logs() as logs:
            it.redis.tasks.start_soon(sweep.serve)
            sweep.trigger()
            await asked.wait()
            await anyio.wait_all_tasks_blocked()
        assert not logs


def serve_alone(it: ExpiryPath, sweep: Sweep) -> anyio.CancelScope:
    scope = anyio.CancelScope()

    async def serve() -> None:
        with scope:
            await sweep.serve()

    it.redis.tasks.start_soon(serve)
    return scope
